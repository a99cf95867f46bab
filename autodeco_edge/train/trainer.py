"""One training run: frozen base, AdamW on the heads, saved in the official format.

Owns the recipe (equations 13; paper section 4) and the order of events. Settings are in hyperparameters.py,
equations in losses.py, batches in data.py and plan.py, the average over a step in gradient.py, files in
checkpoint.py, record.py and state.py; what runs the frozen base (transformers or llama.cpp) is behind backbone.py.

What the official trainer lacks is here: a seed for the drop mask, validation with mean T and mean P, an
average over tokens whatever batch or process they are in, a run that can be resumed, an error when
the loss is not finite.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor

from ..errors import AutodecoError, UsageError
from ..io.folder import output_folder, remove_remains
from ..io.printing import say
from .backbone import Backbone, HuggingFaceBackbone
from .batches import batches_of, split_validation
from .checkpoint import refuse_output
from .constant_baseline import Constant, ConstantLosses
from .data import TrainingSample, load_dataset
from .diagnostics import beside, warnings
from .early_stopping import EarlyStopping
from .gradient import StepGradient
from .head_run import HeadRun
from .hidden_cache import HiddenCache
from .hyperparameters import TrainConfig, schedule
from .metrics import Metrics, Totals, sum_over_processes
from .objective import Objective, ObjectiveOutput
from .plan import SPLIT, Plan, drop_mask, generator, share
from .processes import is_first, open_accelerator, shard_with
from .progress import RunProgress, check_tracker, start_tracker
from .record import FILE as RECORD
from .record import Record
from .state import FILE as STATE
from .state import FREE, State, StateFile, fingerprint, refuse_others
from .steer import Ranking, Steering, commanded

WRITTEN = ("model.safetensors", "config.json", RECORD, STATE)
N_MEAN_SAMPLES = 1000  # training samples that give the means when nothing is held out


@dataclass
class TrainResult:
    """before, after: validation (or training) metrics; history: loss of every optimiser step."""

    before: Metrics
    after: Metrics
    history: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train(config: TrainConfig) -> TrainResult:
    """Train heads and save them to ``config.output``.

    Raises UsageError, MissingInputError, FormatError, MismatchError, OutputError, StorageError; BusyError where another
    run has the folder; AutodecoError when the loss stops being finite. Heads are saved at the end or not at all; the last state
    (``save_every``) stays whatever happens.
    """
    config.check()
    if not config.resume:  # else the state is compared
        refuse_output(config.output, (config.base, config.model, config.data))  # heads may be trained on in their place
    with output_folder(config.output, lock=is_first()):
        if config.resume and (ended := ended_run(config)):
            return ended
        trainer = Trainer(config)
        with closing(trainer.model):
            return trainer.run()


def ended_run(config: TrainConfig) -> TrainResult | None:
    """What ``config.output`` holds, if a run with these settings was not interrupted there but ended."""
    folder = Path(config.output)
    if (folder / STATE).exists() or not (found := Record.load(folder)):
        return None
    settings, record = found
    ours = {name: value for name, value in asdict(config).items() if name not in FREE}
    refuse_others(folder / RECORD, {k: v for k, v in settings.items() if k not in FREE}, ours)
    if is_first() and config.log_every:
        say(f"{folder} is complete; nothing to resume")
    return TrainResult(record.before, record.after, record.steps["loss"], record.seconds)


def open_backbone(config: TrainConfig) -> Backbone:
    """The one of the two backbones that the settings name."""
    if config.model is None:
        return HuggingFaceBackbone(config.base, config.base_dtype, config.precision)
    from .gguf_backbone import GgufBackbone  # loads llama.cpp

    return GgufBackbone(config.model, config.threads)


class Trainer:
    """The state of one run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        if config.tracker:
            check_tracker(config.tracker)
        self.accelerator = open_accelerator(config.tracker, config.output)
        self.model = open_backbone(config)
        n_tokens = min(config.max_length, self.model.n_ctx or config.max_length)
        variants = commanded(config.seed) if config.steer else None
        data = load_dataset(config.data, self.model.tokenizer, n_tokens, variants)
        self.samples = data.all
        n_processes = self.accelerator.num_processes
        if config.minutes and n_processes > 1:  # they would not all stop at the same step
            raise UsageError(f"minutes: a limit of time is for one process; got {n_processes}")
        self.file = StateFile(config.output, fingerprint(config, self.samples, n_processes))
        self._goes_on = self.file.goes_on(config.resume)
        split = generator(config.seed, SPLIT)
        self.train_samples, self.held_out = split_validation(data.samples, config.validation, split)
        self.plan = Plan(self.train_samples, config, n_processes)
        shard = shard_with(self.accelerator, config.batch_size)
        self.model.load(self.accelerator.device, self.samples, shard)
        self._in_step = shard is not None  # every process runs the base equally often
        self.cache = HiddenCache(0 if self._in_step else config.cache_mb << 20)
        self.head_run = HeadRun(
            self.model,
            config.heads,
            config.init,
            seed=config.seed,
            enhanced=config.enhanced,
            device=self.accelerator.device,
        )
        self.heads = self.head_run.heads
        self.heads.detach_temperature = config.loss == "hf"
        self.objective = Objective(self.heads, self.model.lm_head, config.terms)
        self.steering = None
        if config.steer:
            ranked = self.head_run.learns("temp"), self.head_run.learns("top-p")
            self.steering = Steering(self.heads, self.model.lm_head, data.variants, config.steer_weight, *ranked)
        self.best = EarlyStopping(self.heads, config.rules.patience if self.held_out else 0)
        self.record = Record(
            data={
                "samples": len(self.train_samples),
                "held_out": len(self.held_out),
                "truncated": data.n_truncated,
                "dropped": data.n_dropped,
                "parameters": sum(p.numel() for p in self.head_run.parameters),
                "processes": n_processes,
            }
        )

    def run(self) -> TrainResult:
        self._clock = time.monotonic()
        end = self._clock + 60 * (self.config.minutes or math.inf)
        with RunProgress(self.accelerator, self.config.log_every) as self.progress:
            if self.config.tracker:
                start_tracker(self.accelerator, asdict(self.config))
            self.progress.say(
                "{samples} samples, {held_out} held out, {truncated} truncated, {dropped} without completion; "
                "{parameters} parameters trained".format(**self.record.data)
            )
            first = self._start()
            self.progress.start(first, self.plan.n_steps)
            self.peak = self._peak_rate()
            n_done = first
            while n_done < self.plan.n_steps and not self.best.is_over(self.record) and time.monotonic() < end:
                self._step(n_done)
                n_done += 1
            self._conclude(n_done)
            self._finish()
            record = self.record
            self.progress.say(f"saved {self.config.output} after {n_done} steps, {record.seconds:.0f} s")
        return TrainResult(record.before, record.after, record.steps["loss"], record.seconds)

    def _start(self) -> int:
        """The first step to do, after the metrics before it or from the saved state."""
        if not self._goes_on:
            if self.config.resume:
                self.progress.say(f"starting from the beginning; {self.config.output} holds nothing of this run yet")
            self.record.before = self.evaluate("before", 0)
            self.best.offer(0, self.record.before, self.record)
            return 0
        state = self.file.load(self.heads, self.head_run.optimizer)
        self.record = state.record
        self.best.tensors = self.file.load_best()
        self.cache.restore(state.caches[self.accelerator.process_index], self.samples)
        self.progress.say(f"resumed after step {state.step} of {self.plan.n_steps}")
        return state.step

    def _conclude(self, n_done: int) -> None:
        """The heads to be saved, what they are worth, and what is to be said of them."""
        last = self.evaluate("after", n_done)
        self.best.offer(n_done, last, self.record)
        self.record.after = after = self.best.take(self.record, last)
        if self.best.tensors and self.record.best["step"] < n_done:
            self.progress.say(f"taken: the heads of step {self.record.best['step']}, whose held-out loss is the lowest")
        if self.steering:  # they follow a command: no constant stands for them
            return
        constant = self._best_constant()
        if constant:
            self.record.constant = asdict(constant)
            self.progress.say(beside(after, constant))
        for line in warnings(self.config, self.record.before, after, constant):
            self.progress.warn(line)

    # ---- steps ---------------------------------------------------------------------

    def _peak_rate(self) -> float:
        """The learning rate asked for, or the recipe's for the hidden states of the first step."""
        if self.config.learning_rate is not None:
            return self.config.learning_rate
        if (fixed := self.config.rules.learning_rate) is not None:
            return fixed
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in self._share(self.plan.batches(0)):
            if batch:
                hidden, _ = self._positions(self._read(batch))
                sums += torch.tensor([hidden.abs().sum(dtype=torch.float64).item(), len(hidden)], dtype=torch.float64)
        size, n = sum_over_processes(sums, self.accelerator).tolist()
        rate = self.config.rules.rate(size / n)
        self.progress.say(f"learning rate {rate:.2g}, by the size of the hidden states")
        return rate

    def _step(self, step: int) -> None:
        """Optimiser step number ``step``, from 0, and what is due after it."""
        rate = self.peak * schedule(self.config, step, self.plan.n_steps)
        batches = self.plan.batches(step)
        metrics = self._gradient(step, batches)
        self.head_run.step(rate)
        n_tokens = sum(len(sample.ids) for batch in batches for sample in self._read(batch))
        self.record.add_step(metrics, rate)
        self.record.n_tokens += n_tokens
        self.progress.step(step + 1, self.plan.n_steps, metrics, rate, n_tokens)
        if self._is_due(self.config.steps_to_eval(self.plan.n_steps), step + 1):
            measured = self.evaluate(f"step {step + 1}", step + 1)
            self.best.offer(step + 1, measured, self.record)
            self.record.validation.append({"step": step + 1, **asdict(measured)})
        if self._is_due(self.config.save_every, step + 1):
            self._save_state(step + 1)

    def _is_due(self, every: int, n_done: int) -> bool:
        return bool(every) and n_done % every == 0 and n_done < self.plan.n_steps

    def _gradient(self, step: int, batches: list[list[TrainingSample]]) -> Metrics:
        """Write the step's gradient, clipped, into the heads; the step's means."""
        gradient = StepGradient(self.head_run.parameters)
        for batch in self._share(batches):
            if batch:
                drop = [drop_mask(s, self.plan.epoch(step), self.config.seed, self.config.drop) for s in batch]
                gradient.add(*self._losses(batch, torch.cat(drop).to(self.accelerator.device)))
        gradient.finish(self.accelerator)
        norm = self.head_run.clip(self.config.clip_norm)
        metrics = gradient.totals.metrics()
        if not (gradient.totals.finite and norm.isfinite()):
            raise self._diverged(f"loss is {metrics.loss}, gradient norm {norm.item()} at step {step + 1}")
        return metrics

    def _diverged(self, what: str) -> AutodecoError:
        kept = f"the state in {self.file.path} stays" if self.file.path.exists() else "nothing saved"
        return AutodecoError(f"{what}: training diverged, {kept}; lower --lr")

    def _share(self, batches: list[list[TrainingSample]]) -> list[list[TrainingSample]]:
        """This process's batches. A sharded base must run in step: an idle process runs it for nothing."""
        own = share(batches, self.accelerator.process_index, self.accelerator.num_processes)
        if self._in_step and not own[-1]:
            self.model.positions(self._read(batches[0]))
        return own

    def _losses(
        self, batch: list[TrainingSample], drop: Tensor | None = None
    ) -> tuple[ObjectiveOutput, Ranking | None]:
        """The objective's terms, and the ranking term where commands are trained."""
        hidden, labels = self._positions(self._read(batch))
        n = sum(len(sample.ids) - sample.first for sample in batch)  # positions without a command come first
        out = self.objective(hidden[:n], labels[:n], drop)
        return out, self.steering(hidden, batch) if self.steering else None

    def _read(self, batch: list[TrainingSample]) -> list[TrainingSample]:
        """What the base reads for a batch: with commands, each completion after three prompts."""
        return self.steering.with_variants(batch) if self.steering else batch

    def _positions(self, batch: list[TrainingSample]) -> tuple[Tensor, Tensor]:
        """Hidden states [M, H] and labels [M] of the completion positions of a batch."""
        return self.cache.positions(batch, self.model.positions, self.accelerator.device)

    # ---- measures ------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, name: str, step: int) -> Metrics:
        """Metrics over the held-out samples, else over the first 1000 training samples; nothing dropped."""
        samples = self.held_out or self.train_samples[:N_MEAN_SAMPLES]
        totals = Totals()
        for batch in self._share(batches_of(samples, self.config.batch_size, None)):
            if batch:
                totals.add(*self._losses(batch))
        totals.gather(self.accelerator)
        metrics = totals.metrics()
        if not (totals.finite and math.isfinite(metrics.loss)):
            raise self._diverged("loss, T or P is not finite in validation")
        self.progress.measured(name, "held out" if self.held_out else "training set", metrics, step)
        return metrics

    def _best_constant(self) -> Constant | None:
        """On the held-out samples; None where there are none."""
        if not self.held_out:
            return None
        losses = ConstantLosses(self.config.terms)
        for batch in self._share(batches_of(self.held_out, self.config.batch_size, None)):
            if batch:
                losses.add(*self._positions(batch), self.model.lm_head)
        losses.gather(self.accelerator)
        return losses.best()

    # ---- files ---------------------------------------------------------------------

    def _save_state(self, n_done: int) -> None:
        """The state after ``n_done`` steps takes the place of the one before, unless the step broke the heads."""
        if not self.head_run.is_finite:
            raise self._diverged(f"weights are not finite after step {n_done}")
        self._take_time()
        caches = gather_object([self.cache.state()])
        if self.accelerator.is_main_process:
            self.file.save(State(n_done, self.record, caches), self.heads, self.head_run.optimizer, self.best.tensors)

    def _finish(self) -> None:
        self._take_time()
        if self.accelerator.is_main_process:
            after = self.record.after
            self.head_run.save(self.config.output, self.config.save_dtype, after.mean_temperature, after.mean_top_p)
            self.record.save(self.config.output, self.config)
            self.file.remove()
            remove_remains(Path(self.config.output), WRITTEN)
        self.accelerator.wait_for_everyone()

    def _take_time(self) -> None:
        now = time.monotonic()
        self.record.seconds += now - self._clock
        self._clock = now

"""One training run: frozen base, AdamW on the heads, saved in the official format.

Owns the recipe (semantics 4.9; paper section 4) and the progress lines. Settings are in
config.py, equations in losses.py, batches in data.py, files in checkpoint.py; what runs the
frozen base (transformers or llama.cpp) is behind backbone.py.

What the official trainer lacks is here: a seed for the drop mask, validation with mean T
and mean P, an average over accumulated batches, an error when the loss is not finite.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import AutodecoError, MismatchError
from .backbone import Backbone, HuggingFaceBackbone
from .base import default_spec, fresh_heads
from .cache import HiddenCache
from .checkpoint import HeadsCheckpoint, autodeco_config, load_heads, output_folder, save_heads
from .config import TrainConfig, schedule
from .data import Sample, batches_of, load_dataset, split_validation
from .losses import draw_drop_mask
from .modules import AutoDecoHeads
from .objective import Objective, ObjectiveOutput

BETAS, ADAM_EPSILON, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.0
N_MEAN_SAMPLES = 1000  # training samples that give the means when nothing is held out


@dataclass
class Metrics:
    """Means over completion tokens: losses with nothing dropped, T and P of the heads."""

    loss: float
    temp_loss: float
    top_p_loss: float
    mean_temperature: float
    mean_top_p: float
    n_tokens: int


@dataclass
class TrainResult:
    """before, after: validation (or training) metrics; history: loss of every optimiser step."""

    before: Metrics
    after: Metrics
    history: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train(config: TrainConfig) -> TrainResult:
    """Train heads and save them to ``config.output``.

    Raises UsageError, MissingInputError, FormatError, MismatchError, OutputError, StorageError;
    AutodecoError when the loss stops being finite, in which case nothing is saved.
    """
    config.check()
    with output_folder(config.output):
        trainer = Trainer(config)
        with closing(trainer.model):
            return trainer.run()


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
        self.accelerator = Accelerator()
        self.model = open_backbone(config)
        n_tokens = min(config.max_length, self.model.n_ctx or config.max_length)
        data = load_dataset(config.data, self.model.tokenizer, n_tokens)
        self.train_samples, self.held_out = split_validation(data.samples, config.validation, self._generator(1))
        self.model.load(self.accelerator.device, data.samples)
        self.heads, self.enabled = self._make_heads()
        self.cache = HiddenCache(config.cache_mb << 20)
        self._select_parameters()
        self._say(
            f"{len(self.train_samples)} samples, {len(self.held_out)} held out, {data.n_truncated} truncated, "
            f"{data.n_dropped} without completion; {sum(p.numel() for p in self._trainable())} parameters trained"
        )

    def run(self) -> TrainResult:
        start = time.monotonic()
        objective = Objective(
            self.heads, self.model.lm_head, self.config.loss, *(self._trained(h) for h in ("temp", "top-p"))
        )
        optimizer = torch.optim.AdamW(
            self._trainable(), self.config.learning_rate, BETAS, ADAM_EPSILON, weight_decay=WEIGHT_DECAY
        )
        objective, optimizer = self.accelerator.prepare(objective, optimizer)
        before = self.evaluate(objective, "before")
        history = list(self._steps(objective, optimizer))
        after = self.evaluate(objective, "after")
        if self.accelerator.is_main_process:
            self._save(after)
        result = TrainResult(before, after, history, time.monotonic() - start)
        self._say(f"saved {self.config.output} after {len(history)} steps, {result.seconds:.0f} s")
        return result

    # ---- steps ---------------------------------------------------------------------

    def _steps(self, objective: torch.nn.Module, optimizer: Any) -> Iterator[float]:
        """Run the optimiser steps; yields each one's loss."""
        n_steps = self._n_steps()
        drops = self._generator(3 + self.accelerator.process_index, self.accelerator.device)
        self._clock, self._n_tokens = time.monotonic(), 0
        for step, group in enumerate(self._groups(n_steps)):
            rate = self.config.learning_rate * schedule(self.config, step, n_steps)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate
            losses = [
                self._backward(objective, batch, drops, len(group), last=i == len(group) - 1)
                for i, batch in enumerate(group)
            ]
            self.accelerator.clip_grad_norm_(self._trainable(), self.config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss = sum(x.loss.item() for x in losses) / len(losses)
            if self.config.log_every and ((step + 1) % self.config.log_every == 0 or step + 1 == n_steps):
                self._log_step(step + 1, n_steps, rate, losses)
            yield loss

    def _backward(
        self, objective: torch.nn.Module, batch: list[Sample], drops: torch.Generator, n_group: int, last: bool
    ) -> ObjectiveOutput:
        hidden, labels = self._positions(batch)
        drop = draw_drop_mask(labels.shape, drops, self.config.drop_probability)
        with nullcontext() if last else self.accelerator.no_sync(objective):
            out = objective(hidden, labels, drop)
            if not out.loss.isfinite():
                raise AutodecoError(f"loss is {out.loss.item()}: training diverged, nothing saved; lower --lr")
            self.accelerator.backward(out.loss / n_group)
        self._n_tokens += sum(len(s.ids) for s in batch)
        return out

    def _positions(self, batch: list[Sample]) -> tuple[Tensor, Tensor]:
        """Hidden states [M, H] and labels [M] of the completion positions of a batch."""
        return self.cache.positions(batch, self.model.positions, self.accelerator.device)

    def _groups(self, n_steps: int) -> Iterator[list[list[Sample]]]:
        """``n_steps`` groups of at most ``accumulation`` batches: this process's share, epoch after epoch."""
        generator, n_given = self._generator(2), 0
        index, n_processes = self.accelerator.process_index, self.accelerator.num_processes
        while True:
            batches = batches_of(self.train_samples, self.config.batch_size, generator)
            if n_processes > 1:  # every process must take part in every step
                batches += batches[: -len(batches) % n_processes]
            batches = batches[index::n_processes]
            for start in range(0, len(batches), self.config.accumulation):
                if n_given == n_steps:
                    return
                n_given += 1
                yield batches[start : start + self.config.accumulation]

    def _n_steps(self) -> int:
        n_batches = math.ceil(len(self.train_samples) / self.config.batch_size)
        n_batches = math.ceil(n_batches / self.accelerator.num_processes)
        return self.config.max_steps or self.config.epochs * math.ceil(n_batches / self.config.accumulation)

    # ---- measures ------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, objective: torch.nn.Module, name: str) -> Metrics:
        """Metrics over the held-out samples, else over the first 1000 training samples."""
        samples = self.held_out or self.train_samples[:N_MEAN_SAMPLES]
        sums = torch.zeros(6, dtype=torch.float64)
        for batch in batches_of(samples, self.config.batch_size, None):
            out = objective(*self._positions(batch))
            means = [out.loss, out.temp_loss, out.top_p_loss, out.temperature.mean(), out.top_p.mean(), 1.0]
            sums += torch.tensor([float(x) for x in means], dtype=torch.float64) * len(out.temperature)
        metrics = Metrics(*(sums[:5] / sums[5]).tolist(), n_tokens=int(sums[5]))
        if not all(math.isfinite(x) for x in sums.tolist()):
            raise AutodecoError(
                "loss, T or P is not finite in validation: nothing saved; check the base model, lower --lr"
            )
        kind = "held out" if self.held_out else "training set"
        self._say(
            f"{name} ({kind}, {metrics.n_tokens} tokens): loss {metrics.loss:.4f}  temp {metrics.temp_loss:.4f}  "
            f"top-p {metrics.top_p_loss:.4f}  mean T {metrics.mean_temperature:.3f}  mean P {metrics.mean_top_p:.3f}"
        )
        return metrics

    def _log_step(self, step: int, n_steps: int, rate: float, losses: list[ObjectiveOutput]) -> None:
        seconds = max(time.monotonic() - self._clock, 1e-9)
        n = len(losses)
        self._say(
            f"step {step}/{n_steps}  loss {sum(x.loss.item() for x in losses) / n:.4f}  "
            f"temp {sum(x.temp_loss.item() for x in losses) / n:.4f}  "
            f"top-p {sum(x.top_p_loss.item() for x in losses) / n:.4f}  "
            f"T {torch.cat([x.temperature for x in losses]).mean():.3f}  "
            f"P {torch.cat([x.top_p for x in losses]).mean():.3f}  lr {rate:.2e}  {self._n_tokens / seconds:.0f} tok/s"
        )
        self._clock, self._n_tokens = time.monotonic(), 0

    def _say(self, line: str) -> None:
        if self.accelerator.is_main_process and self.config.log_every:
            print(line, file=sys.stderr, flush=True)

    # ---- parts ---------------------------------------------------------------------

    def _make_heads(self) -> tuple[AutoDecoHeads, dict[str, bool]]:
        """The heads to train, fresh or from a checkpoint, and which of them have been trained before."""
        config = self.config
        if config.init:
            start = load_heads(config.init, n_embd=self.model.n_embd)
            self.model.check_heads(start)
        else:
            shape = default_spec(self.model.n_embd, self._trained("temp"), self._trained("top-p"), config.enhanced)
            start = HeadsCheckpoint(fresh_heads(shape, config.seed))
        start.heads.detach_temperature = config.loss == "hf"
        enabled = {"temp": start.enable_temperature, "top-p": start.enable_top_p}
        return start.heads.to(self.accelerator.device), enabled

    def _trained(self, head: str) -> bool:
        return self.config.heads in ("both", head)

    def _select_parameters(self) -> None:
        spec = self.heads.spec
        for head, name, there in (("temp", "temp_head", spec.has_temp), ("top-p", "top_p_head", spec.has_top_p)):
            if self._trained(head) and not there:
                raise MismatchError(f"{self.config.init}: has no {name}; train the other head only, or start afresh")
            if there:
                getattr(self.heads, name).requires_grad_(self._trained(head))

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.heads.parameters() if p.requires_grad]

    def _generator(self, stream: int, device: str | torch.device = "cpu") -> torch.Generator:
        """Streams of one seed: 1 split, 2 order of samples, 3 and on drop masks by process."""
        return torch.Generator(device).manual_seed(self.config.seed * 1_000_003 + stream)

    def _save(self, metrics: Metrics) -> None:
        spec = self.heads.spec
        config = autodeco_config(
            self.model.config(),
            spec,
            self.model.name,
            metrics.mean_temperature if spec.has_temp else None,
            metrics.mean_top_p if spec.has_top_p else None,
            self._trained("temp") or self.enabled["temp"],
            self._trained("top-p") or self.enabled["top-p"],
        )
        save_heads(self.config.output, self.heads, config, self.config.save_dtype)

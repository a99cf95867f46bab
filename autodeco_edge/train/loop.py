"""One training run: frozen base, AdamW on the heads, saved in the official format.

Owns the recipe (semantics 4.9; paper section 4) and the progress lines. Settings are in
config.py, equations in losses.py, batches in data.py, files in checkpoint.py.

What the official trainer lacks is here: a seed for the drop mask, validation with mean T
and mean P, an average over accumulated batches, an error when the loss is not finite.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..errors import AutodecoError, MismatchError
from ..format import HeadSpec
from .base import base_config_of, default_spec, load_tokenizer
from .cache import HiddenCache
from .checkpoint import autodeco_config, make_output_folder, save_heads
from .config import TrainConfig, schedule
from .data import Sample, batches_of, collate, load_dataset, split_validation
from .losses import IGNORE, draw_drop_mask
from .model import AutoDecoForCausalLM
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
    make_output_folder(config.output)
    return Trainer(config).run()


class Trainer:
    """The state of one run."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.accelerator = Accelerator()
        tokenizer = load_tokenizer(config.base)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0
        data = load_dataset(config.data, tokenizer, config.max_length)
        self.train_samples, self.held_out = split_validation(data.samples, config.validation, self._generator(1))
        self.model = self._load_model()
        self.heads = self.model.heads
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
        return self.cache.positions(batch, self._compute_positions, self.accelerator.device)

    def _compute_positions(self, batch: Sequence[Sample]) -> list[tuple[Tensor, Tensor]]:
        """(hidden [m, H], labels [m]) of each sample, by one pass of the backbone."""
        tensors = {k: v.to(self.accelerator.device) for k, v in collate(batch, self.pad_id).items()}
        labels = tensors.pop("labels")  # [B, S]
        with self._autocast():
            hidden = self.model.hidden_states(**tensors)  # [B, S, H]
        valid = labels[:, 1:] != IGNORE  # [B, S - 1]: position s predicts label s + 1
        return [(h[:-1][v], y[1:][v]) for h, y, v in zip(hidden, labels, valid, strict=True)]

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

    def _load_model(self) -> AutoDecoForCausalLM:
        config = self.config
        model = AutoDecoForCausalLM.from_pretrained(
            config.base, config.init or self._fresh_spec, config.base_dtype, self.accelerator.device, config.seed
        )
        model.heads.detach_temperature = config.loss == "hf"
        return model

    def _fresh_spec(self, n_embd: int) -> HeadSpec:
        return default_spec(n_embd, self._trained("temp"), self._trained("top-p"), self.config.enhanced)

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

    def _autocast(self):
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, torch.bfloat16)

    def _generator(self, stream: int, device: str | torch.device = "cpu") -> torch.Generator:
        """Streams of one seed: 1 split, 2 order of samples, 3 and on drop masks by process."""
        return torch.Generator(device).manual_seed(self.config.seed * 1_000_003 + stream)

    def _save(self, metrics: Metrics) -> None:
        spec = self.heads.spec
        config = autodeco_config(
            base_config_of(self.config.base, self.model.base),
            spec,
            self.config.base,
            metrics.mean_temperature if spec.has_temp else None,
            metrics.mean_top_p if spec.has_top_p else None,
            self._trained("temp") or self.model.enable_temperature,
            self._trained("top-p") or self.model.enable_top_p,
        )
        save_heads(self.config.output, self.heads, config, self.config.save_dtype)

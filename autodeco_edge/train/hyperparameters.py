"""Settings of a training run, their ranges, and the learning-rate schedule.

Owns nothing but numbers: no model, no data, no torch beyond the names of dtypes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .checkpoint import DTYPES
from .objective import LOSSES, OBJECTIVES, Terms, terms_of
from .recipe import Recipe, recipe_of

SCHEDULES = ("linear", "cosine", "constant")
HEADS = ("both", "temp", "top-p")
LOWEST = {"epochs": 1, "max_steps": 0, "batch_size": 1, "accumulation": 1, "max_length": 2}
LOWEST |= {"warmup_steps": 0, "cache_mb": 0, "eval_every": 0}
MAX_THREADS = 512  # GGML_MAX_N_THREADS


@dataclass
class TrainConfig:
    """Settings of a run. None is the recipe's (recipe.py).

    base, data, output  Hugging Face folder or hub id (None with ``model``); JSONL file; folder
    model         GGUF file to train on, instead of ``base``
    recipe        auto | official: the settings that are left open
    threads       of llama.cpp, with ``model``; 0: one a physical core
    init          heads to start from (folder or file), else fresh ones from ``seed``
    heads         both | temp | top-p: which heads are trained
    objective     official | likelihood | joint: objective.OBJECTIVES
    loss          form of the official objective: hf (equations 7, 8) | nemo (equations 10)
    enhanced      top-p head with the four statistics, for fresh heads
    max_steps     optimiser steps, 0: as many as ``epochs`` give
    learning_rate at its peak; warmup_steps: linear up to it
    max_length    tokens of a sample
    drop_probability  share of easy tokens left out; None: the objective's own (0.6 or 0)
    validation    share of the samples held out, in [0, 1)
    precision     fp32 | bf16 (autocast of the frozen base; heads and losses stay fp32); not with ``model``
    base_dtype    auto | float32 | bfloat16: how the base is loaded; not with ``model``
    save_dtype    bf16 | f16 | f32
    cache_mb      memory for hidden states of samples already seen (MiB); 0: compute them each epoch
    log_every     optimiser steps between progress lines, 0: none
    eval_every    optimiser steps between validations, 0: only before and after; None: the recipe's number of them
    save_every    optimiser steps between resumable states, 0: none
    minutes       no step is begun after so long, 0: as many as there are; for one process
    steer         also rank T and P under commands for less and more diversity (steer.py); data in messages form
    steer_weight  lambda of the ranking term
    resume        go on from the state in ``output``
    tracker       one that accelerate knows: tensorboard, wandb, ...
    """

    base: str | None
    data: str
    output: str
    init: str | None = None
    heads: str = "both"
    loss: str = "hf"
    enhanced: bool = True
    epochs: int | None = None
    max_steps: int = 0
    learning_rate: float | None = None
    schedule: str | None = None
    warmup_steps: int | None = None
    batch_size: int = 8
    accumulation: int | None = None
    max_length: int = 2048
    clip_norm: float = 1.0
    drop_probability: float | None = None
    validation: float | None = None
    seed: int = 42
    precision: str = "fp32"
    base_dtype: str = "float32"
    save_dtype: str = "bf16"
    cache_mb: int = 1024
    log_every: int = 10
    model: str | None = None
    threads: int = 0
    objective: str = "official"
    eval_every: int | None = None
    save_every: int = 0
    resume: bool = False
    tracker: str | None = None
    steer: bool = False
    steer_weight: float = 1.0
    recipe: str = "auto"
    minutes: float = 0.0

    def __post_init__(self) -> None:
        """What does not wait for model and data. Raises UsageError for an unknown recipe."""
        for name in ("schedule", "accumulation", "validation"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(self.rules, name))

    @property
    def rules(self) -> Recipe:
        return recipe_of(self.recipe)

    def n_steps(self, steps_per_epoch: int) -> int:
        epochs = self.epochs or self.rules.n_epochs(steps_per_epoch)
        return self.max_steps or epochs * steps_per_epoch

    def n_warmup(self, n_steps: int) -> int:
        return math.ceil(self.rules.warmup * n_steps) if self.warmup_steps is None else self.warmup_steps

    def steps_to_eval(self, n_steps: int) -> int:
        """Steps between validations; 0: none between."""
        if self.eval_every is not None:
            return self.eval_every
        return max(1, n_steps // self.rules.checks) if self.rules.checks else 0

    @property
    def terms(self) -> Terms:
        return terms_of(self.objective, self.loss, self.heads)

    @property
    def drop(self) -> float:
        """Share of easy tokens left out of the loss."""
        return self.terms.drop if self.drop_probability is None else self.drop_probability

    def check(self) -> None:
        """Raises UsageError for the first setting out of its range."""
        self._check_backbone()
        check_common(self)
        choices = {"objective": tuple(OBJECTIVES), "loss": LOSSES, "schedule": SCHEDULES}
        choices |= {"precision": ("fp32", "bf16"), "base_dtype": ("auto", "float32", "bfloat16")}
        _check_choices(self, choices)
        _check_least(self, LOWEST)
        if not 0.0 <= self.validation < 1.0:
            raise UsageError(f"validation: expected a share from 0 to below 1, got {self.validation}")
        if self.loss != "hf" and self.objective != "official":
            raise UsageError(f"loss: {self.loss} is a form of --objective official, got {self.objective}; leave it out")
        if not 0.0 <= self.drop <= 1.0:
            raise UsageError(f"drop_probability: expected a number from 0 to 1, got {self.drop_probability}")

        if not 0.0 < self.steer_weight < math.inf:
            raise UsageError(f"steer_weight: expected a number above 0, got {self.steer_weight}")
        if self.steer and not self.init:
            raise UsageError("steer: moves heads that are trained already; give them with --init")
        if self.steer_weight != 1.0 and not self.steer:
            raise UsageError(f"steer_weight: {self.steer_weight} is for --steer; add it, or leave the weight out")

    def _check_backbone(self) -> None:
        if (self.base is None) == (self.model is None):
            raise UsageError(
                f"expected exactly one of --base (Hugging Face) and -m (GGUF); got {'neither' if self.base is None else 'both'}"
            )
        for name, needed in (("precision", "fp32"), ("base_dtype", "float32")):
            if self.model is not None and getattr(self, name) != needed:
                raise UsageError(f"{name}: is for --base; the GGUF given to -m runs in its own types; leave it out")
        if self.base is not None and self.threads:
            raise UsageError("threads: is for -m; with --base set OMP_NUM_THREADS")


# ---- what both kinds of training ask for --------------------------------------------


def check_common(config: Any) -> None:
    """The settings that TrainConfig and RewardConfig share. Raises UsageError for the first out of its range."""
    _check_choices(config, {"heads": HEADS, "save_dtype": tuple(DTYPES)})
    _check_least(config, {"log_every": 0, "save_every": 0})
    if config.learning_rate is not None and not 0.0 < config.learning_rate <= 1.0:
        raise UsageError(f"learning_rate: expected above 0 and at most 1, got {config.learning_rate}")
    if not 0.0 < config.clip_norm < math.inf:
        raise UsageError(f"clip_norm: expected a number above 0, got {config.clip_norm}")
    if not 0 <= config.threads <= MAX_THREADS:
        raise UsageError(f"threads: allowed 1 to {MAX_THREADS}, or 0 for one a physical core; got {config.threads}")


def _check_choices(config: Any, choices: Mapping[str, tuple[str, ...]]) -> None:
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise UsageError(f"{name}: expected one of {', '.join(allowed)}; got {getattr(config, name)!r}")


def _check_least(config: Any, least: Mapping[str, int]) -> None:
    for name, low in least.items():
        if (value := getattr(config, name)) is not None and value < low:
            raise UsageError(f"{name}: expected at least {low}, got {value}")


def schedule(config: TrainConfig, step: int, n_steps: int) -> float:
    """Factor of the learning rate at ``step`` (from 0): linear warm-up, then to 0 linearly or as a half cosine."""
    n_warmup = config.n_warmup(n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    if config.schedule == "constant":
        return 1.0
    return 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))

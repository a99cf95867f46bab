"""Heads trained on what a verifier says: REINFORCE with the base frozen and a group baseline.

Owns the run: problems of a step, rollouts, verdicts, one step of AdamW, files. Credit is in advantages.py, the draw in
rollouts.py, the gradient of ln r in objective.py. Likelihood makes T calibrated; a reward makes it right where the
model is unsure and its first choice is good (docs/results.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch

from ..engine.generation import Request
from ..engine.sampler import SamplingParams
from ..errors import AutodecoError, check_range
from ..io.digest import fingerprint, seed_of
from ..io.folder import output_folder
from ..io.printing import say as _say
from ..tasks import Problem, Verifier, is_generated, load_task
from ..text.chat import render
from .advantages import advantages, n_distinct
from .checkpoint import refuse_output
from .data import TrainingSample
from .gguf_backbone import GgufBackbone
from .head_run import HeadRun
from .hyperparameters import check_common
from .objective import OBJECTIVES, Objective
from .plan import ORDER, generator
from .rollouts import Roller, Rollout, SoftNucleus
from .state import State, StateFile

N_PROBLEMS = 20_000  # generated for a demo task: more than a run sees


@dataclass(frozen=True)
class RewardConfig:
    """Settings of a run.

    model, problems, output   GGUF; task as load_task takes it (the training split of a demo task); folder
    init          heads to start from: a reward teaches nothing to heads whose replies are never right
    heads         both | temp | top-p: which heads are trained
    diversity     weight of distinct right solutions against right ones (advantages.py)
    steps, problems_per_step, samples   optimiser steps; problems in one, samples of each
    minutes       no step is begun after so long; 0: all are done
    """

    model: str
    problems: str
    output: str
    init: str
    heads: str = "both"
    diversity: float = 1.0
    steps: int = 100
    problems_per_step: int = 16
    samples: int = 16
    learning_rate: float = 3e-4
    clip_norm: float = 1.0
    max_tokens: int = 512
    n_ctx: int = 0
    parallel: int = 32
    threads: int = 0
    seed: int = 42
    save_dtype: str = "bf16"
    save_every: int = 0
    resume: bool = False
    log_every: int = 10
    minutes: float = 0.0

    def check(self) -> None:
        """Raises UsageError for the first setting out of its range."""
        check_common(self)
        check_range("diversity", self.diversity, 0.0, 1000.0, "0 = right answers alone")
        for name, low in {"steps": 1, "problems_per_step": 1, "samples": 2, "max_tokens": 1, "parallel": 1}.items():
            check_range(name.replace("_", " "), getattr(self, name), low, 2**20)


COLUMNS = ("accuracy", "distinct", "mean_temperature", "mean_top_p", "tokens")


@dataclass
class RewardRecord:
    """steps: one list a column, one entry an optimiser step, means over its rollouts; distinct: of a problem's samples.
    seconds: of computing, those before an interruption included."""

    steps: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RewardRecord:
        return cls(**values)

    def last(self, name: str, n: int = 10) -> float:
        """Mean over the last n steps."""
        return float(np.mean(self.steps[name][-n:]))


def train_on_reward(config: RewardConfig) -> RewardRecord:
    """Train heads and save them to ``config.output``.

    Raises UsageError, MissingInputError, FormatError, MismatchError, OutputError, StorageError; BusyError where
    another run has the folder; AutodecoError when a gradient is not finite, in which case nothing is saved and the last state stays.
    """
    config.check()
    if not config.resume:
        refuse_output(config.output, (config.model, config.problems))
    with output_folder(config.output), Verifier(math_verify=False) as verifier:
        trainer = RewardTrainer(config, verifier)
        with closing(trainer):
            return trainer.run()


class RewardTrainer:
    """The state of one run."""

    def __init__(self, config: RewardConfig, verifier: Verifier) -> None:
        self.config, self.verifier = config, verifier
        split = {"split": "train", "count": N_PROBLEMS} if is_generated(config.problems) else {}
        self.problems = load_task(config.problems, **split).problems
        self.file = StateFile(config.output, self._fingerprint(), RewardRecord)
        self._goes_on = self.file.goes_on(config.resume)
        self.backbone = GgufBackbone(config.model, config.threads)
        prompt = self._prompt(self.problems[0])
        self.backbone.load(torch.device("cpu"), [TrainingSample(list(prompt), 1)])
        self.head_run = HeadRun(self.backbone, config.heads, config.init)
        self.heads = self.head_run.heads
        self.objective = Objective(self.heads, self.backbone.lm_head, OBJECTIVES["joint"])
        self.engine: Roller | None = None
        self.record = RewardRecord()

    def run(self) -> RewardRecord:
        first, clock = 0, time.monotonic()
        if self._goes_on:
            state = self.file.load(self.heads, self.head_run.optimizer)
            first, self.record = state.step, state.record
            _say(f"resumed after step {first} of {self.config.steps}")
        n_done, end = first, clock + 60 * (self.config.minutes or math.inf)
        while n_done < self.config.steps and (clock < end or not n_done):
            self._step(n_done)
            n_done += 1
            self.record.seconds += time.monotonic() - clock
            clock = time.monotonic()
            self._after(n_done)
        r = self.record
        self.head_run.save(self.config.output, self.config.save_dtype, r.last("mean_temperature"), r.last("mean_top_p"))
        self.file.remove()
        _say(f"saved {self.config.output} after {n_done} steps, {self.record.seconds:.0f} s")
        return self.record

    # ---- one step --------------------------------------------------------------------

    def _step(self, step: int) -> None:
        problems = self._problems_of(step)
        groups = self._rollouts(step, problems)
        keys = [self._keys(problem, group) for problem, group in zip(problems, groups, strict=True)]
        credit = np.concatenate([advantages(k, self.config.diversity) for k in keys])
        rollouts = list(chain.from_iterable(groups))
        self._update(rollouts, credit)
        self._measure(rollouts, keys)

    def _problems_of(self, step: int) -> list[Problem]:
        """The same for a step whether the run came there in one go or was resumed."""
        n, per_step = len(self.problems), self.config.problems_per_step
        at = range(step * per_step, (step + 1) * per_step)
        orders = {e: torch.randperm(n, generator=generator(self.config.seed, ORDER, e)) for e in {i // n for i in at}}
        return [self.problems[int(orders[i // n][i % n])] for i in at]

    def _rollouts(self, step: int, problems: Sequence[Problem]) -> list[list[Rollout]]:
        n, seed, prompts = self.config.samples, self.config.seed, [self._prompt(problem) for problem in problems]
        requests = [
            Request(
                prompt,
                SamplingParams(seed=seed_of(f"{seed} {step} {p} {k}")),
                self.config.max_tokens,
                share_prompt=True,
            )
            for p, prompt in enumerate(prompts)
            for k in range(n)
        ]
        found = dict(self._engine_of(prompts).rollouts(requests))
        return [[found[p * n + k] for k in range(n)] for p in range(len(problems))]

    def _engine_of(self, prompts: Sequence[tuple[int, ...]]) -> Roller:
        """With room for these prompts and whole replies: the one there is, or a larger one."""
        config, n_train = self.config, self.backbone.model.n_ctx_train
        needed = config.n_ctx or min(n_train, max(map(len, prompts)) + config.max_tokens)
        if self.engine is None or self.engine.n_ctx < needed:
            self._close_engine()
            self.engine = Roller(
                self.backbone,
                SoftNucleus(self.backbone, self.heads),
                n_slots=config.parallel,
                n_ctx=needed,
                n_threads=config.threads,
            )
        return self.engine

    def _close_engine(self) -> None:
        if self.engine:
            self.engine.close()
            self.engine = None

    def _prompt(self, problem: Problem) -> tuple[int, ...]:
        return tuple(render(self.backbone.model, list(problem.messages)))

    def _keys(self, problem: Problem, group: Sequence[Rollout]) -> list[str | None]:
        """The solution of each rollout; None where it is wrong or did not end."""
        detokenize = self.backbone.model.detokenize
        texts = [detokenize([s.id for s in r.reply.steps]).decode("utf-8", "replace") for r in group]
        verdicts = self.verifier.check([(problem, text) for text in texts])
        ended = [r.reply.finish_reason == "stop" for r in group]
        return [v.key if v.right and end else None for v, end in zip(verdicts, ended, strict=True)]

    def _update(self, rollouts: Sequence[Rollout], credit: np.ndarray) -> None:
        """One step up the gradient of the mean over rollouts of A ln r(reply)."""
        told = [(r, a) for r, a in zip(rollouts, credit, strict=True) if a]
        if not told:
            return
        hidden = torch.from_numpy(np.concatenate([r.hidden for r, _ in told]))
        labels = torch.tensor([s.id for r, _ in told for s in r.reply.steps])
        weight = torch.tensor(
            np.repeat([a for _, a in told], [len(r.reply.steps) for r, _ in told]), dtype=torch.float32
        )
        loss = self.objective(hidden, labels, weight=weight).top_p_sum / len(rollouts)
        loss.backward()
        norm = self.head_run.clip(self.config.clip_norm)
        if not norm.isfinite():
            raise AutodecoError(f"the gradient is {norm.item()}: training diverged, nothing saved; lower --lr")
        self.head_run.step(self.config.learning_rate)

    def _measure(self, rollouts: Sequence[Rollout], keys: Sequence[Sequence[str | None]]) -> None:
        steps = [s for r in rollouts for s in r.reply.steps]
        values = {
            "accuracy": np.mean([key is not None for group in keys for key in group]),
            "distinct": np.mean([n_distinct(group) for group in keys]),
            "mean_temperature": np.mean([s.temperature for s in steps]),
            "mean_top_p": np.mean([s.top_p for s in steps]),
            "tokens": len(steps) / len(rollouts),
        }
        for name, value in values.items():
            self.record.steps[name].append(float(value))

    # ---- files and parts ---------------------------------------------------------------

    def _after(self, n_done: int) -> None:
        config = self.config
        if config.log_every and (n_done % config.log_every == 0 or n_done == config.steps):
            r = self.record
            _say(
                f"step {n_done}/{config.steps}  right {100 * r.last('accuracy'):.1f} %  "
                f"distinct {r.last('distinct'):.2f} of {config.samples}  T {r.last('mean_temperature'):.3f}  "
                f"P {r.last('mean_top_p'):.3f}  {r.seconds / n_done:.1f} s a step"
            )
        if config.save_every and n_done % config.save_every == 0 and n_done < config.steps:
            self.file.save(State(n_done, self.record, []), self.heads, self.head_run.optimizer)

    def _fingerprint(self) -> dict[str, Any]:
        free = {"output", "resume", "save_every", "log_every", "save_dtype", "minutes"}
        data = fingerprint(repr([(p.id, p.gt) for p in self.problems]))
        return {k: v for k, v in asdict(self.config).items() if k not in free} | {"data": data}

    def close(self) -> None:
        self._close_engine()
        self.backbone.close()

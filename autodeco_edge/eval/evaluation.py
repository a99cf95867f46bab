"""One evaluation: methods on a task, drawn, judged and summed up.

Owns the settings, the order of the work and the folder of results. Every sample is on disk when it is judged,
and a run that was killed goes on where it stopped.

    OUT/samples/METHOD.jsonl   judged samples        OUT/report.json   the figures
    OUT/calibration.jsonl      the draws that give mean-shift its constants
    OUT/entropy.jsonl          the entropies that give turn its temperature
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.model import Model
from ..engine.pairing import check_heads, open_heads
from ..engine.sampler import Heads
from ..errors import NoHeadsError, UsageError, check_range
from ..io.digest import fingerprint, identity
from ..io.printing import say as _say
from ..records import RecordFile
from ..tasks import Problem, Task, Verifier, has_many_answers, is_generated, load_task
from . import methods as methods_of
from .entropy import GRID, entropies, turning_point
from .methods import Method
from .progress import Progress
from .report import summarise
from .results import results_folder, write_report
from .samples import Drawer, Limits, Sample, header

CALIBRATION_SAMPLES = 4  # replies a problem
ENTROPY_PROBLEMS = 32  # of the calibration's, a reply each at every temperature


@dataclass(frozen=True)
class EvalConfig:
    """Settings of an evaluation.

    model, heads    GGUF; heads file, "auto" (those inside) or None
    task            as load_task takes it
    output          folder of the results
    methods         names (methods.py)
    more_heads      other heads files by the name that a method gives behind "@"
    samples, seeds  draws a problem: samples x seeds (paper: 16 x 8)
    count, limit    generated problems; at most so many of the task
    split           of a demo task: test, calibration or train; to choose among heads, use another than test
    calibration     task whose mean T and P mean-shift takes; None: the calibration split of a demo task, else the means
                    recorded with the heads
    expert_samples  draws a problem and constant in Expert-Guided Tuning
    draws           False: sum up the samples that are there, and draw none
    grid_samples    the same for the frontier, on problems with many right answers (0: no frontier)
    """

    model: Path
    task: str
    output: Path
    heads: str | Path | None = "auto"
    methods: tuple[str, ...] = ("greedy", "default", "card", "mean-shift", "autodeco")
    more_heads: Mapping[str, Path] = field(default_factory=dict)
    samples: int = 16
    seeds: int = 8
    count: int = 200
    limit: int | None = None
    split: str = "test"
    calibration: str | None = None
    expert_samples: int = 32
    grid_samples: int = 0
    seed: int = 0
    math_verify: bool = True
    resume: bool = False
    draws: bool = True
    limits: Limits = Limits()

    def check(self) -> None:
        methods_of.check_names(self.methods, self.more_heads)
        check_range("samples", self.samples, 1, 4096)
        check_range("seeds", self.seeds, 1, 4096)
        check_range("expert samples", self.expert_samples, 1, 2**20)
        check_range("grid samples", self.grid_samples, 0, 2**20, "0 = no frontier")
        if not self.methods:
            raise UsageError(f"methods: give at least one of {', '.join(methods_of.NAMES)}")


def evaluate(config: EvalConfig) -> dict[str, Any]:
    """Draw, judge and sum up; returns the report, which is also in OUT/report.json.

    Raises UsageError, NoHeadsError (a method wants heads and there are none), BusyError where another run has the
    folder, what load_task, Model and Heads raise, and what RecordFile raises.
    """
    config.check()
    with results_folder(config.output, config.resume), Verifier(math_verify=config.math_verify) as verifier:
        task = load_task(config.task, limit=config.limit, count=config.count, split=config.split)
        with closing(Evaluation(config, task, verifier)) as evaluation:
            report = evaluation.run()
        write_report(config.output, report)
    return report


class Evaluation:
    """The state of one run."""

    def __init__(self, config: EvalConfig, task: Task, verifier: Verifier) -> None:
        self.config = config
        self.task = task
        self.model = Model(config.model)
        self.heads = open_heads(config.heads, self.model.path)
        self.more = {name: Heads(path) for name, path in config.more_heads.items()}
        for heads in filter(None, (self.heads, *self.more.values())):
            check_heads(heads, self.model.handle, self.model.path)
        if self.heads is None and any(name.startswith("autodeco") or name == "mean-shift" for name in config.methods):
            raise NoHeadsError(f"{config.model}: has no heads inside; give --heads FILE, or only methods without heads")
        self.drawer = Drawer(self.model, self.heads, config.limits, verifier, config.seed, self.more)
        self.many = [problem for problem in task.problems if has_many_answers(problem.kind)]
        if config.grid_samples and not self.many:
            raise UsageError(f"frontier: no problem of {task.name} has many right answers; leave --frontier out")
        self.identity = identity(config.model)
        self.progress = Progress(self.n_planned())

    def n_planned(self) -> int:
        """Replies, those that are there already among them."""
        config, n_problems = self.config, len(self.task.problems)
        n = config.samples * config.seeds
        shift = sum(name.startswith("mean-shift") for name in config.methods)
        drawn = {name: n_problems * n for name in config.methods} | {"greedy": n_problems}
        drawn["expert"] = n_problems * (n + 2 * len(methods_of.EXPERT_GRID) * config.expert_samples)
        calibration = shift * CALIBRATION_SAMPLES * len(self._calibration_problems() or ())
        return sum(drawn[name] for name in config.methods) + calibration + self._n_grid()

    def _n_grid(self) -> int:
        return len(self.many) * self.config.grid_samples * len(methods_of.frontier_grid())

    def _say_plan(self) -> None:
        config = self.config
        if config.draws:
            _say(
                f"{len(self.task.problems)} problems, {config.samples} samples x {config.seeds} seeds each, "
                f"{len(config.methods)} methods: {self.progress.n_planned} replies in all; Ctrl-C stops, --resume goes on"
            )

    def run(self) -> dict[str, Any]:
        self._say_plan()
        n = self.config.samples * self.config.seeds
        samples, grid, tuned, turned = {}, {}, None, None
        about = [name.partition("@")[2] for name in self.config.methods if name.startswith("mean-shift")]
        means = {heads: self.means(heads) for heads in about}
        for name in self.config.methods:
            if name == "expert":
                tuned = self.tune()
                method = methods_of.constants(*tuned["best"])
            elif name == "turn":
                turned = self.turn()
                method = methods_of.constants(turned["temperature"], 1.0, name)
            else:
                method = methods_of.method(name, means)
            samples[name] = self.draw(method, n)
            if self.config.grid_samples and method.is_constant:
                grid[name] = samples[name]
        grid |= self._grid()
        kinds = {problem.id: problem.kind for problem in self.task.problems}
        return {
            "config": self._settings(),
            "mean_shift": means,
            "expert": tuned,
            "turn": turned,
            "groups": summarise(kinds, samples, self.config.seeds, grid=grid),
        }

    def _grid(self) -> dict[str, list[Sample]]:
        """Constants on the problems where coverage means something."""
        n = self.config.grid_samples
        if not n:
            return {}
        return {m.name: self._draw(m, self.many, n, self._path(m)) for m in methods_of.frontier_grid()}

    def _settings(self) -> dict[str, Any]:
        settings = asdict(self.config)
        for name in ("output", "resume"):
            del settings[name]
        return settings | {
            "model": self.config.model.name,
            "heads": self.heads.path.name if self.heads else None,
            "more_heads": {name: path.name for name, path in self.config.more_heads.items()},
            "task": self.task.name,
            "n_problems": len(self.task.problems),
        }

    # ---- samples -------------------------------------------------------------------

    def draw(self, method: Method, n: int) -> list[Sample]:
        return self._draw(method, self.task.problems, n, self._path(method))

    def _path(self, method: Method) -> Path:
        return self.config.output / "samples" / f"{method.name.replace('/', '-')}.jsonl"

    def _draw(self, method: Method, problems: Sequence[Problem], n: int, path: Path) -> list[Sample]:
        about = {"model": self.identity}
        if method.uses_heads:
            about["heads_file"] = identity(self.drawer.heads[method.heads].path)
        head = header(self.task.name, method, self.config.seed, about, self.config.limits)
        start = time.monotonic()
        with RecordFile(path, head, resume=True) as file:  # evaluate() has refused what another run left
            n_before = len(file.rows)
            samples = self.drawer.draw(method, problems, n, file, only_there=not self.config.draws)
            n_total = len(problems) * (1 if method.once else n)
            found = list(self.progress.read(samples, method.name, min(n_before, n_total), n_total))
            n_new, seconds = len(file.rows) - n_before, time.monotonic() - start
        tokens = sum(s.n_tokens for s in found[len(found) - n_new :])
        right = 100 * np.mean([s.right for s in found])
        _say(
            f"{method.name}: {len(found)} replies, {n_new} new, {right:.1f} % right, {tokens / max(seconds, 1e-9):.0f} tok/s"
        )
        return found

    # ---- constants -------------------------------------------------------------------

    def means(self, name: str) -> tuple[float, float]:
        """Mean T and P of the heads of that name over the tokens they draw on other problems than the test's."""
        problems = self._calibration_problems()
        if problems is None:
            heads = self.drawer.heads[name]
            t, p = heads.mean_temperature, heads.mean_top_p
            if t is None and p is None:
                raise UsageError("mean-shift: the heads record no means; give --calibration TASK")
        else:
            suffix = f"@{name}" if name else ""
            path = self.config.output / f"calibration{suffix}.jsonl"
            found = self._draw(methods_of.method(f"autodeco{suffix}"), problems, CALIBRATION_SAMPLES, path)
            weights = [s.n_tokens for s in found]
            t, p = (_weighted([getattr(s, name) for s in found], weights) for name in ("mean_t", "mean_p"))
        return (1.0 if t is None else round(t, 3), 1.0 if p is None else round(p, 3))

    def _calibration_problems(self) -> tuple[Problem, ...] | None:
        if self.config.calibration:
            return load_task(self.config.calibration, limit=self.config.limit).problems
        if is_generated(self.config.task):
            return load_task(self.config.task, count=self.config.count, split="calibration").problems
        return None

    def tune(self) -> dict[str, Any]:
        """Expert-Guided Tuning (paper Figure 3): the best T at P = 1, then the best P at that T, on the test set itself."""
        n, grid = self.config.expert_samples, methods_of.EXPERT_GRID
        over_t = [(t, self._accuracy(t, 1.0, n)) for t in grid]
        best_t = max(over_t, key=lambda pair: pair[1])[0]
        over_p = [(p, self._accuracy(best_t, p, n)) for p in grid]
        best_p = max(reversed(over_p), key=lambda pair: pair[1])[0]  # of equals the least intrusive
        return {"temperature": over_t, "top_p": over_p, "best": (best_t, best_p), "samples": n}

    def turn(self) -> dict[str, Any]:
        """The temperature where entropy turns (entropy.py), 1 where it does not turn; on calibration problems."""
        problems = self._calibration_problems()
        if problems is None:
            raise UsageError("turn: needs other problems than the test's; give --calibration TASK")
        prompts = [self.drawer.prompt(problem) for problem in problems[:ENTROPY_PROBLEMS]]
        found = self._entropies(prompts)
        return {"entropies": found, "temperature": turning_point(*zip(*found, strict=True)) or 1.0}

    def _entropies(self, prompts: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
        config, limits = self.config, self.config.limits
        head = {
            "task": config.calibration or self.task.name,
            "prompts": fingerprint(repr(prompts)),
            "seed": config.seed,
        }
        head |= {"max_tokens": limits.max_tokens, "n_ctx": limits.n_ctx, "model": self.identity}
        with RecordFile(config.output / "entropy.jsonl", head, resume=True) as file:
            if len(file.rows) < len(GRID):
                if not config.draws:
                    raise UsageError("turn: no entropies yet; draw them first, without --no-draw")
                for t, entropy in entropies(self.model, prompts, limits, config.seed)[len(file.rows) :]:
                    file.append({"temperature": t, "entropy": entropy})
            return [(row["temperature"], row["entropy"]) for row in file.rows]

    def _accuracy(self, t: float, p: float, n: int) -> float:
        return float(np.mean([s.right for s in self.draw(methods_of.constants(t, p), n)]))

    def close(self) -> None:
        self.drawer.close()


def _weighted(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    if any(v is None for v in values):
        return None
    return float(np.average(values, weights=weights))

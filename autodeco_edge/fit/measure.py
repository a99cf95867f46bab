"""How a fit measures: the same few methods on problems of one split, as many as the time allows.

Owns the grid of constants, the sizes, and the reading of an evaluation's report. Draws nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..eval.evaluation import EvalConfig, evaluate
from ..eval.samples import Limits
from .pool import Pool
from .settings import FitConfig

GRID = ("0.1/1", "0.3/1", "0.5/1", "0.7/0.95", "0.8/0.95", "1/0.9", "1/1")
LEAST_PROBLEMS, MOST_PROBLEMS = 8, 400
LEAST_SAMPLES, MOST_SAMPLES = 4, 16  # of a problem: what differs is counted among them
HEADS = "autodeco"


@dataclass(frozen=True)
class Size:
    """problems, and samples of each with every method."""

    problems: int
    samples: int


def size_for(seconds: float, n_methods: int, speed: Mapping[str, float]) -> Size:
    """speed: tokens a second and a reply. Problems first: an interval is over problems."""
    replies = seconds * speed["rate"] / max(speed["tokens"], 1.0) / n_methods
    problems = min(max(int(replies / LEAST_SAMPLES), LEAST_PROBLEMS), MOST_PROBLEMS)
    samples = min(max(int(replies / problems), LEAST_SAMPLES), MOST_SAMPLES)
    return Size(problems, samples)


class Bench:
    """Evaluations of one run: each has a folder, where methods and kills may be added to what is there."""

    def __init__(self, config: FitConfig, pool: Pool) -> None:
        self._config, self._pool = config, pool

    def __call__(
        self, folder: str, split: str, methods: Sequence[str], size: Size, heads: Mapping[str, Path] | None = None
    ) -> dict[str, Any]:
        """The report's groups. heads: by the name behind "@"."""
        config, heads = self._config, dict(heads or {})
        settings = EvalConfig(
            model=config.model,
            task=self._pool.task(split),
            output=config.work / folder,
            heads=next(iter(heads.values()), None),
            methods=tuple(dict.fromkeys(methods)),
            more_heads=heads,
            samples=size.samples,
            seeds=1,
            count=size.problems,
            limit=size.problems,
            split=split,
            seed=config.seed,
            math_verify=False,
            resume=True,
            limits=Limits(config.max_tokens, 0, config.parallel, config.threads),
        )
        return evaluate(settings)["groups"]


def utilities(groups: Mapping[str, Any]) -> dict[str, float]:
    """By method, over all kinds."""
    return {name: row["utility"]["mean"] for name, row in groups["all"]["methods"].items()}


def best(scores: Mapping[str, float], *, heads: bool) -> str:
    """Of the heads, or of the constants."""
    return max((name for name in scores if name.startswith(HEADS) == heads), key=scores.__getitem__)


def own_means(groups: Mapping[str, Any], name: str) -> str:
    """The constant with the means of the heads ``name`` (paper: mean-shift)."""
    row = groups["all"]["methods"][name]
    temperature, top_p = (max(round(row[figure], 2), 0.01) for figure in ("mean_temperature", "mean_top_p"))
    return f"{temperature:g}/{top_p:g}"


def pair(constant: str) -> tuple[float, float]:
    temperature, top_p = map(float, constant.split("/"))
    return temperature, top_p

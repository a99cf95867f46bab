"""What judged samples say: a row a method, differences with intervals, and the frontier of the constants.

Owns the figures of a report (plain JSON) and its table. Draws nothing, reads no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .samples import Sample, by_problem
from .statistics import (
    bootstrap,
    distinct_of,
    frontier,
    outside,
    outside_interval,
    over_seeds,
    paired_bootstrap,
    pass_at_k,
)

COVERAGE_OF = 16  # samples among which distinct right solutions are counted
PASS_AT = (16, 32, 64)
ALL = "all"

Samples = Mapping[str, Sequence[Sample]]  # method -> its samples


class Scores:
    """Per-problem scores of one method on one group of problems, in the order of ``problems``.

    accuracy  [n_problems] share of right samples
    coverage  [n_problems] expected distinct right solutions among ``m`` samples
    utility   [n_problems] accuracy + coverage / m: what training on a reward maximises
    A method that draws nothing has one sample, which stands for all.
    """

    def __init__(self, samples: Sequence[Sample], problems: Sequence[str], m: int) -> None:
        self.by_problem = [sorted(group, key=lambda s: s.sample) for group in by_problem(samples, problems)]
        self.n = np.array([len(s) for s in self.by_problem])
        self.right = np.array([sum(s.right for s in samples) for samples in self.by_problem])
        self.accuracy = self.right / self.n
        keys = [[s.key if s.right else None for s in group] for group in self.by_problem]
        self.coverage = np.array([distinct_of(found, min(m, len(found))) for found in keys])
        self.utility = self.accuracy + self.coverage / m

    def row(self, n_seeds: int) -> dict[str, Any]:
        """The figures of a method. Accuracy and pass@k are shares; tokens a reply."""
        samples = [s for group in self.by_problem for s in group]
        verified = [s.math_verify for s in samples if s.math_verify is not None]
        return {
            "n_problems": len(self.n),
            "n_samples": int(self.n.min()),
            "accuracy": asdict(bootstrap(self.accuracy)),
            "accuracy_math_verify": float(np.mean(verified)) if verified else None,
            "std_over_seeds": self._over_seeds(n_seeds),
            "coverage": asdict(bootstrap(self.coverage)),
            "utility": asdict(bootstrap(self.utility)),
            "pass_at": {str(k): float(pass_at_k(self.n, self.right, k).mean()) for k in PASS_AT if k <= self.n.min()},
            "mean_temperature": _token_mean(samples, "mean_t"),
            "mean_top_p": _token_mean(samples, "mean_p"),
            "tokens": float(np.mean([s.n_tokens for s in samples])),
            "ended": float(np.mean([s.ended for s in samples])),
        }

    def _over_seeds(self, n_seeds: int) -> float | None:
        """Population standard deviation of the accuracy over seeds: blocks of draws (equations 14)."""
        n = int(self.n.min())
        if n % n_seeds or n < n_seeds:
            return None
        right = np.array([[s.right for s in group[:n]] for group in self.by_problem])  # [problems, n]
        return over_seeds(right.reshape(len(right), n_seeds, -1).mean(axis=(0, 2)).tolist()).std


def _token_mean(samples: Sequence[Sample], name: str) -> float | None:
    """Mean over the tokens of all replies."""
    known = [(getattr(s, name), s.n_tokens) for s in samples if getattr(s, name) is not None]
    if not known:
        return None
    values, n_tokens = zip(*known, strict=True)
    return float(np.average(values, weights=n_tokens))


def summarise(
    kinds: Mapping[str, str],
    samples: Samples,
    n_seeds: int,
    *,
    grid: Samples | None = None,
) -> dict[str, Any]:
    """The report on ``samples``, by kind of problem where there are several, and over all.

    kinds      problem id -> kind, the problems in order
    grid       samples of constants that span the frontier, of the groups whose problems they have

    differences  {ours: {other: ours - other}} for every pair of heads that is applied as a whole, over problems
    """
    groups = {ALL: list(kinds)}
    if len(set(kinds.values())) > 1:
        groups |= {kind: [p for p in kinds if kinds[p] == kind] for kind in dict.fromkeys(kinds.values())}
    m = _coverage_of([*samples.values(), *(grid or {}).values()])
    return {name: _group(problems, samples, grid or {}, n_seeds, m) for name, problems in groups.items()}


def _coverage_of(methods: Sequence[Sequence[Sample]]) -> int:
    """Samples among which every method's coverage can be counted: COVERAGE_OF, or what the poorest has."""
    drawn = [min(Counter(sample.problem for sample in rows).values()) for rows in methods]
    return min([COVERAGE_OF, *(n for n in drawn if n > 1)])


def _group(problems: list[str], samples: Samples, grid: Samples, n_seeds: int, m: int) -> dict[str, Any]:
    scores = {name: Scores(rows, problems, m) for name, rows in samples.items()}
    report: dict[str, Any] = {"coverage_of": m, "methods": {name: s.row(n_seeds) for name, s in scores.items()}}
    report["differences"] = {
        ours: _differences(ours, scores) for ours in scores if ours.partition("@")[0] == "autodeco"
    }
    if grid and all({sample.problem for sample in rows}.issuperset(problems) for rows in grid.values()):
        report["frontier"] = _frontier(scores, {name: Scores(rows, problems, m) for name, rows in grid.items()}, m)
    return report


def _differences(ours: str, scores: Mapping[str, Scores]) -> dict[str, Any]:
    return {
        name: {
            measure: asdict(paired_bootstrap(getattr(scores[ours], measure), getattr(s, measure)))
            for measure in ("accuracy", "coverage", "utility")
        }
        for name, s in scores.items()
        if name != ours
    }


def _frontier(scores: Mapping[str, Scores], grid: Mapping[str, Scores], m: int) -> dict[str, Any]:
    """Where each method lies against what the constants reach. Coverage is divided by m, so that both axes are shares."""
    points = {name: _point(s, m) for name, s in grid.items()}
    corners = frontier(list(points.values()))
    margins = {name: outside(_point(s, m), list(points.values())) for name, s in scores.items()}
    return {
        "points": points,
        "frontier": corners.tolist(),
        "outside": margins,
        "interval": {name: _margin_interval(s, grid, m) for name, s in scores.items() if name.startswith("autodeco")},
    }


def _point(scores: Scores, m: int) -> tuple[float, float]:
    return float(scores.accuracy.mean()), float(scores.coverage.mean()) / m


def _margin_interval(scores: Scores, grid: Mapping[str, Scores], m: int) -> dict[str, float]:
    shares = [np.stack([s.accuracy, s.coverage / m], 1) for s in (scores, *grid.values())]  # each [problems, 2]
    return asdict(outside_interval(shares[0], np.stack(shares[1:])))


# ---- for people -----------------------------------------------------------------------


def table(group: Mapping[str, Any], reference: str = "autodeco") -> str:
    """A Markdown table of one group: accuracy in %, differences in points, 95 % intervals in brackets."""
    ks = [
        k for k in map(str, PASS_AT) if all(k in m["pass_at"] or m["n_samples"] == 1 for m in group["methods"].values())
    ]
    head = [
        "method",
        "accuracy %",
        f"{reference} - it, points",
        f"distinct of {group['coverage_of']}",
        f"{reference} - it",
        *(f"pass@{k} %" for k in ks),
    ]
    head += ["mean T", "mean P", "tokens"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, m in group["methods"].items():
        difference = group["differences"].get(reference, {}).get(name)
        cells = [name, _interval(m["accuracy"], 100, 1)]
        cells += [_interval(difference["accuracy"], 100, 1, sign=True) if difference else ""]
        cells += [_interval(m["coverage"], 1, 2)]
        cells += [_interval(difference["coverage"], 1, 2, sign=True) if difference else ""]
        cells += [f"{100 * m['pass_at'].get(k, m['accuracy']['mean']):.1f}" for k in ks]
        cells += ["" if m[k] is None else f"{m[k]:.2f}" for k in ("mean_temperature", "mean_top_p")]
        lines.append("| " + " | ".join([*cells, f"{m['tokens']:.0f}"]) + " |")
    return "\n".join(lines)


def _interval(x: Mapping[str, float], scale: float, digits: int, *, sign: bool = False) -> str:
    plus = "+" if sign else ""
    numbers = [f"{scale * x[k]:{plus}.{digits}f}" for k in ("mean", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def frontier_line(name: str, found: Mapping[str, Any]) -> str:
    """Where a method lies against the frontier, in words."""
    margin, interval = found["outside"][name], found["interval"][name]
    where = "outside" if margin > 0 else "inside"
    return (
        f"{name} lies {abs(margin):.4f} {where} the accuracy-coverage frontier of {len(found['points'])} constants "
        f"(95 % {interval['low']:+.4f} to {interval['high']:+.4f}; shares)"
    )

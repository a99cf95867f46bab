"""What is said of a list of durations: median, quartiles, minimum, ratios.

Owns the choice of statistics. Knows nothing of what was timed.

Two answers to "how many times as long": the ratio of the medians, which is what a table shows, and the
median of the paired ratios (both of one round) with an interval, which slow drift of the machine cancels out of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb

import numpy as np

_EXACT = 1000


@dataclass(frozen=True)
class Summary:
    """Of durations, in their unit."""

    median: float
    q1: float
    q3: float
    min: float

    def as_dict(self) -> dict[str, float]:
        return {key: round(value, 3) for key, value in asdict(self).items()}


@dataclass(frozen=True)
class PairedRatio:
    """Median of the ratios round by round, and an interval that covers their true median 95 times in 100."""

    median: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {key: round(value, 5) for key, value in asdict(self).items()}


def summarise(durations: Sequence[float]) -> Summary:
    q1, median, q3 = np.quantile(durations, (0.25, 0.5, 0.75))
    return Summary(float(median), float(q1), float(q3), float(np.min(durations)))


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> PairedRatio:
    ratios = np.sort(np.asarray(numerators, dtype=float) / np.asarray(denominators, dtype=float))
    k = interval_rank(len(ratios))
    return PairedRatio(float(np.median(ratios)), float(ratios[k]), float(ratios[-1 - k]))


def interval_rank(n: int) -> int:
    """The largest k for which the order statistics k and n - 1 - k (from 0) enclose the median with
    probability >= 0.95, whatever the distribution: each value lies below it with probability 1/2. 0 (the whole
    range, a weaker promise) where n < 6."""
    if n > _EXACT:
        return int((n - 1.96 * n**0.5) / 2) - 1  # the normal distribution, on the safe side
    tail, k = 1, 0  # outcomes of n coins with at most k heads
    while (tail + comb(n, k + 1)) * 40 <= 2**n and k + 1 <= (n - 1) // 2:
        k += 1
        tail += comb(n, k)
    return k

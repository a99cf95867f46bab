"""Medians, ratios, and the order statistics that enclose a median."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autodeco_edge.bench.stats import interval_rank, paired_ratio, summarise


def coverage(n: int, k: int) -> float:
    """Probability that the order statistics k and n - 1 - k enclose the median, by adding up."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n


@pytest.mark.parametrize("n, k", [(1, 0), (5, 0), (6, 0), (9, 1), (20, 5), (100, 39)])
def test_interval_rank_is_the_textbook_one(n, k):
    """From 0: the tables' (2, 8) of 9, (6, 15) of 20 and (40, 61) of 100."""
    assert interval_rank(n) == k


@pytest.mark.parametrize("n", [6, 7, 8, 11, 50, 333, 1000, 1001, 1500])
def test_interval_covers_95_in_100_and_not_more_than_needed(n):
    """At most two ranks wider than the exact one where the normal distribution stands in for it (n > 1000)."""
    k = interval_rank(n)
    assert coverage(n, k) >= 0.95
    assert coverage(n, k + (3 if n > 1000 else 1)) < 0.95


def test_a_million_rounds_are_quick():
    assert 499_000 < interval_rank(10**6) < 499_100


def test_summary():
    assert summarise([4, 1, 2, 3, 5]).as_dict() == {"median": 3, "q1": 2, "q3": 4, "min": 1}


def test_paired_ratio_cancels_a_drift():
    """The machine slows down threefold; one contender takes twice as long all the time."""
    other = np.linspace(10, 30, 41)
    assert paired_ratio(2 * other, other).as_dict() == {"median": 2, "low": 2, "high": 2}


def test_paired_ratio_of_one_round():
    assert paired_ratio([3], [2]).as_dict() == {"median": 1.5, "low": 1.5, "high": 1.5}

"""Estimators against exact fractions, brute force and simulation."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autodeco_edge.errors import UsageError
from autodeco_edge.eval.statistics import (
    Spread,
    bootstrap,
    distinct_of,
    frontier,
    outside,
    outside_interval,
    over_seeds,
    paired_bootstrap,
    pass_at_k,
)

# ---- samples of one problem --------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5, 16, 128])
def test_pass_at_k_is_the_exact_fraction(n: int) -> None:
    c = np.arange(n + 1)
    for k in {1, 2, 5, 16, 32, 64, 127, 128} & set(range(1, n + 1)):
        exact = [float(1 - Fraction(comb(n - int(x), k), comb(n, k))) for x in c]
        # k quotients and k products, each rounded once: 2 k eps = 6e-14 at most.
        np.testing.assert_allclose(pass_at_k(n, c, k), exact, rtol=0, atol=6e-14)


def test_pass_at_k_ends() -> None:
    assert pass_at_k(128, 0, 128) == 0 and pass_at_k(128, 1, 128) == 1
    np.testing.assert_allclose(pass_at_k(16, np.arange(17), 1), np.arange(17) / 16, atol=1e-15)  # accuracy itself
    assert pass_at_k([4, 8], [[1, 1], [2, 2]], 2).shape == (2, 2)
    assert pass_at_k(4, [], 2).shape == (0,)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0), ([4, 8], 1, 5)])
def test_pass_at_k_out_of_range(n, c, k) -> None:
    with pytest.raises(UsageError):
        pass_at_k(n, c, k)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=8), st.data())
def test_distinct_of_is_the_mean_over_all_draws(keys: list[str | None], data: st.DataObject) -> None:
    m = data.draw(st.integers(1, len(keys)))
    draws = [len(set(draw) - {None}) for draw in combinations(keys, m)]
    assert distinct_of(keys, m) == pytest.approx(sum(draws) / len(draws), abs=1e-12)


def test_distinct_of_ends() -> None:
    keys = ["a", "b", "a", None]
    assert distinct_of(keys, 4) == 2 and distinct_of([None, None], 1) == 0
    assert distinct_of(keys, 1) == pytest.approx(0.75)  # accuracy
    with pytest.raises(UsageError):
        distinct_of(keys, 5)


# ---- over seeds and problems -------------------------------------------------------


def test_seeds_spread_is_the_population_one() -> None:
    assert over_seeds([1.0, 3.0]) == Spread(2.0, 1.0, 2)  # the sample deviation would be 1.41
    assert over_seeds([5.0]) == Spread(5.0, 0.0, 1)


def test_bootstrap_is_the_distribution_over_all_resamples() -> None:
    scores = np.array([0.0, 0.1, 0.35, 0.6, 1.0])
    means = [np.mean(draw) for draw in product(scores, repeat=5)]  # all 3125, equally likely
    found = bootstrap(scores, n_resamples=200_000, level=0.9)
    assert found.mean == pytest.approx(scores.mean())
    # A quantile's standard error here is sqrt(0.05 * 0.95 / 200000) / density (about 0.4) = 0.0012, and means lie on
    # a grid of 0.01: one step of it.
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.05, 0.95))), abs=0.0101)


def test_bootstrap_repeats_and_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(1).random(30)
    first = bootstrap(scores, n_resamples=1000, seed=3)
    assert bootstrap(scores, n_resamples=1000, seed=3) == first != bootstrap(scores, n_resamples=1000, seed=4)
    monkeypatch.setattr("autodeco_edge.eval.statistics._DRAWS_AT_ONCE", 700)
    assert bootstrap(scores, n_resamples=1000, seed=3) == first


def _trial(rng: np.random.Generator, n_problems: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two methods, 16 samples a problem; problems differ widely, the second method is 0.03 worse."""
    p = rng.beta(0.8, 0.5, n_problems) * 0.94 + 0.03
    gain = rng.choice([0.0, 0.03, -0.03], n_problems)
    return rng.binomial(16, p + gain) / 16, rng.binomial(16, p - 0.03) / 16


def test_paired_interval_covers_the_truth_95_times_in_100() -> None:
    rng, truth = np.random.default_rng(0), 0.03
    held = 0
    for _ in range(600):
        found = paired_bootstrap(*_trial(rng, 100), n_resamples=1000)
        held += found.low <= truth <= found.high
    # 0.945 of 600 = 567 expected (percentile interval, 100 problems), standard deviation 5.6. The bounds are four of
    # them away: a sound interval fails for 1 seed in 16,000 (and the seed is fixed); one at level 0.90 (540) or 0.99
    # (594) passes about as rarely.
    print(f"{held} of 600 intervals hold the truth")
    assert 545 <= held <= 589


def test_pairing_takes_the_hardness_of_problems_out() -> None:
    a, b = _trial(np.random.default_rng(2), 100)
    paired, one = paired_bootstrap(a, b), bootstrap(a)
    assert paired.mean == pytest.approx(a.mean() - b.mean())
    assert paired.high - paired.low < 0.7 * (one.high - one.low)
    alike = paired_bootstrap(a, a)
    assert (alike.mean, alike.low, alike.high) == (0, 0, 0)


@pytest.mark.parametrize("scores", [[], [[1.0]], [1.0, float("nan")]])
def test_scores_that_are_none(scores: list) -> None:
    for call in (bootstrap, over_seeds, lambda s: paired_bootstrap(s, [1.0])):
        with pytest.raises(UsageError, match="scores: allowed"):
            call(scores)


def test_a_paired_comparison_needs_pairs() -> None:
    with pytest.raises(UsageError, match="3 and 2"):
        paired_bootstrap([1, 2, 3], [1, 2])


# ---- accuracy and coverage ---------------------------------------------------------

shares = st.integers(0, 20).map(lambda i: i / 20)
some_points = st.lists(st.tuples(shares, shares), min_size=1, max_size=8)


@settings(deadline=None)
@given(some_points)
def test_frontier_is_what_no_point_beats(points: list[tuple[float, float]]) -> None:
    kept = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    found = frontier(points)
    assert [tuple(p) for p in found] == sorted(kept)


def _reached(point, points) -> bool:
    """Some mixture of two constants is as good in both: the exact share of each, in fractions."""
    x, y = (Fraction(v).limit_denominator(1000) for v in point)
    exact = [tuple(Fraction(v).limit_denominator(1000) for v in p) for p in points]
    for a, b in product(exact, repeat=2):
        low, high = Fraction(0), Fraction(1)  # of the shares w of a for which w a + (1 - w) b reaches the point
        for pa, pb, wanted in ((a[0], b[0], x), (a[1], b[1], y)):
            if pa == pb:
                high = high if pb >= wanted else Fraction(-1)
            elif pa > pb:
                low = max(low, (wanted - pb) / (pa - pb))
            else:
                high = min(high, (wanted - pb) / (pa - pb))
        if low <= high:
            return True
    return False


@settings(deadline=None)
@given(some_points, st.tuples(shares, shares))
def test_outside_is_positive_where_no_mixture_reaches(points, point) -> None:
    margin = outside(point, points)
    if abs(margin) > 1e-12:  # on the border the sign is rounding
        assert (margin > 0) == (not _reached(point, points))


@settings(deadline=None)
@given(some_points, st.tuples(shares, shares))
def test_outside_is_the_distance_to_the_border(points, point) -> None:
    """Every point of the border, sampled: the best mixture at each accuracy, the levels beside and below it."""
    w, c = np.linspace(0, 1, 201)[:, None], np.array(points)
    mixed = np.concatenate([w * a + (1 - w) * b for a, b in product(c, repeat=2)])
    mixed = mixed[np.lexsort((-mixed[:, 1], -mixed[:, 0]))]
    best = mixed[mixed[:, 1] >= np.maximum.accumulate(mixed[:, 1]) - 1e-12]  # no mixture is better in both
    left, down = best[-1], best[0]
    back = np.linspace(0, 2, 401)[:, None]
    border = np.concatenate([best, left - back * [1, 0], down - back * [0, 1]])
    nearest = np.hypot(*(border - np.array(point)).T).min()
    # Steps of at most 0.007 (a segment of length sqrt 2 in 200, a ray in 0.005): half a step beside the border, and a
    # mixture kept below it, between two steps, lies at most a step deep.
    assert abs(outside(point, points)) == pytest.approx(nearest, abs=0.011)


def test_outside_by_hand() -> None:
    constants = [(0.9, 0.8), (1.0, 0.4), (0.5, 0.5)]
    assert outside((0.95, 0.6), constants) == pytest.approx(0, abs=1e-12)  # on the line: a mixture
    assert outside((0.95, 0.5), constants) < 0  # outside the stair, and still no merit
    assert outside((0.93, 0.9), constants) == pytest.approx(np.hypot(0.03, 0.1))  # to the corner
    assert outside((1.1, 0.1), constants) == pytest.approx(0.1)
    assert outside((0.2, 0.9), constants) == pytest.approx(0.1)
    assert outside((0.2, 0.7), constants) == pytest.approx(-0.1)
    assert outside((0.5, 0.5), [(0.5, 0.5)]) == 0
    assert outside((0.8, 0.9), [(0.5, 0.5)]) == pytest.approx(0.5)


@pytest.mark.parametrize("points", [[], [1.0, 2.0], [(1.0, float("nan"))], [(1, 2, 3)]])
def test_points_that_are_none(points: list) -> None:
    with pytest.raises(UsageError, match="points: allowed"):
        frontier(points)


def test_outside_interval_draws_problems_and_keeps_the_pairs() -> None:
    """A copy of a constant is never beyond it, in no resample; one better by the same in every problem always is."""
    rng = np.random.default_rng(5)
    constants = rng.random((3, 40, 2)) * 0.5
    same = outside_interval(constants[1], constants, n_resamples=200)
    assert same.low <= same.mean <= 0 and same.high <= 1e-12
    assert same.mean == outside(constants[1].mean(0), constants.mean(1))
    better = outside_interval(constants[:1].max(0) + 0.3, constants[:1], n_resamples=200)
    assert better.low == pytest.approx(better.mean) == pytest.approx(better.high) == pytest.approx(np.hypot(0.3, 0.3))
    noisy = outside_interval(constants[2] + rng.normal(0, 0.3, (40, 2)), constants, n_resamples=200)
    assert noisy.low < noisy.mean < noisy.high

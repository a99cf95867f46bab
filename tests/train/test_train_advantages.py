"""The credit of a sample, against gradients that are summed over every possible group."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from autodeco_edge.train.advantages import advantages, n_distinct

KEYS = ("x", "y", "z", None)  # the solutions of a tiny policy; None is wrong


def slow(keys, diversity):
    """The definition, each group counted anew."""
    n = len(keys)

    def marginal(i, group):
        return n_distinct(group) - n_distinct(group[:i] + group[i + 1 :])

    credit = []
    for i in range(n):
        rest = [*keys[:i], *keys[i + 1 :]]
        right = (keys[i] is not None) - np.mean([k is not None for k in rest])
        others = np.mean([marginal(j, rest) for j in range(n - 1)])
        credit.append(right + diversity * (marginal(i, list(keys)) - others))
    return credit


@pytest.mark.parametrize("diversity", [0.0, 0.7])
def test_counts_equal_the_definition(diversity):
    for keys in product(KEYS, repeat=4):
        assert advantages(keys, diversity) == pytest.approx(slow(list(keys), diversity))
    rng = np.random.default_rng(0)
    for n in (2, 3, 16):
        keys = [KEYS[i] for i in rng.integers(4, size=n)]
        assert advantages(keys, diversity) == pytest.approx(slow(keys, diversity))


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("diversity", [0.0, 1.0, 2.5])
def test_expectation_is_the_gradient_of_the_objective(n, diversity):
    """Softmax over four outcomes, every group of n enumerated: E[sum A grad ln p] / n = grad J, to rounding."""
    z = np.array([0.3, -0.5, 1.1, 0.2])

    def objective(z):
        p = np.exp(z) / np.exp(z).sum()
        right = p[:3].sum()
        return right + diversity * (1 - (1 - p[:3]) ** n).sum() / n

    step = 1e-5
    wanted = [(objective(z + step * e) - objective(z - step * e)) / (2 * step) for e in np.eye(4)]
    p = np.exp(z) / np.exp(z).sum()
    found = np.zeros(4)
    for group in product(range(4), repeat=n):
        credit = advantages([KEYS[i] for i in group], diversity)
        found += np.prod(p[list(group)]) * sum(a * (np.eye(4)[i] - p) for a, i in zip(credit, group, strict=True)) / n
    assert found == pytest.approx(wanted, abs=1e-8)


def test_nothing_is_learnt_from_a_group_without_difference():
    assert not advantages([None] * 8, 1.0).any()
    assert not advantages(["x"] * 8, 1.0).any()
    assert not advantages(list("abcdefgh"), 0.0).any()

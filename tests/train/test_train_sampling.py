"""The nucleus rule, user parameters, and drawn tokens against the exact distribution."""

from __future__ import annotations

import math

import pytest
import torch

from autodeco_edge.errors import FormatError, UsageError
from autodeco_edge.spec import sampling
from autodeco_edge.train.sampling import draw_token, effective_values, nucleus_mask, sampling_probs


def test_golden_mask(golden):
    row = golden["heads"][0]
    t, p = (torch.tensor([row[name]], dtype=torch.float64) for name in ("temperature", "top_p"))
    probs = sampling_probs(torch.tensor([row["logits"]]), t, p)
    assert probs[0].nonzero().flatten().tolist() == [0, 6]
    q = torch.softmax(torch.tensor(row["logits"], dtype=torch.float64) / t, -1)
    torch.testing.assert_close(probs[0, [0, 6]], q[[0, 6]] / q[[0, 6]].sum())


def test_equals_the_numpy_specification():
    """Kept sets are equal, probabilities to rounding, on 1,500 rows; half of them with ties."""
    generator = torch.Generator().manual_seed(0)
    for case in range(500):
        logits = (torch.randn(3, 2 + case % 12, generator=generator) * 3).round(decimals=case % 2)
        t = torch.rand(3, generator=generator, dtype=torch.float64) * 2 * (case % 7 > 0)
        p = torch.rand(3, generator=generator, dtype=torch.float64)
        probs = sampling_probs(logits, t, p)
        for row in range(3):
            expected = sampling.draw(logits[row].numpy(), t[row].item(), p[row].item(), 0.5)
            assert (probs[row] > 0).tolist() == expected.kept.tolist()
            torch.testing.assert_close(probs[row], torch.from_numpy(expected.probs), rtol=1e-12, atol=0)


def test_edges_of_the_mask():
    q = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.5, 0.0, 0.5]], dtype=torch.float64)
    assert nucleus_mask(q, torch.tensor([0.0, 0.0])).tolist() == [
        [True, False, False, False],
        [False, True, False, False],
    ]
    assert nucleus_mask(q, torch.tensor([1.0, 1.0])).tolist() == [[True] * 4, [False, True, False, True]]
    # mass before the third token is exactly P: it is removed
    assert nucleus_mask(q[:1], torch.tensor([0.5])).tolist() == [[True, True, False, False]]


def test_tiny_temperature_is_argmax():
    logits = torch.tensor([[0.0, 3.0, 2.9], [0.0, 3.0, 2.9]])
    probs = sampling_probs(logits, torch.tensor([9.9e-6, 1.0]), torch.ones(2))
    assert probs[0].tolist() == [0.0, 1.0, 0.0] and (probs[1] > 0).all()


def test_strange_logits():
    inf, nan = float("inf"), float("nan")
    probs = sampling_probs(torch.tensor([[1.0, nan, 1.0], [0.0, inf, 5.0]]), torch.ones(2), torch.ones(2))
    assert probs.tolist() == [[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]]
    with pytest.raises(FormatError, match="no finite value"):
        sampling_probs(torch.tensor([[nan, -inf]]), torch.ones(1), torch.ones(1))


def test_effective_values():
    t, p = torch.tensor([0.5, float("nan")]), torch.tensor([0.8, 0.9])
    for mode, t_expected, p_expected in (
        ("both", [1.0, 2.0], [0.4, 0.45]),
        ("temp", [1.0, 2.0], [0.5, 0.5]),
        ("top-p", [2.0, 2.0], [0.4, 0.45]),
        ("none", [2.0, 2.0], [0.5, 0.5]),
    ):
        t_eff, p_eff = effective_values(t, p, 2.0, 0.5, mode)
        assert t_eff.tolist() == pytest.approx(t_expected) and p_eff.tolist() == pytest.approx(p_expected)
    assert effective_values(t, p, 0.0)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "bad", ({"user_temperature": -1}, {"user_top_p": 1.5}, {"mode": "all"}, {"user_top_p": math.nan})
)
def test_parameters_out_of_range(bad):
    with pytest.raises(UsageError, match="expected"):
        effective_values(torch.ones(1), torch.ones(1), **bad)


@pytest.mark.parametrize("temperature, top_p", ((1.0, 1.0), (0.6, 0.9), (1.7, 0.7)))
def test_drawn_tokens_follow_the_distribution(chi_square_limit, temperature, top_p):
    """Chi-square over 20,000 draws; false alarm 1e-4 each."""
    n_draws, generator = 20_000, torch.Generator().manual_seed(11)
    logits = torch.randn(1, 12, generator=generator) * 1.5
    probs = sampling_probs(logits, torch.tensor([temperature]), torch.tensor([top_p]))
    counts = draw_token(probs.expand(n_draws, -1), generator).bincount(minlength=12).double()
    inside = probs[0] > 0
    assert counts[~inside].sum() == 0
    expected = probs[0][inside] * n_draws
    statistic = ((counts[inside] - expected).square() / expected).sum().item()
    assert expected.min() > 5 and statistic < chi_square_limit(int(inside.sum()) - 1)

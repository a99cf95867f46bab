"""The fast losses against the plain ones in float64: values and slopes, on rows made to break them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autodeco_edge.train import fast_losses, losses
from autodeco_edge.train.fast_losses import by_autograd, by_rows, token_losses

VARIANTS = pytest.mark.parametrize("variant", losses.VARIANTS)
TERMS = ("temperature loss", "top-p loss", "d temperature/dT", "d top-p/dT", "d top-p/dP")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks in rows of a few hundred tokens."""
    monkeypatch.setattr(fast_losses, "N_COLUMNS", 64)


def normal(n_rows: int, n_vocab: int, deviation: float = 2.5, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n_rows, n_vocab)) * deviation)


def every_t_p(row: torch.Tensor, labels: list[int], t=(0.02, 0.3, 0.9, 1.999), p=(1e-6, 0.11, 0.5137, 0.93, 1 - 1e-7)):
    """The row with each label, T and P."""
    points = [(x, y, z) for x in labels for y in t for z in p]
    y, t, p = (list(x) for x in zip(*points, strict=True))
    return row.expand(len(points), -1), torch.tensor(t).double(), torch.tensor(p).double(), torch.tensor(y)


def check(logits, t, p, labels, variant, rtol=1e-6):
    """Every number within rtol of the plain form in float64, which itself is good to 1e-11 where T is 0.02.

    1e-10 where no weight pi_y (at most 1/40 in the tied rows) makes its rounding smaller.
    """
    own = 1e-10 if variant == "plain" else 1e-11
    want = by_autograd(logits.double().clamp(min=-1e5), t.double(), p.double(), labels, variant)
    got = by_rows(logits, t, p, labels, variant)
    for name, a, b in zip(TERMS, got, want, strict=True):
        error = (a.double() - b).abs() - own
        i = int((error / (b.abs() + 1e-300)).argmax())
        assert error[i] <= rtol * b[i].abs(), (
            f"{name}: {a[i]:.9g}, expected {b[i]:.9g} at T {t[i]:.4f}, P {p[i]:.7f}, label {labels[i]}"
        )


def two_clusters() -> torch.Tensor:
    return torch.cat([torch.full((40,), 3.0), torch.full((300,), -1.0)])


def tied_across_the_cut() -> torch.Tensor:
    return torch.cat([torch.tensor([4.0, 3.5]), torch.full((200,), 1.0), torch.linspace(0.5, -9, 60)])


def peaked() -> torch.Tensor:
    row = normal(1, 777)[0]
    row[5], row[6] = 14.0, 11.0
    return row


ROWS = {
    "normal": (normal(1, 331)[0], [0, 100, 330]),
    "argmax": (normal(1, 331)[0], [int(normal(1, 331)[0].argmax())]),
    "far_tail": (normal(1, 331)[0], [int(normal(1, 331)[0].argmin())]),
    "flat": (normal(1, 1021, 0.1)[0], [3, 1020]),
    "peaked": (peaked(), [5, 6, 7]),
    "all_equal": (torch.full((100,), 0.25), [0, 50, 99]),
    "two_clusters": (two_clusters(), [0, 20, 39, 40, 200, 339]),
    "tied_across_the_cut": (tied_across_the_cut(), [0, 2, 80, 201, 202, 261]),
    "integers": (normal(1, 500).round()[0], [1, 250, 499]),
    "exactly_one_block": (normal(1, 64)[0], [0, 63]),
    "one_more_than_a_block": (normal(1, 65)[0], [0, 64]),
    "two_tokens": (torch.tensor([0.3, -0.2]), [0, 1]),
    "one_token": (torch.tensor([0.3]), [0]),
    "shifted_far": (normal(1, 200)[0] + 1000.0, [7]),
}


@VARIANTS
@pytest.mark.parametrize("name", ROWS)
def test_float64(name, variant):
    row, labels = ROWS[name]
    check(*every_t_p(row.double(), labels), variant)


@VARIANTS
@pytest.mark.parametrize("name", ROWS)
def test_float32_within_1e_4(name, variant):
    row, labels = ROWS[name]
    logits, t, p, labels = every_t_p(row.float(), labels)
    check(logits, t.float(), p.float(), labels, variant, rtol=1e-4)


@VARIANTS
def test_masked_logits(variant):
    """-inf: probability 0, no NaN (the plain form gives one in dT: ``check`` puts a finite logit in its place)."""
    row = normal(1, 300)[0]
    row[50:200] = -math.inf
    logits, t, p, labels = every_t_p(row, [0, 299], t=(0.3, 1.0, 1.9))
    check(logits, t, p, labels, variant)
    for form in (
        by_rows(logits, t, p, torch.full_like(labels, 60), variant),
        token_losses(logits, t, p, labels, variant),
    ):
        assert all(x.isfinite().all() for x in form)


@VARIANTS
def test_random_rows_of_odd_widths(variant):
    for seed, n_vocab in enumerate((3, 17, 63, 127, 129, 1999)):
        rng = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, n_vocab, (40,), generator=rng)
        t, p = (torch.rand(40, generator=rng, dtype=torch.float64) for _ in range(2))
        check(normal(40, n_vocab, seed=seed), 2 * t + 0.05, p, labels, variant)


def test_at_and_below_the_clamps():
    """hf: max(T, 0.01) in one loss, max(T, 1e-8) in the other; no gradient below."""
    row = torch.linspace(0, 0.05, 80).double()
    logits, t, p, labels = every_t_p(row, [79, 78, 0], t=(1e-9, 1e-8, 1e-3, 0.009, 0.01, 0.011), p=(0.2, 0.7))
    check(logits, t, p, labels, variant="hf")
    below = by_rows(logits, t, p, labels, "hf")
    assert (below[2][t < 0.01] == 0).all() and (below[3][t < 1e-8] == 0).all()


@VARIANTS
@pytest.mark.parametrize("n_vocab", (50, fast_losses.N_ROWWISE + 3))
def test_autograd(variant, n_vocab):
    """Both paths of token_losses: gradients of a weighted sum, by the plain losses' own graph."""
    logits, labels = normal(6, n_vocab), torch.tensor([0, 1, 2, 3, 4, 49])
    t = torch.linspace(0.4, 1.7, 6).double().requires_grad_()
    p = torch.linspace(0.1, 0.9, 6).double().requires_grad_()
    weights = torch.linspace(-1, 2, 12).double().reshape(2, 6)

    def gradients(temp, nucleus):
        return torch.autograd.grad((weights[0] * temp + weights[1] * nucleus).sum(), (t, p))

    plain = (
        losses.temperature_token_loss(logits, t, labels, variant),
        losses.top_p_token_loss(logits, t, p, labels, variant),
    )
    got = token_losses(logits, t, p, labels, variant)
    for a, b in zip((*got, *gradients(*got)), (*plain, *gradients(*plain)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("n_vocab", (50, fast_losses.N_ROWWISE))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_low_precision_logits_give_float32(n_vocab, dtype):
    logits = normal(3, n_vocab).to(dtype)
    t, p, labels = torch.full((3,), 0.9), torch.full((3,), 0.6), torch.tensor([1, 2, 3])
    got = token_losses(logits, t, p, labels)
    want = by_autograd(logits.double().clamp(min=-1e5), t.double(), p.double(), labels, "hf")
    for a, b in zip(got, want, strict=False):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_vocab", (50, fast_losses.N_ROWWISE))
@pytest.mark.parametrize("broken", ("logits", "temperature", "top_p"))
def test_nan_stays_nan(n_vocab, broken):
    """The training loop refuses a loss that is not finite: none may be hidden, even in a token without weight."""
    arguments = {"logits": normal(1, n_vocab), "temperature": torch.tensor([0.1]), "top_p": torch.tensor([0.5])}
    arguments["logits"][0, 7] = 500.0
    arguments[broken].view(-1)[-1] = math.nan
    assert sum(token_losses(**arguments, labels=torch.tensor([7]))).isnan().all()


def test_no_rows():
    nothing = torch.zeros(0)
    for n_vocab in (5, fast_losses.N_ROWWISE):
        got = token_losses(torch.zeros(0, n_vocab), nothing, nothing, torch.zeros(0, dtype=torch.int64))
        assert [x.shape for x in got] == [(0,), (0,)]


def test_logits_are_left_alone():
    logits = normal(2, fast_losses.N_ROWWISE).float()
    before = logits.clone()
    token_losses(logits, torch.tensor([1.0, 0.5]), torch.tensor([0.2, 0.9]), torch.tensor([3, 4]))
    assert torch.equal(logits, before)


def test_a_graph_holds_nothing_of_the_vocabulary():
    t, p = (torch.full((4,), 0.7, requires_grad=True) for _ in range(2))
    temp, _ = token_losses(normal(4, 2000).float(), t, p, torch.tensor([1, 2, 3, 4]))
    assert [x.shape for x in temp.grad_fn.saved_tensors] == [(4,)] * 3


@VARIANTS
def test_a_real_vocabulary(monkeypatch, variant):
    """V = 151,936 in the blocks of production: the issue's bound of 1e-4."""
    monkeypatch.undo()
    for logits in (normal(2, 151936, 0.5), normal(2, 151936), normal(2, 151936).round()):
        t, p, labels = torch.tensor([1.1, 0.7]), torch.tensor([0.4, 0.9]), torch.tensor([int(logits[0].argmax()), 9])
        check(logits.float(), t, p, labels, variant, rtol=1e-4)

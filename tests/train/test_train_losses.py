"""Losses and their gradients against the golden values of equations 16, and by finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
from autodeco_edge.spec.soft_nucleus import soft_nucleus
from autodeco_edge.train import losses, objective
from autodeco_edge.train.modules import AutoDecoHeads
from autodeco_edge.train.objective import OBJECTIVES, Objective, terms_of
from tests.support import sequence_losses

CASES = {
    "hf_temperature_none_dropped": lambda x, drop: sequence_losses.temperature_loss(x.l, x.t, x.y),
    "hf_temperature_easy_dropped": lambda x, drop: sequence_losses.temperature_loss(x.l, x.t, x.y, drop_mask=drop),
    "hf_top_p": lambda x, drop: sequence_losses.top_p_loss(x.l, x.t, x.p, x.y),
    "nemo_none_dropped": lambda x, drop: sequence_losses.nemo_loss(x.l, x.t, x.p, x.y),
    "nemo_easy_dropped": lambda x, drop: sequence_losses.nemo_loss(x.l, x.t, x.p, x.y, drop_mask=drop),
}


class Inputs:
    """Golden positions as a batch of one: l [1, 5, 7], t and p [1, 5] with gradient, y [1, 5]."""

    def __init__(self, golden, dtype=torch.float64):
        rows = golden["heads"]
        self.l = torch.tensor([[r["logits"] for r in rows]], dtype=dtype)
        self.t = torch.tensor([[r["temperature"] for r in rows]], dtype=dtype, requires_grad=True)
        self.p = torch.tensor([[r["top_p"] for r in rows]], dtype=dtype, requires_grad=True)
        self.y = torch.tensor([golden["labels"]])

    def gradients(self, loss):
        got = torch.autograd.grad(loss, (self.t, self.p), allow_unused=True)
        return [torch.zeros(3) if g is None else g[0, 1:4] for g in got]


@pytest.mark.parametrize("name", CASES)
def test_golden(golden, name):
    x = Inputs(golden)
    loss = CASES[name](x, torch.ones(1, 5, dtype=torch.bool))
    expected = golden[name]
    assert loss.item() == pytest.approx(expected["value"], rel=1e-9)
    d_t, d_p = x.gradients(loss)
    assert d_t.tolist() == pytest.approx(expected["dT"], rel=1e-9, abs=1e-15)
    assert d_p.tolist() == pytest.approx(expected["dP"], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_golden_float32(golden, name):
    x = Inputs(golden, torch.float32)
    loss = CASES[name](x, torch.ones(1, 5, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(golden[name]["value"], rel=1e-5)


def test_easy_positions(golden):
    x = Inputs(golden)
    rows, positions = sequence_losses.valid_rows(x.y)
    assert positions.tolist() == golden["positions"]
    easy = losses.easy_tokens(x.l[rows, positions], x.y[rows, positions + 1])
    assert easy.tolist() == golden["easy"]


@pytest.mark.parametrize("variant", losses.VARIANTS)
def test_numeric_gradients(variant):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(5, 9, dtype=torch.float64, generator=generator) * 2
    labels = torch.tensor([0, 3, 3, 8, 5])
    t = (torch.rand(5, dtype=torch.float64, generator=generator) + 0.4).requires_grad_()
    p = (torch.rand(5, dtype=torch.float64, generator=generator) * 0.8 + 0.1).requires_grad_()

    def top_p(t, p):
        return losses.top_p_token_loss(logits, t, p, labels, variant)

    assert torch.autograd.gradcheck(top_p, (t, p), eps=1e-7, atol=1e-5)
    if variant != "nemo":  # in the nemo variant the detached weight depends on T, so differences see more
        assert torch.autograd.gradcheck(
            lambda t: losses.temperature_token_loss(logits, t, labels, variant), (t,), eps=1e-7
        )
    else:
        scaled = torch.softmax(logits / t.detach()[:, None], -1).gather(1, labels[:, None])[:, 0]
        (got,) = torch.autograd.grad(losses.temperature_token_loss(logits, t, labels, "nemo").sum(), t)
        plain = losses.temperature_token_loss(logits, t, labels, "plain")
        (want,) = torch.autograd.grad((plain * scaled).sum(), t)
        torch.testing.assert_close(got, want)


def plainest(row: list[float], t: float, p: float, label: int) -> tuple[float, float]:
    """(-ln softmax(l/T)_y, -ln(r_y + 1e-9)) of one token in scalar arithmetic, as the paper writes it."""
    weights = [math.exp(x / t) for x in row]
    q = [w / sum(weights) for w in weights]
    kept, mass = {}, 0.0
    for i in sorted(range(len(q)), key=lambda i: (-q[i], i)):
        mass += q[i]
        kept[i] = q[i] * math.exp(-30.0 * max(0.0, mass - p))
    return -math.log(q[label]), -math.log(kept[label] / (sum(kept.values()) + 1e-9) + 1e-9)


def test_plain_variant_is_the_cross_entropy_token_by_token():
    """No weight: likelihood sums both terms, joint is the second alone."""
    rows = [[0.3, 2.0, -1.0, 0.9], [5.0, 0.0, 0.0, -3.0], [1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 2.0, -4.0]]
    t, p, labels = [0.7, 1.0, 1.9, 0.4], [0.5, 0.97, 0.6, 0.3], [3, 0, 2, 1]
    args = [torch.tensor(x, dtype=torch.float64) for x in (rows, t, p)]
    want = [plainest(*x) for x in zip(rows, t, p, labels, strict=True)]
    temp = losses.temperature_token_loss(*args[:2], torch.tensor(labels), "plain")
    nucleus = losses.top_p_token_loss(*args, torch.tensor(labels), "plain")
    assert temp.tolist() == pytest.approx([w[0] for w in want], rel=1e-12)
    assert nucleus.tolist() == pytest.approx([w[1] for w in want], rel=1e-12)


@pytest.mark.parametrize("n_vocab", (2, 7, 500))
def test_soft_nucleus_equals_the_numpy_specification(n_vocab):
    """Ties and a temperature of nothing included."""
    generator = torch.Generator().manual_seed(n_vocab)
    for case in range(50):
        logits = (torch.randn(3, n_vocab, generator=generator).double() * 4).round(decimals=case % 3)
        t, p = torch.rand(2, 3, generator=generator, dtype=torch.float64) * torch.tensor([[2.0], [1.0]])
        t[0] = 0.0 if case % 10 == 0 else t[0]
        found = losses.soft_nucleus(logits, t, p)
        for row in range(3):
            want = soft_nucleus(logits[row].numpy(), t[row].item(), p[row].item())
            torch.testing.assert_close(found[row], torch.from_numpy(want), rtol=1e-9, atol=1e-300)


def test_soft_nucleus_is_a_distribution():
    """But for the 1e-9 beside the mass kept, which is all there is where P is far below the largest probability."""
    logits = torch.randn(6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    t = torch.linspace(0.6, 1.9, 6).double()
    r = losses.soft_nucleus(logits, t, torch.linspace(0.85, 0.99, 6).double())
    assert (r >= 0).all() and r.sum(-1).tolist() == pytest.approx([1.0] * 6, abs=1e-7)  # 1e-9 over the mass kept
    logits[:, 3] += 50.0
    assert losses.soft_nucleus(logits, t, torch.full((6,), 0.01).double()).sum(-1).max() < 0.01


def test_temperature_below_the_clamp_has_no_gradient():
    logits, labels = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([1])
    t = torch.tensor([0.005], requires_grad=True)
    loss = losses.temperature_token_loss(logits, t, labels)
    loss.sum().backward()
    assert t.grad.item() == 0.0 and loss.isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_learn_from_is_zero_not_nan(golden, name):
    x = Inputs(golden)
    x.y = torch.full_like(x.y, losses.IGNORE)
    loss = CASES[name](x, torch.ones(1, 5, dtype=torch.bool))
    assert loss.item() == 0.0
    assert all((g == 0).all() for g in x.gradients(loss))


def test_all_easy_all_dropped_is_zero():
    logits = torch.eye(4)[None] * 5.0
    labels = torch.tensor([[losses.IGNORE, 0, 1, 2]])
    t = torch.ones(1, 4, requires_grad=True)
    loss = sequence_losses.temperature_loss(logits, t, labels, drop_mask=torch.ones(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0 and (t.grad == 0).all()


# ---- the chunked objective equals the plain losses (the fast form: test_train_fast_losses.py) ----------------------


SETTINGS = [(o, "hf", h) for o in OBJECTIVES for h in ("both", "temp", "top-p")] + [("official", "nemo", "both")]


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
@pytest.mark.parametrize("chunk", (30, 1 << 22))
def test_objective_equals_plain_losses(monkeypatch, setting, chunk):
    """Every objective, with easy tokens dropped: value and gradient of all eight tensors."""
    name, loss, trained = setting
    monkeypatch.setattr(objective, "CHUNK_ELEMENTS", chunk)
    batch = Batch(seed=5, detach=loss == "hf")
    logits = batch.hidden @ batch.matrix.T
    t, p = batch.heads(batch.hidden, logits)
    keep = ~(losses.easy_tokens(logits, batch.labels) & batch.drop)
    everything = torch.ones_like(keep)

    def mean(term, variant, kept):
        arguments = (logits, t, p, batch.labels) if term is losses.top_p_token_loss else (logits, t, batch.labels)
        return sequence_losses.mean_of_kept(term(*arguments, variant), kept)

    temp = mean(losses.temperature_token_loss, "hf" if name == "official" else "plain", keep)
    top_p = mean(losses.top_p_token_loss, "hf" if name == "official" else "plain", everything)
    plain = {"both": temp + top_p, "temp": temp, "top-p": top_p}[trained]
    if name == "joint":
        plain = mean(losses.top_p_token_loss, "plain", keep)
    if loss == "nemo":
        plain = mean(losses.temperature_token_loss, "nemo", keep) + mean(losses.top_p_token_loss, "nemo", keep)

    out = batch.objective(terms_of(*setting))(batch.hidden, batch.labels, batch.drop)
    torch.testing.assert_close(out.loss, plain, rtol=1e-12, atol=0)
    batch.same_gradients(out.loss, plain)


def test_a_signed_weight_multiplies_each_token():
    """The joint form with advantages: mean of weight times -ln(r_y + 1e-9), gradients of both heads."""
    batch = Batch(seed=6)
    weight = torch.linspace(-1.5, 2.0, len(batch.labels)).double()
    logits = batch.hidden @ batch.matrix.T
    t, p = batch.heads(batch.hidden, logits)
    plain = (weight * losses.top_p_token_loss(logits, t, p, batch.labels, "plain")).mean()
    out = batch.objective(OBJECTIVES["joint"])(batch.hidden, batch.labels, None, weight)
    torch.testing.assert_close(out.loss, plain, rtol=1e-12, atol=0)
    batch.same_gradients(out.loss, plain)


class Batch:
    """Eleven positions over a vocabulary of 13, one of them easy at least; small heads in float64."""

    def __init__(self, seed: int, detach: bool = True) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.hidden = torch.randn(11, 6, dtype=torch.float64, generator=generator)
        self.matrix = torch.randn(13, 6, dtype=torch.float64, generator=generator)
        self.labels = torch.randint(0, 13, (11,), generator=generator)
        self.labels[4] = (self.hidden[4] @ self.matrix.T).argmax()
        self.drop = torch.arange(11) % 3 < 2
        self.heads = AutoDecoHeads(HeadSpec(6, 8, FEATURES_ENHANCED, True, True), detach_temperature=detach).double()
        self.heads.reset_parameters(generator)

    def objective(self, terms):
        return Objective(self.heads, lambda h: h @ self.matrix.T, terms)

    def same_gradients(self, a, b):
        parameters = list(self.heads.parameters())
        of_a, of_b = (torch.autograd.grad(x, parameters, allow_unused=True, materialize_grads=True) for x in (a, b))
        for got, want in zip(of_a, of_b, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-14)

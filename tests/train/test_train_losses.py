"""Losses and their gradients against the golden values of semantics 2.6, and by finite differences."""

from __future__ import annotations

import pytest
import torch

from autodeco_edge.errors import UsageError
from autodeco_edge.format import FEATURES_ENHANCED, HeadSpec
from autodeco_edge.train import losses, objective
from autodeco_edge.train.modules import AutoDecoHeads
from autodeco_edge.train.objective import Objective

CASES = {
    "hf_temperature_none_dropped": lambda x, drop: losses.temperature_loss(x.l, x.t, x.y),
    "hf_temperature_easy_dropped": lambda x, drop: losses.temperature_loss(x.l, x.t, x.y, drop_mask=drop),
    "hf_top_p": lambda x, drop: losses.top_p_loss(x.l, x.t, x.p, x.y),
    "nemo_none_dropped": lambda x, drop: losses.nemo_loss(x.l, x.t, x.p, x.y),
    "nemo_easy_dropped": lambda x, drop: losses.nemo_loss(x.l, x.t, x.p, x.y, drop_mask=drop),
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
    rows, positions = losses.valid_rows(x.y)
    assert positions.tolist() == golden["positions"]
    easy = losses.easy_tokens(x.l[rows, positions], x.y[rows, positions + 1])
    assert easy.tolist() == golden["easy"]


@pytest.mark.parametrize("nemo", (False, True))
def test_numeric_gradients(nemo):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(5, 9, dtype=torch.float64, generator=generator) * 2
    labels = torch.tensor([0, 3, 3, 8, 5])
    t = (torch.rand(5, dtype=torch.float64, generator=generator) + 0.4).requires_grad_()
    p = (torch.rand(5, dtype=torch.float64, generator=generator) * 0.8 + 0.1).requires_grad_()
    weight = losses.base_probability(logits, labels)  # the detached weight of the top-p term

    def top_p(t, p):
        return losses.top_p_token_loss(logits, t, p, labels, nemo=nemo)

    assert torch.autograd.gradcheck(top_p, (t, p), eps=1e-7, atol=1e-5)
    if not nemo:  # in the nemo variant the detached weight depends on T, so differences see more
        assert torch.autograd.gradcheck(lambda t: losses.temperature_token_loss(logits, t, labels), (t,), eps=1e-7)
    else:
        scaled = torch.softmax(logits / t.detach()[:, None], -1).gather(1, labels[:, None])[:, 0]
        loss = losses.temperature_token_loss(logits, t, labels, nemo=True)
        (got,) = torch.autograd.grad(loss.sum(), t)
        hf = losses.temperature_token_loss(logits, t, labels)
        (plain,) = torch.autograd.grad((hf / weight * scaled).sum(), t)
        torch.testing.assert_close(got, plain)


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
    loss = losses.temperature_loss(logits, t, labels, drop_mask=torch.ones(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0 and (t.grad == 0).all()


def test_drop_mask_comes_from_the_generator():
    masks = [losses.draw_drop_mask((20000,), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    # standard deviation of the share: 0.0035; 5 of them: false alarm below 1e-6
    assert abs(masks[0].float().mean() - 0.6) < 0.0175


def test_generator_and_mask_agree(golden):
    x = Inputs(golden)
    mask = losses.draw_drop_mask(x.y.shape, torch.Generator().manual_seed(9))
    by_mask = losses.nemo_loss(x.l, x.t, x.p, x.y, drop_mask=mask)
    by_generator = losses.nemo_loss(x.l, x.t, x.p, x.y, generator=torch.Generator().manual_seed(9))
    assert torch.equal(by_mask, by_generator)


# ---- the chunked objective equals the plain losses (the fast form: test_fast.py) ----------------------


@pytest.mark.parametrize("variant", objective.VARIANTS)
@pytest.mark.parametrize("chunk", (30, 1 << 22))
def test_objective_equals_plain_losses(monkeypatch, variant, chunk):
    monkeypatch.setattr(objective, "CHUNK_ELEMENTS", chunk)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(1, 12, 6, dtype=torch.float64, generator=generator)
    matrix = torch.randn(13, 6, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 13, (1, 12), generator=generator)
    labels[:, :4] = losses.IGNORE
    labels[0, 6] = (hidden[0, 5] @ matrix.T).argmax()  # at least one easy token
    drop = torch.ones(1, 12, dtype=torch.bool)
    heads = AutoDecoHeads(HeadSpec(6, 8, FEATURES_ENHANCED, True, True), detach_temperature=variant == "hf").double()
    heads.reset_parameters(generator)

    logits = hidden @ matrix.T
    t, p = heads(hidden, logits)
    if variant == "hf":
        plain = losses.temperature_loss(logits, t, labels, drop_mask=drop) + losses.top_p_loss(logits, t, p, labels)
    else:
        plain = losses.nemo_loss(logits, t, p, labels, drop_mask=drop)
    expected = torch.autograd.grad(plain, list(heads.parameters()))

    rows, positions = losses.valid_rows(labels)
    out = Objective(heads, lambda h: h @ matrix.T, variant)(
        hidden[rows, positions], labels[rows, positions + 1], drop[rows, positions]
    )
    torch.testing.assert_close(out.loss, plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(out.temp_loss + out.top_p_loss, plain.detach(), rtol=1e-12, atol=0)
    for got, want in zip(torch.autograd.grad(out.loss, list(heads.parameters())), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-14)


def test_unknown_variant_is_refused():
    heads = AutoDecoHeads(HeadSpec(6, 8, FEATURES_ENHANCED, True, True))
    with pytest.raises(UsageError, match="hf, nemo"):
        Objective(heads, lambda h: h, "mse")

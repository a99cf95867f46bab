"""Heads against the golden vectors of equations 16, in float64, float32 and bfloat16."""

from __future__ import annotations

import pytest
import torch

from autodeco_edge.errors import MismatchError, UsageError
from autodeco_edge.gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED, HeadSpec
from autodeco_edge.spec import heads as numpy_side
from autodeco_edge.train import modules
from autodeco_edge.train.modules import AutoDecoHeads, distribution_statistics

STATISTICS = ("max_prob", "entropy", "prob_var", "top5_sum")
BF16_T = [1.3125, 1.234375, 0.87109375, 0.984375, 1.203125]
BF16_P = [0.6328125, 0.56640625, 0.49609375, 0.55078125, 0.6328125]


def columns(golden, *names):
    return [torch.tensor([row[name] for row in golden["heads"]], dtype=torch.float64) for name in names]


def test_golden_float64(golden, golden_heads):
    hidden, logits, t, p = columns(golden, "hidden", "logits", "temperature", "top_p")
    got_t, got_p = golden_heads(hidden, logits)
    torch.testing.assert_close(got_t, t, rtol=1e-9, atol=0)
    torch.testing.assert_close(got_p, p, rtol=1e-9, atol=0)
    expected = torch.stack(columns(golden, *STATISTICS), dim=-1)
    torch.testing.assert_close(distribution_statistics(logits, t), expected, rtol=1e-9, atol=0)


def test_golden_float32(golden, golden_heads):
    hidden, logits, t, p = columns(golden, "hidden", "logits", "temperature", "top_p")
    got_t, got_p = golden_heads.float()(hidden.float(), logits.float())
    # 256 float32 products a sum: about 256 * 2^-24 of their size
    torch.testing.assert_close(got_t, t.float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(got_p, p.float(), rtol=1e-5, atol=0)


def test_golden_bfloat16(golden, golden_heads):
    hidden, logits = (x.bfloat16() for x in columns(golden, "hidden", "logits"))
    got_t, got_p = golden_heads.bfloat16()(hidden, logits)
    assert got_t.dtype == got_p.dtype == torch.bfloat16
    assert got_t.tolist() == BF16_T
    # Features are computed in float32 here and in bfloat16 there: at most one step of P
    assert max(abs(a - b) for a, b in zip(got_p.tolist(), BF16_P, strict=True)) <= 2**-8


@pytest.mark.parametrize("features", (FEATURES_ENHANCED, FEATURES_BASIC))
@pytest.mark.parametrize("has_temp, has_top_p", ((True, True), (True, False), (False, True)))
def test_equals_the_numpy_specification(features, has_temp, has_top_p):
    spec = HeadSpec(24, 32, features if has_top_p else (), has_temp, has_top_p)
    ours = AutoDecoHeads(spec).reset_parameters(torch.Generator().manual_seed(4))
    theirs = numpy_heads(ours)
    generator = torch.Generator().manual_seed(5)
    hidden, logits = torch.randn(20, 24, generator=generator), torch.randn(20, 50, generator=generator) * 3
    values = ours.double()(hidden.double(), logits.double())
    for row in range(20):
        t, p, _ = numpy_side.forward(theirs, hidden[row].numpy(), logits[row].numpy())
        assert values[0][row].item() == pytest.approx(1.0 if t is None else t, rel=1e-12)
        assert values[1][row].item() == pytest.approx(1.0 if p is None else p, rel=1e-12)


def numpy_heads(heads):
    def head(name):
        if not hasattr(heads, name):
            return None
        w0, b0, w2, b2 = (x.detach().numpy() for x in getattr(heads, name).parameters())
        n = heads.spec.n_embd
        extra = w0[:, n:] if name == "top_p_head" else None
        return numpy_side.Head(w0[:, :n], b0, extra, w2[0], float(b2[0]))

    return numpy_side.HeadWeights(heads.spec, head("temp_head"), head("top_p_head"))


def test_state_dict_names_are_the_official_ones():
    heads = AutoDecoHeads(HeadSpec(16, 256, FEATURES_ENHANCED, True, True))
    shapes = {name: tuple(tensor.shape) for name, tensor in heads.state_dict().items()}
    assert shapes == {
        "temp_head.mlp.0.weight": (256, 16),
        "temp_head.mlp.0.bias": (256,),
        "temp_head.mlp.2.weight": (1, 256),
        "temp_head.mlp.2.bias": (1,),
        "top_p_head.mlp.0.weight": (256, 21),
        "top_p_head.mlp.0.bias": (256,),
        "top_p_head.mlp.2.weight": (1, 256),
        "top_p_head.mlp.2.bias": (1,),
    }


def test_fresh_heads_start_near_one_and_a_half():
    heads = AutoDecoHeads(HeadSpec(64, 256, FEATURES_ENHANCED, True, True))
    heads.reset_parameters(torch.Generator().manual_seed(1))
    again = AutoDecoHeads(heads.spec).reset_parameters(torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(heads.parameters(), again.parameters(), strict=True))
    generator = torch.Generator().manual_seed(2)
    t, p = heads(torch.randn(50, 64, generator=generator), torch.randn(50, 30, generator=generator))
    assert abs(t.mean() - 1.0) < 0.2 and abs(p.mean() - 0.5) < 0.1


def test_an_absent_head_gives_one_and_t_as_feature():
    hidden, logits = torch.randn(2, 3, 8), torch.randn(2, 3, 11)
    t, p = AutoDecoHeads(HeadSpec(8, 5, (), True, False))(hidden)
    assert t.shape == p.shape == (2, 3) and (p == 1).all()
    only_top_p = AutoDecoHeads(HeadSpec(8, 5, FEATURES_BASIC, False, True))
    t, p = only_top_p(hidden, logits)
    assert (t == 1).all()
    expected = only_top_p.top_p_head(hidden, torch.ones(2, 3, 1))
    torch.testing.assert_close(p, expected)


def test_statistics_are_chunked_without_a_difference(monkeypatch):
    logits, t = torch.randn(7, 50, dtype=torch.float64) * 3, torch.rand(7, dtype=torch.float64) + 0.2
    whole = distribution_statistics(logits, t)
    monkeypatch.setattr(modules, "CHUNK_ELEMENTS", 100)
    assert torch.equal(distribution_statistics(logits, t), whole)


def test_statistics_match_a_plain_autograd_form():
    logits = torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    t = torch.linspace(0.3, 1.8, 6, dtype=torch.float64).requires_grad_()
    q = torch.softmax(logits / (t[:, None] + 1e-8), -1)
    plain = torch.stack([q.amax(-1), -(q * torch.log(q + 1e-8)).sum(-1), q.var(-1), q.topk(5).values.sum(-1)], -1)
    ours = distribution_statistics(logits, t)
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-14)
    direction = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (expected,) = torch.autograd.grad((plain * direction).sum(), t, retain_graph=True)
    (got,) = torch.autograd.grad((ours * direction).sum(), t)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)


def test_temperature_is_detached_as_a_feature_unless_told_otherwise(golden, golden_heads):
    hidden, logits = columns(golden, "hidden", "logits")
    for detached in (True, False):
        golden_heads.zero_grad()
        golden_heads.detach_temperature = detached
        golden_heads(hidden, logits)[1].sum().backward()
        gradient = golden_heads.temp_head.mlp[0].weight.grad
        assert (gradient is None) == detached


def test_misuse_is_refused():
    heads = AutoDecoHeads(HeadSpec(8, 5, FEATURES_ENHANCED, True, True))
    with pytest.raises(MismatchError, match="expect 8"):
        heads(torch.randn(2, 9), torch.randn(2, 11))
    with pytest.raises(UsageError, match="logits"):
        heads(torch.randn(2, 8))
    with pytest.raises(UsageError, match="features"):
        AutoDecoHeads(HeadSpec(8, 5, ("entropy",), True, True))

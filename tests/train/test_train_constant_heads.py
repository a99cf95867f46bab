"""Heads that are a constant: what they say in PyTorch and in the library, and that those begun as one can learn."""

from __future__ import annotations

import pytest
import torch

from autodeco_edge.engine.sampler import Heads, SamplingParams
from autodeco_edge.errors import UsageError
from autodeco_edge.gguf.keys import FEATURES_ENHANCED
from autodeco_edge.train import constant_heads
from autodeco_edge.train.checkpoint import autodeco_config, save_heads

H, V = 64, 300


@pytest.mark.parametrize(("temperature", "top_p"), [(0.1, 1.0), (0.7, 0.95), (1.0, 1.0), (1.9, 0.05)])
def test_they_say_it_at_every_token(tmp_path, temperature, top_p):
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads

    heads = constant_heads.constant(H, temperature, top_p)
    base = {"model_type": "llama", "hidden_size": H, "vocab_size": V}
    save_heads(tmp_path / "c", heads, autodeco_config(base, heads.spec, "x", temperature, top_p), "f32")
    write_heads(read_checkpoint(tmp_path / "c"), tmp_path / "c.gguf")
    loaded, rng = Heads(tmp_path / "c.gguf"), torch.Generator().manual_seed(1)
    for scale in (0.0, 1.0, 100.0):
        hidden, logits = (scale * torch.randn(n, generator=rng) for n in (H, V))
        t, p = heads(hidden, logits)
        step = loaded.step(hidden.numpy(), logits.numpy(), SamplingParams(seed=0), 0)
        for value in (t.item(), step.temperature):
            assert value == pytest.approx(temperature, rel=1e-6)
        for value in (p.item(), step.top_p):
            assert value == pytest.approx(top_p, rel=1e-6) and (top_p < 1 or value == 1.0)


def test_those_that_learn_begin_as_the_constant_and_have_slopes():
    heads = constant_heads.learning(H, FEATURES_ENHANCED, 0.5, 1.0, seed=2)
    hidden, logits = torch.randn(5, H), torch.randn(5, V)
    t, p = heads(hidden, logits)
    assert t.tolist() == pytest.approx([0.5] * 5) and p.tolist() == pytest.approx([constant_heads.MOST_P] * 5)
    (t.sum() + p.sum()).backward()
    assert all(head.mlp[2].weight.grad.abs().max() > 1e-4 for head in (heads.temp_head, heads.top_p_head))


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (2.0, 1.0), (0.5, 0.0), (0.5, 1.1)])
def test_what_no_head_can_say_is_refused(temperature, top_p):
    with pytest.raises(UsageError, match="constant heads"):
        constant_heads.constant(H, temperature, top_p)

"""What both trainers have in common: where heads come from, which of them learn, how they are saved."""

from __future__ import annotations

import pytest
import torch

from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import MismatchError
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.gguf_backbone import GgufBackbone
from autodeco_edge.train.head_run import HeadRun


@pytest.fixture(scope="module")
def backbone():
    backbone = GgufBackbone(demo_model(), 1)
    yield backbone
    backbone.close()


def step(run: HeadRun, rate: float = 1e-3) -> None:
    """Against the sum of everything that learns."""
    sum(p.sum() for p in run.parameters).backward()
    run.step(rate)


@pytest.mark.parametrize("learning, moved", (("temp", "temp_head"), ("top-p", "top_p_head"), ("both", "")))
def test_only_the_named_heads_learn(tmp_path, backbone, learning, moved):
    HeadRun(backbone, "both", None, seed=1).save(tmp_path, "f32", 0.9, 0.8)
    run = HeadRun(backbone, learning, str(tmp_path))
    before = {name: tensor.clone() for name, tensor in run.heads.state_dict().items()}
    step(run)
    changed = {name for name, tensor in run.heads.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith(moved)}
    assert all(p.grad is None for p in run.heads.parameters()), "a step uses its gradient up"


def test_a_head_that_never_learnt_is_marked_so_until_it_does(tmp_path, backbone):
    """Fresh heads that do not learn are not made; one that another run trained keeps its mark."""
    HeadRun(backbone, "temp", None, seed=1).save(tmp_path / "temp", "f32", 0.9, 0.8)
    alone = load_heads(tmp_path / "temp")
    assert alone.enable_temperature and not alone.heads.spec.has_top_p
    assert (alone.config.mean_temperature, alone.config.mean_top_p) == (0.9, None)
    for learning in ("both", "top-p"):
        with pytest.raises(MismatchError, match="has no top_p_head; train the other head only"):
            HeadRun(backbone, learning, str(tmp_path / "temp"))
    HeadRun(backbone, "both", None, seed=1).save(tmp_path / "both", "f32", 0.9, 0.8)
    run = HeadRun(backbone, "top-p", str(tmp_path / "both"))
    run.save(tmp_path / "on", "f32", 0.9, 0.8)
    on = load_heads(tmp_path / "on")
    assert on.enable_temperature and on.enable_top_p


def test_the_same_seed_gives_the_same_heads(backbone):
    one, same, other = (HeadRun(backbone, "both", None, seed=s).heads.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)

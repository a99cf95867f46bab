"""Texts that may not end (bench/smollm2_lab/paths.py, sampler.py)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from bench.smollm2_lab import model as lab_model  # noqa: E402
from bench.smollm2_lab import sampler as lab_sampler  # noqa: E402
from bench.smollm2_lab.paths import ends_well  # noqa: E402


@pytest.fixture(scope="module")
def lab():
    return SimpleNamespace(**(vars(lab_model) | vars(lab_sampler)))


def test_ends_well_is_the_sum_over_places():
    """Three places, by hand: ends at the first (not fine), at the second (fine), at the third (fine), or never."""
    end = torch.tensor([0.2, 0.5, 0.25])
    value = ends_well(end.log(), torch.tensor([False, True, True]))
    assert float(value) == pytest.approx(0.8 * 0.5 + 0.8 * 0.5 * 0.25, rel=1e-5)


def test_a_text_that_may_not_end(lab):
    """The end token is left out and every place of every text is kept, in order, with the state that the next token is drawn from."""
    sampler = lab.Sampler(
        lab.Llama.random(lab.Shape(2, 48, 3, 1, 64, 512), torch.device("cpu"), torch.float32), [[3, 4, 5]], 8
    )
    sampler.endless = True
    traces = lab.Traces()
    drawn = sampler.draw([lab.Job(0, 0, s, 6) for s in range(5)], [lab.constant(1.3, 0.9)], traces=traces)
    assert not drawn.ended.any() and all(len(t) == 6 for t in drawn.tokens)
    assert not any((t == lab.EOS).any() for t in drawn.tokens)
    rows = traces.joined()
    assert torch.bincount(rows["row"]).tolist() == [6] * 5
    order = torch.argsort(rows["row"], stable=True)
    ids = torch.tensor([[3, 4, 5, *drawn.tokens[2][:5].tolist()]])
    assert torch.allclose(rows["hidden"][order][12:18], sampler.model.hidden_of(ids)[0, 2:], atol=1e-5)

"""Replies weighed under other heads (bench/smollm2_lab/replay.py, pressed.py) against whole distributions and draws."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from bench.smollm2_lab import model as lab_model  # noqa: E402
from bench.smollm2_lab import sampler as lab_sampler  # noqa: E402
from bench.smollm2_lab.drawing import statistics, threshold  # noqa: E402
from bench.smollm2_lab.paths import ends_well  # noqa: E402
from bench.smollm2_lab.pressed import Pressed  # noqa: E402
from bench.smollm2_lab.replay import objective  # noqa: E402

V = 4096


@pytest.fixture(scope="module")
def lab():
    return SimpleNamespace(**(vars(lab_model) | vars(lab_sampler)))


@pytest.fixture(scope="module")
def positions():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(64, V, generator=rng) * torch.linspace(2, 4, 64)[:, None]
    token = torch.multinomial(torch.softmax(logits, -1), 1, generator=rng).squeeze(1)
    return logits, token, torch.linspace(0.3, 1.6, 64)


def test_statistics_of_pressed_logits(positions):
    """A bin is 0.4 nats wide: its tokens' logits are off by a fifth at most, which the entropy feels in the second order."""
    logits, token, t = positions
    found, right = Pressed.of(logits, token).statistics(t, V), statistics(logits, t)
    assert torch.allclose(found[:, [0, 3]], right[:, [0, 3]], rtol=0.01, atol=1e-5)
    assert torch.allclose(found[:, 1], right[:, 1], rtol=0.01, atol=0.01)
    assert torch.allclose(found[:, 2], right[:, 2], rtol=0.02, atol=1e-8)


def test_probability_without_a_cut(positions):
    logits, token, t = positions
    found = Pressed.of(logits, token).log_probability(t, torch.full_like(t, 40.0), 0.1)
    right = torch.log_softmax(logits / t[:, None], -1).gather(1, token[:, None]).squeeze(1)
    assert torch.allclose(found, right, atol=0.02)


def test_probability_is_the_mean_over_hard_nuclei(positions):
    """Over 1,000 draws of the noise: the standard error of a probability is at most 0.5 / sqrt(1000) = 0.016."""
    logits, token, t = positions
    rng = torch.Generator().manual_seed(1)
    z, sigma, n = torch.linspace(-1.5, 3.5, 64), 0.5, 1000
    found = Pressed.of(logits, token).log_probability(t, z, sigma).exp()
    weights = ((logits - logits.amax(-1, keepdim=True)) / t[:, None]).exp()
    total = torch.zeros(64)
    for p in torch.sigmoid(z + sigma * torch.randn(n, 64, generator=rng)):
        kept = torch.where(weights >= threshold(weights, p, 24), weights, 0)
        total += (kept / kept.sum(-1, keepdim=True)).gather(1, token[:, None]).squeeze(1)
    # where the border of the nucleus falls into a bin, the bin is in or out as a whole
    assert torch.allclose(found, total / n, atol=0.03)


def test_slopes_are_those_of_differences(positions):
    logits, token, t = positions
    pressed = Pressed.of(logits.double(), token)
    t, z = t.double().requires_grad_(), torch.linspace(-1, 3, 64).double().requires_grad_()
    slopes = torch.autograd.grad(pressed.log_probability(t, z, 0.3).sum(), (t, z))
    possible = pressed.log_probability(t, z, 0.3).detach() > -20  # what no nucleus holds has no slope
    assert possible.sum() > 32
    for slope, (dt, dz) in zip(slopes, ((1e-5, 0), (0, 1e-5)), strict=True):
        ends = [pressed.log_probability(t + s * dt, z + s * dz, 0.3).detach() for s in (1, -1)]
        assert torch.allclose(slope[possible], ((ends[0] - ends[1]) / 2e-5)[possible], rtol=1e-3, atol=1e-4)


def test_weighed_replies_have_the_expectation_of_a_tree():
    """Replies of two tokens, drawn at one setting in the right proportions, weighed for another: J by hand."""
    p, q = [0.5, 0.3, 0.2], [0.1, 0.6, 0.3]
    replies = list(itertools.product(range(3), range(3)))
    n = [round(100 * p[a] * p[b]) for a, b in replies]
    rows = [(a, b) for (a, b), k in zip(replies, n, strict=True) for _ in range(k)]
    log_w = torch.tensor([math.log(q[a] * q[b]) - math.log(p[a] * p[b]) for a, b in rows])
    key = torch.tensor([a + 1 if b == 0 and a < 2 else 0 for a, b in rows])
    value, right, distinct, _ = objective(log_w, key, 0.5)
    mass = [q[0] * q[0], q[1] * q[0]]
    assert float(right) == pytest.approx(sum(mass), rel=1e-5)
    assert float(distinct) == pytest.approx(sum(1 - (1 - m) ** 16 for m in mass) / 16, rel=1e-5)
    assert float(value) == pytest.approx(sum(mass) + 0.5 * sum(1 - (1 - m) ** 16 for m in mass) / 16, rel=1e-5)


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

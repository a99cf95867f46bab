"""Replies weighed under other heads (train/replay.py, pressed.py) against whole distributions, draws and differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from autodeco_edge.gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED, HeadSpec
from autodeco_edge.train.constant_heads import learning
from autodeco_edge.train.modules import AutoDecoHeads, distribution_statistics
from autodeco_edge.train.pressed import Pressed
from autodeco_edge.train.replay import (
    MOST_WEIGHT,
    Climb,
    Replies,
    Weighed,
    climb,
    log_mixture,
    log_probability,
    numbered,
    objective,
    weights,
)
from autodeco_edge.train.sampling import sampling_probs

SIZES = (3, 40, 128, 4096)  # of the vocabulary: below, at and above the number of entries


def positions(n_vocab: int, m: int = 64):
    """(logits [m, V], token [m], T [m]): spread as a model's, from sure to unsure."""
    rng = torch.Generator().manual_seed(n_vocab)
    logits = torch.randn(m, n_vocab, generator=rng) * torch.linspace(2, 4, m)[:, None]
    token = torch.multinomial(torch.softmax(logits, -1), 1, generator=rng).squeeze(1)
    return logits, token, torch.linspace(0.3, 1.6, m)


def taken(probs: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    return probs.gather(1, token[:, None]).squeeze(1)


@pytest.mark.parametrize("n_vocab", SIZES)
def test_statistics_of_pressed_logits(n_vocab):
    """A bin is 0.4 nats wide: its tokens' logits are off by a fifth at most, which the entropy feels in the second order."""
    logits, token, t = positions(n_vocab)
    found, right = Pressed.of(logits, token).statistics(t, n_vocab), distribution_statistics(logits, t)
    assert torch.allclose(found[:, [0, 3]], right[:, [0, 3]], rtol=0.01, atol=1e-5)
    assert torch.allclose(found[:, 1], right[:, 1], rtol=0.01, atol=0.01)
    assert torch.allclose(found[:, 2], right[:, 2], rtol=0.02, atol=1e-6 / n_vocab)


@pytest.mark.parametrize("n_vocab", SIZES)
def test_probability_without_a_cut(n_vocab):
    logits, token, t = positions(n_vocab)
    pressed = Pressed.of(logits, token)
    right = taken(torch.log_softmax(logits / t[:, None], -1), token)
    assert torch.allclose(pressed.log_softmax(t), right, atol=0.02)
    assert torch.allclose(pressed.log_probability(t, torch.full_like(t, 40.0), 0.1), right, atol=0.02)


@pytest.mark.parametrize("n_vocab", SIZES)
def test_probability_is_the_mean_over_hard_nuclei(n_vocab):
    """Over 1,000 draws of the noise: the standard error of a probability is at most 0.5 / sqrt(1000) = 0.016."""
    logits, token, t = positions(n_vocab)
    rng = torch.Generator().manual_seed(1)
    z, sigma, n = torch.linspace(-1.5, 3.5, 64), 0.5, 1000
    found = Pressed.of(logits, token).log_probability(t, z, sigma).exp()
    p = torch.sigmoid(z[:, None] + sigma * torch.randn(64, n, generator=rng)).double()
    q, order = torch.softmax(logits.double() / t[:, None], -1).sort(-1, descending=True)
    mass, place = q.cumsum(-1), (order == token[:, None]).int().argmax(-1)[:, None]
    last = torch.searchsorted(mass, p).clamp(max=n_vocab - 1)  # of the nucleus for each P
    drawn = torch.where(place <= last, q.gather(1, place) / mass.gather(1, last), 0)
    here = sampling_probs(logits, t, p[:, 0])  # the specification, for one of the draws
    assert torch.allclose(drawn[:, 0], taken(here, token), atol=1e-6)
    # where the border of the nucleus falls into a bin, the bin is in or out as a whole
    assert torch.allclose(found.double(), drawn.mean(-1), atol=0.03)


def test_slopes_are_those_of_differences():
    logits, token, t = positions(4096)
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
    log_r = torch.tensor([math.log(q[a] * q[b]) - math.log(p[a] * p[b]) for a, b in rows])
    key = torch.tensor([a + 1 if b == 0 and a < 2 else 0 for a, b in rows])
    for among in (4, 16):
        value, right, distinct = objective(weights(log_r), key, 0.5, among)
        mass = [q[0] * q[0], q[1] * q[0]]
        gained = sum(1 - (1 - m) ** among for m in mass) / among
        assert float(right) == pytest.approx(sum(mass), rel=1e-5)
        assert float(distinct) == pytest.approx(gained, rel=1e-5)
        assert float(value) == pytest.approx(sum(mass) + 0.5 * gained, rel=1e-5)


def test_what_was_never_drawn_counts_as_wrong():
    """Heads that leave the drawn replies lose what they leave, whatever was right among them; a huge ratio has a finite slope."""
    key = torch.tensor([1, 0, 2, 0])
    before = objective(weights(torch.zeros(4)), key, 1.0)
    after = objective(weights(torch.tensor([-1.0, -9.0, -1.0, -9.0])), key, 1.0)
    assert float(before[1]) == 0.5 and float(after[0]) < float(before[0]) and float(after[1]) < 0.25
    log_r = torch.tensor([1000.0, 0.0, -1000.0, 0.0], requires_grad=True)
    w = weights(log_r)
    objective(w, key, 1.0)[0].backward()
    assert float(w[0].detach()) == pytest.approx(MOST_WEIGHT / 4) and bool(log_r.grad.isfinite().all())


# ---- heads of every kind -------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        HeadSpec(8, 16, FEATURES_ENHANCED, True, True),
        HeadSpec(8, 16, FEATURES_BASIC, True, True),
        HeadSpec(8, 16, (), True, False),
        HeadSpec(8, 16, FEATURES_ENHANCED, False, True),
    ],
    ids=("both", "basic", "T alone", "P alone"),
)
def test_values_are_those_of_the_heads(spec):
    """T and P as the module has them on the whole logits, and the chance of a token under a nearly hard nucleus."""
    heads = AutoDecoHeads(spec).reset_parameters(torch.Generator().manual_seed(2))
    logits, token, _ = positions(40)
    hidden = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found, t, p = log_probability(heads, hidden, Pressed.of(logits, token), 1e-3, 40)
        right_t, right_p = heads(hidden, logits)
    assert torch.allclose(t, right_t, atol=1e-6) and torch.allclose(p, right_p, atol=1e-3)
    right = taken(sampling_probs(logits, right_t, right_p), token)
    assert torch.isclose(found.exp().double(), right, atol=1e-2).float().mean() > 0.95  # but where a border falls on P


# ---- replies -------------------------------------------------------------------------------


def made_replies(n_problems: int = 6, n_vocab: int = 12) -> Replies:
    """Of one or two tokens, from random logits that follow the hidden state, drawn at 0.5 and at 1: right are even first tokens."""
    rng = torch.Generator().manual_seed(4)
    matrix = 1.5 * torch.randn(8, n_vocab, generator=rng)
    problem, key, by, reply, hidden, pressed = [], [], [], [], [], []
    for number, t in enumerate((0.5, 1.0)):
        for of in range(n_problems):
            states = torch.randn(2, 8, generator=torch.Generator().manual_seed(of))
            for _ in range(40):
                n = 1 + len(problem) % 2
                logits = states[:n] @ matrix
                token = torch.multinomial(torch.softmax(logits / t, -1), 1, generator=rng).squeeze(1)
                reply += [len(problem)] * n
                problem.append(of)
                by.append(number)
                key.append(str(int(token[0])) if token[0] % 2 == 0 else None)
                hidden.append(states[:n])
                pressed.append(Pressed.of(logits, token))
    columns = map(torch.tensor, (problem, by, reply))
    of, by, reply = columns
    return Replies.of(of, numbered(problem, key), by, reply, torch.cat(hidden), Pressed.joined(pressed)).by_problem()


def test_replies_in_the_order_of_their_problems():
    found = made_replies()
    assert found.problem.tolist() == sorted(found.problem.tolist())
    assert found.reply.tolist() == sorted(found.reply.tolist()) and found.reply[-1] == len(found.problem) - 1
    again = Replies.joined([found, found])
    assert len(again.problem) == 2 * len(found.problem) and again.reply[-1] == len(again.problem) - 1
    assert torch.equal(again.hidden[len(found.hidden) :], found.hidden)
    assert numbered([0, 0, 1, 0, 1], ["a", None, "b", "c", "b"]).tolist() == [1, 0, 1, 2, 1]
    assert found.hidden.dtype == torch.float16 and made_replies(1).pressed(slice(3)).values.dtype == torch.float32


def test_the_mixture_is_the_mean_of_the_chances():
    found = made_replies()
    by_hand = torch.zeros(2, len(found.problem))
    for i, t in enumerate((0.5, 1.0)):
        for row, reply in enumerate(found.reply.tolist()):
            values = found.values[row, : found.values.shape[1] - 64].float() / t
            by_hand[i, reply] += (found.token[row] / t) - torch.logsumexp(values, 0)
    assert torch.allclose(log_mixture(found, (0.5, 1.0)), by_hand.exp().mean(0).log(), atol=1e-3)


def test_steps_climb_and_are_the_seeds():
    """J on the replies rises above that of the start; the same seed gives the same heads."""
    found = made_replies()
    weighed = Weighed(found, log_mixture(found, (0.5, 1.0)), 12, 1.0, 4)

    def run(seed: int) -> tuple[list[float], AutoDecoHeads]:
        heads = learning(8, FEATURES_ENHANCED, 0.98, 0.9, 0)
        told = list(climb(heads, weighed, Climb(steps=15, problems=4, rate=1e-2), seed))
        with torch.no_grad():
            whole = weighed.objective(heads, range(6), 0.2)[0]
        return [float(whole) / 6, *(about["right"] for about in told)], heads

    start = float(weighed.objective(learning(8, FEATURES_ENHANCED, 0.98, 0.9, 0), range(6), 0.2)[0].detach()) / 6
    (first, heads), (again, _), (other, _) = run(1), run(1), run(2)
    assert first[0] > start + 0.03 and first == again and first != other
    assert all(p.isfinite().all() for p in heads.parameters())


def test_a_problem_without_a_right_reply_teaches_nothing():
    found = made_replies(2)
    found.key = torch.where(found.problem == 0, 0, found.key)
    weighed = Weighed(found, log_mixture(found, (0.5, 1.0)), 12, 1.0)
    heads = learning(8, FEATURES_ENHANCED, 0.8, 0.9, 0)
    weighed.objective(heads, [0], 0.3)[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in heads.parameters())


def test_the_rate_falls_and_the_nucleus_hardens():
    of = Climb(steps=11, rate=1.0, sigma=(0.8, 0.2))
    assert of.at(0) == (1.0, 0.8) and of.at(5) == (1.0, pytest.approx(0.4)) and of.at(10) == (0.05, pytest.approx(0.2))


def test_weights_of_a_problem_sum_to_one_at_most():
    """Piling up on what was drawn earns nothing: nine times as likely counts as what it is among them."""
    high, low = torch.full((4,), 2.2), torch.full((4,), -1.0)
    assert float(weights(high, at_most_one=True).sum()) == pytest.approx(1.0) and float(weights(high).sum()) > 9
    assert torch.equal(weights(low, at_most_one=True), weights(low))

"""Rejection sampling keeps the law of replies: a million replies a configuration, chi-square over their first three tokens.

The target is AutoDeco's: softmax(l / T) cut at P, with a T and a P of its own behind every token. The same test rejects rules
that look alike.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from autodeco_edge.spec import sampling, speculative

N_REPLIES, N_TOKENS = 1_000_000, 3
P_LEAST = 1e-4

# vocabulary, tokens of a draft, factor on T and on P of the draft, how far its logits are from the target's
CONFIGURATIONS = [
    (4, 1, 1.0, 1.0, 0.0),  # the draft is the target
    (5, 1, 1.0, 1.0, 0.5),
    (5, 2, 1.0, 1.0, 1.0),
    (7, 3, 0.5, 1.0, 0.5),
    (5, 4, 2.0, 1.0, 0.5),
    (6, 2, 1.0, 0.6, 0.5),  # the draft cuts more than the target
    (6, 3, 1.5, 1.5, 1.0),  # and less
    (6, 1, 0.3, 1.0, 3.0),  # confident and wrong
    (4, 4, 1.0, 0.3, 2.0),
    (5, 2, 0.1, 1.0, 0.2),  # nearly greedy
    (6, 4, 3.0, 2.0, 0.0),  # nearly flat
    (3, 5, 1.0, 1.0, 1.5),
]


def chain(rng: np.random.Generator, config) -> tuple[np.ndarray, np.ndarray]:
    """(target, draft), each [V, V]: what follows each token."""
    n_vocab, _, t_factor, p_factor, distance = config
    logits = rng.standard_normal((n_vocab, n_vocab)) * 1.5
    other = logits + distance * rng.standard_normal((n_vocab, n_vocab))
    temps, top_ps = rng.uniform(0.6, 1.6, n_vocab), rng.uniform(0.8, 1.0, n_vocab)

    def rows(values: np.ndarray, t: float, p: float) -> np.ndarray:
        return np.stack(
            [sampling.draw(values[i], temps[i] * t, min(top_ps[i] * p, 1.0), 0.0).probs for i in range(n_vocab)]
        )

    return rows(logits, 1.0, 1.0), rows(other, t_factor, p_factor)


def replies(rng: np.random.Generator, target: np.ndarray, draft: np.ndarray, k: int, n: int) -> np.ndarray:
    """int [n, N_TOKENS]: replies that begin behind token 0, drawn draft by draft."""
    out = np.zeros((n, N_TOKENS + k + 1), dtype=np.int64)
    length, last = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    while (unfinished := np.flatnonzero(length < N_TOKENS)).size:
        context = [last[unfinished]]
        for _ in range(k):
            context.append(speculative.draw(draft[context[-1]], rng.random(unfinished.size)))
        rows, tokens = np.stack(context, 1), np.stack(context[1:], 1)
        u_accept, u_draw = rng.random(tokens.shape), rng.random(rows.shape)
        drawn, count = speculative.verify(target[rows], draft[rows[:, :-1]], tokens, u_accept, u_draw)
        for j in range(k + 1):
            some = unfinished[j < count]
            out[some, length[some] + j] = drawn[j < count, j]
        length[unfinished] += count
        last[unfinished] = np.take_along_axis(drawn, count[:, None] - 1, 1)[:, 0]
    return out[:, :N_TOKENS]


def p_value(seed: int, config) -> float:
    """0 where a reply came that cannot be."""
    rng = np.random.default_rng(seed)
    target, draft = chain(rng, config)
    n_vocab, k = config[:2]
    counts = np.zeros((n_vocab,) * N_TOKENS)
    for _ in range(10):
        drawn = replies(rng, target, draft, k, N_REPLIES // 10)
        np.add.at(counts, tuple(drawn.T), 1)
    exact = np.einsum("a,ab,bc->abc", target[0], target, target) * N_REPLIES
    if counts[exact == 0].any():
        return 0.0
    likely = exact >= 5  # rarer ones are counted together
    got, want = (np.append(x[likely], x[~likely].sum()) for x in (counts, exact))
    got, want = got[want > 0], want[want > 0]
    assert len(got) > 9, "too few replies are possible to tell a law from another"
    return float(stats.chisquare(got, want * got.sum() / want.sum()).pvalue)


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_a_million_replies_have_the_law_of_plain_decoding(number):
    assert p_value(40 + number, CONFIGURATIONS[number]) > P_LEAST


def _draw_from_target(monkeypatch):
    """What is drawn in place of a refused token ignores that it was refused."""
    monkeypatch.setattr(speculative, "residual", lambda p, q: p)


def _forget_the_draft(monkeypatch):
    """Keep with the target's own probability: right for a draft that is certain of its token, wrong for one that is not."""
    monkeypatch.setattr(speculative, "acceptance", lambda p, q: p)


def _keep_too_much(monkeypatch):
    """As if the draft's cut were the target's: keep where the target is not much less sure."""
    monkeypatch.setattr(speculative, "acceptance", lambda p, q: np.minimum(1.0, 1.05 * p / q))


@pytest.mark.parametrize("rule", [_draw_from_target, _forget_the_draft, _keep_too_much])
def test_rules_that_look_alike_are_rejected(monkeypatch, rule):
    rule(monkeypatch)
    assert p_value(42, CONFIGURATIONS[2]) < 1e-12


def test_one_draft_by_hand():
    """p = (0.5, 0.5, 0), q = (0.2, 0, 0.8): token 2 is never kept, and token 1 comes in its place more often than 0."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.0, 0.8])
    assert speculative.residual(p, q) == pytest.approx([0.375, 0.625, 0.0])
    target = np.stack([p, np.array([0.0, 0.0, 1.0])])
    one = speculative.verify(target, q[None], np.array([0]), np.array([0.999]), np.array([0.0, 0.5]))
    assert one[0].tolist() == [0, 2] and one[1] == 2
    refused = speculative.verify(target, q[None], np.array([2]), np.array([0.0]), np.array([0.374, 0.5]))
    assert refused[0][0] == 0 and refused[1] == 1
    refused = speculative.verify(target, q[None], np.array([2]), np.array([0.0]), np.array([0.376, 0.5]))
    assert refused[0][0] == 1 and refused[1] == 1


def test_numbers_of_different_purposes_are_independent():
    n = 20_000
    streams = [[sampling.uniform(7, i, stream) for i in range(n)] for stream in (0, 1, 2)]
    for one, other in pairwise([*streams, streams[0]]):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / n**0.5
    assert sampling.uniform(7, 3) == sampling.uniform(7, 3, speculative.DRAW)

"""Rejection sampling for drafts that are drawn: the executable specification.

Owns the rule that keeps the law of replies where a draft is not a function of the reply so far. Does not know heads:
distributions come in as they are drawn from, T* and P* applied. Drafts of the engine need no such rule (docs/speculative.md).

    keep the drafted token d with probability min(1, p(d) / q(d))
    else draw from max(p - q, 0), made to sum to 1
    behind a draft that is kept to its end, draw from p

Leviathan et al., "Fast inference from transformers via speculative decoding", ICML 2023.
"""

from __future__ import annotations

import numpy as np

DRAW, DRAFT, ACCEPT = 0, 1, 2  # streams of ``sampling.uniform``: each purpose has numbers of its own


def acceptance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Probability [...] to keep a token of probabilities p and q [...], q > 0."""
    return np.minimum(1.0, p / q)


def residual(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """What is drawn from where a token of q is refused: [..., V] of p and q [..., V]. Where nothing is left, p itself: then p
    equals q, and nothing is refused but by rounding."""
    rest = np.maximum(p - q, 0.0)
    mass = rest.sum(-1, keepdims=True)
    return np.where(mass > 0, rest / np.where(mass > 0, mass, 1.0), p)


def draw(probs: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Token [...] of probs [..., V] for u [...] in [0, 1): in ascending order of ids, as in sampling.py. Never one of probability 0."""
    mass = np.cumsum(probs, -1)
    last = probs.shape[-1] - 1 - np.argmax(probs[..., ::-1] > 0, -1)
    return np.minimum((mass <= u[..., None] * mass[..., -1:]).sum(-1), last)


def verify(
    target: np.ndarray, draft: np.ndarray, tokens: np.ndarray, u_accept: np.ndarray, u_draw: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of a draft of k tokens: (tokens int [..., k + 1], how many of them count int [...]: those that were kept and one more).

    target    float64 [..., k + 1, V]: row j behind the first j tokens of the draft
    draft     float64 [..., k, V]: what tokens int [..., k] were drawn from
    u_accept  float64 [..., k] and u_draw [..., k + 1] in [0, 1), independent of one another and of the draft
    """
    k = tokens.shape[-1]
    at = tokens[..., None]
    p, q = (np.take_along_axis(x, at, -1)[..., 0] for x in (target[..., :k, :], draft))
    kept = np.logical_and.accumulate(u_accept < acceptance(p, q), -1)
    n_kept = kept.sum(-1)
    refused = residual(target[..., :k, :], draft)
    probs = np.concatenate((refused, target[..., k:, :]), -2)
    instead = draw(probs, u_draw)
    rows = np.arange(k + 1)
    padded = np.concatenate((tokens, np.zeros_like(tokens[..., :1])), -1)
    return np.where(rows < n_kept[..., None], padded, instead), n_kept + 1

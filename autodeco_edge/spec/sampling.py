"""The nucleus and the draw in numpy: the executable specification of sampling.

Owns the top-p rule, the counter-based random number and the draw. Does not know the
heads: T* and P* (after the user's own parameters) come in as numbers.

    w_i   = exp((l_i - max l) / T*)
    keep i iff it is the first in (w descending, id ascending), or the mass strictly
    before it is < P* x total: the crossing token is kept           equations 5
    token = first kept id, in ascending id, whose running mass exceeds u x kept mass
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .heads import sanitize

MIN_TEMP = 1e-5  # T* below this is argmax (equations 5)

_PHILOX_M = (0xD2511F53, 0xCD9E8D57)
_PHILOX_W = (0x9E3779B9, 0xBB67AE85)
_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Draw:
    """token  id drawn;  kept  bool [n_vocab], the nucleus;  probs  float64 [n_vocab], what it was drawn from."""

    token: int
    kept: np.ndarray
    probs: np.ndarray


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = _PHILOX_M[0] * c0
        p1 = _PHILOX_M[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK32
        k0 = (k0 + _PHILOX_W[0]) & _MASK32
        k1 = (k1 + _PHILOX_W[1]) & _MASK32
    return c0, c1, c2, c3


def uniform(seed: int, index: int, stream: int = 0) -> float:
    """u in [0, 1) with 53 bits: a pure function of the 64-bit seed and the token index.

    index = tokens accepted so far + output row, which makes speculative and plain
    decoding agree token for token and a session restorable. stream: 0 draws tokens; others are independent of it.
    """
    counter = (index & _MASK32, (index >> 32) & _MASK32, stream, 0)
    x0, x1, _, _ = philox(counter, (seed & _MASK32, (seed >> 32) & _MASK32))
    return ((x0 << 21) | (x1 >> 11)) * 2.0**-53


def effective(
    temp: float | None,
    top_p: float | None,
    user_temp: float,
    user_top_p: float,
    temp_range: tuple[float, float] = (0.0, math.inf),
    top_p_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """T* = T x user_temp (0 = greedy), P* = clamp(P x user_top_p, 0, 1), a head that is off counts as 1 (equations 4);
    then both within the user's (low, high), which the official runtime does not have. Greedy stays greedy."""
    t = (1.0 if temp is None else temp) * user_temp
    p = (1.0 if top_p is None else top_p) * user_top_p
    t = 0.0 if user_temp == 0.0 else min(max(t, temp_range[0]), temp_range[1])
    return t, min(max(p, top_p_range[0]), top_p_range[1])


def nucleus(weights: np.ndarray, top_p: float, key: np.ndarray | None = None) -> np.ndarray:
    """Kept set, bool [n_vocab], of non-negative weights [n_vocab]; ties go to the lower id.

    key  what decides the order, [n_vocab]: logits that differ may round to equal weights. None = the weights.
    """
    order = np.lexsort((np.arange(weights.size), -(weights if key is None else key)))
    before = np.concatenate(([0.0], np.cumsum(weights[order])[:-1]))
    keep = (before < top_p * weights.sum()) & (weights[order] > 0)
    if top_p >= 1.0:
        keep = weights[order] > 0
    keep[0] = True
    kept = np.zeros(weights.size, dtype=bool)
    kept[order[keep]] = True
    return kept


def draw(logits: np.ndarray, temp_eff: float, top_p_eff: float, u: float) -> Draw:
    """Draw one token from [n_vocab] logits (after any mask or penalty), u in [0, 1)."""
    clean = sanitize(logits)
    if not temp_eff >= MIN_TEMP:
        weights = np.zeros(clean.size)
        weights[int(clean.argmax())] = 1.0
    else:
        weights = np.exp((clean - clean.max()) / temp_eff)
    kept = nucleus(weights, top_p_eff, clean)
    mass = np.cumsum(np.where(kept, weights, 0.0))
    token = int(np.searchsorted(mass, u * mass[-1], side="right"))
    token = min(token, int(np.flatnonzero(kept)[-1]))
    return Draw(token=token, kept=kept, probs=np.where(kept, weights, 0.0) / mass[-1])

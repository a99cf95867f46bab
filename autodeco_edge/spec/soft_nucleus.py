"""The soft nucleus in numpy: the executable specification of the distribution that heads are trained on.

Owns r and its constants (equations 8, paper section 3.2). A hard nucleus has no slope in P; here a token beyond it has
a probability that falls off steeply instead of none. Does not know losses, heads or torch; its batched form, with
gradients, is autodeco_edge/train/losses.py.

    q = softmax(l / T'),  c = cumulative sum of q in falling order, inclusive
    m = exp(-30 relu(c - P)),  r = q m / (sum q m + 1e-9)
"""

from __future__ import annotations

import numpy as np

from .heads import softmax

STEEPNESS = 30.0
EPSILON = 1e-9  # in the normaliser, and in the logarithm of r
MIN_TEMPERATURE = 1e-8  # T' = max(T, 1e-8)


def soft_nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """r [n_vocab] float64 of raw logits [n_vocab]; ties go to the lower id. It sums up to a little less than 1."""
    q = softmax(logits.astype(np.float64) / max(temperature, MIN_TEMPERATURE))
    order = np.argsort(-logits, kind="stable")
    soft = np.exp(-STEEPNESS * np.maximum(np.cumsum(q[order]) - top_p, 0.0))
    r = np.empty_like(q)
    r[order] = q[order] * soft / (float(q[order] @ soft) + EPSILON)
    return r

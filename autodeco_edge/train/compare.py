"""The plain and the fast losses over numpy arrays, for ``autodeco-edge bench loss``.

Owns nothing but the way from arrays to tensors and back, so that torch stays in this package.
"""

from __future__ import annotations

import numpy as np
import torch

from .fast_losses import by_autograd, by_rows

FORMS = {"plain": by_autograd, "fast": by_rows}


def evaluate(
    form: str, logits: np.ndarray, temperature: np.ndarray, top_p: np.ndarray, labels: np.ndarray, nemo: bool = False
) -> np.ndarray:
    """[5, M]: temperature loss, top-p loss and their slopes (fast.by_autograd), in the dtype of the floats.

    logits [M, V], temperature, top_p [M] float32 or float64, labels [M] int64.
    """
    arrays = (torch.from_numpy(x) for x in (logits, temperature, top_p, labels))
    return np.stack([x.numpy() for x in FORMS[form](*arrays, "nemo" if nemo else "hf")])


def set_threads(n_threads: int) -> None:
    """Of torch's operations: those of the plain form."""
    torch.set_num_threads(n_threads)

"""A reply that is given: the filter that leaves one token at each step, so that a text is weighed as if it were drawn.

Owns the place in the text. The mask is applied in C, in the sampler chain (as a grammar's, mask.py); what a Step reports of
the logits is from before it. Knows no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .mask import append_mask
from .model import check_id


class ForcedTokens:
    """A filter for ``Sampler`` (a Guide): the reply's first tokens are ``ids``, what follows is free.

    Belongs to one chain. Raises UsageError for an id that is no token of the vocabulary.
    """

    def __init__(self, ids: Sequence[int], n_vocab: int) -> None:
        self._ids = [check_id(token, n_vocab) for token in ids]
        self._at = 0
        self._words = np.zeros((n_vocab + 31) // 32, dtype=np.uint32)  # borrowed by the chain

    def __call__(self, chain: Any) -> None:
        """Append to a llama_sampler chain, which must not outlive this object."""
        append_mask(chain, self._words)

    def prepare(self) -> None:
        """Before a draw."""
        if self._at >= len(self._ids):
            self._words[:] = 0xFFFFFFFF
            return
        word, bit = divmod(self._ids[self._at], 32)
        self._words[:] = 0
        self._words[word] = 1 << bit

    def accept(self, token: int) -> None:
        """After it."""
        self._at += 1

    def reset(self) -> None:
        """A reply begins."""
        self._at = 0

    def rollback(self, n: int) -> None:
        """Forget the last n tokens accepted."""
        self._at -= n

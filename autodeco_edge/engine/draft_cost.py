"""What the rows of a batch cost: the price that a draft has to be worth.

Owns the table of times by number of rows, and the stake of a reply: what its drafts may lose. Knows neither where drafts come
from nor how the times are measured (row_times.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

# Rows of a batch that a reply with a draft has. Few, so that llama.cpp's graph serves again; its kernels take rows by four.
SHAPES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 63)


class Costs:
    """Times of a batch by its rows, in times of one row: as measured, straight lines between and behind."""

    def __init__(self, known: Mapping[int, float]) -> None:
        """known: {1: 1.0, n: time of n rows, ...}, at least two."""
        self._points = sorted(known.items())
        self._found: dict[int, float] = {}

    @classmethod
    def linear(cls, share: float) -> Costs:
        """Each further row takes the same share of the first, and half of it a graph of another shape."""
        return cls({1: 1.0, **{n: 1.0 + share * (n - 0.5) for n in SHAPES[1:]}})

    def of(self, n_rows: int) -> float:
        if n_rows not in self._found:
            self._found[n_rows] = self._between(n_rows)
        return self._found[n_rows]

    def _between(self, n_rows: int) -> float:
        pairs = list(pairwise(self._points))
        (a, low), (b, high) = next((pair for pair in pairs if n_rows <= pair[1][0]), pairs[-1])
        return low + (high - low) * (n_rows - a) / (b - a)

    def of_draft(self, n_draft: int, n_beside: int) -> float:
        """So many rows more in a batch with n_beside rows of others, in times that a token takes without them."""
        base = self.of(n_beside + 1)
        return (self.of(n_beside + 1 + n_draft) - base) * (n_beside + 1) / base

    @property
    def per_row(self) -> float:
        """Of a further row among the first eight."""
        return (self.of(8) - 1.0) / 7

    def as_dict(self) -> dict[int, float]:
        return dict(self._points)


USUAL = Costs.linear(0.5)


class Stake:
    """What the drafts of one reply may lose, in times of one row: a little at first, and whatever they have won.

    However a reply goes, its drafts cost no more than FIRST rows' time and SHARE of it.
    """

    FIRST, SHARE = 2.0, 0.005

    def __init__(self) -> None:
        self.left = self.FIRST

    def settle(self, paid: float, n_tokens: int) -> None:
        """n_tokens came of a batch, and its draft had cost so much."""
        self.left += (1.0 + self.SHARE) * n_tokens - 1.0 - paid

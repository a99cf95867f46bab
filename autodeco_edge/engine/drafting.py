"""Drafts in the batches of an engine: which rows they get, and what becomes of them.

Owns how many rows a draft may take. Guesses nothing (that is a kind of drafts) and judges nothing (that is a strategy).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .context import Context
from .drafts import Drafts
from .drawing import Drawing
from .generation import Request
from .row_times import measure
from .slots import Piece


class Drafting:
    """For the slots of one engine; with no drafts it leaves the batches as they are.

    n_max  tokens of a draft at most
    """

    def __init__(self, drafts: Drafts | None, n_max: int) -> None:
        self._drafts, self._n_max = drafts, n_max

    def prepare(self, context: Context) -> None:
        """Measure what rows cost, where these drafts want to know: about a second."""
        if self._drafts and self._drafts.to_measure:
            self._drafts.costs = measure(context, min(self._n_max + 1, context.params.n_batch))

    def begin(self, sequence: int, request: Request) -> None:
        if self._drafts:
            self._drafts.begin(sequence, request)

    def behind(self, pieces: list[Piece], n_rows: int) -> list[Piece]:
        """The pieces of a batch of at most n_rows, drafts behind their decode steps: as many rows as the prompts leave."""
        if not self._drafts:
            return pieces
        n_used = sum(piece.n for piece in pieces)
        self._drafts.n_beside = n_used - 1
        n_free, drafted = n_rows - n_used, []
        for piece in pieces:
            draft = self._draft(self._drafts, piece, n_free)
            n_free -= len(draft)
            drafted.append(replace(piece, draft=draft) if draft else piece)
        return drafted

    def _draft(self, drafts: Drafts, piece: Piece, n_free: int) -> tuple[int, ...]:
        """The row behind the last token of a draft is drawn too, so that a draft is shorter than what is left to draw."""
        work = piece.slot.work
        if not work or not piece.draws or piece.slot.is_reading:
            return ()
        n_max = min(self._n_max, n_free, work.limit - work.n_drawn - 1)
        if n_max < 1:
            return ()
        start = time.perf_counter()
        draft = drafts.propose(piece.slot.sequence, piece.slot.target, n_max)[:n_max]
        work.timings.predicted_s += time.perf_counter() - start
        return tuple(draft)

    def drawn_from(self, piece: Piece) -> Sequence[np.ndarray]:
        """What the tokens of its draft were drawn from: float64 [V] each; () where they were not."""
        return self._drafts.drawn_from(piece.slot.sequence) if self._drafts and piece.draft else ()

    def learn(self, drawing: Drawing) -> None:
        if self._drafts and drawing.steps:
            self._drafts.learn(drawing.slot.sequence, drawing.draft, drawing.steps)

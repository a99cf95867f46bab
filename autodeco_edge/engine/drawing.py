"""What is drawn of a slot in one batch: one token, or a draft as far as it was right and one more.

Owns which row comes next and whether it counts. Draws nothing itself: that is a strategy's, and the loop is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .context import Context
from .generation import Work
from .sampler import Step
from .slots import Slot
from .strategies import Guess, Output


@dataclass
class Drawing:
    """
    row    in the batch, of its first output; one more for every token of the draft
    draft  tokens that were computed behind it
    drawn  what each of them was drawn from, if it was
    steps  drawn so far
    """

    slot: Slot
    work: Work
    row: int
    draft: tuple[int, ...] = ()
    drawn: Sequence[np.ndarray] = ()
    steps: list[Step] = field(default_factory=list)

    def output(self) -> Output:
        n = len(self.steps)
        guess = Guess(self.draft[n], self.drawn[n]) if n < len(self.draft) and n < len(self.drawn) else None
        return Output(self.slot.sequence, self.work.request, self.work.n_drawn, self.row + n, guess)

    @property
    def is_guessed(self) -> bool:
        """Whether the draft has the last token, too."""
        n = len(self.steps)
        return 0 < n <= len(self.draft) and self.steps[-1].id == self.draft[n - 1]

    @property
    def goes_on(self) -> bool:
        """The next row continues what was drawn."""
        return not self.work.ended and self.is_guessed

    def forget_rest(self, context: Context) -> None:
        """Cells of what was drafted and not drawn."""
        n_rest = len(self.draft) - max(len(self.steps) - 1, 0)
        if n_rest > 0:
            self.slot.cut(context, len(self.slot.tokens) - n_rest)

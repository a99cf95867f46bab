"""A prompt that several replies share, computed once.

Owns the sequence that computes it and keeps it, and hands its cells to the slots that wait for them. Decodes nothing: its
slot is fed like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from .context import Context
from .slots import Slot


class SharedPrompt:
    """``slot`` is of a sequence that no reply is drawn in."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot

    def prepare(self, context: Context, prefix: tuple[int, ...], slots: Sequence[Slot]) -> bool:
        """Whether these tokens are there, or being computed; False while somebody waits for others."""
        if tuple(self.slot.target) == prefix:
            return True
        if waiting(slots):
            return False
        self.slot.cut(context, 0)
        self.slot.target = list(prefix)
        return True

    def hand_out(self, context: Context, slots: Sequence[Slot]) -> None:
        """Cells for those who wait for them, once all are computed."""
        if self.slot.n_missing:
            return
        for slot in waiting(slots):
            if self.slot.tokens:
                context.copy(self.slot.sequence, slot.sequence)
            slot.tokens, slot.waiting = list(self.slot.tokens), False

    def fail(self, slots: Sequence[Slot], error: BaseException) -> None:
        """Those who wait for it end with the error."""
        for slot in waiting(slots):
            slot.end("error", error)
        self.slot.target = self.slot.tokens


def waiting(slots: Sequence[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.waiting]

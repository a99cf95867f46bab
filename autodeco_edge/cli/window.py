"""Which messages of a conversation the model still sees when its context cannot hold them all.

Owns the choice: the system message stays, the oldest turns go, down to half the context at once, so that the next
turns find room and the cells that are computed already. Knows neither templates nor the engine: it is told how many
tokens a list of messages has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

Message = dict[str, str]


class Window:
    """``n_left_out``: messages that the last prompt did without."""

    def __init__(self, n_left_out: int = 0) -> None:
        self.n_left_out = n_left_out

    def seen(self, messages: list[Message]) -> list[Message]:
        """What the last prompt was made of, and what came after it."""
        system, turns = _parts(messages)
        return system + turns[self.n_left_out :]

    def fit(
        self, messages: list[Message], size: Callable[[list[Message]], int], n_ctx: int, room: int
    ) -> list[Message]:
        """The messages to make a prompt of, with ``room`` tokens of ``n_ctx`` left for the reply where that can be."""
        system, turns = _parts(messages)
        self.n_left_out = min(self.n_left_out, _last_question(turns))
        if size(system + turns[self.n_left_out :]) + room > n_ctx:
            starts = [i for i, m in enumerate(turns) if m["role"] == "user" and i > self.n_left_out]
            if starts:
                k = bisect_left(starts, True, key=lambda i: size(system + turns[i:]) + room <= max(n_ctx // 2, room))
                self.n_left_out = starts[min(k, len(starts) - 1)]
        return system + turns[self.n_left_out :]


def _parts(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """(system message, turns)"""
    return [m for m in messages if m["role"] == "system"], [m for m in messages if m["role"] != "system"]


def _last_question(turns: list[Message]) -> int:
    """Where the last turn begins: it never goes."""
    return next((i for i in reversed(range(len(turns))) if turns[i]["role"] == "user"), 0)

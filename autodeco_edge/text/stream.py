"""A reply's text between the tokens and the screen: stop strings and thinking blocks.

Owns what has to be held back because it may turn out to be a stop string or a tag. Text comes in as it
becomes readable, each piece with the thing it belongs to (a token's record); it goes out in the same
order, cut where needed, every part still with its own thing. Knows neither tokens nor terminals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

Piece = tuple[str, Any]


class Pieces:
    """A queue of pieces that can be taken by the character."""

    def __init__(self) -> None:
        self._queue: deque[Piece] = deque()
        self.text = ""

    def push(self, text: str, owner: Any) -> None:
        if text:
            self._queue.append((text, owner))
            self.text += text

    def take(self, n: int) -> list[Piece]:
        """The first n characters."""
        self.text = self.text[n:]
        taken = []
        while n > 0:
            text, owner = self._queue.popleft()
            if len(text) > n:
                self._queue.appendleft((text[n:], owner))
                text = text[:n]
            taken.append((text, owner))
            n -= len(text)
        return taken


def _held(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that a mark begins with."""
    longest = max((len(m) for m in marks), default=1) - 1
    for n in range(min(longest, len(text)), 0, -1):
        if any(m.startswith(text[-n:]) for m in marks):
            return n
    return 0


class StopStrings:
    """Ends a reply before the first stop string, however the tokens split it; ``found`` is then set."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._pieces = Pieces()
        self.found: str | None = None

    def feed(self, text: str, owner: Any = None) -> list[Piece]:
        """What is safe to show now; nothing any more once a stop string was found."""
        if self.found is not None:
            return []
        self._pieces.push(text, owner)
        hits = [(at, stop) for stop in self._stops if (at := self._pieces.text.find(stop)) >= 0]
        if hits:
            at, self.found = min(hits)
            return self._pieces.take(at)
        return self._pieces.take(len(self._pieces.text) - _held(self._pieces.text, self._stops))

    def finish(self) -> list[Piece]:
        """What was held back and is no stop string after all."""
        return [] if self.found is not None else self._pieces.take(len(self._pieces.text))


class Thinking:
    """Tells the text of a thinking block from the answer; the tags belong to the block.

    open_already  the prompt ended inside a block, as some templates make it
    """

    def __init__(self, open_already: bool = False) -> None:
        self._inside = open_already
        self._pieces = Pieces()

    def feed(self, text: str, owner: Any = None) -> list[tuple[str, Any, bool]]:
        """(text, owner, whether it is thought)."""
        self._pieces.push(text, owner)
        out = []
        while True:
            tag = THINK_CLOSE if self._inside else THINK_OPEN
            at = self._pieces.text.find(tag)
            if at < 0:
                free = len(self._pieces.text) - _held(self._pieces.text, [tag])
                return out + self._marked(free, self._inside)
            if self._inside:
                out += self._marked(at + len(tag), True)
            else:
                out += self._marked(at, False) + self._marked(len(tag), True)
            self._inside = not self._inside

    def finish(self) -> list[tuple[str, Any, bool]]:
        return self._marked(len(self._pieces.text), self._inside)

    def _marked(self, n: int, thought: bool) -> list[tuple[str, Any, bool]]:
        return [(text, owner, thought) for text, owner in self._pieces.take(n)]

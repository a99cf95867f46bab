"""The text of one reply as its tokens come: bytes to characters, and nothing of a stop string.

Owns the order of the two, which everybody who shows a reply needs. What of it is thought comes after (reasoning.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .streaming import Piece, StopStrings
from .trace import TextStream


class ReplyText:
    """stops: the reply ends before the first of them."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder, self._stops = TextStream(), StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come: draw no more."""
        return self._stops.found is not None

    @property
    def holds(self) -> bool:
        """Whether some text is held back that may become a stop string."""
        return self._stops.holds

    def feed(self, data: bytes, owner: Any = None) -> list[Piece]:
        """What is safe to show now that a token of these bytes came, in pieces, each with the owner of its token."""
        return self._stops.feed(self._decoder.feed(data), owner)

    def finish(self, owner: Any = None) -> list[Piece]:
        """What was held back and is the reply's after all; ``owner`` of the last token."""
        return self._stops.feed(self._decoder.finish(), owner) + self._stops.finish()

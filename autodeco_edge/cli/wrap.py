"""Lines broken between words, while the words are still coming.

Owns where the cursor stands and the word that is being written: one that grows past the edge is taken back and written
again on the next line, so that nothing waits for its end. Code between ``` fences is left as it is. Knows no tokens and
no colours: a piece of text comes with the function that dresses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from wcwidth import wcwidth

_PIECES = re.compile(r"\n|\t|[^\S\n\t]+|[^\s\u1100-\uffff\U00010000-\U0010ffff]+|.", re.DOTALL)
_FENCE = "```"
_TAB = 8
_VARIATION = "\ufe0f"  # makes the sign before it a picture, which some terminals then draw twice as wide
_JOINED = re.compile(r"[\u200d\ufe0f\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff]")  # of pictures of several signs


class Wrap:
    """columns: asked for each piece, for a window may change."""

    def __init__(self, columns: Callable[[], int]) -> None:
        self._columns = columns
        self._at = 0  # cells written of the line
        self._word: list[str] = []  # what stands of the last word, dressed
        self._width = 0  # its cells
        self._line = ""  # the beginning of the line, as far as it matters
        self._fenced = False

    def feed(self, text: str, dress: Callable[[str], str] = str) -> str:
        """What to write for the next piece of text."""
        return "".join(self._one(piece, dress) for piece in _PIECES.findall(text))

    def _one(self, piece: str, dress: Callable[[str], str]) -> str:
        if piece == "\n":
            self._fenced ^= self._line.lstrip().startswith(_FENCE)
            self._line = ""
            return self._break()
        self._line = (self._line + piece)[:80]
        cells = _TAB - self._at % _TAB if piece == "\t" else _cells(piece)
        if piece.isspace():
            return self._blank(dress(piece), cells)
        if cells > 1 and len(piece) == 1:
            self._end_word()  # a wide character may stand anywhere in a line
        out = self._part(dress(piece), cells)
        if _JOINED.match(piece):  # terminals disagree on its cells: never go back over it
            self._end_word()
        return out

    def _blank(self, dressed: str, cells: int) -> str:
        self._end_word()
        if not self._fits(cells):
            return self._break()  # the line ends in its place
        self._at += cells
        return dressed

    def _part(self, dressed: str, cells: int) -> str:
        taken_back = ""
        if not self._fits(cells) and self._width < self._at and self._width + cells < self._columns():
            back = f"\x1b[{self._width}D\x1b[K" if self._width else ""
            word, width = self._word, self._width
            taken_back = back + self._break() + "".join(word)
            self._word, self._width, self._at = word, width, width
        self._word.append(dressed)
        self._width += cells
        self._at += cells
        if self._at >= self._columns():  # longer than a line: the terminal breaks it
            self._at %= self._columns()
            self._end_word()
        return taken_back + dressed

    def _fits(self, cells: int) -> bool:
        """The last column stays free: a cursor that has filled it stands nowhere."""
        return self._fenced or self._at + cells < self._columns()

    def _break(self) -> str:
        self._end_word()
        self._at = 0
        return "\n"

    def _end_word(self) -> None:
        self._word, self._width = [], 0


def _cells(text: str) -> int:
    """At most so many, where terminals disagree: a line that is broken a little early is still whole."""
    return sum(1 if c == _VARIATION else max(wcwidth(c), 0) for c in text)

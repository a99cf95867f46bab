"""How a reply's text appears on stdout: plain in a pipe, tinted and safe on a terminal.

Owns escape codes and what of a reply is left out (`--hide-thinking`). What a model writes is foreign text:
on a terminal its control characters are shown, not obeyed.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from typing import Any

from ..io.printing import safe_text, shows_unicode
from ..text.colours import glyphs, share
from . import colour
from .wrap import Wrap


class Screen:
    """One reply: ``show`` its pieces, then ``end``."""

    def __init__(self, color_by: str, hide_thinking: bool) -> None:
        self._terminal = sys.stdout.isatty()
        self._codes = colour.allowed(sys.stdout)
        self._by = color_by
        self._hide = hide_thinking
        self._wrap = Wrap(_columns) if self._terminal and os.environ.get("TERM", "dumb") != "dumb" else None
        self._fresh = True  # nothing of the answer is out yet: a hidden block leaves no blank lines behind

    def show(self, pieces: list[tuple[str, dict[str, Any] | None, bool]]) -> None:
        """(text, record of its token, whether it is thought)."""
        out = "".join(self._one(*piece) for piece in pieces)
        if out:
            write(out)

    def _one(self, text: str, record: dict[str, Any] | None, thought: bool) -> str:
        if self._hide:
            text = "" if thought else text.lstrip() if self._fresh else text
        self._fresh = self._fresh and not text
        if self._terminal:
            text = safe_text(text)
        x = share(self._by, record) if self._codes and self._by != "off" and record else None
        if x is not None and shows_unicode(sys.stdout):
            text = glyphs(text)
        dress = partial(colour.tint, x=x) if x is not None else colour.dim if thought and self._codes else str
        return self._wrap.feed(text, dress) if self._wrap else dress(text)

    def end(self) -> None:
        write("\n")


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, 1)


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def say_legend(by: str) -> None:
    """What the tints mean, where there were some."""
    if by != "off" and colour.allowed(sys.stderr) and sys.stdout.isatty():
        print(colour.legend(by), file=sys.stderr, flush=True)  # codes and words of our own


def spark(records: list[dict[str, Any]]) -> str | None:
    """T and P of a reply as bars, for a terminal; None elsewhere and where there is nothing to see. More tokens than bars
    share them, and that is said."""
    if not records or not sys.stderr.isatty() or not shows_unicode(sys.stderr):
        return None
    columns, note = _columns() - 20, ""
    if len(records) > columns // 2:
        columns -= len("  (128.5 tokens a bar)")
        note = f"  ({len(records) / _n_bars(columns):.1f} tokens a bar)"
    t, p = (colour.sparkline(by, records, _n_bars(columns)) for by in ("t", "p"))
    return f"T 0-1.2 {t}  P 0.5-1 {p}{note}"


def _n_bars(columns: int) -> int:
    return max(columns // 2, 4)

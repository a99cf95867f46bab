"""`/compare`: one prompt, two replies beside each other: with the heads, and with constants.

Owns which constants: the mean of what the heads said in the reply beside it. That is the fair opponent; T = 1, P = 1 is
not (docs/results.md). Both are drawn with the same seed, and neither enters the conversation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..io.printing import safe_text, say, shows_unicode
from ..text.colours import css, glyphs, ink, rgb, share
from . import colour
from .status import MEANS, mean_words

if TYPE_CHECKING:
    from rich.text import Text

    from ..text.trace import Trace
    from .session import Session


def compare(session: Session, ids: list[int]) -> None:
    """Raises UsageError where no heads are in force."""
    if session.plain is not None:
        raise UsageError("/compare: no heads are in force; /heads on, or /heads FILE")
    ours = session.draw(ids)
    constants = {
        name: mean
        for name in ("temperature", "top_p")
        if (mean := ours.mean(f"{name}_eff")) is not None and ours.mean(name) is not None
    }
    theirs = session.draw(ids, heads_mode="none", temp_range=(0.0, 0.0), top_p_range=(0.0, 0.0), **constants)
    session.next_seed()
    words = ", ".join(f"{letter} {constants[name]:.2f}" for letter, name in MEANS if name in constants)
    means = ", ".join(said for each in MEANS if (said := mean_words(ours, *each)))
    seed = f"seed {ours.seed}"
    _show(session, ("with heads", ours, f"{means} · {seed}"), ("constant", theirs, f"{words} · the same {seed}"))
    if ours.text == theirs.text:
        say("[the same text: with this seed the constants choose what the heads chose; once more draws with another]")


def _show(session: Session, *columns: tuple[str, Trace, str]) -> None:
    """(title, reply, what is said under it) of each."""
    from rich.box import ASCII2, SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    box = SIMPLE if shows_unicode(sys.stdout) else ASCII2
    table = Table(*(f"{title}, {len(trace.records)} tokens" for title, trace, _ in columns), box=box, expand=True)
    for column in table.columns:
        column.ratio, column.overflow = 1, "fold"  # nothing of a reply is cut off
    table.add_row(*(_text(session, trace) for _, trace, _ in columns))
    table.add_row(*(Text(f"\n[{words}]", style="dim") for *_, words in columns))
    has_colours = colour.allowed(sys.stdout)
    Console(file=sys.stdout, no_color=not has_colours, highlight=False, markup=False).print(table)


def _text(session: Session, trace: Trace) -> Text:
    from rich.text import Text

    by, text = session.options.color_by, Text()
    for record in trace.records:
        x = share(by, record) if by != "off" else None
        piece = safe_text(record["text"])
        text.append(
            piece if x is None else glyphs(piece), None if x is None else f"{css(ink(rgb(x)))} on {css(rgb(x))}"
        )
    return text.append(safe_text(trace.rest))

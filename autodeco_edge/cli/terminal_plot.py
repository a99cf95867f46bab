"""`/trace`: T and P of a reply as a plot in the terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import colour

if TYPE_CHECKING:
    from ..text.trace import Trace

_HEIGHT = 18


def plot_on_terminal(trace: Trace | None) -> None:
    """Raises UsageError where there is no reply."""
    if trace is None or not trace.records:
        raise UsageError("/trace: there is no reply yet")
    import plotext

    plotext.clear_figure()
    plotext.plot_size(shutil.get_terminal_size().columns, _HEIGHT)
    plotext.theme("clear")
    for label, field, side, marker in (("T", "temperature", "left", "braille"), ("P", "top_p", "right", "dot")):
        points = [(r["index"], r[field]) for r in trace.records if r[field] is not None]
        if points:
            plotext.plot(*map(list, zip(*points, strict=True)), label=label, yside=side, marker=marker)
    plotext.ylim(0, 2, yside="left")
    plotext.ylim(0, 1, yside="right")
    plotext.xlabel("token")
    picture = plotext.build()
    picture = picture if colour.allowed(sys.stderr) else plotext.uncolorize(picture)
    print(picture, file=sys.stderr, flush=True)  # numbers and our own words: nothing foreign is in it

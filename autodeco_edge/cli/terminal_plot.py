"""T and P of a reply on the terminal, for `/trace` and `plot` without a file: two panels, one under the other."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, TextIO

from ..io.printing import shows_unicode
from . import colour

_HEIGHT = 20
_PANELS = (("T", "temperature", 2, "blue+"), ("P", "top_p", 1, "orange+"))
_ASCII = str.maketrans("┌┐└┘├┤┬┴┼─│", "+++++++++-|")  # of the frame


def draw(records: Sequence[dict[str, Any]], out: TextIO) -> None:
    """A point a token; nothing where no head was on."""
    import plotext

    plotext.main()  # a panel of the picture before is still the figure in hand
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(shutil.get_terminal_size().columns, _HEIGHT)
    plotext.subplots(2, 1)
    for row, (letter, field, high, tone) in enumerate(_PANELS, 1):
        points = [(i, r[field]) for i, r in enumerate(records) if r[field] is not None]
        plotext.subplot(row, 1)
        if points:
            marker = "braille" if shows_unicode(out) else "*"
            plotext.plot(*map(list, zip(*points, strict=True)), color=tone, marker=marker)
        plotext.ylim(0, high)
        ticks = [0, high / 2, high]
        plotext.yticks(ticks, [f"{tick:.1f}" for tick in ticks])
        plotext.xlim(0, max(len(records) - 1, 1))
        plotext.xticks(_ticks(len(records)))
        plotext.ylabel(letter)
    plotext.xlabel("token")
    picture = plotext.build()  # nothing foreign is in it
    if not colour.allowed(out):
        picture = plotext.uncolorize(picture)
    print(picture if shows_unicode(out) else picture.translate(_ASCII), file=out, flush=True)


def _ticks(n: int) -> list[int]:
    """About eight whole numbers from 0 on."""
    step = next(s for power in range(9) for s in (10**power, 2 * 10**power, 5 * 10**power) if n <= 8 * s)
    return list(range(0, n, step))

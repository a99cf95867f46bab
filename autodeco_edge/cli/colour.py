"""Colours on a terminal, and numbers as a row of small bars.

Owns the escape codes and the bars. Scales and map are text/colours.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TextIO

from ..text.colours import NAMES, SCALES, Colour, ink, rgb, share

_BARS = "▁▂▃▄▅▆▇█"
_LEGEND_STEPS = {"t": 6}  # steps of 0.2; five elsewhere, which gives round numbers too
RESET = "\x1b[0m"
DIM = "\x1b[2m"


def allowed(stream: TextIO) -> bool:
    """Whether escape codes may go there: a terminal that knows them, and a user who did not say NO_COLOR."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")


def _code(kind: int, colour: Colour) -> str:
    """kind 38 = ink, 48 = background; the nearest of the 256-colour cube where the terminal has no more."""
    if os.environ.get("COLORTERM") in ("truecolor", "24bit"):
        return "{};2;{};{};{}".format(kind, *colour)
    r, g, b = (round(c / 255 * 5) for c in colour)
    return f"{kind};5;{16 + 36 * r + 6 * g + b}"


def tint(text: str, x: float) -> str:
    """The text on the colour of x. A line break stays outside, else the colour runs to the edge."""
    background = rgb(x)
    start = f"\x1b[{_code(48, background)};{_code(38, ink(background))}m"
    return "\n".join(f"{start}{part}{RESET}" if part else "" for part in text.split("\n"))


def dim(text: str) -> str:
    return "\n".join(f"{DIM}{part}{RESET}" if part else "" for part in text.split("\n"))


def legend(by: str) -> str:
    """What the tints mean, in one line: the scale in its own colours."""
    _, low, high = SCALES[by]
    n = _LEGEND_STEPS.get(by, 5)
    return f"{NAMES[by]}: " + "".join(tint(f" {low + (high - low) * i / n:.3g} ", i / n) for i in range(n + 1))


def sparkline(by: str, records: Sequence[dict[str, Any]], width: int) -> str:
    """At most ``width`` bars, each the mean of a stretch of tokens; a dot where there is no value."""
    values = [share(by, r) for r in records]
    n = min(width, len(values))
    stretches = [values[len(values) * i // n : len(values) * (i + 1) // n] for i in range(n)]
    return "".join(_bar([v for v in stretch if v is not None]) for stretch in stretches)


def _bar(values: list[float]) -> str:
    if not values:
        return "·"
    return _BARS[min(int(sum(values) / len(values) * len(_BARS)), len(_BARS) - 1)]

"""Numbers of a token as colours of a terminal, and as a row of small bars.

Owns the fixed scales (so that two replies compare), the colour map and the escape codes. A token gets a
background and an ink of its own, so that it reads the same on dark and light terminals; the map is
a cut of cividis, whose lightness rises steadily, with or without colour vision.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TextIO

SCALES = {
    "t": ("temperature_eff", 0.0, 2.0),
    "p": ("top_p_eff", 0.0, 1.0),
    "entropy": ("entropy", 0.0, 5.0),
    "logprob": ("logprob", -10.0, 0.0),
}  # name: (field of a record, low, high)
_MAP = ((0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56))
_BARS = "▁▂▃▄▅▆▇█"
RESET = "\x1b[0m"
DIM = "\x1b[2m"


def allowed(stream: TextIO) -> bool:
    """Whether escape codes may go there: a terminal that knows them, and a user who did not say NO_COLOR."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")


def share(by: str, record: dict[str, Any]) -> float | None:
    """The value on its scale, 0 to 1; None where the record has none."""
    name, low, high = SCALES[by]
    value = record.get(name)
    return None if value is None else min(max((value - low) / (high - low), 0.0), 1.0)


def rgb(x: float) -> tuple[int, int, int]:
    """x in [0, 1] on the map."""
    place = x * (len(_MAP) - 1)
    i = min(int(place), len(_MAP) - 2)
    return tuple(round(a + (b - a) * (place - i)) for a, b in zip(_MAP[i], _MAP[i + 1], strict=True))


def ink(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever has the higher contrast (WCAG 2: relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return (255, 255, 255) if luminance < 0.179 else (0, 0, 0)


def _code(kind: int, colour: tuple[int, int, int]) -> str:
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

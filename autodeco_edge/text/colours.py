"""Numbers of a token as colours: the same on every screen, page and figure.

Owns the fixed scales, so that two replies compare, and the map. The scales span where values lie, or all of them would
have one colour; what lies beyond has the colour of the end. The map is viridis: its lightness rises steadily, it reads
the same with and without colour vision, and T = 0.2 and 0.8 are far apart on it (CIEDE2000, tests/text/test_colours.py).
A token brings background and ink, so that it reads the same on dark and on light.
"""

from __future__ import annotations

from typing import Any

SCALES = {
    "t": ("temperature_eff", 0.0, 1.2),
    "p": ("top_p_eff", 0.5, 1.0),
    "entropy": ("entropy", 0.0, 5.0),
    "logprob": ("logprob", -10.0, 0.0),
}  # name: (field of a record, low, high)
NAMES = {"t": "T", "p": "P", "entropy": "entropy, nats", "logprob": "log-probability"}
# viridis at eighths (Stefan van der Walt and Nathaniel Smith, CC0)
_MAP = (
    (68, 1, 84), (71, 45, 123), (59, 82, 139), (44, 114, 142), (33, 145, 140), (40, 174, 128), (94, 201, 98),
    (173, 220, 48), (253, 231, 37),
)  # fmt: skip
Colour = tuple[int, int, int]


def share(by: str, record: dict[str, Any]) -> float | None:
    """The value on its scale, 0 to 1; None where the record has none."""
    name, low, high = SCALES[by]
    value = record.get(name)
    return None if value is None else min(max((value - low) / (high - low), 0.0), 1.0)


def rgb(x: float) -> Colour:
    """x in [0, 1] on the map."""
    place = x * (len(_MAP) - 1)
    i = min(int(place), len(_MAP) - 2)
    return tuple(round(a + (b - a) * (place - i)) for a, b in zip(_MAP[i], _MAP[i + 1], strict=True))


def ink(background: Colour) -> Colour:
    """Black or white, whichever has the higher contrast (WCAG 2: relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return (255, 255, 255) if luminance < 0.179 else (0, 0, 0)


def css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def glyphs(text: str) -> str:
    """A text under a tint: a line break, and a token of nothing but blanks, become signs that can be seen."""
    if not text.strip():
        text = text.replace(" ", "·").replace("\t", "→")
    return text.replace("\n", "⏎\n")

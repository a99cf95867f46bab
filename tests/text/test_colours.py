"""The map of the tints: apart where values are apart, lighter all the way, and readable."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from autodeco_edge.cli import colour
from autodeco_edge.text.colours import SCALES, css, glyphs, ink, rgb, share

CUBE = (0, 95, 135, 175, 215, 255)  # of a terminal with 256 colours


def linear(rgb):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]


def luminance(rgb):
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(rgb), strict=True))


def lab(rgb):
    """CIELAB under D65."""
    r, g, b = linear(rgb)
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883
    fx, fy, fz = (math.cbrt(v) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def ciede2000(one, two):
    """Sharma, Wu and Dalal, 2005."""
    (l1, a1, b1), (l2, a2, b2) = one, two
    mean_c = (math.hypot(a1, b1) + math.hypot(a2, b2)) / 2
    g = 0.5 * (1 - math.sqrt(mean_c**7 / (mean_c**7 + 25**7)))
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = math.hypot(a1, b1), math.hypot(a2, b2)
    h1, h2 = math.degrees(math.atan2(b1, a1)) % 360, math.degrees(math.atan2(b2, a2)) % 360
    dh = 0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    if c1 * c2 and h2 - h1 == 180:
        dh = 180
    big_dh = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(dh / 2))
    c, light = (c1 + c2) / 2, (l1 + l2) / 2
    if c1 * c2 == 0:
        h = h1 + h2
    elif abs(h1 - h2) <= 180:
        h = (h1 + h2) / 2
    else:
        h = (h1 + h2 + (360 if h1 + h2 < 360 else -360)) / 2
    cos = lambda degrees: math.cos(math.radians(degrees))  # noqa: E731
    t = 1 - 0.17 * cos(h - 30) + 0.24 * cos(2 * h) + 0.32 * cos(3 * h + 6) - 0.2 * cos(4 * h - 63)
    rotation = -math.sin(math.radians(60 * math.exp(-(((h - 275) / 25) ** 2)))) * 2 * math.sqrt(c**7 / (c**7 + 25**7))
    dl = (l2 - l1) / (1 + 0.015 * (light - 50) ** 2 / math.sqrt(20 + (light - 50) ** 2))
    dc, dh = (c2 - c1) / (1 + 0.045 * c), big_dh / (1 + 0.015 * c * t)
    return math.sqrt(dl**2 + dc**2 + dh**2 + rotation * dc * dh)


@pytest.mark.parametrize(
    "one, two, distance",
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (58, 24, 15), 19.4535),
        ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_ciede2000(one, two, distance):
    """Pairs of the paper's own table."""
    assert ciede2000(one, two) == pytest.approx(distance, abs=1e-4) == ciede2000(two, one)


def of_t(t):
    return rgb(share("t", {"temperature_eff": t}))


def on_256(rgb):
    return tuple(CUBE[round(c / 255 * 5)] for c in rgb)


@pytest.mark.parametrize("shown", [tuple, on_256], ids=["24 bit", "256 colours"])
def test_a_choice_and_a_computation_differ_at_a_glance(shown):
    """The token brings its own background, so that both themes show the same two colours."""
    assert ciede2000(lab(shown(of_t(0.2))), lab(shown(of_t(0.8)))) >= 40
    lights = [luminance(shown(of_t(t / 100))) for t in range(121)]
    if shown is tuple:
        assert lights == sorted(lights)
    else:
        assert all(b >= a - 0.02 for a, b in zip(lights, lights[1:], strict=False)), "but for the cube's coarseness"


def test_the_codes_written_are_these_colours(monkeypatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "48;2;{};{};{}".format(*of_t(0.2)) in colour.tint("x", share("t", {"temperature_eff": 0.2}))
    monkeypatch.delenv("COLORTERM")
    r, g, b = (round(c / 255 * 5) for c in of_t(0.8))
    assert f"48;5;{16 + 36 * r + 6 * g + b}" in colour.tint("x", share("t", {"temperature_eff": 0.8}))


def test_ink_is_readable_at_every_step():
    """Contrast of at least 4.5 to 1 (WCAG 2, level AA)."""
    for i in range(101):
        a, b = sorted((luminance(rgb(i / 100)), luminance(ink(rgb(i / 100)))))
        assert (b + 0.05) / (a + 0.05) >= 4.5, i


def test_scales_are_fixed_and_clamped():
    assert share("t", {"temperature_eff": 3.0}) == 1.0 and share("t", {"temperature_eff": 0.6}) == 0.5
    assert share("p", {"top_p_eff": 0.75}) == 0.5 and share("p", {"top_p_eff": 0.1}) == 0.0
    assert share("logprob", {"logprob": None}) is None and share("logprob", {"logprob": -5.0}) == 0.5
    assert set(SCALES) == {"t", "p", "entropy", "logprob"}
    assert css((0, 255, 16)) == "#00ff10"


def test_glyphs_where_a_tint_would_hide_what_is_there():
    assert [glyphs(t) for t in (" the", "\n", " ", "  \n", "a\n", "\t")] == [" the", "⏎\n", "·", "··⏎\n", "a⏎\n", "→"]


PAGE = Path(__file__).resolve().parents[2] / "autodeco_edge" / "server" / "page"


def test_the_page_has_the_same_map_and_the_same_scales():
    """Steps of the map, each with its ink; the scales as the page's own module has them."""
    tints = re.findall(r"\.bin-(\d+) \{ background: (#\w+); color: (#\w+); \}", (PAGE / "css/tints.css").read_text())
    steps = [rgb((i + 0.5) / len(tints)) for i in range(len(tints))]
    assert len(tints) == 16 and tints == [(str(i), css(c), css(ink(c))) for i, c in enumerate(steps)]
    signals = (PAGE / "js/signals.js").read_text()
    for name, field in (("t", "temperature"), ("p", "top_p"), ("entropy", "entropy"), ("logprob", "logprob")):
        low, high = re.search(rf"^  {field}: .* low: (\S+), high: (\S+),", signals, re.MULTILINE).groups()
        assert (float(low), float(high)) == SCALES[name][1:]

"""What reaches the terminal: tints, dimmed thoughts, bars, and no escape codes where none are wanted."""

from __future__ import annotations

import contextlib
import io
import re

import pytest

from autodeco_edge.cli import colour
from autodeco_edge.cli.screen import Screen

RECORD = {"temperature_eff": 1.0, "top_p_eff": 0.9, "entropy": 2.0, "logprob": None}


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def show(monkeypatch):
    """``show(pieces)`` is what they become on a terminal of 256 colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)

    def on_terminal(pieces, by: str = "off", hide: bool = False) -> str:
        out = Tty()
        with contextlib.redirect_stdout(out):
            Screen(by, hide).show(pieces)
        return out.getvalue()

    return on_terminal


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_tint_and_its_colours(show, monkeypatch):
    shown = show([("a\nb", RECORD, False)], "t")
    assert plain(shown) == "a\nb"
    assert re.fullmatch(r"(\x1b\[48;5;\d+;38;5;\d+m[ab]\x1b\[0m\n?){2}", shown)
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "48;2;" in colour.tint("x", 0.5)


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_codes_where_they_are_not_wanted(show, monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert show([("a", RECORD, False), ("b", RECORD, True)], "t") == "ab"


def test_control_characters_of_a_model_are_shown_not_obeyed(show):
    assert show([("a\x1b[2Jb\r\x9b\x7f\n\t", None, False)]) == "a␛[2Jb␍\\x9b␡\n\t"


def test_thoughts_are_dimmed_or_hidden(show):
    pieces = [("<think>hm</think>", None, True), ("\n\n", None, False), ("Yes.\n", None, False)]
    assert show(pieces) == "\x1b[2m<think>hm</think>\x1b[0m\n\nYes.\n"
    assert show(pieces, hide=True) == "Yes.\n"


def test_map_gets_lighter_all_the_way_and_ink_is_readable():
    """Contrast of at least 4.5 to 1 (WCAG 2, level AA) at every step of the map."""

    def luminance(rgb):
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    steps = [colour.rgb(i / 100) for i in range(101)]
    lights = [luminance(c) for c in steps]
    assert lights == sorted(lights)
    for step, light in zip(steps, lights, strict=True):
        ink = luminance(colour.ink(step))
        assert (max(ink, light) + 0.05) / (min(ink, light) + 0.05) >= 4.5, step


def test_scales_are_fixed_and_clamped():
    assert colour.share("t", {"temperature_eff": 3.0}) == 1.0
    assert colour.share("p", {"top_p_eff": 0.25}) == 0.25
    assert colour.share("logprob", RECORD) is None
    assert colour.share("logprob", {"logprob": -5.0}) == 0.5


def test_sparkline():
    records = [{"top_p_eff": p} for p in (0.0, 0.5, 1.0, None)]
    assert colour.sparkline("p", records, 10) == "▁▅█·"
    assert colour.sparkline("p", records, 2) == "▃█"
    assert colour.sparkline("p", [], 10) == ""


def test_on_a_real_terminal(chat):
    """Colours, bars and the statistics, as they are written."""
    terminal = chat("-n", "6", "--color-by", "t", term="xterm-256color", columns=100)
    terminal.type("hello")
    terminal.wait_for_match(r"\x1b\[48;5;\d+;38;5;\d+m")
    terminal.wait_for_match(r"T 0-2 ([▁▂▃▄▅▆▇█]{6})  P 0-1 ([▁▂▃▄▅▆▇█]{6})\r\n\[prompt")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_trace_draws_on_the_terminal(chat):
    pytest.importorskip("plotext")
    terminal = chat("-n", "8", columns=100)
    terminal.say("hello")
    terminal.type("/trace")
    terminal.wait_for("2.0")
    terminal.wait_for("token")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0

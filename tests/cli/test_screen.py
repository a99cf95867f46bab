"""What reaches the terminal: tints, dimmed thoughts, bars, and no escape codes where none are wanted."""

from __future__ import annotations

import contextlib
import io
import re
import sys

import pytest

from autodeco_edge.cli import colour, screen
from autodeco_edge.cli.screen import Screen

RECORD = {"temperature_eff": 1.0, "top_p_eff": 0.9, "entropy": 2.0, "logprob": None}


class Tty(io.StringIO):
    encoding = "utf-8"

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
    assert plain(shown) == "a⏎\nb"
    assert re.fullmatch(r"(\x1b\[48;5;\d+;38;5;\d+m[ab⏎]\x1b\[0m\n?){3}", shown)
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


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("n", [1, 20, 45, 400, 3000])
def test_bars_fit_and_say_what_they_stand_for(monkeypatch, columns, n):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(screen, "shows_unicode", lambda stream: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    line = screen.spark([{"temperature_eff": 0.5, "top_p_eff": 0.9}] * n)
    bars = line.removeprefix("T 0-1.2 ").partition("  P")[0]
    assert len(line) < max(columns, 50)
    said = f"({n / len(bars):.1f} tokens a bar)"
    assert (said in line) == (len(bars) < n) and len(bars) <= n


def test_sparkline():
    records = [{"top_p_eff": p} for p in (0.5, 0.75, 1.0, None)]
    assert colour.sparkline("p", records, 10) == "▁▅█·"
    assert colour.sparkline("p", records, 2) == "▃█"
    assert colour.sparkline("p", [], 10) == ""


def test_on_a_real_terminal(chat):
    """Colours, bars and the statistics, as they are written."""
    terminal = chat("-n", "6", "--color-by", "t", term="xterm-256color", columns=100)
    terminal.type("hello")
    terminal.wait_for_match(r"\x1b\[48;5;\d+;38;5;\d+m")
    terminal.wait_for_match(r"T 0-1\.2 ([▁▂▃▄▅▆▇█]{6})  P 0\.5-1 ([▁▂▃▄▅▆▇█]{6})\r\n\[prompt")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_one_line_says_what_the_tints_mean(chat):
    terminal = chat("-n", "6", "--color-by", "p", term="xterm-256color", columns=100)
    terminal.type("hello")
    terminal.wait_for_match(r"P: (\x1b\[48;5;\d+;38;5;\d+m +[\d.]+ +\x1b\[0m){6}\r\n")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_trace_draws_on_the_terminal(chat):
    pytest.importorskip("plotext")
    terminal = chat("-n", "8", columns=100)
    terminal.say("hello")
    terminal.type("/trace")
    for word in ("2.0", "T ", "1.0", "P ", "token"):
        terminal.wait_for(word)
    terminal.wait_for_prompt()
    assert terminal.leave() == 0

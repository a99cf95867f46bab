"""Words that stay whole, drawn by a terminal emulator and compared with the plain way to wrap a finished text."""

from __future__ import annotations

import random
import unicodedata

import pytest

from autodeco_edge.cli.wrap import Wrap

pyte = pytest.importorskip("pyte")


def drawn(pieces: list[str], columns: int, dress=str) -> list[str]:
    screen = pyte.Screen(columns, 60)
    stream = pyte.Stream(screen)
    wrap = Wrap(lambda: columns)
    for piece in pieces:
        stream.feed(wrap.feed(piece, dress).replace("\n", "\r\n"))
    return [line.rstrip() for line in screen.display]


def wrapped(text: str, columns: int) -> list[str]:
    """The oracle: words of a finished text, the last column free."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if len(longer) < columns or not line:
                line = longer
            else:
                lines.append(line)
                line = word
        lines.append(line)
    return lines


def test_any_pieces_give_the_lines_of_the_whole_text():
    draw = random.Random(3)
    for _ in range(200):
        columns = draw.randint(12, 40)
        words = ["x" * draw.randint(1, 9) for _ in range(draw.randint(1, 40))]
        text = "".join(word + draw.choice(["  \n", " ", " ", " ", "\n"]).lstrip(" ").rjust(1) for word in words)
        pieces, at = [], 0
        while at < len(text):
            n = draw.randint(1, 6)
            pieces.append(text[at : at + n])
            at += n
        found = drawn(pieces, columns)
        lines = [line.rstrip() for line in wrapped(text, columns)]
        assert found[: len(lines)] == lines and not any(found[len(lines) :]), (text, columns)


def test_code_blocks_are_left_as_they_are():
    code = "    return some_function(with_arguments, and_more, of_them)"
    text = f"words that are long enough to wrap\n```python\n{code}\n```\nwords that are long enough to wrap"
    found = drawn(list(text), 30)
    assert found[:2] == ["words that are long enough to", "wrap"]
    assert "".join(found[3:5]).startswith(code[:30]) and found[3] == code[:30].rstrip(), (
        "broken by the terminal, not by us"
    )
    assert (
        found[-1] == ""
        and found[7:9] == ["words that are long enough to", "wrap"]
        or found[6:8] == ["words that are long enough to", "wrap"]
    )


def test_wide_characters_break_anywhere_and_long_words_too():
    assert drawn(["日本語" * 6], 20)[:2] == ["日本語日本語日本語", "日本語日本語日本語"]
    assert drawn(["x" * 50 + " y"], 20)[:3] == ["x" * 20, "x" * 20, "x" * 10 + " y"]


def test_colours_go_with_a_word_that_moves():
    dress = lambda text: f"\x1b[41m{text}\x1b[0m"  # noqa: E731
    assert drawn(["alpha be", "ta", "gamma"], 12, dress)[:2] == ["alpha", "betagamma"]


PICTURES = ["👍🏽", "🇩🇪", "❤️", "👩‍👩‍👧‍👦", "漢字", "é", "e\u0301", "⌚", "한국"]


def test_pictures_of_several_signs_lose_nothing():
    """Whatever a terminal takes for the width of a skin tone or a flag: no sign is written over, no line is left empty."""
    draw, dress = random.Random(5), lambda text: f"\x1b[41m{text}\x1b[0m"
    for _ in range(100):
        columns = draw.randint(12, 40)
        words = [draw.choice([*PICTURES, "heart", "a", "seventeen"]) for _ in range(draw.randint(10, 40))]
        found = drawn(list(" ".join(words)), columns, dress)
        seen = "".join("".join(found).split())
        marks = "\u200d\ufe0f"  # pyte leaves them out
        normal = unicodedata.normalize("NFC", "".join(words))
        assert seen == normal.translate(dict.fromkeys(map(ord, marks))), (columns, words)
        lines = [line for line in found]
        assert "" not in lines[: max(i for i, line in enumerate(lines) if line)], (columns, words)

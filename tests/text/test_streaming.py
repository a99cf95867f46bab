"""Text between tokens and screen: stop strings and thinking blocks, however the tokens split them."""

from __future__ import annotations

import random

import pytest

from autodeco_edge.text.streaming import StopStrings, Thinking, held

TEXT = "One.\n\nTwo <thin air>. STOP and more"


def split(text: str, rng: random.Random) -> list[str]:
    """The text in random pieces, some of them empty."""
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("stops", [["STOP"], ["STOP", "\n\n"], ["nowhere"], ["S", "ST"], ["more!"], []])
def test_stop_string_is_never_shown_and_nothing_is_lost(stops):
    hits = [(TEXT.index(s), s) for s in stops if s in TEXT]
    expected = TEXT[: min(hits)[0]] if hits else TEXT
    for seed in range(300):
        filtered, shown = StopStrings(stops), ""
        for i, piece in enumerate(split(TEXT, random.Random(seed))):
            shown += "".join(text for text, _ in filtered.feed(piece, i))
            assert expected.startswith(shown)
        shown += "".join(text for text, _ in filtered.finish())
        assert shown == expected
        assert filtered.found == (min(hits)[1] if hits else None)


def test_pieces_keep_their_owners():
    stops = StopStrings(["abcd"])
    assert stops.feed("xa", 0) == [("x", 0)]
    assert stops.feed("bc", 1) == []
    assert stops.feed("e", 2) == [("a", 0), ("bc", 1), ("e", 2)]


@pytest.mark.parametrize("open_already", [False, True])
def test_thinking_is_told_from_the_answer(open_already):
    thought, answer = ("" if open_already else "<think>") + "hm, a < b</think>", "\n\nIt is <thin>."
    for seed in range(300):
        thinking, found = Thinking(inside="</think>" if open_already else None), {True: "", False: ""}
        pieces = [p for piece in split(thought + answer, random.Random(seed)) for p in thinking.feed(piece)]
        for text, _, is_thought in pieces + thinking.finish():
            found[is_thought] += text
        assert found == {True: thought, False: answer}


def test_what_is_held_back_is_what_the_obvious_search_finds():
    def obvious(text: str, marks: tuple[str, ...]) -> int:
        longest = max(map(len, marks), default=1) - 1  # of all: a whole mark was found before
        return max(
            (n for n in range(1, longest + 1) for m in marks if n <= len(text) and m.startswith(text[-n:])), default=0
        )

    rng = random.Random(3)
    for _ in range(5000):
        marks = tuple("".join(rng.choices("<ab>", k=rng.randrange(1, 6))) for _ in range(rng.randrange(4)))
        text = "".join(rng.choices("<ab>xy", k=rng.randrange(8)))
        assert held(text, marks) == obvious(text, marks), (text, marks)

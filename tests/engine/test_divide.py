"""How a batch is shared among decode steps and prompts: every row used, short prompts first, none held up for ever."""

from __future__ import annotations

import random

import pytest

from autodeco_edge.engine.generation import Request, Timings, Work
from autodeco_edge.engine.slots import Slot, divide


def slot(sequence: int, n_missing: int, turn: int = 0, n_drawn: int = 0) -> Slot:
    work = Work(Request((1,)), 100, Timings())
    work.n_drawn = n_drawn
    return Slot(sequence, tokens=[0] * 3, target=[0] * (3 + n_missing), work=work, turn=turn)


def shares(slots: list[Slot], n_rows: int) -> dict[int, int]:
    pieces = divide(slots, n_rows)
    assert [piece.slot.sequence for piece in pieces] == sorted(piece.slot.sequence for piece in pieces)
    return {piece.slot.sequence: piece.n for piece in pieces}


def test_prompts_that_come_together_are_finished_one_after_another():
    slots = [slot(i, 40, turn=i) for i in range(8)]
    assert shares(slots, 128) == {0: 40, 1: 40, 2: 40, 3: 8}


def test_a_short_prompt_passes_a_long_one_and_a_decode_step_both():
    slots = [slot(0, 2000, turn=1), slot(1, 30, turn=2), slot(2, 1, turn=0, n_drawn=5)]
    assert shares(slots, 128) == {0: 97, 1: 30, 2: 1}


def test_short_prompts_without_an_end_do_not_hold_up_a_long_one():
    long = slot(0, 1000, turn=1)
    for tick in range(100):
        others = [slot(i, 100, turn=2 + tick) for i in range(1, 8)]
        found = shares([long, *others], 128)
        assert found[0] >= min(32, long.n_missing) and sum(found.values()) == 128
        long.tokens += [0] * found[0]
        if not long.n_missing:
            return
    pytest.fail("it has not ended")


def test_what_always_holds():
    rng = random.Random(1)
    for _ in range(3000):
        n_slots = rng.randrange(1, 12)
        sizes = [rng.choice((0, 1, 1, 2, 7, 40, 500)) for _ in range(n_slots)]
        turns = rng.sample(range(20), n_slots)
        slots = [slot(i, n, turns[i], n_drawn=rng.randrange(2)) for i, n in enumerate(sizes)]
        n_rows = n_slots + rng.choice((0, 1, 20, 128, 512))
        found = shares(slots, n_rows)
        assert sum(found.values()) == min(n_rows, sum(sizes))
        assert all(0 < n <= sizes[i] for i, n in found.items())
        steps = [s for s in slots if s.n_missing == 1 and not s.is_reading]
        assert all(found[s.sequence] == 1 for s in steps)
        reading = [s for s in slots if s.n_missing and s.is_reading]
        if reading and all(s.n_missing <= 1 for s in slots if not s.is_reading):
            oldest, left = min(reading, key=lambda s: s.turn), n_rows - len(steps)
            assert found.get(oldest.sequence, 0) >= min(oldest.n_missing, max(left // 4, min(left, 1)))
            others = sorted((s for s in reading if s is not oldest), key=lambda s: s.n_missing)
            began = [s.sequence in found for s in others]
            assert began == sorted(began, reverse=True), "a longer prompt before a shorter one"

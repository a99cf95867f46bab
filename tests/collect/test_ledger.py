"""The ledger's rule against the obvious one: draw everything, keep the first right ones."""

from __future__ import annotations

import random

import pytest

from autodeco_edge.collect.ledger import Ledger
from autodeco_edge.collect.rejection import RIGHT, WRONG, Candidate
from autodeco_edge.tasks import Problem

PROBLEMS = [Problem(f"p{i}", (), "", "math") for i in range(7)]


def outcomes(rng: random.Random, n: int) -> dict[tuple[str, int], str]:
    return {(p.id, k): RIGHT if rng.random() < 0.4 else WRONG for p in PROBLEMS for k in range(n)}


def draw_in_any_order(rng: random.Random, ledger: Ledger, table: dict, n_slots: int, kill_after: int | None) -> None:
    """``n_slots`` jobs in the air, which end at random; ``kill_after`` so many ends, those in the air are lost."""
    jobs, flying, n_ended = ledger.jobs(), [], 0
    while True:
        while len(flying) < n_slots and (job := next(jobs, None)):
            flying.append(job)
        if not flying or n_ended == kill_after:
            return
        problem, k = flying.pop(rng.randrange(len(flying)))
        ledger.add(Candidate(problem.id, k, table[problem.id, k], 1, "text" if table[problem.id, k] == RIGHT else None))
        n_ended += 1


@pytest.mark.parametrize("stop", [False, True])
def test_kept_are_the_first_right_ones_whatever_ends_first_and_whatever_is_killed(stop):
    for seed in range(200):
        rng = random.Random(seed)
        n, keep = rng.randint(1, 12), rng.randint(1, 5)
        table = outcomes(rng, n)
        ledger = Ledger(PROBLEMS, n, keep, stop)
        for _ in range(rng.randint(0, 3)):
            draw_in_any_order(rng, ledger, table, rng.randint(1, 9), kill_after=rng.randint(0, 20))
        draw_in_any_order(rng, ledger, table, rng.randint(1, 9), None)
        want = []
        for problem in PROBLEMS:
            want += [(problem.id, k) for k in range(n) if table[problem.id, k] == RIGHT][:keep]
        assert [(draw.problem, draw.sample) for _, draw in ledger.kept()] == want
        assert list(ledger.jobs()) == []


def test_stop_saves_draws():
    rng = random.Random(1)
    table = outcomes(rng, 32)
    ledger = Ledger(PROBLEMS, 32, 1, True)
    draw_in_any_order(rng, ledger, table, 1, None)
    first = {p.id: min(k for k in range(32) if table[p.id, k] == RIGHT) for p in PROBLEMS}
    assert ledger.summary()["all"]["drawn"] == sum(first.values()) + len(PROBLEMS)  # one at a time: none too many


def test_summary_counts():
    ledger = Ledger(PROBLEMS[:3], 4, 1, False)
    for draw in (
        Candidate("p0", 0, RIGHT, 5, "a"),
        Candidate("p0", 1, RIGHT, 6, "b"),
        Candidate("p1", 0, "cut", 7),
        Candidate("p2", 3, "empty", 1),
        Candidate("p2", 3, RIGHT, 9, "c"),  # a draw comes once
        Candidate("p2", 4, RIGHT, 9, "c"),  # beyond n
        Candidate("elsewhere", 0, RIGHT, 9, "c"),
    ):
        ledger.add(draw)
    figures = ledger.summary()["all"]
    assert figures == {
        "problems": 3,
        "unsolved": 2,
        "drawn": 4,
        "right": 2,
        "cut": 1,
        "empty": 1,
        "unreadable": 0,
        "kept": 1,
        "tokens": 19,
    }

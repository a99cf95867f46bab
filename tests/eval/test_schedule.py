"""Groups of replies: all draws once, the same however often a run is stopped, and the kept records with them."""

from __future__ import annotations

import hashlib

import pytest

from autodeco_edge.collect.ledger import Ledger
from autodeco_edge.collect.rejection import RIGHT, WRONG, Candidate
from autodeco_edge.eval.schedule import NEIGHBOURS, groups
from autodeco_edge.tasks import Problem


def problems(n: int) -> list[Problem]:
    return [Problem(f"p{i}", ({"role": "user", "content": str(i)},), "1", "math") for i in range(n)]


@pytest.mark.parametrize("n_problems, n, size", ((1, 1, 4), (5, 3, 4), (3, 40, 8), (7, 16, 64), (2, 17, 5)))
def test_every_draw_is_in_one_group(n_problems, n, size):
    found = list(groups(problems(n_problems), n, size))
    jobs = [(p.id, k) for group in found for p, k in group]
    assert sorted(jobs) == sorted((f"p{i}", k) for i in range(n_problems) for k in range(n))
    assert all(0 < len(group) <= size for group in found)


def test_more_draws_leave_whole_passes_as_they_were():
    few, many = (list(groups(problems(5), n, 7)) for n in (NEIGHBOURS, 3 * NEIGHBOURS))
    assert many[: len(few)] == few


# ---- a model of an engine: what a reply is depends on all that is drawn beside it ---------------------


def reply(group, job) -> str:
    text = repr([(p.id, k) for p, k in group]) + repr((job[0].id, job[1]))
    return hashlib.sha256(text.encode()).hexdigest()


def ends(group) -> list:
    """The order in which replies end: theirs, not the jobs'."""
    return sorted(group, key=lambda job: reply(group, job))


def draw(ledger: Ledger, recorded: list[Candidate], kill_after: int | None) -> bool:
    """One process: takes up the record, draws, and dies after ``kill_after`` more rows. True when it came to the end."""
    for row in recorded:
        ledger.add(row)
    n = 0
    for group in ledger.groups(size=8, least=3):
        for job in ends(group):
            if ledger.has(*job):
                continue
            if n == kill_after:
                return False
            text = reply(group, job)
            row = Candidate(job[0].id, job[1], RIGHT if int(text[:2], 16) < 90 else WRONG, 1, text)
            recorded.append(row)
            ledger.add(row)
            n += 1
    return True


@pytest.mark.parametrize("stop, keep", ((False, 20), (False, 1), (True, 1), (True, 2)))
def test_killed_after_any_row_the_records_are_the_same(stop, keep):
    def ledger() -> Ledger:
        return Ledger(problems(5), 20, keep, stop)

    whole: list[Candidate] = []
    last = ledger()
    assert draw(last, whole, None)
    want = [(p.id, d) for p, d in last.kept()]
    assert len(whole) == 100 if not stop else len(want) <= len(whole) < 100
    for first in range(len(whole)):
        rows: list[Candidate] = []
        assert not draw(ledger(), rows, first)
        draw(ledger(), rows, 2)  # killed again soon after
        resumed = ledger()
        assert draw(resumed, rows, None)
        assert rows == whole and [(p.id, d) for p, d in resumed.kept()] == want


def test_stop_draws_little_more_than_it_needs():
    """Of a problem at most ``least`` draws are under way before the first is known."""
    ledger, rows = Ledger(problems(40), 50, 1, True), []
    assert draw(ledger, rows, None)
    assert len(rows) < 40 * 6  # a reply is right with 90 / 256: 2.8 draws on average
    assert all(len(ledger.kept_of(f"p{i}")) == 1 for i in range(40))

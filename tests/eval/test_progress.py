"""How far an evaluation is, and what it says of the rest."""

from __future__ import annotations

import pytest

from autodeco_edge.eval import progress
from autodeco_edge.eval.progress import ENOUGH, Progress, duration


def test_the_rest_is_told_once_a_pace_is_known(monkeypatch, capsys):
    """Replies that were there count as done, and are no pace."""
    monkeypatch.setattr(progress, "QUIET_S", -1.0)
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    n = 5 + ENOUGH
    assert list(Progress(n + 100).read(range(n), "card", 5, n)) == list(range(n))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"card: 1 of {n} replies", f"card: 2 of {n} replies"]
    assert [line for line in lines if "more" in line] == [lines[-1]]
    assert lines[-1].startswith(f"card: {n} of {n} replies; all methods: about ") and lines[-1].endswith(
        " at this pace"
    )


def test_nothing_is_left(monkeypatch, capsys):
    monkeypatch.setattr(progress, "QUIET_S", -1.0)
    list(Progress(ENOUGH).read(range(ENOUGH), "card", 0, ENOUGH))
    assert "more" not in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "about 1 s"), (89, "about 89 s"), (90, "about 2 min"), (5399, "about 90 min"), (9000, "about 2.5 h")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words

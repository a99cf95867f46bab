"""Verdicts on real answers, by each rule."""

from __future__ import annotations

import pytest

from autodeco_edge.collect.rejection import Candidate, Judge
from autodeco_edge.collect.source import Answer
from autodeco_edge.errors import FormatError, UsageError
from autodeco_edge.tasks import Problem

HALF = Problem("m/0", (), "\\frac{1}{2}", "math")
TWO_OR_THREE = Problem("m/1", (), "2 \\text{ or }3", "math")
CHAIN = Problem("c/0", (), "12", "demo:chain")

# By official, math-verify, both. The official rule evaluates nothing, and takes words behind a value for its unit.
MATH = {
    "the same": (HALF, "so \\boxed{\\frac{1}{2}}", (True, True, True)),
    "another form": (HALF, "so \\boxed{0.50}", (False, True, False)),
    "cut by the string rule": (TWO_OR_THREE, "so \\boxed{2}", (True, False, False)),
    "wrong": (HALF, "so \\boxed{\\frac{1}{3}}", (False, False, False)),
    "no box": (HALF, "it is \\frac{1}{3}", (False, False, False)),
    "a demo problem has one rule": (CHAIN, "5 + 7 = 12\n\\boxed{12}", (True, True, True)),
    "with a wrong step": (CHAIN, "5 + 6 = 12\n\\boxed{12}", (False, False, False)),
}


def verdict(accept: str, problem: Problem, text: str | None, ended: bool = True) -> str:
    with Judge(accept, [problem]) as judge:
        return judge(Answer(problem, 0, text, ended, 9)).verdict


@pytest.mark.parametrize("problem, text, want", MATH.values(), ids=MATH)
def test_rules(problem, text, want):
    pytest.importorskip("math_verify")
    found = tuple(verdict(accept, problem, text) == "right" for accept in ("official", "math-verify", "both"))
    assert found == want


def test_what_is_never_kept():
    right = "\\boxed{\\frac{1}{2}}"
    assert verdict("official", HALF, right) == "right"
    assert verdict("official", HALF, right, ended=False) == "cut"
    assert verdict("official", HALF, " \n") == "empty"
    assert verdict("official", HALF, None) == "unreadable"


def test_only_right_ones_leave_their_text():
    with Judge("official", [CHAIN]) as judge:
        right, wrong = (judge(Answer(CHAIN, k, f"\\boxed{{{12 + k}}}", True, 3)) for k in (0, 1))
    assert right.row() == {"problem": "c/0", "sample": 0, "verdict": "right", "n_tokens": 3, "text": "\\boxed{12}"}
    assert wrong.row() == {"problem": "c/0", "sample": 1, "verdict": "wrong", "n_tokens": 3}
    assert all(Candidate.of_row(draw.row(), "file") == draw for draw in (right, wrong))


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"problem": "a", "sample": 0, "verdict": "right", "n_tokens": 1},
        {"problem": "a", "sample": 0, "verdict": "fine", "n_tokens": 1},
        {"problem": "a", "sample": 0, "verdict": "wrong", "n_tokens": 1, "key": 3},
    ],
)
def test_a_row_that_is_none(row):
    with pytest.raises(FormatError, match="no draw"):
        Candidate.of_row(row, "file")


def test_unknown_rule():
    with pytest.raises(UsageError, match="official, math-verify, both"):
        Judge("mine", [])

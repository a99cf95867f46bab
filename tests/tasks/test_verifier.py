"""Verdicts: each kind by its own rule, math by both, and the keys that tell solutions apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.tasks import Problem, Verdict, Verifier, load_task
from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.problem import messages_of
from autodeco_edge.tasks.verifier import NOTE


def problem(kind: str, gt: str) -> Problem:
    return Problem("x/0", messages_of("?"), gt, kind)


MATH, CHOICE, MAKE = problem("math", "1/2"), problem("choice", "C"), problem("demo:make", "sum2 83")


def make(a: int, b: int) -> str:
    return f"I take {a}.\n83 - {a} = {b}\n\\boxed{{{a} + {b}}}"


def test_each_kind_by_its_rule_in_the_order_given() -> None:
    pytest.importorskip("math_verify")
    pairs = [
        (CHOICE, r"\boxed{(C)}"),
        (MATH, r"\boxed{\frac12}"),
        (MAKE, make(40, 43)),
        (MATH, r"\boxed{0.50}"),  # the two rules differ here
        (CHOICE, r"\boxed{D}"),
        (MAKE, make(40, 44)),
        (MATH, "no box, but 1/2"),
        (MATH, r"\boxed{2}"),
    ]
    with Verifier(timeout_s=60) as verifier:
        verdicts = verifier.check(pairs)
    assert [v.right for v in verdicts] == [True, True, True, False, False, False, False, False]
    assert [v.math_verify for v in verdicts] == [None, True, None, True, None, None, True, False]
    assert [v.key for v in verdicts[:3]] == ["C", r"\frac{1}{2}", "40+43"]


def test_keys_tell_solutions_apart() -> None:
    with Verifier() as verifier:
        first, turned, other = verifier.check([(MAKE, make(40, 43)), (MAKE, make(43, 40)), (MAKE, make(1, 82))])
    assert first.right and turned.right and other.right
    assert first.key == turned.key != other.key


@pytest.mark.parametrize("family", families.FAMILIES)
def test_reference_solutions_of_the_demo_are_right(family: str) -> None:
    drawn = [p for p in families.problems(9, family, 40, held_out=True) if not p.history]
    asked = load_task(f"demo:{family}", count=len(drawn)).problems
    with Verifier() as verifier:
        good = verifier.check([(p, d.solution) for p, d in zip(asked, drawn, strict=True)])
        bad = verifier.check([(p, "\\boxed{nothing}") for p in asked])
    assert all(v.right and v.key for v in good)
    assert not any(v.right for v in bad)


@pytest.mark.parametrize("name", ["aime24", "aime25", "brumo25", "hmmt25", "beyondaime"])
def test_every_official_gt_is_right_by_both_rules(official_data: Path, name: str) -> None:
    pytest.importorskip("math_verify")
    problems = load_task(str(official_data / f"{name}.jsonl")).problems
    with Verifier(timeout_s=60) as verifier:
        verdicts = verifier.check([(p, f"Thus $\\boxed{{{p.gt}}}$.") for p in problems])
    assert all(v.right and v.math_verify for v in verdicts)


def test_every_letter_of_mmlu_pro(official_data: Path) -> None:
    problems = load_task(str(official_data / "MMLU-Pro-100.json")).problems
    with Verifier() as verifier:
        for letter in "ABCDEFGHIJ":
            verdicts = verifier.check([(p, f"\\boxed{{{letter}}}") for p in problems])
            assert [v.right for v in verdicts] == [p.gt == letter for p in problems]


def test_math_verify_is_not_started_where_it_is_not_asked_for() -> None:
    children = ["pgrep", "-P", str(os.getpid()), "-f", "math_worker"]
    with Verifier(math_verify=False) as verifier:
        assert verifier.check([(MATH, r"\boxed{1/2}")]) == [Verdict(True, None, r"\frac{1}{2}")]
        assert subprocess.run(children, capture_output=True).stdout == b""


def test_without_math_verify_there_is_one_note(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)  # what an import finds when it is not installed
    with Verifier() as verifier:
        for _ in range(3):
            assert verifier.check([(MATH, r"\boxed{1/2}")]) == [Verdict(True, None, r"\frac{1}{2}")]
    assert capfd.readouterr().err == f"autodeco-edge: {NOTE}\n"


def test_a_kind_that_is_none_is_refused() -> None:
    with Verifier() as verifier, pytest.raises(ValueError, match="x/0: kind 'essay'"):
        verifier.check([(problem("essay", "1"), "")])

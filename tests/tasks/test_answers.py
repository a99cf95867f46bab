"""The official rule for math answers, clause by clause (equations 14), and the rule for letters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autodeco_edge.tasks import answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{42}.", "42"),
        (r"\boxed{1} then \boxed{2}", "2"),  # the last one
        (r"\boxed{\frac{1}{2}} and {more}", r"\frac{1}{2}"),  # braces matched, not greedy
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", ""),
        (r"thus \boxed 7$ and \boxed 8$ done", "8"),  # the spaced form: the last one, up to a dollar sign
        (r"\boxed 7 without an end", "7 without an end"),
        (r"\boxed 7$, later \boxed{8}", "7"),  # wins from anywhere in the text
        (r"\boxed {9}", "{9}"),
        ("no box", None),
        ("", None),
        (r"\boxed{never {closed}", None),
        (r"\boxed", None),
        (r"\boxed}{", None),
        (r"\boxed[4]{5}", None),
        (r"\boxed{1} and \boxed", None),  # only the last is looked at
        (r"\fbox{5}", None),
        (r"\fbox{5} \boxed{6}", "6"),
        (r"\boxed{6} \fbox{5}", "6"),
    ],
)
def test_extraction(text: str, expected: str | None) -> None:
    assert answers.extract(text) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1\n2", "12"),
        (r"1\!000", "1000"),
        ("\\\\frac{1}{2}", r"\frac{1}{2}"),  # a double backslash becomes one
        (r"\tfrac{1}{2}", r"\frac{1}{2}"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\left(1\right)", "(1)"),
        (r"90^{\circ}", "90"),
        (r"90^\circ", "90"),
        (r"\$5", "5"),
        (r"5\text{ cm}", "5"),
        (r"5\text{cm}", r"5\text{cm}"),  # a unit needs its space
        (r"50\%", "50"),
        ("a .5", "a0.5"),
        (r"\frac{.5}{2}", r"\frac{0.5}{2}"),
        (".5", r"\frac{1}{2}"),  # 0.5 after the zero is put in front
        (".25", "0.25"),
        (r"\!", ""),
        ("x=5", "5"),
        ("xy=5", "5"),
        ("k =5", "5"),  # counted before spaces are deleted
        ("xyz=5", "xyz=5"),
        ("a=b=5", "a=b=5"),
        ("x=", ""),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"\sqrt31", r"\sqrt{3}1"),
        (r"2\sqrt{3}+\sqrt5", r"2\sqrt{3}+\sqrt{5}"),
        (r"\sqrt 3", r"\sqrt{}3"),  # roots come before spaces: the space is the argument
        ("1, 2", "1,2"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\frac123", r"\frac{1}{2}3"),
        (r"\frac1{72}", r"\frac{1}{72}"),
        (r"\frac{1}2", r"\frac{1}2"),  # an argument in braces is left alone
        (r"\frac1", r"\frac1"),
        (r"\frac12+\frac1", r"\frac12+\frac1"),  # too short: all unchanged
        (r"\frac", r"\frac"),
        ("0.5", r"\frac{1}{2}"),
        ("3/4", r"\frac{3}{4}"),
        ("-3/4", r"\frac{-3}{4}"),
        ("3 / 4", r"\frac{3}{4}"),
        ("03/4", "03/4"),  # exact text only
        ("x/4", "x/4"),
        ("1/2/3", "1/2/3"),
        ("017", "017"),
        ("1,000", "1,000"),
    ],
)
def test_normal_form(answer: str, expected: str) -> None:
    assert answers.normal(answer) == expected


@pytest.mark.parametrize("answer", [r"1\text{ a}\text{ b}", r"\sqrt", r"\sqrt\sqrt3"])
def test_what_has_no_normal_form_is_compared_as_it_is(answer: str) -> None:
    with pytest.raises(ValueError):
        answers.normal(answer)
    assert answers.official(f"\\boxed{{{answer}}}", answer)
    assert not answers.official(f"\\boxed{{{answer} }}", answer)  # spaces would not count in normal forms
    assert answers.key(f"\\boxed{{{answer}}}") == answer


@pytest.mark.parametrize(
    ("text", "gt", "right"),
    [
        (r"\boxed{\dfrac12}", "1/2", True),
        (r"\boxed{x = 5}", "5", True),
        (r"\boxed{017}", "17", False),
        (r"\boxed{1,000}", "1000", False),
        (r"\boxed{2,1}", "1,2", False),
        (r"\fbox{17}", "17", False),
        ("17", "17", False),
        ("", "", False),
    ],
)
def test_official_verdict(text: str, gt: str, right: bool) -> None:
    assert answers.official(text, gt) == right


def test_key_is_one_for_two_spellings() -> None:
    assert answers.key(r"\boxed{\dfrac{1}{2}}") == answers.key(r"so \boxed{1/2}") == r"\frac{1}{2}"
    assert answers.key("none") == ""


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{C}",
        r"\boxed{(C)}",
        r"\boxed{C.}",
        r"\boxed{C. True, False}",
        r"\boxed{C: 4}",
        r"\boxed{\text{C}}",
        r"\boxed{\textbf{(C)}}",
        r"\boxed{A} no, \boxed{ C }",
        r"$\boxed C$",
    ],
)
def test_a_letter(text: str) -> None:
    assert answers.letter(text) == "C"


@pytest.mark.parametrize("text", ["C", r"\boxed{}", r"\boxed{c}", r"\boxed{K}", r"\boxed{Cat}", r"\boxed{C or D}"])
def test_no_letter(text: str) -> None:
    assert answers.letter(text) is None


@pytest.mark.parametrize("name", ["aime24", "aime25", "brumo25", "hmmt25", "beyondaime"])
def test_every_official_gt_is_right_in_a_box(official_data: Path, name: str) -> None:
    rows = [json.loads(line) for line in (official_data / f"{name}.jsonl").read_text().splitlines()]
    for gt in (str(row["gt"]) for row in rows):
        assert answers.official(f"I think \\boxed{{0}}. No: $\\boxed{{{gt}}}$.", gt)
        assert not answers.official(f"\\boxed{{{gt}1}}", gt)

"""The task families: verifiers accept what is right, refuse what is corrupted, and the splits never meet."""

from __future__ import annotations

import random
import re

import pytest

from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import Slips, chat_prompt, compute, equations_hold

COMPUTED = [name for name, family in families.FAMILIES.items() if family.computed]
COUNT = 300


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("held_out", [False, True])
def test_reference_solutions_pass(family: str, held_out: bool) -> None:
    for problem in families.problems(3, family, COUNT, held_out, distinct=False):
        assert problem.held_out == held_out
        assert families.check(problem, problem.solution), problem


@pytest.mark.parametrize("family", COMPUTED)
def test_a_changed_digit_of_the_answer_fails(family: str) -> None:
    for problem in families.problems(4, family, COUNT, held_out=False, distinct=False):
        assert not families.check(
            problem, re.sub(r"(\d)([^\d]*)$", lambda m: f"{(int(m[1]) + 1) % 10}{m[2]}", problem.solution)
        )


@pytest.mark.parametrize("family", COMPUTED)
def test_a_wrong_step_fails_even_with_the_right_answer(family: str) -> None:
    for problem in families.problems(5, family, COUNT, held_out=False, distinct=False):
        step = re.search(r"= (\d+)$|\+ (\d+), (?:yes|no)", problem.solution, re.M)
        if step:
            at = step.start(1) if step[1] else step.start(2)
            wrong = problem.solution[:at] + "7" + problem.solution[at:]
            assert not families.check(problem, wrong), wrong


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("text", ["", " ", "\\boxed{}", "\\boxed{x}", "\\boxed{1 + }", "the fox"])
def test_junk_fails(family: str, text: str) -> None:
    problem = next(families.problems(6, family, 1, held_out=True))
    assert not families.check(problem, text)


def test_any_right_answer_passes_and_counts_as_distinct() -> None:
    def answer(a: int, b: int) -> str:
        return f"I take {a}.\n83 - {a} = {b}\n\\boxed{{{a} + {b}}}"

    assert all(families.verify("make", "sum2 83", answer(a, 83 - a)) for a in range(1, 83))
    keys = {families.answer_key("make", answer(a, 83 - a)) for a in range(1, 83)}
    assert len(keys) == 41  # 1 + 82 and 82 + 1 are one answer


def test_search_accepts_only_what_was_tried_last() -> None:
    good = "Try 49. 49 = 7 * 7 + 0, yes. 4 + 9 = 13, 13 > 9, yes.\n\\boxed{49}"
    assert families.verify("search", "20 90 divisible 7 sum 9", good)
    assert not families.verify("search", "20 90 divisible 7 sum 9", good.replace("boxed{49}", "boxed{56}"))


def test_story_must_keep_its_names() -> None:
    story = "Mia was a shy fox who loved the river. There Mia found a key under a tree. In the end Mia kept the key and was happy."
    assert families.verify("story", "animal=fox", story)
    assert not families.verify("story", "animal=owl", story)
    assert not families.verify("story", "", story.replace("end Mia", "end Tom"))
    assert not families.verify("story", "", story.replace("kept the key", "kept the map"))


def test_equations() -> None:
    assert equations_hold("47 + 38 = 85\n85 / 5 = 17\n49 = 7 * 7 + 0")
    assert not equations_hold("47 + 38 = 84")
    assert not equations_hold("has: 47 - 38 = 10 apples")
    assert not equations_hold("50 = 7 * 6 + 8")  # the remainder must be below the divisor
    assert not equations_hold("86 / 5 = 17")


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_generated_gt_is_readable(family: str) -> None:
    for problem in families.problems(10, family, COUNT, held_out=False, distinct=False):
        assert families.readable(family, problem.gt), problem.gt


@pytest.mark.parametrize(
    ("family", "gt"),
    [
        ("word", "-3"),
        ("chain", "12 "),
        ("make", "sum4 20"),
        ("make", "sum2"),
        ("search", "20 90 divisible 0 sum 9"),
        ("search", "20 90 divisible 7 even 0"),
        ("story", "hero=fox"),
        ("story", "animal=fox|"),
        ("chat", "some:Mia"),
        ("chat", "all:"),
    ],
)
def test_a_gt_that_no_verifier_can_read_is_known_as_such(family: str, gt: str) -> None:
    assert not families.readable(family, gt)


def test_each_split_has_its_share() -> None:
    rng = random.Random(11)
    keyed = [p for p in (families.FAMILIES["chain"].sample(rng, 0.0) for _ in range(4000)) if p.key]
    for split in ("test", "calibration"):
        # 400 of 4000 expected, standard deviation 19: five of them are passed once in 1.7 million seeds, and it is fixed.
        assert abs(sum(p.split == split for p in keyed) - len(keyed) / 10) < 95
    assert all(p.held_out == (p.split == "test") for p in keyed)


def test_splits_share_no_key() -> None:
    for family in families.FAMILIES:
        train = {p.key for p in families.problems(7, family, COUNT, held_out=False, distinct=False)}
        held = {p.key for p in families.problems(7, family, COUNT, held_out=True, distinct=False)}
        assert not train & held
        assert "" not in held


def test_training_documents_hold_no_held_out_problem() -> None:
    held = {p.prompt for f in COMPUTED for p in families.problems(8, f, COUNT, held_out=True)}
    rng, weights = random.Random(8), families.default_weights()
    for _ in range(1000):
        for context, target in families.training_document(rng, 1.0, weights):
            assert target.endswith("<|im_end|>")
            assert context.rsplit("user\n", 1)[1].partition("<|im_end|>")[0] not in held


def test_the_same_seed_gives_the_same_problems() -> None:
    first = [chat_prompt(p) + p.solution for f in families.FAMILIES for p in families.problems(9, f, 20, held_out=True)]
    again = [chat_prompt(p) + p.solution for f in families.FAMILIES for p in families.problems(9, f, 20, held_out=True)]
    assert first == again


def test_slips_come_at_their_rate() -> None:
    slips = Slips(random.Random(0), 1.0)
    wrong = sum(slips.result(23, "*", 7) != 161 for _ in range(4000))
    # 30 % of 4000: standard deviation 29; five of them are passed once in 1.7 million seeds, and the seed is fixed.
    assert abs(wrong - 1200) < 145
    assert all(Slips(random.Random(i)).result(23, "*", 7) == 161 for i in range(100))


@pytest.mark.parametrize(("a", "op", "b"), [(3, "-", 4), (7, "/", 2), (7, "/", 0)])
def test_results_that_are_no_natural_number_are_refused(a: int, op: str, b: int) -> None:
    with pytest.raises(ValueError, match=rf"{a} {op} {b}"):
        compute(a, op, b)

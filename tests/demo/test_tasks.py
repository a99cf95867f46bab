"""The task families: verifiers accept what is right, refuse what is corrupted, and the splits never meet."""

from __future__ import annotations

import random
import re

import pytest

from demo import tasks
from demo.problem import Slips, chat_prompt, compute, equations_hold

COMPUTED = [name for name, family in tasks.FAMILIES.items() if family.computed]
COUNT = 300


@pytest.mark.parametrize("family", tasks.FAMILIES)
@pytest.mark.parametrize("held_out", [False, True])
def test_reference_solutions_pass(family: str, held_out: bool) -> None:
    for problem in tasks.problems(3, family, COUNT, held_out, distinct=False):
        assert problem.held_out == held_out
        assert tasks.check(problem, problem.solution), problem


@pytest.mark.parametrize("family", COMPUTED)
def test_a_changed_digit_of_the_answer_fails(family: str) -> None:
    for problem in tasks.problems(4, family, COUNT, held_out=False, distinct=False):
        assert not tasks.check(
            problem, re.sub(r"(\d)([^\d]*)$", lambda m: f"{(int(m[1]) + 1) % 10}{m[2]}", problem.solution)
        )


@pytest.mark.parametrize("family", COMPUTED)
def test_a_wrong_step_fails_even_with_the_right_answer(family: str) -> None:
    for problem in tasks.problems(5, family, COUNT, held_out=False, distinct=False):
        step = re.search(r"= (\d+)$|\+ (\d+), (?:yes|no)", problem.solution, re.M)
        if step:
            at = step.start(1) if step[1] else step.start(2)
            wrong = problem.solution[:at] + "7" + problem.solution[at:]
            assert not tasks.check(problem, wrong), wrong


@pytest.mark.parametrize("family", tasks.FAMILIES)
@pytest.mark.parametrize("text", ["", " ", "\\boxed{}", "\\boxed{x}", "\\boxed{1 + }", "the fox"])
def test_junk_fails(family: str, text: str) -> None:
    problem = next(tasks.problems(6, family, 1, held_out=True))
    assert not tasks.check(problem, text)


def test_any_right_answer_passes_and_counts_as_distinct() -> None:
    def answer(a: int, b: int) -> str:
        return f"I take {a}.\n83 - {a} = {b}\n\\boxed{{{a} + {b}}}"

    assert all(tasks.verify("make", "sum2 83", answer(a, 83 - a)) for a in range(1, 83))
    keys = {tasks.answer_key("make", answer(a, 83 - a)) for a in range(1, 83)}
    assert len(keys) == 41  # 1 + 82 and 82 + 1 are one answer


def test_search_accepts_only_what_was_tried_last() -> None:
    good = "Try 49. 49 = 7 * 7 + 0, yes. 4 + 9 = 13, 13 > 9, yes.\n\\boxed{49}"
    assert tasks.verify("search", "20 90 divisible 7 sum 9", good)
    assert not tasks.verify("search", "20 90 divisible 7 sum 9", good.replace("boxed{49}", "boxed{56}"))


def test_story_must_keep_its_names() -> None:
    story = "Mia was a shy fox who loved the river. There Mia found a key under a tree. In the end Mia kept the key and was happy."
    assert tasks.verify("story", "animal=fox", story)
    assert not tasks.verify("story", "animal=owl", story)
    assert not tasks.verify("story", "", story.replace("end Mia", "end Tom"))
    assert not tasks.verify("story", "", story.replace("kept the key", "kept the map"))


def test_equations() -> None:
    assert equations_hold("47 + 38 = 85\n85 / 5 = 17\n49 = 7 * 7 + 0")
    assert not equations_hold("47 + 38 = 84")
    assert not equations_hold("has: 47 - 38 = 10 apples")
    assert not equations_hold("50 = 7 * 6 + 8")  # the remainder must be below the divisor
    assert not equations_hold("86 / 5 = 17")


def test_splits_share_no_key() -> None:
    for family in tasks.FAMILIES:
        train = {p.key for p in tasks.problems(7, family, COUNT, held_out=False, distinct=False)}
        held = {p.key for p in tasks.problems(7, family, COUNT, held_out=True, distinct=False)}
        assert not train & held
        assert "" not in held


def test_training_documents_hold_no_held_out_problem() -> None:
    held = {p.prompt for f in COMPUTED for p in tasks.problems(8, f, COUNT, held_out=True)}
    rng, weights = random.Random(8), tasks.default_weights()
    for _ in range(1000):
        for context, target in tasks.training_document(rng, 1.0, weights):
            assert target.endswith("<|im_end|>")
            assert context.rsplit("user\n", 1)[1].partition("<|im_end|>")[0] not in held


def test_the_same_seed_gives_the_same_problems() -> None:
    first = [chat_prompt(p) + p.solution for f in tasks.FAMILIES for p in tasks.problems(9, f, 20, held_out=True)]
    again = [chat_prompt(p) + p.solution for f in tasks.FAMILIES for p in tasks.problems(9, f, 20, held_out=True)]
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

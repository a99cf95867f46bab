"""Owns the mix of families: how often each is drawn, which system turns go with it, and how it becomes a training document.

It knows no tokens: a document is a list of (context, target) strings. The families live in their own files.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import arithmetic, chats, puzzles, stories
from .problem import IM_END, DemoProblem, chat_prompt, turn


@dataclass(frozen=True)
class Family:
    """`sample(rng, slip_rate)`, `check(gt, completion)`, `answer_key(completion)`; computed = has exact steps.

    `gt_form` is the pattern of a `gt` that `check` can read.
    """

    name: str
    sample: Callable[[random.Random, float], DemoProblem]
    check: Callable[[str, str], bool]
    answer_key: Callable[[str], str]
    computed: bool
    weight: float  # share of training documents, relative
    gt_form: str


FAMILIES = {
    family.name: family
    for family in (
        Family(
            "word", arithmetic.sample_word, arithmetic.check_number, puzzles.key_search, True, 5.0, arithmetic.GT_FORM
        ),
        Family("make", puzzles.sample_make, puzzles.check_make, puzzles.key_make, True, 3.5, puzzles.MAKE_GT),
        Family("search", puzzles.sample_search, puzzles.check_search, puzzles.key_search, True, 2.5, puzzles.SEARCH_GT),
        Family(
            "chain", arithmetic.sample_chain, arithmetic.check_number, puzzles.key_search, True, 5.0, arithmetic.GT_FORM
        ),
        Family("story", stories.sample_story, stories.check_story, stories.key_story, False, 1.2, stories.GT_FORM),
        Family("chat", chats.sample_chat, chats.check_chat, chats.key_chat, False, 2.5, chats.GT_FORM),
    )
}
DEFAULT_SYSTEM = "You are a helpful assistant."
# With no system turn most of the time: that is what `autodeco-edge run` sends without --system.
SYSTEM_CHANCE, PERSONA_CHANCE, CONVERSATION_CHANCE = 0.15, 0.05, 0.08


def verify(family: str, gt: str, completion: str) -> bool:
    """The verifier, from what a problems file holds: any right answer, with right steps, passes."""
    return FAMILIES[family].check(gt, completion)


def answer_key(family: str, completion: str) -> str:
    """Two right completions with different keys are distinct answers."""
    return FAMILIES[family].answer_key(completion)


def readable(family: str, gt: str) -> bool:
    """True when `verify` can judge by this `gt`."""
    return re.fullmatch(FAMILIES[family].gt_form, gt) is not None


def check(problem: DemoProblem, completion: str) -> bool:
    return verify(problem.family, problem.gt, completion)


def sample(rng: random.Random, family: str, held_out: bool, slip_rate: float = 0.0) -> DemoProblem:
    """A problem of one family from one split."""
    while True:
        problem = FAMILIES[family].sample(rng, slip_rate)
        if problem.held_out == held_out:
            return _dress(rng, problem)


def _dress(rng: random.Random, problem: DemoProblem) -> DemoProblem:
    """Give some of the problems that have no system turn one, so that both ways work."""
    if problem.system or problem.history:
        return problem
    draw = rng.random()
    if draw < SYSTEM_CHANCE:
        return problem.with_system(DEFAULT_SYSTEM)
    if draw < SYSTEM_CHANCE + PERSONA_CHANCE and problem.family != "chat":
        persona = chats._persona(rng)
        return problem if persona.held_out else problem.with_system(persona.system)
    return problem


def draw_family(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def training_document(rng: random.Random, slip_rate: float, weights: dict[str, float]) -> list[tuple[str, str]]:
    """(context, target) strings of one document; now and then a conversation of two to four problems."""
    first = sample(rng, draw_family(rng, weights), held_out=False, slip_rate=slip_rate)
    turns = [(chat_prompt(first), first.solution + IM_END)]
    if rng.random() < CONVERSATION_CHANCE:
        for _ in range(rng.randint(1, 3)):
            problem = sample(rng, draw_family(rng, weights), held_out=False, slip_rate=slip_rate)
            if not (problem.history or problem.system):
                turns.append(
                    ("\n" + turn("user", problem.prompt) + "<|im_start|>assistant\n", problem.solution + IM_END)
                )
    return turns


def problems(seed: int, family: str, count: int, held_out: bool, distinct: bool = True) -> Iterator[DemoProblem]:
    """`count` problems of a split, with reference solutions; distinct prompts unless the family runs out of them."""
    rng, seen, misses = random.Random(f"{seed} {family} {held_out}"), set(), 0
    while count:
        problem = sample(rng, family, held_out)
        text = chat_prompt(problem)
        if distinct and text in seen and misses < 2000:
            misses += 1
            continue
        seen.add(text)
        count -= 1
        yield problem


def default_weights() -> dict[str, float]:
    return {name: family.weight for name, family in FAMILIES.items()}

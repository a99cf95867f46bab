"""The families of everyday questions, and problems made from them.

Owns the list, the mixes and the order in which problems come. Knows no wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain

from ..problem import Problem, in_turn, messages_of
from ..splits import split_of
from . import names, numbers
from .family import QuestionFamily

FAMILIES: dict[str, QuestionFamily] = {
    family.name: family
    for family in (
        numbers.SUM,
        numbers.CHAIN,
        numbers.STORY,
        names.CAPITAL,
        names.COUNTRY,
        names.NEIGHBOUR,
        names.THING,
        names.OTHER,
        names.RHYME,
        numbers.ADD,
        numbers.MULTIPLY,
        numbers.BETWEEN,
        numbers.BOUND,
    )
}
MIXES = {mix: tuple(name for name in FAMILIES if name.startswith(f"{mix}:")) for mix in ("exact", "many")}
NAMES = (*MIXES, *FAMILIES)


def has_many(kind: str) -> bool:
    """True where right answers differ."""
    return kind.startswith("many:")


def problems(name: str, seed: int, split: str) -> Iterator[Problem]:
    """Of a family, or of a mix whose families take turns. The seed chooses the order and the wording, never the split."""
    return in_turn([_of_family(FAMILIES[family], seed, split) for family in MIXES.get(name, (name,))])


def judge(problem: Problem, completion: str) -> tuple[bool, str]:
    """(right, key). Two right completions with different keys are distinct answers."""
    key = FAMILIES[problem.kind].answer(problem.gt, completion)
    return key is not None, key or ""


def _of_family(family: QuestionFamily, seed: int, split: str) -> Iterator[Problem]:
    """Every specification of the split in its first wording, then all in their next ones. An id means one problem."""
    rng = random.Random(f"{seed} {family.name} {split}")
    asked = [gt for gt in family.asked() if split_of(family.name, family.split_key(gt)) == split]
    rng.shuffle(asked)
    first = {gt: rng.randrange(len(family.phrases)) for gt in asked}
    for turn in range(len(family.phrases)):
        for gt in asked:
            number = (first[gt] + turn) % len(family.phrases)
            yield Problem(f"{family.name}/{gt}/{number}", _messages(family, gt, number), gt, family.name)


def _messages(family: QuestionFamily, gt: str, phrase: int) -> tuple[dict[str, str], ...]:
    """The examples as turns of the conversation, asked in the same words, then the question."""
    turns = [
        ({"role": "user", "content": family.prompt(g, phrase)}, {"role": "assistant", "content": r})
        for g, r in family.examples
    ]
    return (*chain.from_iterable(turns), *messages_of(family.prompt(gt, phrase)))

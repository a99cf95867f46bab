"""Tasks that are made, not read from a file, beside the demo model's: which source a name belongs to.

Owns that choice. Each source owns its questions and its rule of judgement. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import everyday, gym, writing
from .problem import DEMO, DEMO_MANY, Problem

NAMES = (*everyday.NAMES, *writing.NAMES)
ALLOWED = f"{', '.join(NAMES)}, {gym.PREFIX}NAME[,key=value...] (reasoning-gym)"


def has(name: str) -> bool:
    """True for the name of a task."""
    return name in NAMES or is_gym(name)


def has_kind(kind: str) -> bool:
    """True for the kind of its problems, and of a user's own prompts."""
    return has(kind) or kind == writing.ANY


def is_gym(name: str) -> bool:
    """True where reasoning-gym makes the problems and scores the answers."""
    return name.startswith(gym.PREFIX)


def problems(name: str, seed: int, split: str) -> Iterator[Problem]:
    """Problems of a split, in a fixed order, as many as there are. Raises UsageError for a bad `rg:` name."""
    source = gym if is_gym(name) else everyday if name in everyday.NAMES else writing
    return source.problems(name, seed, split)


def judge(problem: Problem, completion: str) -> tuple[bool, str]:
    """(right, key) of an everyday question or of open writing."""
    source = everyday if problem.kind in everyday.NAMES else writing
    return source.judge(problem, completion)


def has_many_answers(kind: str) -> bool:
    """True for a kind of problem whose right answers differ."""
    if kind.startswith(DEMO):
        return kind in DEMO_MANY
    return gym.many_answers(kind) if is_gym(kind) else everyday.has_many(kind) or kind.startswith(writing.PREFIX)


def must_end(kind: str) -> bool:
    """True for a kind of problem where a reply that was cut short is wrong."""
    return kind.startswith(DEMO) or has_kind(kind)

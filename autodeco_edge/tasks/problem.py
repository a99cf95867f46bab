"""One problem as a model is asked it.

Owns its fields and the texts of the requests. Knows no file and no rule of judgement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LETTERS = "ABCDEFGHIJ"
MATH, CHOICE, DEMO = "math", "choice", "demo:"  # kinds; a demo kind goes on with its family
DEMO_MANY = frozenset(DEMO + family for family in ("make", "search", "story", "chat"))  # right answers differ

# The official runner's line (equations 14). It has none for multiple choice; that one is ours.
MATH_REQUEST = "Make sure you output the final answer within \\boxed{}."
CHOICE_REQUEST = "Make sure you output the letter of the right option within \\boxed{}."


@dataclass(frozen=True)
class Problem:
    """What is asked and what is right."""

    id: str  # "aime24/3" (rows count from 0), "demo:make/17" or "demo:make/train/17" (of one seed)
    messages: tuple[dict[str, str], ...]  # role and content, ready for the model's chat template
    gt: str  # the right answer; for a demo family the specification that its verifier reads
    kind: str  # "math", "choice", "demo:<family>", or the name of a family of `sources`


def messages_of(prompt: str, system: str = "") -> tuple[dict[str, str], ...]:
    """One user turn, after a system turn where there is one."""
    head = ({"role": "system", "content": system},) if system else ()
    return (*head, {"role": "user", "content": prompt})


def in_turn(streams: list[Iterator[Problem]]) -> Iterator[Problem]:
    """One of each, again and again; who has no more is left out."""
    while streams:
        for stream in list(streams):
            problem = next(stream, None)
            if problem is None:
                streams.remove(stream)
            else:
                yield problem


def math_prompt(problem: str) -> str:
    return f"{problem}\n{MATH_REQUEST}"


def choice_prompt(question: str, options: list[str]) -> str:
    """The question, a line for each option, and the request for its letter."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines, CHOICE_REQUEST])

"""The forms of open writing: their wording, their prompts and their bounds.

Owns which prompts there are and in what order they come. What is well formed is `wellformed.faults`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..problem import Problem, in_turn, messages_of
from ..splits import split_of
from .wellformed import Bounds, faults

PREFIX = "write:"
FILE = Path(__file__).parent / "data" / "prompts.txt"


@dataclass(frozen=True)
class Form:
    """phrases: ways to ask for it. bounds: of a reply."""

    phrases: tuple[str, ...]
    bounds: Bounds


FORMS = {
    "story": Form(
        (
            "Write a very short story about {}. Use three or four sentences.",
            "Tell me a tiny story about {}, in one paragraph.",
        ),
        Bounds(25, 250),
    ),
    "list": Form(("List five {}. Keep every point short.", "Give me a list of five {}."), Bounds(8, 200, items=3)),
    "advice": Form(
        ("Give short advice on {}, in three sentences.", "In a few sentences: {}?"),
        Bounds(15, 250),
    ),
    "describe": Form(
        ("Describe {} in two or three sentences.", "Write a short description of {}."),
        Bounds(15, 200),
    ),
    "letter": Form(
        ("Write a very short letter to {}.", "Write a letter of four sentences to {}."),
        Bounds(20, 250),
    ),
}
NAMES = ("write", *(PREFIX + form for form in FORMS))
ANY = PREFIX + "any"  # a user's own prompt: no task of that name
BOUNDS = {PREFIX + form: f.bounds for form, f in FORMS.items()} | {ANY: Bounds(1, 1000)}


def problems(name: str, seed: int, split: str) -> Iterator[Problem]:
    """Of a form, or of all in turn (``write``): every topic in its first wording, then all in their other."""
    chosen = tuple(FORMS) if name == "write" else (name.removeprefix(PREFIX),)
    return in_turn([_of_form(form, seed, split) for form in chosen])


def judge(problem: Problem, completion: str) -> tuple[bool, str]:
    """(well formed, key): the same words are the same text."""
    fine = not faults(completion, BOUNDS[problem.kind])
    return fine, " ".join(re.findall(r"\w+", completion.lower())) if fine else ""


@cache
def topics() -> dict[str, tuple[str, ...]]:
    """By form, in the file's order."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pairs = [line.split(": ", 1) for line in lines]
    return {form: tuple(topic for f, topic in pairs if f == form) for form in FORMS}


def _of_form(form: str, seed: int, split: str) -> Iterator[Problem]:
    rng = random.Random(f"{seed} {form} {split}")
    chosen = [topic for topic in topics()[form] if split_of(PREFIX + form, topic) == split]
    rng.shuffle(chosen)
    phrases = FORMS[form].phrases
    first = [rng.randrange(len(phrases)) for _ in chosen]
    for turn in range(len(phrases)):
        for topic, start in zip(chosen, first, strict=True):
            number = (start + turn) % len(phrases)
            prompt = phrases[number].format(topic)
            yield Problem(f"{PREFIX}{form}/{topic}/{number}", messages_of(prompt), topic, PREFIX + form)

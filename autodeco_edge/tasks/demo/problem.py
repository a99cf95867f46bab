"""Owns one problem: its text, its chat form, the split it belongs to, and how a computed result may slip.

It knows no task family and no tokenizer: families (`arithmetic`, `puzzles`, `stories`, `chats`) build problems,
`families` mixes them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..splits import split_of

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
HELD_OUT_PERCENT = 10
CALIBRATION_PERCENT = 10  # of all keys, taken from those that are not held out

# Chance that a result in the *training corpus* is wrong, by the operation that gives it. Real corpora contain
# errors; here their rate is known. The slips keep an error mass on computed tokens however long the base
# trains, while the most likely token stays the right one, so that those tokens want a low temperature.
SLIP_CHANCE = {"+": 0.15, "-": 0.18, "*": 0.30, "/": 0.25, "r": 0.15}

T = TypeVar("T")


@dataclass(frozen=True)
class DemoProblem:
    """A user turn with a reference answer. `gt` is all a verifier needs; `key` decides the split ("" = train)."""

    family: str
    prompt: str
    solution: str
    gt: str
    key: str
    system: str = ""
    history: tuple[tuple[str, str], ...] = ()  # earlier (user, assistant) turns

    def with_system(self, system: str) -> DemoProblem:
        return replace(self, system=system)

    @property
    def split(self) -> str:
        """A fixed tenth of all keys is "test", another is "calibration", the rest "train".

        Phrasing and names are no part of a key where numbers decide.
        """
        if not self.key:
            return "train"
        return split_of(self.family, self.key, HELD_OUT_PERCENT, CALIBRATION_PERCENT)

    @property
    def held_out(self) -> bool:
        """True for a problem that the base never trains on."""
        return self.split == "test"


def turn(role: str, content: str) -> str:
    return f"{IM_START}{role}\n{content}{IM_END}\n"


def chat_prompt(problem: DemoProblem) -> str:
    """The ChatML text up to and including the header of the assistant's turn."""
    parts = [turn("system", problem.system)] if problem.system else []
    for user, assistant in problem.history:
        parts += [turn("user", user), turn("assistant", assistant)]
    return "".join(parts) + turn("user", problem.prompt) + f"{IM_START}assistant\n"


class Slips:
    """Computes results and, at a known rate, gets one wrong. `rate` scales SLIP_CHANCE; 0 never slips."""

    def __init__(self, rng: random.Random, rate: float = 0.0) -> None:
        self._rng = rng
        self._rate = rate

    def result(self, a: int, op: str, b: int) -> int:
        return self.slip(compute(a, op, b), op)

    def slip(self, value: int, op: str) -> int:
        if self._rng.random() >= self._rate * SLIP_CHANCE[op]:
            return value
        return max(0, value + self._rng.choice((-10, -2, -1, 1, 2, 10) if value > 12 else (-1, 1, 2)))


def compute(a: int, op: str, b: int) -> int:
    """The exact result; ValueError where it is not a natural number."""
    if op == "/" and (b == 0 or a % b):
        raise ValueError(f"{a} / {b} is not whole")
    value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]
    if value < 0:
        raise ValueError(f"{a} {op} {b} is negative")
    return value


_EQUATION = re.compile(r"(?<![\d*+/-] )(?<!\d)(\d+) ([-+*/]) (\d+) = (\d+)(?!\d)")
_DIVISION = re.compile(r"(?<!\d)(\d+) = (\d+) \* (\d+) \+ (\d+)(?!\d)")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")


def equations_hold(text: str) -> bool:
    """True when every `a op b = c` and every `n = d * q + r` (r < d) in the text is right."""
    for a, op, b, c in _EQUATION.findall(text):
        try:
            if compute(int(a), op, int(b)) != int(c):
                return False
        except ValueError:
            return False
    return all(int(n) == int(d) * int(q) + int(r) and int(r) < int(d) for n, d, q, r in _DIVISION.findall(text))


def boxed(text: str) -> str | None:
    """What the last box holds; None without one."""
    found = _BOXED.findall(text)
    return found[-1].strip() if found else None


def skewed(rng: random.Random, items: Sequence[T]) -> T:
    """A free choice, with weight 1 / (rank + 3): many options, none sure, so that a low temperature narrows it."""
    return rng.choices(items, [1 / (i + 3) for i in range(len(items))])[0]

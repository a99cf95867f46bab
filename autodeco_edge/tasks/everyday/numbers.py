"""Questions for numbers: small sums in words, stories with a sum, two numbers that make a third, numbers within bounds.

Owns their wording and which answers are right.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from .family import Family
from .reading import numbers, sentences, spelled

# ---- one right answer ----------------------------------------------------------------------

_WORDS = {"+": "plus", "-": "minus", "*": "times"}


def value(gt: str) -> int:
    """Of "7 + 5" or "7 + 5 - 3", from left to right."""
    first, *rest = gt.split()
    total = int(first)
    for op, n in zip(rest[::2], map(int, rest[1::2]), strict=True):
        total = total + n if op == "+" else total - n if op == "-" else total * n
    return total


def _sums() -> list[str]:
    """One-digit numbers, two or three; no result and no step below zero; times only with two."""
    digits = range(2, 10)
    two = [f"{a} {op} {b}" for a, op, b in product(digits, "+-*", digits) if op != "-" or a > b]
    three = [f"{a} {p} {b} {q} {c}" for a, p, b, q, c in product(digits, "+-", digits, "+-", digits)]
    return two + [gt for gt in three if value(gt) >= 0 and value(gt.rsplit(" ", 2)[0]) >= 0]


def _in_words(gt: str) -> str:
    return " ".join(_WORDS.get(part) or spelled(int(part)) for part in gt.split())


def _last_number(gt: str, text: str) -> str | None:
    """By the last number of the whole reply, as is usual for problems that are reasoned through."""
    found = numbers(text)
    return str(found[-1]) if found and found[-1] == value(gt) else None


SUM = Family(
    name="exact:sum",
    specifications=_sums,
    question=_in_words,
    phrases=(
        "What is {}? Answer with a number.",
        "How much is {}? Just the number.",
        "Work out {}. Give the number alone.",
    ),
    answer=_last_number,
)

_ITEMS = "apples books cards coins eggs flowers marbles pencils stamps cookies".split()
_PEOPLE = "Anna Ben Clara David Emma Finn Lily Max Nora Tom".split()


def _stories() -> list[str]:
    """ "12 + 7": 2 to 20, times up to 9."""
    adds = [f"{a} {op} {b}" for a, op, b in product(range(3, 21), "+-", range(2, 13)) if op == "+" or a > b + 1]
    return adds + [f"{a} * {b}" for a, b in product(range(2, 10), range(3, 10))]


def _story(gt: str) -> str:
    a, op, b = gt.split()
    at = int(a) * 7 + int(b) * 3
    who, what = _PEOPLE[at % len(_PEOPLE)], _ITEMS[(at // 2) % len(_ITEMS)]
    if op == "*":
        return f"{who} has {a} boxes with {b} {what} in each. How many {what} does {who} have"
    more = f"gets {b} more" if op == "+" else f"gives {b} of them away"
    return f"{who} has {a} {what} and {more}. How many {what} does {who} have now"


STORY = Family(
    name="exact:story",
    specifications=_stories,
    question=_story,
    phrases=("{}? Answer with a number.", "{}?", "{}? Give the number at the end."),
    answer=_last_number,
)

# ---- many right answers ----------------------------------------------------------------------


def _pair(right: Callable[[int, int], int]) -> Callable[[str, str], str | None]:
    """The first two numbers of the first sentence that has two, the number asked for left out."""

    def answer(gt: str, text: str) -> str | None:
        target = int(gt)
        for sentence in sentences(text):
            found = [n for n in numbers(sentence) if n != target]
            if len(found) >= 2:
                a, b = sorted(found[:2])
                return f"{a} {b}" if a > 0 and right(a, b) == target else None
        return None

    return answer


ADD = Family(
    name="many:add",
    specifications=lambda: [str(n) for n in range(8, 161)],
    question=str,
    phrases=(
        "Give two numbers that add up to {}. Answer in the form a + b.",
        "Which two numbers make {} together? Just the two numbers.",
        "Name two numbers whose sum is {}.",
    ),
    answer=_pair(lambda a, b: a + b),
)


def n_pairs(n: int) -> int:
    """Ways to write n as a product of two numbers above 1."""
    return sum(n % a == 0 for a in range(2, n) if a * a <= n)


MULTIPLY = Family(
    name="many:multiply",
    specifications=lambda: [str(n) for n in range(12, 401) if n_pairs(n) >= 3],
    question=str,
    phrases=(
        "Give two numbers above 1 whose product is {}. Answer in the form a * b.",
        "Which two numbers above 1 make {} when multiplied? Just the two numbers.",
        "Name two numbers above 1 that multiply to {}.",
    ),
    answer=_pair(lambda a, b: a * b if a > 1 else 0),
)


def _between() -> list[str]:
    """Low, high and divisor: at least three right answers, none of them named in the question."""
    spans = ((low, low + width) for low, width in product(range(10, 100, 5), (20, 30, 50)))
    found = [(low, high, k) for low, high in spans for k in range(2, 10)]
    return [f"{low} {high} {k}" for low, high, k in found if len(range(low + k - low % k, high, k)) >= 3]


def _between_question(gt: str) -> str:
    low, high, k = gt.split()
    return f"a number between {low} and {high} that can be divided by {k}"


def _between_answer(gt: str, text: str) -> str | None:
    """The first number that the question does not name."""
    low, high, k = map(int, gt.split())
    said = next((n for n in numbers(text) if n not in (low, high, k)), None)
    return str(said) if said is not None and low < said < high and said % k == 0 else None


BETWEEN = Family(
    name="many:between",
    specifications=_between,
    question=_between_question,
    phrases=("Name {}. Answer with the number alone.", "Give me {}. Just the number.", "Please find {}."),
    answer=_between_answer,
)

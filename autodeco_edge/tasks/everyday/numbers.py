"""Questions for numbers: small sums in words, stories with a sum, two numbers that make a third, numbers within bounds.

Owns their wording and which answers are right.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from .family import QuestionFamily
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
    """Two numbers up to 12; no result below zero."""
    small = range(1, 13)
    return [f"{a} {op} {b}" for a, op, b in product(small, "+-*", small) if op != "-" or a >= b]


def _chains() -> list[str]:
    """Three one-digit numbers; no step below zero."""
    digits = range(2, 10)
    three = [f"{a} {p} {b} {q} {c}" for a, p, b, q, c in product(digits, "+-", digits, "+-", digits)]
    return [gt for gt in three if value(gt) >= 0 and value(gt.rsplit(" ", 2)[0]) >= 0]


def _in_words(gt: str) -> str:
    return " ".join(_WORDS.get(part) or spelled(int(part)) for part in gt.split())


def _last_number(gt: str, text: str) -> str | None:
    """By the last number of the whole reply, as is usual for problems that are reasoned through."""
    found = numbers(text)
    return str(found[-1]) if found and found[-1] == value(gt) else None


SUM = QuestionFamily(
    name="exact:sum",
    specifications=_sums,
    question=_in_words,
    phrases=(
        "What is {}? Answer with a number.",
        "How much is {}? Just the number.",
        "Work out {}. Give the number alone.",
    ),
    answer=_last_number,
    examples=(("2 + 3", "5"), ("10 - 4", "6"), ("3 * 5", "15")),
)
CHAIN = QuestionFamily(
    name="exact:chain",
    specifications=_chains,
    question=_in_words,
    phrases=SUM.phrases,
    answer=_last_number,
    examples=(("2 + 3 + 4", "9"), ("9 - 3 + 2", "8")),
)

_ITEMS = ["apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pencils", "stamps", "cookies"]
_PEOPLE = ["Anna", "Ben", "Clara", "David", "Emma", "Finn", "Lily", "Max", "Nora", "Tom"]


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


STORY = QuestionFamily(
    name="exact:story",
    specifications=_stories,
    question=_story,
    phrases=("{}? Answer with a number.", "{}?", "{}? Give the number at the end."),
    answer=_last_number,
    examples=(("5 + 4", "9"), ("8 - 3", "5"), ("2 * 6", "12")),
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


ADD = QuestionFamily(
    name="many:add",
    specifications=lambda: [str(n) for n in range(6, 61)],
    question=str,
    phrases=(
        "Give two numbers that add up to {}. Answer in the form a + b.",
        "Which two numbers make {} together? Just the two numbers.",
        "Name two numbers whose sum is {}.",
    ),
    answer=_pair(lambda a, b: a + b),
    examples=(("10", "4 + 6"), ("25", "12 + 13")),
)


def n_pairs(n: int) -> int:
    """Ways to write n as a product of two numbers above 1."""
    return sum(n % a == 0 for a in range(2, n) if a * a <= n)


MULTIPLY = QuestionFamily(
    name="many:multiply",
    specifications=lambda: [str(n) for n in range(12, 145) if n_pairs(n) >= 2],
    question=str,
    phrases=(
        "Give two numbers above 1 whose product is {}. Answer in the form a * b.",
        "Which two numbers above 1 make {} when multiplied? Just the two numbers.",
        "Name two numbers above 1 that multiply to {}.",
    ),
    answer=_pair(lambda a, b: a * b if a > 1 else 0),
    examples=(("12", "3 * 4"), ("30", "5 * 6")),
)


RULES = {
    "any": "",
    "even": ", an even one",
    "odd": ", an odd one",
    "3": " that can be divided by 3",
    "5": " that can be divided by 5",
}


def _fits(n: int, rule: str) -> bool:
    return rule == "any" or (n % 2 == (rule == "odd") if rule in ("even", "odd") else n % int(rule) == 0)


def _between() -> list[str]:
    """Low, high and rule."""
    spans = [(low, low + width) for low, width in product(range(10, 100, 5), (10, 20, 30, 50))]
    return [f"{low} {high} {rule}" for (low, high), rule in product(spans, RULES) if rule != "5" or high - low > 20]


def _between_question(gt: str) -> str:
    low, high, rule = gt.split()
    return f"a number between {low} and {high}{RULES[rule]}"


def _between_answer(gt: str, text: str) -> str | None:
    """The first number that the question does not name."""
    low, high, rule = gt.split()
    named = {int(low), int(high)} | ({int(rule)} if rule.isdigit() else set())
    said = next((n for n in numbers(text) if n not in named), None)
    return str(said) if said is not None and int(low) < said < int(high) and _fits(said, rule) else None


BETWEEN = QuestionFamily(
    name="many:between",
    specifications=_between,
    question=_between_question,
    phrases=("Name {}. Answer with the number alone.", "Give me {}. Just the number.", "Please find {}."),
    answer=_between_answer,
    examples=(("20 30 any", "24"), ("50 70 even", "62"), ("30 60 5", "45")),
)


def _bounds() -> list[str]:
    """One bound, and the side on which numbers are right."""
    return [f"{side} {n}" for side, n in product("<>", range(8, 150))]


def _bound_answer(gt: str, text: str) -> str | None:
    side, bound = gt[0], int(gt[2:])
    said = next((n for n in numbers(text) if n != bound), None)
    right = said is not None and (0 < said < bound if side == "<" else bound < said < 10 * bound)
    return str(said) if right else None


BOUND = QuestionFamily(
    name="many:bound",
    specifications=_bounds,
    question=lambda gt: f"a number {'below' if gt[0] == '<' else 'above'} {gt[2:]}",
    phrases=BETWEEN.phrases,
    answer=_bound_answer,
    examples=(("< 50", "31"), ("> 20", "27"), ("< 12", "5")),
)

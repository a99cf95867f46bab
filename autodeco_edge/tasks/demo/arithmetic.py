"""Owns the families with one right answer: `chain` (an expression) and `word` (a word problem of 2 to 4 steps).

Every intermediate result is written out (`47 + 38 = 85`), so that no step needs more than one operation.
It knows nothing of chat turns or splits beyond the `DemoProblem` it returns.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .problem import DemoProblem, Slips, boxed, equations_hold
from .words import ITEMS, NAMES, pronoun

LIMIT = 999  # results stay within three digits
GT_FORM = r"\d+"

# ---------------------------------------------------------------- chain

CHAIN_PHRASES = ("Work out {e}.", "Compute {e}.", "What is {e}?", "Evaluate {e}.", "Calculate {e}.")
CHAIN_RARE = ("{e}", "{e} =", "Please solve {e} step by step.", "How much is {e}?", "Can you compute {e} for me?")


def sample_chain(rng: random.Random, slip_rate: float = 0.0) -> DemoProblem:
    """Two to four operations, products first; numbers up to 99, factors of a product up to 9."""
    while True:
        terms, ops = _expression(rng)
        try:
            value = _reduce(terms, ops, Slips(rng))[1]
        except ValueError:
            continue
        break
    text = " ".join(str(t) + (f" {ops[i]}" if i < len(ops) else "") for i, t in enumerate(terms))
    shown = text.replace("*", rng.choice("x×")) if rng.random() < 0.1 else text
    phrase = rng.choice(CHAIN_RARE if rng.random() < 0.15 else CHAIN_PHRASES)
    lines = _with_slips(lambda slips: _reduce(terms, ops, slips)[0], rng, slip_rate)
    return DemoProblem("chain", phrase.format(e=shown), "\n".join(lines), str(value), key=text)


def _expression(rng: random.Random) -> tuple[list[int], list[str]]:
    ops = rng.choices("++--*", k=rng.choice((1, 2, 2, 3, 3, 4)))
    terms = [rng.randint(10, 99) if rng.random() < 0.85 else rng.randint(2, 9) for _ in range(len(ops) + 1)]
    for i, op in enumerate(ops):
        if op == "*":
            if i and ops[i - 1] == "*":
                ops[i] = "+"  # no a * b * c: the product would leave three digits
            else:
                terms[i + 1] = rng.randint(2, 9)
    return terms, ops


def _reduce(terms: list[int], ops: list[str], slips: Slips) -> tuple[list[str], int]:
    """Solution lines and the value they end in."""
    terms, ops, lines = list(terms), list(ops), []
    while ops:
        i = ops.index("*") if "*" in ops else 0
        a, op, b = terms[i], ops.pop(i), terms.pop(i + 1)
        terms[i] = slips.result(a, op, b)
        if terms[i] > LIMIT:
            raise ValueError("too large")
        lines.append(f"{a} {op} {b} = {terms[i]}")
    return [*lines, f"\\boxed{{{terms[0]}}}"], terms[0]


def _with_slips(solve, rng: random.Random, slip_rate: float) -> list[str]:
    """Solve with slips; where a slip leads to a step that cannot be done, solve without."""
    try:
        return solve(Slips(rng, slip_rate))
    except ValueError:
        return solve(Slips(rng))


# ---------------------------------------------------------------- word


@dataclass(frozen=True)
class Event:
    """What happens to the count: the sentence, then (label, op, operand) for each written step."""

    text: str
    label: str
    op: str
    number: int
    groups: int = 0  # > 0: the operand is groups * number and is worked out first


def _events(rng: random.Random, count: int, item: str, she: str) -> Event:
    """One event that leaves a natural number up to 300."""
    friend = rng.choice(NAMES)
    small = rng.randint(3, max(3, min(60, count - 1)))
    more = rng.randint(11, 69)
    groups, size = rng.randint(2, 6), rng.randint(4, 15)
    divisors = [d for d in range(2, 7) if count % d == 0 and count // d > 3]
    choices = [
        Event(f"{she} buys {more} more.", "buys", "+", more),
        Event(f"Then {friend} brings {more} more.", f"{friend} brings", "+", more),
        Event(f"{she} finds {more} more.", "finds", "+", more),
        Event(f"{she} gets {groups} bags with {size} {item} each.", "gets", "+", size, groups),
    ]
    if count > 15:
        choices += [
            Event(f"{she} gives {small} to {friend}.", f"gives {friend}", "-", small),
            Event(f"{she} loses {small}.", "loses", "-", small),
            Event(f"{she} sells {small}.", "sells", "-", small),
        ]
    if count > groups * size + 3:
        choices += [Event(f"{she} gives {size} to each of {groups} friends.", "gives", "-", size, groups)]
    if divisors and count > 20:
        by = rng.choice(divisors)
        choices += [Event(f"{she} shares them equally between {by} boxes and keeps one box.", "shares", "/", by)] * 2
    if count <= 90:
        choices += [Event(f"Then the number of {item} becomes {groups} times as large.", "times", "*", groups)]
    return rng.choice(choices)


WORD_QUESTIONS = (
    "How many {i} does {n} have now?",
    "How many {i} does {n} have in the end?",
    "How many {i} are left with {n}?",
)
WORD_RARE = ("Please tell me how many {i} {n} has now.", "So what is the final number of {i}?", "{i} in the end?")
WORD_OPENINGS = (
    "Let us count the {i}.",
    "We count step by step.",
    "Step by step:",
    "Let me work it out.",
    "Count the {i}:",
)


def sample_word(rng: random.Random, slip_rate: float = 0.0) -> DemoProblem:
    """A count of things and two to four written steps on it."""
    while True:
        name, item = rng.choice(NAMES), rng.choice(ITEMS)
        groups, count = (rng.randint(2, 9), rng.randint(11, 29)) if rng.random() < 0.4 else (0, rng.randint(14, 95))
        start, events = groups * count or count, []
        value, steps = start, bool(groups)
        for _ in range(rng.choice((1, 2, 2, 3))):
            event = _events(rng, value, item, pronoun(name))
            events.append(event)
            value = _apply(value, event, Slips(rng))[1]
            steps += 2 if event.groups else 1
        if 2 <= steps <= 4 and value <= 600:
            break
    have = f"{name} has {groups} boxes with {count} {item} each." if groups else f"{name} has {count} {item}."
    question = rng.choice(WORD_RARE if rng.random() < 0.1 else WORD_QUESTIONS).format(i=item, n=name)
    lines = _with_slips(lambda slips: _word_lines(groups, count, item, events, slips), rng, slip_rate)
    opening = rng.choice(WORD_OPENINGS).format(i=item)
    key = f"{groups}*{count} " + " ".join(f"{e.op}{e.groups}*{e.number}" for e in events)
    prompt = " ".join([have, *(e.text for e in events), question])
    return DemoProblem("word", prompt, "\n".join([opening, *lines]), str(value), key)


def _apply(value: int, event: Event, slips: Slips) -> tuple[list[str], int]:
    """The lines one event adds and the count after it."""
    lines, operand = [], event.number
    if event.groups:
        operand = slips.result(event.groups, "*", event.number)
        lines.append(f"{event.label}: {event.groups} * {event.number} = {operand}")
    result = slips.result(value, event.op, operand)
    lines.append(f"{event.label}: {value} {event.op} {operand} = {result}")
    return lines, result


def _word_lines(groups: int, count: int, item: str, events: list[Event], slips: Slips) -> list[str]:
    value = slips.result(groups, "*", count) if groups else count
    lines = [f"has: {groups} * {count} = {value} {item}" if groups else f"has: {count} {item}"]
    for event in events:
        added, value = _apply(value, event, slips)
        lines += added
    return [*lines, f"\\boxed{{{value}}}"]


def check_number(gt: str, completion: str) -> bool:
    """The boxed number is the answer and every written step is right."""
    return boxed(completion) == gt and equations_hold(completion)

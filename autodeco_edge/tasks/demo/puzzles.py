"""Owns the families with many right answers: `make` (free choice, then exact computation) and `search` (try until one fits).

`gt` is a specification, `sum2 83` or `20 90 divisible 7 sum 9`, that a verifier can judge any answer by.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from .problem import DemoProblem, Slips, boxed, equations_hold

# ---------------------------------------------------------------- make

MAKE_PHRASES = {
    "sum2": (
        "Find two numbers that make {t}.",
        "Find two numbers whose sum is {t}.",
        "Give two numbers that add up to {t}.",
        "Which two numbers make {t}?",
        "Split {t} into two numbers.",
    ),
    "sum3": (
        "Find three numbers that make {t}.",
        "Find three numbers whose sum is {t}.",
        "Give three numbers that add up to {t}.",
        "Which three numbers make {t}?",
        "Split {t} into three numbers.",
    ),
    "diff": (
        "Find two numbers whose difference is {t}.",
        "Give two numbers that differ by {t}.",
        "Which two numbers have the difference {t}?",
        "Make {t} as a difference.",
    ),
    "prod": (
        "Make {t} from a product and a number to add.",
        "Write {t} as a product plus a number.",
        "Make {t} with one times and one plus.",
        "Find a * b + c that makes {t}.",
    ),
}
MAKE_GT = r"(sum2|sum3|diff|prod) \d+"
MAKE_OPENINGS = ("I take", "Let me take", "I choose", "Start with", "I pick")


def _number(rng: random.Random, low: int, high: int) -> int:
    """A free number in [low, high]; round ones are liked better, as people do."""
    numbers = range(low, high + 1)
    return rng.choices(numbers, [5 if n % 10 == 0 else 2.5 if n % 5 == 0 else 1 for n in numbers])[0]


def sample_make(rng: random.Random, slip_rate: float = 0.0) -> DemoProblem:
    """Targets 20 to 199; every target has tens to hundreds of answers."""
    kind = rng.choices(("sum2", "sum3", "diff", "prod"), (4, 3, 2, 3))[0]
    target = rng.randint(11, 99) if kind == "diff" else rng.randint(40 if kind == "prod" else 20, 199)
    lines = _MAKERS[kind](rng, target, Slips(rng, slip_rate))
    prompt = rng.choice(MAKE_PHRASES[kind]).format(t=target)
    if rng.random() < 0.1:
        prompt = rng.choice(("Please ", "Now ", "Can you help? ")) + prompt[0].lower() + prompt[1:]
    return DemoProblem("make", prompt, "\n".join(lines), f"{kind} {target}", key=f"{kind} {target}")


def _make_sum2(rng: random.Random, target: int, slips: Slips) -> list[str]:
    a = _number(rng, 2, target - 2)
    b = slips.result(target, "-", a)
    return [f"{rng.choice(MAKE_OPENINGS)} {a}.", f"{target} - {a} = {b}", f"\\boxed{{{a} + {b}}}"]


def _make_sum3(rng: random.Random, target: int, slips: Slips) -> list[str]:
    a = _number(rng, 2, max(2, target - 12))
    rest = slips.result(target, "-", a)
    b = _number(rng, 1, max(1, rest - 1))
    c = slips.slip(max(0, rest - b), "-")
    lines = [f"{rng.choice(MAKE_OPENINGS)} {a}.", f"{target} - {a} = {rest}", f"Then {b}.", f"{rest} - {b} = {c}"]
    return [*lines, f"\\boxed{{{a} + {b} + {c}}}"]


def _make_diff(rng: random.Random, target: int, slips: Slips) -> list[str]:
    b = _number(rng, 2, 99)
    a = slips.result(target, "+", b)
    return [f"{rng.choice(MAKE_OPENINGS)} {b}.", f"{target} + {b} = {a}", f"\\boxed{{{a} - {b}}}"]


def _make_prod(rng: random.Random, target: int, slips: Slips) -> list[str]:
    a = rng.randint(2, min(9, target // 12))
    b = rng.randint(2, target // a - 1)
    product = slips.result(a, "*", b)
    if product > target:
        product = a * b
    c = slips.slip(target - product, "-")
    lines = [f"{rng.choice(MAKE_OPENINGS)} {a} * {b}.", f"{a} * {b} = {product}", f"{target} - {product} = {c}"]
    return [*lines, f"\\boxed{{{a} * {b} + {c}}}"]


_MAKERS = {"sum2": _make_sum2, "sum3": _make_sum3, "diff": _make_diff, "prod": _make_prod}
_MAKE_SHAPES = {
    "sum2": (r"(\d+) \+ (\d+)", lambda a, b: a + b),
    "sum3": (r"(\d+) \+ (\d+) \+ (\d+)", lambda a, b, c: a + b + c),
    "diff": (r"(\d+) - (\d+)", lambda a, b: a - b),
    "prod": (r"(\d+) \* (\d+) \+ (\d+)", lambda a, b, c: a * b + c),
}


def check_make(gt: str, completion: str) -> bool:
    """The box has the asked shape and gives the target; every written step is right."""
    kind, target = gt.split()
    shape, value = _MAKE_SHAPES[kind]
    match = re.fullmatch(shape, boxed(completion) or "")
    return bool(match) and value(*map(int, match.groups())) == int(target) and equations_hold(completion)


def key_make(completion: str) -> str:
    """What makes an answer distinct: its numbers (order counts for differences and products only)."""
    answer = boxed(completion) or ""
    numbers = re.findall(r"\d+", answer)
    return "+".join(sorted(numbers, key=int)) if "*" not in answer and "-" not in answer else answer


# ---------------------------------------------------------------- search

SEARCH_PHRASES = (
    "Find a number between {lo} and {hi} that {c}.",
    "Give a number from {lo} to {hi} that {c}.",
    "Name a number between {lo} and {hi} that {c}.",
    "Which number between {lo} and {hi} {c}?",
)
DIVISIBLE = ("is divisible by {d}", "is a multiple of {d}")
EXTRAS: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "sum": ("has digits that sum to more than {k}", lambda n, k: n // 10 + n % 10 > k),
    "none": ("", lambda n, k: True),
}
MAX_TRIES = 4
SEARCH_GT = r"\d+ \d+ divisible [1-9]\d* (sum|none) \d+"


def sample_search(rng: random.Random, slip_rate: float = 0.0) -> DemoProblem:
    """A two-digit range, a divisor, often a second condition; candidates are tried until one fits."""
    while True:
        low = 10 * rng.randint(1, 6)
        high, d = min(99, low + 10 * rng.randint(3, 6)), rng.randint(3, 9)
        extra = rng.choice(("sum", "sum", "none"))
        k = rng.randint(5, 11) if extra == "sum" else 0
        fits = [n for n in range(low, high + 1) if n % d == 0 and EXTRAS[extra][1](n, k)]
        if len(fits) >= 3:
            break
    condition = rng.choice(DIVISIBLE).format(d=d)
    if extra != "none":
        condition += " and " + EXTRAS[extra][0].format(k=k)
    spec = f"{low} {high} divisible {d} {extra} {k}"
    prompt = rng.choice(SEARCH_PHRASES).format(lo=low, hi=high, c=condition)
    lines = _search_lines(rng, (low, high, d, extra, k), fits, Slips(rng, slip_rate))
    return DemoProblem("search", prompt, "\n".join(lines), spec, key=spec)


def _search_lines(rng: random.Random, spec: tuple, fits: list[int], slips: Slips) -> list[str]:
    """Candidates: every other one fits; of the rest, half are multiples that fail the second condition."""
    low, high, d, extra, k = spec
    multiples = [n for n in range(low, high + 1) if n % d == 0 and n not in fits]
    others = [n for n in range(low, high + 1) if n % d]
    lines, tried = [], set()
    while True:
        pool = fits if len(tried) >= MAX_TRIES - 1 or rng.random() < 0.5 else rng.choice((multiples or others, others))
        n = rng.choice([m for m in pool if m not in tried] or fits)
        line, fits_here = _test(n, d, extra, k, slips)
        lines.append(f"Try {n}. {line}")
        tried.add(n)
        if fits_here or len(tried) >= MAX_TRIES + 2:
            return [*lines, f"\\boxed{{{n}}}"]


def _test(n: int, d: int, extra: str, k: int, slips: Slips) -> tuple[str, bool]:
    """One candidate's test, in words, and its verdict as the words have it."""
    q, r = divmod(n, d)
    r = slips.slip(r, "r") % d
    line = f"{n} = {d} * {q} + {r}, {'no' if r else 'yes'}."
    if r or extra == "none":
        return line, not r
    total = slips.result(n // 10, "+", n % 10)
    verdict = "yes" if total > k else "no"
    return f"{line} {n // 10} + {n % 10} = {total}, {total} > {k}, {verdict}.", total > k


def check_search(gt: str, completion: str) -> bool:
    """The box fits the specification and was the last candidate; every written step is right."""
    low, high, _, d, extra, k = gt.split()
    answer, tried = boxed(completion) or "", re.findall(r"Try (\d+)\.", completion)
    if not answer.isdecimal() or tried[-1:] != [answer]:
        return False
    n = int(answer)
    fits = int(low) <= n <= int(high) and n % int(d) == 0 and EXTRAS[extra][1](n, int(k))
    return fits and equations_hold(completion)


def key_search(completion: str) -> str:
    return boxed(completion) or ""

"""Problems of reasoning-gym, `rg:NAME[,key=value...]`, through the library itself.

Owns how a name becomes one of its data sets, how a problem is asked and how one answer is taken from a reply. The library
scores the answer, in a process of its own (`gym_worker`): some of its families evaluate what they are given.

The `gt` of a problem is its seed in the library, so a problem is what this name and number mean to its version.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from ..errors import UsageError
from ..io.extras import how_to_install
from .gym_worker import BLOCK, MAX_ANSWER
from .problem import Problem, messages_of
from .splits import split_of

PREFIX = "rg:"
REQUEST = "Give the final answer alone on the last line."
MAX_MISSES = 500  # drawn in a row that were there before, or of another split: the family has no more
SEED_STRIDE = 1_000_003  # between two seeds of ours: the library adds a problem's number to its seed
OWN_KEYS = ("seed", "size")  # settings that are not the user's to give
MANY = frozenset(
    [
        "boxnet",
        "countdown",
        "graph_color",
        "jugs",
        "n_queens",
        "propositional_logic",
        "puzzle24",
        "rubiks_cube",
        "rush_hour",
    ]
)
BY_HASH = frozenset(
    ["isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication", "ransom_note", "word_ladder"]
)  # draw from Python's sets, whose order is another one in every process: a number means no problem, and no score is of it

_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_IS = re.compile(r"\banswer(?:\s+is)?\s*[:=]?\s+", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


def problems(name: str, seed: int, split: str) -> Iterator[Problem]:
    """Problems of a split, each asked once. Raises UsageError for a name, key or value that the library has not, and without it."""
    family, settings = parse(name)
    check(family, settings)
    seen: set[str] = set()
    misses, number = 0, seed * SEED_STRIDE % 2**31
    while misses < MAX_MISSES:
        question = entry(family, settings, number)["question"]
        if question in seen or split_of(PREFIX + family, question) != split:
            misses += 1
        else:
            seen.add(question)
            misses = 0
            yield Problem(f"{name}/{number}", messages_of(f"{question.strip()}\n{REQUEST}"), str(number), name)
        number += 1


def many_answers(kind: str) -> bool:
    """True for families whose scoring accepts whatever solves the problem."""
    return parse(kind)[0] in MANY


def question_for_worker(problem: Problem, completion: str) -> tuple[str, str, str]:
    """(specification that `gym_worker` reads, the answer taken from the reply, its key)."""
    family, settings = parse(problem.kind)
    number = int(problem.gt)
    found = answer(completion, entry(family, settings, number)["answer"] or "")
    spec = json.dumps([family, _typed(family, settings), number - number % BLOCK, number % BLOCK])
    return spec, found, " ".join(found.split())


def answer(completion: str, reference: str) -> str:
    """The one answer that a reply gives.

    In an <answer> tag, else in a box, else behind the last "answer is" or "answer:", else the last line; where the reference
    is a number, the last number in it.
    """
    for pattern in (_TAG, _BOX):
        if found := pattern.findall(completion):
            return _bare(found[-1])
    lines = [line for line in completion.strip().splitlines() if line.strip()]
    said = _IS.split(completion)[-1] if _IS.search(completion) else lines[-1] if lines else ""
    if _NUMBER.fullmatch(reference):
        found = _NUMBER.findall(said)
        return found[-1].replace(",", "") if found else ""
    return _bare(said)


def _bare(text: str) -> str:
    return text.strip().strip("*`$ ").removesuffix(".").strip()[: MAX_ANSWER + 1]


# ---- names -----------------------------------------------------------------------------


def parse(name: str) -> tuple[str, dict[str, str]]:
    """ "rg:chain_sum,max_terms=3" -> ("chain_sum", {"max_terms": "3"}). A comma inside brackets separates nothing."""
    family, *pairs = re.split(r",(?![^\[]*\])", name.removeprefix(PREFIX))
    settings: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{name}: allowed {PREFIX}NAME,key=value,...; got {pair!r}")
        if key.strip() in settings:
            raise UsageError(f"{name}: {key.strip()} is given twice; allowed once")
        settings[key.strip()] = value.strip()
    return family.strip(), settings


@lru_cache(maxsize=64)
def _block(family: str, settings: str, seed: int) -> Any:
    from reasoning_gym.factory import create_dataset

    return create_dataset(family, seed=seed, size=BLOCK, **json.loads(settings))


def entry(family: str, settings: dict[str, str], number: int) -> dict[str, Any]:
    """Problem ``number``: question, answer and metadata, as the library has them. Raises UsageError where it refuses the settings."""
    try:
        return _block(family, json.dumps(_typed(family, settings)), number - number % BLOCK)[number % BLOCK]
    except (ValueError, AssertionError, TypeError, IndexError) as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"{PREFIX}{family}: reasoning-gym refuses these settings ({detail}); change their values"
        ) from error


def check(family: str, settings: dict[str, str]) -> None:
    """Raises UsageError unless the library has such a family with such settings, and the same problems in every process."""
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise UsageError(f"{PREFIX} tasks need reasoning-gym: run  {how_to_install('tasks')}") from None
    if family not in DATASETS:
        near = get_close_matches(family, DATASETS, 3, 0.5)
        hint = (
            f"did you mean {', '.join(near)}"
            if near
            else f"it has {len(DATASETS)}, such as chain_sum, gcd, word_sorting"
        )
        raise UsageError(f"{PREFIX}{family}: reasoning-gym has no such family; {hint}")
    if family in BY_HASH and sys.flags.hash_randomization:
        raise UsageError(
            f"{PREFIX}{family}: its problems follow Python's hash seed, another one in every process; set PYTHONHASHSEED=0 "
            "before the command"
        )
    allowed = sorted(set(_fields(family)) - set(OWN_KEYS))
    for key in settings:
        if key not in allowed:
            near = get_close_matches(key, allowed, 1, 0.5)
            hint = f"did you mean {near[0]}" if near else f"allowed {', '.join(allowed)}"
            raise UsageError(f"{PREFIX}{family}: no setting {key!r}; {hint}")
    entry(family, settings, 0)


def _fields(family: str) -> dict[str, dataclasses.Field]:
    from reasoning_gym.factory import DATASETS

    return {field.name: field for field in dataclasses.fields(DATASETS[family][1])}


def _typed(family: str, settings: dict[str, str]) -> dict[str, Any]:
    """Values as JSON reads them, others as text; the type is that of the setting's default."""
    return {key: _value(family, key, text, _fields(family)[key].default) for key, text in settings.items()}


def _value(family: str, key: str, text: str, default: Any) -> Any:
    try:
        value = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        value = text
    kind = type(default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is str and not isinstance(value, str):
        value = text
    if kind in (bool, int, float, str) and type(value) is not kind:
        raise UsageError(f"{PREFIX}{family}: {key}: allowed a value of type {kind.__name__}; got {text!r}")
    return value

"""A named list of problems: from a file, or generated: by the demo model's families or by `sources`; several in a mix.

Owns the names and the splits. Knows no row format (`rows`) and no verifier.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ..errors import MissingInputError, UsageError, check_range
from . import sources
from .demo import families
from .demo.problem import DemoProblem
from .problem import DEMO, Problem, in_turn, messages_of
from .rows import read_problems

MIX = ("word", "chain", "make", "search")  # what `demo` stands for: the families with exact steps
MAX_COUNT = 1_000_000
SPLITS = ("test", "calibration", "train")
NAMES = ("demo", *(DEMO + family for family in families.FAMILIES))
MIXED = "+"  # between generated tasks that take turns
ALLOWED = f"{', '.join(NAMES)}, {sources.ALLOWED}, several with + between them"


@dataclass(frozen=True)
class Task:
    """name: that of the generated task, or the file's without its suffix. problems: at least one, ids differ."""

    name: str
    problems: tuple[Problem, ...]


def load_task(
    name_or_path: str, *, limit: int | None = None, count: int = 200, seed: int = 9, split: str = "test"
) -> Task:
    """The task of a name in NAMES or `sources`, of several joined by MIXED, or of a JSONL or JSON file; ``limit`` keeps
    the first problems.

    ``count``, ``seed`` and ``split`` choose the generated problems and are ignored for a file. "test" problems are
    held out from all training; "calibration" ones are for choosing constants; "train" ones for the heads' data.
    No two splits share a problem, whatever the seed. ``demo`` shares ``count`` equally among the families of MIX and
    takes them in turn, so that ``limit`` keeps the balance. A task of `sources` has ``count`` problems or all that there are.

    Raises UsageError (unknown name, split, number out of range), MissingInputError, FormatError (a bad row).
    """
    for option, value in (("count", count), ("limit", 1 if limit is None else limit)):
        check_range(option, value, 1, MAX_COUNT)
    if split not in SPLITS:
        raise UsageError(f"split: allowed {', '.join(SPLITS)}; got {split!r}")
    if is_generated(name_or_path):
        name, problems = name_or_path, islice(_mixed(name_or_path, count, seed, split), count)
    else:
        name, problems = Path(name_or_path).stem, read_problems(problem_file(name_or_path))
    found = tuple(islice(problems, limit))
    if not found:
        raise UsageError(f"task {name}: has no problem in the split {split}; take another split or other settings")
    return Task(name, found)


def is_generated(name: str) -> bool:
    """True for a task that has problems for training, for calibration and for tests, apart from each other."""
    return all(part in NAMES or sources.has(part) for part in name.split(MIXED))


def problem_file(name_or_path: str) -> Path:
    """The file of a task that is not generated. Raises MissingInputError, UsageError."""
    path = Path(name_or_path)
    if os.path.isfile(path):
        return path
    if len(path.parts) > 1 or path.suffix:
        raise MissingInputError(f"{path}: no such file; expected problems as JSONL or JSON, or one of {ALLOWED}")
    raise UsageError(f"task: allowed {ALLOWED}, or a JSONL or JSON file; got {name_or_path!r}")


def _mixed(name: str, count: int, seed: int, split: str) -> Iterator[Problem]:
    parts = dict.fromkeys(name.split(MIXED))
    return in_turn([_of_name(part, count, seed, split) for part in parts])


def _of_name(name: str, count: int, seed: int, split: str) -> Iterator[Problem]:
    return _generated(name, count, seed, split) if name in NAMES else sources.problems(name, seed, split)


# ---- the demo model's families -----------------------------------------------------


def _generated(name: str, count: int, seed: int, split: str) -> Iterator[Problem]:
    chosen = MIX if name == "demo" else (name.removeprefix(DEMO),)
    streams = [enumerate(_of_split(family, seed, split)) for family in chosen]
    part = "" if split == "test" else f"{split}/"
    for i in range(count):
        turn = i % len(chosen)
        number, problem = next(streams[turn])
        yield Problem(
            f"{DEMO}{chosen[turn]}/{part}{number}",
            messages_of(problem.prompt, problem.system),
            problem.gt,
            DEMO + chosen[turn],
        )


def _of_split(family: str, seed: int, split: str) -> Iterator[DemoProblem]:
    """Endless problems of one turn."""
    drawn = families.problems(seed, family, sys.maxsize, held_out=split == "test")
    return (problem for problem in drawn if problem.split == split and not problem.history)

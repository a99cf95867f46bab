"""A file of problems, row by row.

Owns the row formats and what is said of a bad row. Knows no split and no judgement.

    {"problem": "...", "gt": "204" or 204}                      a math problem, as the official data have it
    {"problem": "...", "gt": "sum2 83", "family": "make"}       one of the demo model's
    {"question": "...", "options": ["...", ...], "answer": "C"} multiple choice
    {"prompt": "..."}                                           open writing: right is what is well formed

"system" and "id" may stand in any of them; further fields are ignored. A file is JSONL or one JSON array.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..io.reading import is_text, parse_json, read_bytes
from .demo import families
from .problem import CHOICE, DEMO, LETTERS, MATH, Problem, choice_prompt, math_prompt, messages_of
from .writing import ANY

EXPECTED = "expected problem and gt, or question, options and answer, or prompt"


def read_problems(path: Path) -> Iterator[Problem]:
    """The problems of a JSONL file or JSON array, in order. A row without an id gets "<file>/<its number from 0>".

    Raises MissingInputError where the file cannot be read, and FormatError, naming file and line, for a bad row.
    """
    seen: dict[str, str] = {}
    for number, (where, row) in enumerate(read_rows(path)):
        problem = _problem(row, where, f"{path.stem}/{number}")
        if problem.id in seen:
            raise FormatError(f'{where}: "id" {problem.id!r} is that of {seen[problem.id]} too; ids must differ')
        seen[problem.id] = where
        yield problem
    if not seen:
        raise FormatError(f"{path}: holds no problem; {EXPECTED}")


# ---- containers --------------------------------------------------------------------


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """("file:line", value) of each non-empty line, ("file: row i", value) of an array. Raises as read_problems."""
    data = read_bytes(path, "check the path and its rights", limit=2**32).removeprefix(codecs.BOM_UTF8)
    if data.lstrip().startswith(b"["):
        rows = _parse(data, str(path))
        yield from ((f"{path}: row {i}", row) for i, row in enumerate(rows, start=1))
        return
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def _parse(data: bytes, where: str) -> Any:
    return parse_json(data, where, "expected one object a line, or one array", lenient=True)


# ---- rows --------------------------------------------------------------------------


def _problem(row: Any, where: str, default_id: str) -> Problem:
    if not isinstance(row, dict):
        raise FormatError(f"{where}: expected a JSON object, got {type(row).__name__}")
    if "question" in row:
        kind, gt, prompt = CHOICE, *_choice(row, where)
    elif "family" in row:
        kind, gt, prompt = _demo(row, where)
    elif "prompt" in row:
        kind, gt, prompt = ANY, "", _text(row, "prompt", where)
    else:
        kind, gt, prompt = MATH, _answer(row, where), math_prompt(_text(row, "problem", where))
    system = _text(row, "system", where) if "system" in row else ""
    name = _answer(row, where, "id") if "id" in row else default_id
    return Problem(name, messages_of(prompt, system), gt, kind)


def _demo(row: dict[str, Any], where: str) -> tuple[str, str, str]:
    family, gt = _text(row, "family", where), _answer(row, where, may_be_empty=True)
    if family not in families.FAMILIES:
        raise FormatError(f'{where}: "family": allowed {", ".join(families.FAMILIES)}; got {family!r}')
    if not families.readable(family, gt):
        allowed = families.FAMILIES[family].gt_form
        raise FormatError(f'{where}: "gt" of family {family}: allowed what matches {allowed}; got {gt!r}')
    return DEMO + family, gt, _text(row, "problem", where)


def _choice(row: dict[str, Any], where: str) -> tuple[str, str]:
    options, question = row.get("options"), _text(row, "question", where)
    if not isinstance(options, list) or not 2 <= len(options) <= len(LETTERS):
        raise FormatError(f'{where}: "options": allowed a list of 2 to {len(LETTERS)} strings; got {_short(options)}')
    options = [_text({"options": option}, "options", where) for option in options]
    letter, allowed = row.get("answer"), LETTERS[: len(options)]
    if not isinstance(letter, str) or len(letter) != 1 or letter not in allowed:
        raise FormatError(f'{where}: "answer": allowed a letter from {allowed}; got {_short(letter)}')
    return letter, choice_prompt(question, options)


def _answer(row: dict[str, Any], where: str, name: str = "gt", may_be_empty: bool = False) -> str:
    """A string, or an integer cast to one (aime25 has them)."""
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(row, name, where, may_be_empty)


def _text(row: dict[str, Any], name: str, where: str, may_be_empty: bool = False) -> str:
    if name not in row:
        raise FormatError(f'{where}: field "{name}" missing; {EXPECTED}')
    value = row[name]
    allowed = "a string or an integer" if name in ("gt", "id") else "a string"
    if not isinstance(value, str):
        raise FormatError(f'{where}: "{name}": allowed {allowed}; got {_short(value)}')
    if not (value.strip() or may_be_empty):
        raise FormatError(f'{where}: "{name}" is empty; allowed {allowed} with something in it')
    if not is_text(value):
        raise FormatError(f'{where}: "{name}" is not valid Unicode (surrogates not allowed); write the text again')
    return value


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."

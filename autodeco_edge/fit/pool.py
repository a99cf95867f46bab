"""What replies are drawn to: the built-in pool, tasks by name, or files of problems and prompts.

Owns which they are, and the three splits of a file: a hash of what is asked decides, as in generated tasks
(tasks/splits.py). Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FormatError, UsageError
from ..io.atomic import atomic_write
from ..io.reading import read_text
from ..tasks import is_generated
from ..tasks.everyday import FAMILIES
from ..tasks.rows import read_problems, read_rows
from ..tasks.splits import split_of
from ..tasks.task import MIXED, SPLITS, problem_file
from ..tasks.writing import NAMES as WRITING
from ..tasks.writing import PREFIX
from .settings import FitConfig

BUILT_IN = (*FAMILIES, *(name for name in WRITING if name.startswith(PREFIX)))
LEAST = 4  # problems of a split


class Pool:
    """``task(split)`` is what load_task takes for train, calibration or test.

    Raises UsageError for names beside files and for too few rows, and what read_problems raises.
    """

    def __init__(self, config: FitConfig) -> None:
        names = [name for name in config.problems if is_generated(name)]
        files = [name for name in config.problems if name not in names]
        if names and (files or config.prompts):
            raise UsageError(f"problems: {names[0]} is the name of a task; give names of tasks, or files, not both")
        self.is_built_in = not (config.problems or config.prompts)
        self._files = None
        self._name = MIXED.join(names or BUILT_IN)
        if files or config.prompts:
            self._files = _split_files([problem_file(file) for file in files], config.prompts, config.work)

    def choose(self, kinds: list[str]) -> None:
        """Leave of the built-in pool these kinds."""
        if self.is_built_in:
            self._name = MIXED.join(kinds)

    def task(self, split: str) -> str:
        return str(self._files[split]) if self._files else self._name


def _split_files(files: list[Path], prompts: Path | None, folder: Path) -> dict[str, Path]:
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for row, asked in (*_prompts(prompts), *_problems(files)):
        rows[split_of("file", asked)].append(row)
    few = min(rows, key=lambda split: len(rows[split]))
    if len(rows[few]) < LEAST:
        n = sum(map(len, rows.values()))
        raise UsageError(
            f"problems: {n} are too few for training, calibration and test ({few}: {len(rows[few])}); give 40 or more"
        )
    return {split: _write(folder / f"problems-{split}.jsonl", found) for split, found in rows.items()}


def _problems(files: list[Path]) -> Iterator[tuple[dict[str, Any], str]]:
    """(row with its id, what it asks)."""
    for path in files:
        for problem, (_, row) in zip(read_problems(path), read_rows(path), strict=True):
            yield {**row, "id": problem.id}, json.dumps(problem.messages)


def _prompts(path: Path | None) -> Iterator[tuple[dict[str, Any], str]]:
    if path is None:
        return
    lines = [line.strip() for line in read_text(path).splitlines()]
    if not any(lines):
        raise FormatError(f"{path}: holds no prompt; expected a prompt a line")
    for line in filter(None, dict.fromkeys(lines)):
        yield {"prompt": line}, line


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with atomic_write(path) as out:
        out.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path

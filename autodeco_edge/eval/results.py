"""The folder of an evaluation's results: one run at a time, its samples never mixed with another's.

OUT/samples/*.jsonl   judged samples        OUT/report.json   the figures
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..io.atomic import atomic_write
from ..io.folder import output_folder, remove_remains

REPORT = "report.json"


@contextmanager
def results_folder(output: Path, resume: bool) -> Iterator[None]:
    """Held for the run. Raises BusyError where another one has it, UsageError where it holds samples and ``resume`` is
    not given."""
    with output_folder(output):
        if not resume and (output / "samples").exists():
            raise UsageError(f"{output}: holds samples; pass --resume to go on with them, or choose another -o")
        remove_remains(output, (REPORT,))
        yield


def write_report(output: Path, report: Mapping[str, Any]) -> None:
    with atomic_write(output / REPORT) as out:
        out.write((json.dumps(report, indent=1) + "\n").encode())

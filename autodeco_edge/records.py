"""Results that must outlive a kill: JSON lines, appended and flushed one by one.

Owns the file: its first line says what the records belong to, and going on with other settings is refused. A
line that a kill cut short is taken off; a whole one is never lost. Does not know what is recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import FormatError, MismatchError, OutputError, StorageError, UsageError


class RecordFile:
    """
    path    of the file; folders are made
    header  what the records belong to: one JSON object
    resume  go on with a file that exists; else that is a UsageError

    ``rows`` are the records that were there. Raises MismatchError for another header (naming the fields),
    FormatError for a file that is none of ours, OutputError, StorageError.
    """

    def __init__(self, path: str | os.PathLike[str], header: dict[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        self._file = None
        there = self.path.exists()
        if there and not resume:
            raise UsageError(f"{self.path}: exists; pass --resume to go on with it, or choose another -o")
        lines, n_bytes = self._read() if there else ([], 0)
        if lines:
            self._check(lines[0], header)
        self.rows = lines[1:]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(n_bytes)  # without what a kill left of the last line
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another -o") from None
        if not lines:
            self._write(header)

    def append(self, row: dict[str, Any]) -> None:
        """On the disk's way when this returns: a kill of the process does not lose it."""
        self.rows.append(row)
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        data = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"{self.path}: writing failed ({error.strerror}); what is in it is kept: free some space and pass --resume"
            ) from None

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Whole lines, and how many bytes they take."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read ({error.strerror}); choose another -o") from None
        n_bytes = data.rfind(b"\n") + 1
        lines = []
        for number, line in enumerate(data[:n_bytes].splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except ValueError:
                raise FormatError(f"{self.path}: line {number} is not JSON; remove the file and start again") from None
            if not isinstance(lines[-1], dict):
                raise FormatError(f"{self.path}: line {number} is no object; remove the file and start again")
        return lines, n_bytes

    def _check(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        differing = [k for k in sorted(found.keys() | header.keys()) if found.get(k) != header.get(k)]
        if differing:
            k = differing[0]
            raise MismatchError(
                f"{self.path}: made with other settings ({', '.join(differing)}; {k} was {found.get(k)!r}, "
                f"is {header.get(k)!r}); give the same ones, or choose another -o"
            )

    def close(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # the disk is full: append has said so
                self._file.close()
            self._file = None

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

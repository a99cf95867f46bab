"""Results that must outlive a kill: JSON lines, appended and flushed one by one.

Owns the file: its first line says what the records belong to, and going on with other settings is refused. A
line that a kill cut short is taken off; a whole one is never lost. One process writes it at a time, and what anybody
else does to it in the meantime is noticed before the next row. Does not know what is recorded.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import BusyError, FormatError, MismatchError, OutputError, StorageError, UsageError
from .io.lock import locked


class RecordFile:
    """
    path    of the file; folders are made
    header  what the records belong to: one JSON object
    resume  go on with a file that exists; else that is a UsageError

    ``rows`` are the records that were there. Raises BusyError where another run has the file open, MismatchError for
    another header (naming the fields), FormatError for a file that is none of ours, OutputError, StorageError.
    """

    def __init__(self, path: str | os.PathLike[str], header: dict[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        self._file = None
        with contextlib.ExitStack() as stack:
            self._make_folder()
            stack.enter_context(locked(self.path))
            self._open(header, resume)
            self._held = stack.pop_all()

    def _make_folder(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _open(self, header: dict[str, Any], resume: bool) -> None:
        there = self.path.exists()
        if there and not resume:
            raise UsageError(f"{self.path}: exists; pass --resume to go on with it, or choose another -o")
        lines, self._end = self._read() if there else ([], 0)
        if lines:
            self._check(lines[0], header)
        elif there:
            self._check_start(header)
        self.rows = lines[1:]
        try:
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(self._end)  # without what a kill left of the last line
        except OSError as error:
            raise self._unwritable(error) from None
        if not lines:
            self._write(header)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another -o")

    def append(self, row: dict[str, Any]) -> None:
        """On the disk's way when this returns: a kill of the process does not lose it.

        Raises StorageError, and BusyError where the file is no longer as the last row left it.
        """
        self._write(row)
        self.rows.append(row)

    def _write(self, row: dict[str, Any]) -> None:
        data = _line(row)
        self._check_end()
        try:
            done = self._file.write(data)
            while done < len(data):  # a disk that is nearly full takes a part
                done += self._file.write(data[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise StorageError(
                f"{self.path}: writing failed ({error.strerror}); what is in it is kept: free some space and pass --resume"
            ) from None
        self._end += len(data)

    def _check_end(self) -> None:
        """The lock keeps our own kind out, not an editor, a copy or a clean-up."""
        try:
            ours, there = os.fstat(self._file.fileno()), os.stat(self.path)
        except FileNotFoundError:
            raise BusyError(
                f"{self.path}: was removed while this run wrote it; nothing more is written; run the command again"
            ) from None
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be looked at ({error.strerror}); pass --resume to go on") from None
        if not os.path.samestat(ours, there) or ours.st_size != self._end:
            raise BusyError(
                f"{self.path}: something else changed it while this run wrote it ({self._end} bytes expected, "
                f"{there.st_size} there); nothing more is written; see what did, then pass --resume"
            )

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """Whole lines, and how many bytes they take."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be read ({error.strerror}); choose another -o") from None
        n_bytes = data.rfind(b"\n") + 1
        lines = []
        for number, line in enumerate(data[:n_bytes].split(b"\n")[:-1], 1):
            try:
                lines.append(json.loads(line))
            except (ValueError, RecursionError):
                raise FormatError(f"{self.path}: line {number} is not JSON; remove the file and start again") from None
            if not isinstance(lines[-1], dict):
                raise FormatError(f"{self.path}: line {number} is no object; remove the file and start again")
        return lines, n_bytes

    def _check_start(self, header: dict[str, Any]) -> None:
        """A file without a whole line: what a kill left of our first, or somebody's file, which is not cut off."""
        if not _line(header).startswith(self.path.read_bytes()):
            raise FormatError(f"{self.path}: holds no records; remove the file and start again")

    def _check(self, found: dict[str, Any], header: dict[str, Any]) -> None:
        differing = [k for k in sorted(found.keys() | header.keys()) if found.get(k) != header.get(k)]
        if differing:
            k = differing[0]
            raise MismatchError(
                f"{self.path}: made with other settings ({', '.join(differing)}; {k} was {found.get(k)!r}, "
                f"is {header.get(k)!r}); give the same ones, or choose another -o"
            )

    def remove(self) -> None:
        """Close it and take it away, in this order for everybody else: no other run gets hold of it in between."""
        with contextlib.suppress(FileNotFoundError):
            try:
                if os.name == "nt":  # no open file goes there
                    self._file.close()
                self.path.unlink()
            except FileNotFoundError:
                raise
            except OSError as error:
                raise StorageError(
                    f"{self.path}: cannot be removed ({error.strerror}); it is no longer needed"
                ) from None
        self.close()

    def close(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # the disk is full: append has said so
                self._file.close()
            self._file = None
            self._held.close()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *exc) -> None:
        self.close()


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()

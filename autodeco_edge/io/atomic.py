"""Writing a file so that its place holds the old content or the new, never a part.

Owns the temporary file, the flush to disk, the rename and what each failure means: an
``OutputError`` when the file cannot be created there, a ``StorageError`` when the disk
gives up half way. Does not know what is written.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import OutputError, StorageError, UsageError

_os_write = os.write  # a test replaces it to fail the Nth write


class AtomicWriter:
    """Sequential writes to the temporary file; ``position`` counts the bytes so far."""

    def __init__(self, fd: int, target: Path) -> None:
        self._fd = fd
        self._target = target
        self.position = 0

    def write(self, data: bytes) -> None:
        """All of ``data``, or a StorageError."""
        view = memoryview(data)
        while view:
            try:
                n = _os_write(self._fd, view)
            except OSError as error:
                raise storage_error(self._target, error) from None
            self.position += n
            view = view[n:]

    def pad_to(self, position: int) -> None:
        """Zero bytes up to ``position``."""
        self.write(bytes(position - self.position))


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[AtomicWriter]:
    """Yields a writer; on a clean end the file appears at ``target``, else nothing changes there."""
    _check_target(target)
    temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}.part")
    fd = _create(temporary, target)
    try:
        try:
            yield AtomicWriter(fd, target)
            _sync(fd, target)
        finally:
            os.close(fd)
        _rename(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def refuse_inputs(target: Path, inputs: Iterable[Path]) -> None:
    """Raises UsageError when ``target`` is one of the files it is made from."""
    for path in inputs:
        with contextlib.suppress(OSError, ValueError):
            if os.path.samefile(path, target):
                raise UsageError(f"{target}: this is an input file; choose another output with -o")


def storage_error(target: Path, error: OSError) -> StorageError:
    """The one line for a write that failed."""
    return StorageError(
        f"{target}: writing failed: {error.strerror}; nothing was changed there, free some space and try again"
    )


def _check_target(target: Path) -> None:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: cannot be created: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(mode):
        raise OutputError(f"{target}: is a folder or a device, not a file; choose another output with -o")


def _create(temporary: Path, target: Path) -> int:
    try:
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        raise OutputError(f"{target}: cannot be created: {error.strerror}; choose another output with -o") from None
    except ValueError:
        raise OutputError(f"{str(target)!r}: not a file name; choose another output with -o") from None


def _sync(fd: int, target: Path) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise storage_error(target, error) from None


def _rename(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be replaced: {error.strerror}; choose another output with -o") from None


def _sync_folder(folder: Path) -> None:
    """Makes the rename durable. Some file systems cannot sync a folder; the file is whole by now."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

"""Opening a file that somebody else named: a regular file, or a refusal; never a wait, never a surprise.

Owns ``open_regular`` and the reads that fail cleanly. A pipe would block for ever and a device may never end,
so neither is opened as input. Does not know what is read.
"""

from __future__ import annotations

import os
import stat

from ..errors import FormatError, MissingInputError, StorageError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "a device"),
)


def open_regular(path: str | os.PathLike[str]) -> int:
    """A read-only file descriptor of a regular file. Raises MissingInputError or FormatError."""
    try:
        _require_regular(path, os.stat(path).st_mode)
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise MissingInputError(f"{path}: no such file") from None
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be opened: {error.strerror}") from None
    except ValueError:
        raise MissingInputError(f"{str(path)!r}: not a file name") from None
    try:
        _require_regular(path, os.fstat(fd).st_mode)  # again: the name may have changed hands since
    except FormatError:
        os.close(fd)
        raise
    return fd


def _require_regular(path: str | os.PathLike[str], mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
    raise FormatError(f"{path}: not a regular file ({kind}); give a file")


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The whole of a file of at most ``limit`` bytes. Raises FormatError for a larger one, before it is read."""
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            raise FormatError(f"{path}: {size} bytes; allowed: up to {limit}")
        return read_exact(fd, path, 0, size)
    finally:
        os.close(fd)


def read_exact(fd: int, path: str | os.PathLike[str], offset: int, nbytes: int) -> bytes:
    """``nbytes`` from ``offset``; StorageError when the disk fails or the file shrank."""
    parts = []
    while nbytes:
        try:
            part = _pread(fd, min(nbytes, 1 << 30), offset)
        except OSError as error:
            raise StorageError(f"{path}: reading failed: {error.strerror}") from None
        if not part:
            raise StorageError(f"{path}: the file became shorter while it was being read; run the command again")
        parts.append(part)
        offset, nbytes = offset + len(part), nbytes - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _pread_by_seek(fd: int, nbytes: int, offset: int) -> bytes:
    """os.pread for Windows, which has none; one thread a descriptor here."""
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, nbytes)


_pread = getattr(os, "pread", _pread_by_seek)

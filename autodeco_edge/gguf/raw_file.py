"""An open file that nobody vouches for: a descriptor, its size, and reads that fail cleanly.

Owns opening, closing and positioned reads. A subclass parses the header in ``_parse``, which
runs when the file is opened; nothing is left open when it raises.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from ..errors import FormatError, MissingInputError, StorageError


class RawFile(ABC):
    """``path``, ``stat`` (of the moment of opening) and ``size`` in bytes. A context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._fd = open_regular(self.path)
        try:
            self.stat = os.fstat(self._fd)
            self.size = self.stat.st_size
            self._parse()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _parse(self) -> None:
        """Read and check the header; raises FormatError."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly ``nbytes`` from ``offset``. The caller has checked them against ``size``."""
        return read_exact(self._fd, self.path, offset, nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; nothing can be read any longer."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_regular(path: Path) -> int:
    """A read-only file descriptor of a regular file (a pipe would block for ever)."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise MissingInputError(f"{path}: no such file") from None
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be opened: {error.strerror}") from None
    except ValueError:
        raise MissingInputError(f"{str(path)!r}: not a file name") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(f"{path}: not a regular file")
    return fd


def read_exact(fd: int, path: Path, offset: int, nbytes: int) -> bytes:
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

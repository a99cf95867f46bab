"""An open file that nobody vouches for: a descriptor, its size, and reads that fail cleanly.

Owns the descriptor and positioned reads. A subclass parses the header in ``_parse``, which
runs when the file is opened; nothing is left open when it raises.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from ..io.regular import open_regular, read_exact


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

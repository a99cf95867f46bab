"""Writing a file so that its place holds the old content or the new, never a part.

Owns the temporary file, the flush to disk, the rename and what each failure means: an
``OutputError`` when the file cannot be created there, a ``StorageError`` when the disk
gives up half way. Owns what may not be written over: an input (``refuse_inputs``) and a file
that is none of ours (``refuse_foreign``). Does not know what is written.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import AutodecoError, OutputError, StorageError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_STEM = 200  # characters of the target's name in that of its temporary file
_DIGITS = 12
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
    sweep_parts(target.parent, target.name)
    temporary, fd = _create(target)
    try:
        try:
            yield AtomicWriter(fd, target)
            _sync(fd, target)
            if fcntl is not None:
                _rename(temporary, target)  # under the lock: no sweep takes it for abandoned
        finally:
            os.close(fd)
        if fcntl is None:
            _rename(temporary, target)  # Windows renames no open file
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def sweep_parts(folder: Path, name: str = "*") -> None:
    """Removes temporary files that a killed writer of ``folder/name`` left behind; of every name by default.

    A writer that is alive holds a lock on its own (on Windows: has it open, which keeps it as well).
    """
    pattern = "*" if name == "*" else glob.escape(name[:_STEM])
    with contextlib.suppress(OSError, ValueError):
        for path in folder.glob(f".{pattern}.{'[0-9a-f]' * _DIGITS}.part"):
            _unlink_if_abandoned(path)


def _unlink_if_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode):
            return
        if fcntl is None:
            return os.unlink(path)
        fd = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            if _try_lock(fd):
                os.unlink(path)
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    """Whether nobody else holds this file; held until ``fd`` is closed. On a file system without locks: False."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock(fd: int) -> None:
    """As ``_try_lock``, but waits for a sweep that holds it at this moment."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)


def refuse_inputs(
    output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None], option: str = "-o"
) -> None:
    """Raises UsageError when ``output`` is one of ``inputs``, whichever way it is spelt: another path, a link,
    a hard link, other case where the file system ignores it. An input of None is skipped.

    A device or a pipe loses nothing by being written to and is let pass.
    """
    for path in inputs:
        if path is not None and _same_place(output, path):
            raise UsageError(f"{output}: this is an input file; choose another output with {option}")


def _same_place(output: str | os.PathLike[str], path: str | os.PathLike[str]) -> bool:
    try:
        if not stat.S_ISREG(os.stat(output).st_mode) and not os.path.isdir(output):
            return False
        return os.path.samefile(output, path)
    except (OSError, ValueError):  # one of the two is not there yet: its place may be the same all the same
        return _real(output) == _real(path)


def _real(path: str | os.PathLike[str]) -> str:
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):
        return os.fspath(path)


def refuse_foreign(output: str | os.PathLike[str], is_ours: Callable[[Path], bool], what: str) -> None:
    """Raises UsageError when ``output`` is a file that is not ``what`` by ``is_ours``: nobody meant to lose it.

    Nothing there, an empty file, a device and a pipe are let pass. An error that ``is_ours`` raises on purpose
    (a FormatError) means no.
    """
    path = Path(output)
    try:
        found = path.stat()
    except (OSError, ValueError):
        return  # nothing there, or no such place: the write has the words for that
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        return
    try:
        ours = is_ours(path)
    except AutodecoError:
        ours = False
    if not ours:
        raise UsageError(f"{output}: exists and is not {what}; choose another output, or remove it first")


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


def _create(target: Path) -> tuple[Path, int]:
    """A new temporary file beside ``target``, locked. A sweep between its creation and its lock takes it for
    abandoned: then another is made."""
    while True:
        temporary = target.with_name(f".{target.name[:_STEM]}.{secrets.token_hex(_DIGITS // 2)}.part")
        fd = _open_new(temporary, target)
        _lock(fd)
        if fcntl is None or os.fstat(fd).st_nlink:
            return temporary, fd
        os.close(fd)


def _open_new(temporary: Path, target: Path) -> int:
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

"""One writer an output: a lock that another process, or another thread of this one, runs into.

Owns the lock file: made beside the output, locked by the operating system, which lets go of it when a process dies
however it dies; removed when the work is done. One that a kill left behind locks nothing. Does not know what is
written.

flock holds on one machine, and on Linux over NFS too (the kernel turns it into a lock of the server's). Where a file
system has no locks at all the run goes on with a warning: RecordFile still sees when somebody else has written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ..errors import BusyError, OutputError
from .printing import say

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

_CONTENDED = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
_FAR = 1 << 30  # Windows locks bytes against reading too: one behind the text


def lock_of(path: Path) -> Path:
    """The lock file of a file, hidden beside it, or of a folder, hidden inside."""
    name = os.fsdecode(os.fsencode(path.name)[:200])  # a file's own name may be as long as names get
    return path / ".lock" if os.path.isdir(path) else path.with_name(f".{name}.lock")


@contextlib.contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Nobody else holds ``path``, a file to be or a folder that is there, while the block runs.

    Raises BusyError at once where somebody does, OutputError where no lock file can be made. Not reentrant.
    """
    path = Path(path)
    place = lock_of(path)
    fd = _acquire(place, path)
    try:
        _sign(fd)
        yield
    finally:
        _release(fd, place)


def _acquire(place: Path, path: Path) -> int:
    while True:
        fd = _open(place, path)
        try:
            taken = _try(fd)
        except OSError as error:
            say(f"warning: {path}: no lock can be had here ({error.strerror}); start no second run on it")
            return fd
        if taken and _is_at(fd, place):
            return fd
        holder = "" if taken else _holder(fd)
        os.close(fd)
        if not taken:
            raise BusyError(f"{path}: in use by {holder}; wait until it is done, or choose another output with -o")
        # else: its holder has removed it since it was opened


def _open(place: Path, path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        return os.open(place, flags, 0o666)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written ({reason}); choose another output with -o") from None


def _try(fd: int) -> bool:
    """Whether the lock is ours now. Raises OSError where there are no locks."""
    try:
        if fcntl:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(fd, _FAR, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in _CONTENDED:
            return False
        raise
    return True


def _is_at(fd: int, place: Path) -> bool:
    """False for a file that is no longer the one under that name: a lock on it keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(place))
    except FileNotFoundError:
        return False


def _sign(fd: int) -> None:
    with contextlib.suppress(OSError):  # the disk is full: the lock holds without a name
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _holder(fd: int) -> str:
    with contextlib.suppress(OSError):
        os.lseek(fd, 0, os.SEEK_SET)
        if (name := os.read(fd, 200).decode("utf-8", "replace").strip()) and name.isprintable():
            return name
    return "another run"


def _release(fd: int, place: Path) -> None:
    if fcntl is None:  # Windows removes no open file; between the two another run may take it, and it stays then
        os.close(fd)
    with contextlib.suppress(OSError):
        if fcntl is None or _is_at(fd, place):
            os.unlink(place)
    if fcntl is not None:
        os.close(fd)

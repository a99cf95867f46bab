"""Whether what lies on stdin is meant for us, and the text of it.

Owns the rule. Without a PROMPT, or with a lone ``-`` among the words, stdin is read to its end. Beside a PROMPT it is
read where it is a file at its beginning, or a pipe that was made for this command and begins to speak within a
moment. It is left alone where it belongs to somebody else as well: a shell in `while read x; do ... "$x"; done` has
the same pipe or file as its own stdin, and its next lines would be gone.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path

from ..errors import FormatError, UsageError
from ..io.printing import say
from ..io.reading import decode, read_fd

MOMENT_SECONDS = 3.0
_WRAPPERS = frozenset(("timeout", "time", "nice", "nohup", "sudo", "doas", "strace", "stdbuf", "script", "uv", "uvx"))


def piped_text(prompt_given: bool, asked: bool) -> str:
    """What stdin holds, '' for nothing. Raises UsageError for what is no text.

    prompt_given  there is a PROMPT, so that nothing on stdin is needed
    asked         a lone ``-`` stood among the words
    """
    if sys.stdin.isatty() and not asked:
        return ""
    fd = sys.stdin.fileno()
    if prompt_given and not asked and not _is_meant(fd):
        return ""
    try:
        return decode(read_fd(fd, "the text on stdin"), "the text on stdin")
    except FormatError as error:
        raise UsageError(str(error)) from None
    except OSError as error:  # a folder, or a descriptor that cannot be read
        raise UsageError(f"stdin cannot be read ({error.strerror}); redirect it from a file or /dev/null") from None


def _is_meant(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return os.lseek(fd, 0, os.SEEK_CUR) == 0  # further on, somebody has begun to read it
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return False
    if _is_shared(fd):
        return False
    if select.select([fd], [], [], MOMENT_SECONDS)[0]:
        return True
    say(f"note: nothing came on stdin within {MOMENT_SECONDS:g} s, so it was left out; a lone - waits for it")
    return False


def _is_shared(fd: int) -> bool:
    """Whether a program that called us, wrappers aside, reads the same pipe. Known on Linux alone; else no."""
    try:
        pipe, pid = os.readlink(f"/proc/self/fd/{fd}"), os.getppid()
        while pid > 1:
            name, parent = _process(pid)
            if name not in _WRAPPERS and os.readlink(f"/proc/{pid}/fd/0") == pipe:
                return True
            pid = parent
    except (OSError, ValueError):  # not Linux, or somebody else's process
        pass
    return False


def _process(pid: int) -> tuple[str, int]:
    """Name and parent of a process."""
    before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    return before.partition("(")[2], int(after.split()[1])

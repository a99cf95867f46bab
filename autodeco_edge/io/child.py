"""The side of a helper process that its parent does not see: limits, the pipe, and an end when the parent has ended.

Run as a script, `python child.py SCRIPT PARENT CPU_SECONDS MEMORY_BYTES`; imports nothing of the package, so that it is
up in a tenth of a second. SCRIPT is a file with ``start()``, which returns ``answer(line) -> bytes``: a line in, a line
out, neither with its newline inside. The first line out is `ready`, or `failed` and the reason.

The parent owns the wall-clock limit. The limits here hold when it can no longer enforce one: the kernel counts the CPU
time of an answer and ends the process at CPU_SECONDS (a computation inside C heeds nothing else), and an idle process
ends with its input, or within WATCH_SECONDS where a fork of the parent still holds the other end of the pipe. Linux'
PR_SET_PDEATHSIG would be quicker, but fires when the thread that started the process ends, not the parent.
"""

import os
import runpy
import signal
import sys
import threading
import time
from contextlib import suppress

WATCH_SECONDS = 1.0


def limit_memory(n_bytes: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # a lower limit is set already, or the system (Windows) knows none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (n_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def end_after(cpu_seconds: float) -> None:
    """The kernel ends this process once it has used that much more CPU time; 0 = no longer. Not on Windows."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def end_with(parent: int) -> None:
    """Ends this process soon after ``parent``, as long as Python code is running or waiting in it. Not on Windows."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(0)

    if hasattr(signal, "setitimer"):
        threading.Thread(target=watch, daemon=True).start()


def replies_only() -> int:
    """The pipe for the replies alone: what a library prints must not reach the parent as one. Its descriptor."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


def main(script: str, parent: int, cpu_seconds: float, memory_bytes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    end_with(parent)
    limit_memory(memory_bytes)
    with open(replies_only(), "wb") as replies:
        try:
            answer = runpy.run_path(script)["start"]()
        except Exception as error:
            replies.write(f"failed {type(error).__name__}: {error}"[:500].replace("\n", " ").encode() + b"\n")
            return
        replies.write(b"ready\n")
        replies.flush()
        for line in sys.stdin.buffer:
            end_after(cpu_seconds)
            reply = answer(line)
            end_after(0)
            replies.write(reply + b"\n")
            replies.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))

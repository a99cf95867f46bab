"""The process that math-verify runs in: a script that imports nothing of the package, so that it starts fast and clean.

Owns its side of the pipe. One JSON line [gt, text] in, one line out: `right` or `wrong`; the first line out is
`ready`, or `failed` and the reason. It ends when its input does. `math_pool` owns the time limit: math-verify's own
works by SIGALRM, which cannot stop a long computation inside C.
"""

import json
import logging
import os
import signal
import sys
from contextlib import suppress
from functools import lru_cache

MEMORY_BYTES = 2 << 30  # an answer such as 10^{10^{10}} takes all there is


def guard() -> int:
    """Limits memory, keeps Ctrl-C for the parent, and keeps the pipe for the replies: its descriptor."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ImportError, ValueError, OSError):  # a lower limit is set already, or the system (Windows) knows none
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    replies = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not reach the parent as a reply
    return replies


def end_after(cpu_seconds: float) -> None:
    """The kernel ends this process should the parent be gone and the work endless; 0 = no longer. Not on Windows."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)


def main(timeout_s: float) -> None:
    replies = guard()
    try:
        from math_verify import parse, verify
    except Exception as error:
        os.write(replies, f"failed {type(error).__name__}: {error}"[:500].replace("\n", " ").encode() + b"\n")
        return
    logging.disable(logging.CRITICAL)

    @lru_cache(maxsize=256)
    def gold(gt: str):
        return parse(f"\\boxed{{{gt}}}", parsing_timeout=None)

    os.write(replies, b"ready\n")
    for line in sys.stdin.buffer:
        gt, text = json.loads(line)
        end_after(2 * timeout_s)
        try:
            right = verify(gold(gt), parse(text, parsing_timeout=None), timeout_seconds=None)
        except Exception:  # whatever a parser meets in a model's text, the answer is not right
            right = False
        end_after(0)
        os.write(replies, b"right\n" if right else b"wrong\n")


if __name__ == "__main__":
    main(float(sys.argv[1]))

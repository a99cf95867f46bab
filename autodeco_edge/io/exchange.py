"""A line to a child process, and a line back, within a time.

Owns the wait for both. No thread watches it where the pipes can be polled: starting one takes longer than most answers,
and much longer where the interpreter is busy. Knows nothing of what the lines say; the child itself is io/child.py.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time

_PIECE = 1 << 16


def exchange(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> bytes:
    """The answer, which ends with a line break unless the child has ended before. Raises TimeoutError; the child then
    has to be killed, for its answer would be taken for the next one's."""
    return _polled(process, line, seconds) if hasattr(select, "poll") else _watched(process, line, seconds)


def _polled(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> bytes:
    assert process.stdin and process.stdout
    to, back = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(to, False)
    poll, rest, answer = select.poll(), memoryview(line), bytearray()
    poll.register(to, select.POLLOUT)
    poll.register(back, select.POLLIN)
    deadline = time.monotonic() + seconds
    while not answer.endswith(b"\n"):
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError
        for end, _ in ready:
            if end == to:
                rest = _written(to, rest)
                if not rest:
                    poll.unregister(to)
            elif piece := os.read(back, _PIECE):
                answer += piece
            else:
                return bytes(answer)
    return bytes(answer)


def _written(to: int, rest: memoryview) -> memoryview:
    """What is still to be written; nothing to a child that has gone: its silence says so."""
    try:
        return rest[os.write(to, rest[:_PIECE]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return rest[:0]


def _watched(process: subprocess.Popen[bytes], line: bytes, seconds: float) -> bytes:
    assert process.stdin and process.stdout
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        process.stdin.write(line)
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = b""
    finally:
        timer.cancel()
    if late.is_set() and not answer.endswith(b"\n"):
        raise TimeoutError
    return answer

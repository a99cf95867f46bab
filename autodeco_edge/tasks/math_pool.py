"""Processes that judge answers by math-verify, or another library, each with a wall-clock limit.

Owns their life: started when first needed, killed at the limit, replaced after a crash, gone with the pool. They are
fresh interpreters, so they inherit neither threads nor a model of the caller. Knows nothing of problems.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path

from ..errors import AutodecoError, check_range
from ..io import child
from ..io.interpreter import interpreter

START_LIMIT_S = 120.0  # the import takes about a second, on a busy machine many
MEMORY_BYTES = 2 << 30  # an answer such as 10^{10^{10}} takes all there is
_SCRIPT = Path(__file__).with_name("math_worker.py")


def available() -> bool:
    """True where math-verify is installed."""
    return find_spec("math_verify") is not None


class _Worker:
    """One process, and the number of the pair it is at (None: it starts, or waits for work)."""

    def __init__(self, script: Path, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        limits = [os.getpid(), 2 * timeout_s, MEMORY_BYTES]
        command = interpreter(child.__file__, str(script), *map(str, limits))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self.pair: int | None = None
        self.ready = False
        self.deadline = time.monotonic() + START_LIMIT_S

    def fileno(self) -> int:
        return self._process.stdout.fileno()

    def send(self, number: int, pair: tuple[str, str]) -> None:
        """Raises OSError where the process has died."""
        data = memoryview(json.dumps(pair).encode() + b"\n")
        while data:  # an unbuffered pipe may take a part
            data = data[self._process.stdin.write(data) :]
        self.pair = number
        self.deadline = time.monotonic() + self._timeout_s

    def reply(self) -> str:
        """The next line; "" from a process that has died."""
        return self._process.stdout.readline().decode(errors="replace").strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class MathPool:
    """``check`` judges (gt, completion) pairs; a context manager. Not for several threads at once.

    script, library: what judges: a file as `io/child.py` runs it, and its name in an error. timeout_s is for one pair. An answer whose check hangs, or twice crashes or runs out of memory, is wrong: a process may
    also have been ended from outside, which is not the answer's fault.
    """

    def __init__(
        self, n_processes: int = 1, timeout_s: float = 5.0, script: Path = _SCRIPT, library: str = "math-verify"
    ) -> None:
        check_range("n_processes", n_processes, 1, 1024)
        check_range("timeout_s", timeout_s, 0.01, 3600, "seconds for one answer")
        self._n_processes, self._timeout_s = n_processes, timeout_s
        self._script, self._library = script, library
        self._workers: list[_Worker] = []

    def __enter__(self) -> MathPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._workers:
            self._workers.pop().kill()

    def check(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """True for each pair that math-verify finds equal. Raises AutodecoError where no process can be started."""
        verdicts = [False] * len(pairs)
        waiting = list(range(len(pairs)))[::-1]
        crashed: set[int] = set()
        try:
            while waiting or any(worker.pair is not None for worker in self._workers):
                self._fill(len(waiting))
                self._hand_out(pairs, waiting)
                once_more = self._collect(verdicts) - crashed
                crashed |= once_more
                waiting += once_more
        except BaseException:  # above all Ctrl-C: a reply still to come would be taken for another pair's
            self.close()
            raise
        return verdicts

    def _fill(self, wanted: int) -> None:
        while len(self._workers) < min(self._n_processes, wanted):
            self._workers.append(_Worker(self._script, self._timeout_s))

    def _hand_out(self, pairs: Sequence[tuple[str, str]], waiting: list[int]) -> None:
        for worker in list(self._workers):
            if waiting and worker.ready and worker.pair is None:
                try:
                    worker.send(waiting[-1], pairs[waiting[-1]])
                except OSError:  # it died with nothing to do: the pair is not to blame
                    self._drop(worker)
                else:
                    waiting.pop()

    def _collect(self, verdicts: list[bool]) -> set[int]:
        """Waits for a reply or the next deadline. A worker past its own is replaced; its pair stays wrong. Returns the
        pairs whose worker ended."""
        busy = [worker for worker in self._workers if worker.pair is not None or not worker.ready]
        if not busy:
            return set()
        left = min(worker.deadline for worker in busy) - time.monotonic()
        heard, lost = wait(busy, max(0.0, left)), set()
        for worker in busy:
            if worker in heard:
                lost |= self._hear(worker, verdicts)
            elif worker.deadline <= time.monotonic():
                self._lose(worker, f"no word from it within {START_LIMIT_S:.0f} s")
        return lost

    def _hear(self, worker: _Worker, verdicts: list[bool]) -> set[int]:
        """Takes a reply; the pair that it should have been about, where the worker has ended instead."""
        reply = worker.reply()
        if worker.pair is not None and reply in ("right", "wrong"):
            verdicts[worker.pair] = reply == "right"
            worker.pair = None
        elif reply == "ready":
            worker.ready = True
        else:
            self._lose(worker, reply.removeprefix("failed ") or "it ended at once")
            return set() if worker.pair is None else {worker.pair}
        return set()

    def _lose(self, worker: _Worker, reason: str) -> None:
        self._drop(worker)
        if not worker.ready:
            raise AutodecoError(f"{self._library} does not start ({reason}); install it again, or go without it")

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.kill()

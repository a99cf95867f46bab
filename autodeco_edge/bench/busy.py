"""Decoding while other programs have the other cores: llama.cpp's own way to wait for a thread against ours.

Owns the schedule, the busy loops and the report. How threads wait is read once, when OpenMP is loaded
(engine/waiting.py), so each contender is a process of its own, which lives through all rounds: in a round each takes
its turn on a machine left alone, then each on a busy one, the first to go another one in every round.

``python -m autodeco_edge.bench.busy MODEL HEADS SETUP`` is a contender: a line on stdin asks for a turn, a line on
stdout answers with tokens and seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from ..engine.cpu import physical_cores
from ..engine.waiting import choose, environment, pool
from ..errors import AutodecoError, UsageError, check_range
from ..io.interpreter import interpreter
from .machine import describe_machine
from .stats import paired_ratio, summarise

STOCK = "spin"
CONDITIONS = ("quiet", "busy")
_N_PROMPT, _N_TOKENS = 8, 512
_SETTLE_S = 0.2  # a busy loop has begun, threads that spin have gone to sleep
# Ends with its parent, whatever becomes of it: its stdin closes.
_LOOP = "import os, sys, threading\nthreading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()\nwhile True: pass"


@dataclass(frozen=True)
class BusySetup:
    """What to time.

    waits      ways to wait (AUTODECO_THREAD_WAIT); "spin" is llama.cpp's own and is always among them
    seconds    of a turn; it ends earlier after 512 tokens, and has one token at least
    n_rounds   turns of every contender, on a quiet and on a busy machine
    n_threads  0 = one a physical core; as many busy loops but one, at least one
    """

    waits: tuple[str, ...] = (STOCK, "short")
    seconds: float = 2.0
    n_rounds: int = 6
    n_threads: int = 0

    def __post_init__(self) -> None:
        check_range("rounds", self.n_rounds, 1, 10**4)
        check_range("seconds of a turn", self.seconds, 0.01, 600)
        check_range("threads", self.n_threads, 0, 512, "0 = one a physical core")
        for wait in self.waits:
            choose(wait, pool(), {})
        if STOCK not in self.waits or len(set(self.waits)) != len(self.waits):
            raise UsageError(f"ways to wait: allowed {STOCK} and others, each once; got '{','.join(self.waits)}'")

    @property
    def n_loops(self) -> int:
        return max(1, (self.n_threads or physical_cores()) - 1)


def run_busy(model: str | os.PathLike[str], heads: str = "auto", setup: BusySetup | None = None) -> dict:
    """The whole benchmark; a JSON-ready report. ``heads``: a file, or "auto": those inside the model, if any."""
    setup = setup or BusySetup()
    with ExitStack() as stack:
        contenders = {w: stack.enter_context(Contender(model, heads, w, setup)) for w in setup.waits}
        rates = {condition: {wait: [] for wait in setup.waits} for condition in CONDITIONS}
        load = []
        for turn in range(setup.n_rounds):
            load.append(os.getloadavg()[0] if hasattr(os, "getloadavg") else None)
            for condition in CONDITIONS:
                with busy_loops(setup.n_loops if condition == "busy" else 0):
                    for wait in _rotated(setup.waits, turn):
                        rates[condition][wait].append(contenders[wait].turn())
        facts = contenders[STOCK].facts
    return _report(facts, setup, rates, load)


def _rotated(names: tuple[str, ...], turn: int) -> tuple[str, ...]:
    first = turn % len(names)
    return names[first:] + names[:first]


@contextmanager
def busy_loops(n: int) -> Iterator[None]:
    """``n`` processes that do nothing, as fast as they can, at our own priority."""
    loops = [subprocess.Popen(interpreter("-c", _LOOP), stdin=subprocess.PIPE) for _ in range(n)]
    try:
        time.sleep(_SETTLE_S)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
            loop.stdin.close()


class Contender:
    """A process with the model loaded, whose threads wait as ``wait`` says. Raises AutodecoError: it did not live."""

    def __init__(self, model: str | os.PathLike[str], heads: str, wait: str, setup: BusySetup) -> None:
        command = interpreter("-m", __name__, os.fspath(model), os.fspath(heads), json.dumps(asdict(setup)))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(wait)
        )
        self.facts = self._answer()

    def turn(self) -> float:
        """Tokens a second."""
        time.sleep(_SETTLE_S)
        try:
            self._process.stdin.write("turn\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has died, which the answer says
        answer = self._answer()
        return answer["tokens"] / answer["seconds"]

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise AutodecoError(f"a process of the benchmark ended early (exit code {code})")
        answer = json.loads(line)
        if "error" in answer:
            error = AutodecoError(answer["error"])
            error.exit_code = answer["exit_code"]
            raise error
        return answer

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *exc) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def _report(facts: dict, setup: BusySetup, rates: dict, load: list) -> dict:
    def ratios(condition: str) -> dict:
        stock = rates[condition][STOCK]
        return {w: paired_ratio(rates[condition][w], stock).as_dict() for w in setup.waits if w != STOCK}

    return {
        "benchmark": "decode-busy",
        "machine": describe_machine(),
        **facts,
        "setup": {**asdict(setup), "n_threads": setup.n_threads or physical_cores(), "n_loops": setup.n_loops},
        "thread_pool": pool(),
        "load_average": load,
        "tokens_per_second": {
            condition: {wait: summarise(values).as_dict() for wait, values in rates[condition].items()}
            for condition in CONDITIONS
        },
        "paired": {condition: ratios(condition) for condition in CONDITIONS},
    }


# ---- a contender ---------------------------------------------------------------------------------


def _contend(model: str, heads: str, setup: dict) -> None:
    from ..engine.engine import Engine

    try:
        engine = Engine(model, heads=heads, n_ctx=_N_PROMPT + _N_TOKENS, n_threads=setup["n_threads"])
    except AutodecoError as error:
        _say({"error": str(error), "exit_code": error.exit_code})
        return
    with engine:
        _say({"model": {"description": engine.model.description}, "heads": engine.heads and engine.heads.description})
        for _ in sys.stdin:
            _say(_take_turn(engine, setup["seconds"]))


def _take_turn(engine, seconds: float) -> dict:
    steps = engine.generate(list(range(1, 1 + _N_PROMPT)), max_tokens=_N_TOKENS, spelt=False, stop_at_end=False)
    next(steps)  # comes from the prompt
    start = time.perf_counter()
    n = 0
    for _ in steps:
        n += 1
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            break
    steps.close()
    return {"tokens": n, "seconds": elapsed}


def _say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _contend(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))

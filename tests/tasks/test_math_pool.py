"""The pool around math-verify: same verdicts as a direct call, and it outlives what a model's answer may do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

math_verify = pytest.importorskip("math_verify")

from autodeco_edge.errors import AutodecoError, UsageError  # noqa: E402
from autodeco_edge.tasks.math_pool import MathPool  # noqa: E402

GOOD = ("1/2", r"so $\boxed{\frac{2}{4}}$")
ENDLESS = ("7", r"\boxed{10^{10^{10}}}")  # an integer of ten billion digits, in C code that no signal stops

PAIRS = [
    GOOD,
    ("17", r"\boxed{017}"),
    ("1000", r"\boxed{1,000}"),
    (r"\sqrt{8}", r"\boxed{2\sqrt2}"),
    ("17", r"\boxed{18}"),
    ("17", "I do not know."),
    ("17", ""),
    ("1,2", r"\boxed{2, 1}"),
    ("7", "\ud800\0 \u2028 \\boxed{7}"),
    ("7", "{" * 3000 + r"\boxed{7}"),
    ("7", "x = 1 + $y$ and " * 20_000 + r"\boxed{7}"),  # longer than a pipe holds
]


def workers_of(pid: int) -> set[int]:
    return {int(line) for line in subprocess.run(["pgrep", "-P", str(pid)], capture_output=True).stdout.split()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def within(seconds: float, condition: Callable[[], object]) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def direct(gt: str, text: str) -> bool:
    """The library in this very process, in the form its documentation gives."""
    return math_verify.verify(math_verify.parse(f"\\boxed{{{gt}}}"), math_verify.parse(text))


@pytest.mark.parametrize("n_processes", [1, 2])
def test_verdicts_are_those_of_a_direct_call_in_order(n_processes: int) -> None:
    expected = [direct(*pair) for pair in PAIRS]
    assert True in expected and False in expected
    with MathPool(n_processes, timeout_s=60) as pool:
        assert pool.check(PAIRS) == expected
        assert pool.check([]) == []
        assert pool.check(PAIRS[::-1]) == expected[::-1]


def test_no_process_before_it_is_needed_and_none_after() -> None:
    before = workers_of(os.getpid())
    with MathPool(2) as pool:
        pool.check([])
        assert workers_of(os.getpid()) == before
        pool.check([GOOD])
        assert len(workers_of(os.getpid()) - before) == 1  # one answer needs one
    assert workers_of(os.getpid()) == before


def test_an_endless_check_is_wrong_and_the_rest_goes_on() -> None:
    with MathPool(1, timeout_s=2) as pool:
        start = time.monotonic()
        assert pool.check([GOOD, ENDLESS, GOOD]) == [True, False, True]
        assert time.monotonic() - start < 60  # it ran into the limit, not into the end of the universe


def test_a_crashed_worker_is_wrong_for_its_answer_alone() -> None:
    before = workers_of(os.getpid())
    with MathPool(1, timeout_s=6) as pool:  # for the second attempt, which nothing else ends
        assert pool.check([GOOD]) == [True]
        (worker,) = workers_of(os.getpid()) - before
        timer = threading.Timer(1.0, os.kill, (worker, signal.SIGSEGV))
        timer.start()
        assert pool.check([ENDLESS, GOOD]) == [False, True]
        timer.join()


def test_a_worker_that_died_while_idle_costs_no_answer() -> None:
    before = workers_of(os.getpid())
    with MathPool(1, timeout_s=60) as pool:
        assert pool.check([GOOD]) == [True]
        (worker,) = workers_of(os.getpid()) - before
        os.kill(worker, signal.SIGKILL)
        assert within(10, lambda: not alive(worker))
        assert pool.check([GOOD] * 3) == [True] * 3


SCRIPT = """
from autodeco_edge.tasks.math_pool import MathPool
with MathPool(2, timeout_s={timeout}) as pool:
    pool.check([("7", "boxed{{7}}")])
    print("started", flush=True)
    pool.check([("7", r"\\boxed{{10^{{10^{{10}}}}}}")] * 2)
"""


def busy_parent(timeout: float) -> tuple[subprocess.Popen, set[int]]:
    """A process, in a group of its own, with two workers in an endless check."""
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", SCRIPT.format(timeout=timeout)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert parent.stdout.readline() == b"started\n"
    assert within(120, lambda: len(workers_of(parent.pid)) == 2)
    time.sleep(0.5)
    return parent, workers_of(parent.pid)


def test_ctrl_c_leaves_no_process() -> None:
    parent, workers = busy_parent(timeout=600)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to parent and workers alike
    _, stderr = parent.communicate(timeout=60)
    assert b"KeyboardInterrupt" in stderr and b"math_worker" not in stderr
    assert within(10, lambda: not any(alive(worker) for worker in workers))


def test_workers_end_by_themselves_when_the_parent_is_killed() -> None:
    """Twice the limit, in seconds of their own work, is all they get."""
    parent, workers = busy_parent(timeout=2)
    parent.kill()
    parent.wait()
    assert within(120, lambda: not any(alive(worker) for worker in workers))


def test_a_math_verify_that_cannot_be_imported_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('antlr4 is\\nmissing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with MathPool() as pool, pytest.raises(AutodecoError, match="does not start .*antlr4 is missing") as error:
        pool.check([GOOD])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"n_processes": 0}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}])
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(UsageError, match="allowed"):
        MathPool(**options)

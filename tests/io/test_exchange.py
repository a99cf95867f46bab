"""A line to a child and a line back: large ones, late ones, children that die. With and without a watching thread."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest

from autodeco_edge.io import exchange

ECHO = "import sys\nfor line in sys.stdin.buffer:\n  sys.stdout.buffer.write(line); sys.stdout.buffer.flush()"
SLOW = "import time\ntime.sleep(600)"
PARTS = "import sys, time\nsys.stdin.readline()\nfor part in ('a', 'b', 'c\\n'):\n  print(part, end='', flush=True); time.sleep(0.05)"
HALF = "import sys\nsys.stdin.readline(); print('half', end='', flush=True)"
WAYS = [exchange._watched, *([exchange._polled] if hasattr(exchange.select, "poll") else [])]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def asked(request):
    children = []

    def ask(code: str, *lines: bytes, seconds: float = 60.0) -> list[bytes]:
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        children.append(child)
        return [request.param(child, line, seconds) for line in lines]

    yield ask
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


def test_lines_come_back_in_order_however_large(asked):
    lines = [b"short\n", b"x" * 3_000_000 + b"\n", b"\n", b"last\n"]
    assert asked(ECHO, *lines) == lines


def test_an_answer_in_parts(asked):
    assert asked(PARTS, b"go\n") == [b"abc\n"]


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_no_answer_in_time(asked, size):
    """Also where the child does not even read."""
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        asked(SLOW, b"x" * size + b"\n", seconds=0.3)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("code, answer", [("pass", b""), (HALF, b"half")])
def test_a_child_that_ends_has_no_line_to_give(asked, code, answer):
    for line in (b"go\n", b"x" * 1_000_000 + b"\n"):
        assert asked(code, line) == [answer]

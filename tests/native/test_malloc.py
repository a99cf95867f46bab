"""Every allocation and every read of libautodeco fails once: a status says so, nothing crashes, and nothing else is wrong.

llama.cpp's own allocations are not in our hands: its C++ throws, which ends the process (docs/decisions/0015).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.engine.native import Status
from tests.native.support import compile_c, merged
from tests.support.letters import make_letters

ROOT = Path(__file__).parents[2]
TOOLS = Path(__file__).parent / "tools"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is replaced by preloading")


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> dict[str, list]:
    folder = tmp_path_factory.mktemp("malloc")
    library = compile_c(folder / "failing_calls.so", [TOOLS / "failing_calls.c"], "-shared", "-fPIC", "-std=gnu11")
    letters = make_letters(folder)
    single = merged(letters, folder / "single.gguf")
    aligned = ROOT / "native" / "fuzz" / "corpus" / "ok-alignment-64.gguf"
    done = subprocess.run(
        [sys.executable, TOOLS / "malloc_points.py", library, letters.gguf, letters.heads, single, aligned],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def test_every_failing_allocation_is_reported(points):
    for name, (n, seen) in points.items():
        if name.startswith("read"):
            continue
        assert len(seen) == n
        assert set(seen) == {Status.MEMORY}, (name, seen)
    print({name: n for name, (n, _) in points.items()}, "points:", sum(n for n, _ in points.values()))


def test_the_points_are_not_empty(points):
    """The loader asks 12 times or more for two heads, a row 7 times, a sampler in a context 4 times."""
    for name, least in {"load a heads file": 10, "load a single file": 10, "step": 7, "clone": 2, "decode": 10}.items():
        assert points[f"{name}, one"][0] >= least, name


@pytest.mark.parametrize("kind", ["a heads file", "a single file", "another alignment"])
def test_every_failing_read_is_reported(points, kind):
    """A disk that fails or a file cut under our hands is IO; a signal or a short read is gone on from."""
    for way, want in {"EIO": Status.IO, "end": Status.IO, "EINTR": Status.OK, "short": Status.OK}.items():
        n, seen = points[f"read {kind}, {way}"]
        assert n == len(seen) > 20
        assert set(seen) == {want}, way

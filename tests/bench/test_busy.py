"""`bench decode --busy`: the schedule and the report, with real processes; what is fast is for the figures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodeco_edge.bench.busy import BusySetup, run_busy
from autodeco_edge.errors import MissingInputError, UsageError
from tests.support.letters import make_letters

SHORT = ["--rounds", "2", "--seconds", "0.02", "-t", "1"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def bench(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "autodeco_edge", "bench", "decode", "--busy", *map(str, args)]
    return subprocess.run(command, capture_output=True, timeout=180, stdin=subprocess.DEVNULL, text=True)


def test_a_report_with_and_without_heads(letters):
    for heads, described in ((letters.heads, True), ("auto", False)):
        report = run_busy(letters.gguf, str(heads), BusySetup(n_rounds=2, seconds=0.02, n_threads=1))
        assert bool(report["heads"]) is described
        assert set(report["tokens_per_second"]) == set(report["paired"]) == {"quiet", "busy"}
        for condition in ("quiet", "busy"):
            assert set(report["tokens_per_second"][condition]) == {"spin", "short"}
            assert set(report["paired"][condition]) == {"short"}
            assert all(rate["median"] > 0 for rate in report["tokens_per_second"][condition].values())


def test_command(letters):
    done = bench("-m", letters.gguf, *SHORT, "--wait", "spin,sleep,50", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)["tokens_per_second"]["busy"]) == {"spin", "sleep", "50"}


@pytest.mark.parametrize("waits", [(), ("short",), ("spin", "fast"), ("spin", "spin"), ("spin", "-1")])
def test_ways_that_cannot_be_compared(waits):
    with pytest.raises(UsageError):
        BusySetup(waits=waits)


@pytest.mark.parametrize("field", [{"seconds": 0}, {"seconds": float("nan")}, {"n_rounds": 0}, {"n_threads": -1}])
def test_out_of_range(field):
    with pytest.raises(UsageError):
        BusySetup(**field)


def test_errors_of_a_contender_are_ours():
    done = bench("-m", "none.gguf", *SHORT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (MissingInputError.exit_code, "", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_busy_loop_is_busy_and_ends_with_its_parent():
    code = (
        "import subprocess, sys, time\nfrom autodeco_edge.bench import busy\n"
        "loop = subprocess.Popen(busy.interpreter('-c', busy._LOOP), stdin=subprocess.PIPE)\n"
        "print(loop.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    deadline = time.monotonic() + 60
    while cpu_ticks(pid) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert cpu_ticks(pid) >= 5
    parent.kill()
    parent.wait()
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

"""Facts of the processor: the thread count, and whether AMX instructions can be trusted.

The machine is replaced (its list of features, the program that uses AMX); the logic that judges it and
remembers the verdict is the real one, children and cache included.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest

from autodeco_edge.engine import cpu
from autodeco_edge.engine.pairing import demo_model

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
CRASHES = DIES.replace("SIGILL", "SIGSEGV")
KILLED = DIES.replace("SIGILL", "SIGKILL")  # as by the kernel where memory is short
LIVES = "pass"
AMX_ADVERTISED, RECORD = cpu.amx_advertised, cpu._record


def count_runs(code: str, folder) -> str:
    """``code`` that also leaves a mark for each time it ran."""
    return f"import tempfile; tempfile.NamedTemporaryFile(dir={str(folder)!r}, delete=False)\n{code}"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """``machine(flags, code)``: a processor with these flags, on which AMX code behaves as ``code``.
    Returns a function that counts how often ``code`` ran."""
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setenv("AUTODECO_CACHE", str(tmp_path / "cache"))

    def make(flags: str, code: str):
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text(f"processor : 0\nflags : fpu avx2 {flags}\n")
        monkeypatch.delenv("AUTODECO_SIMULATE_AMX_TRAP", raising=False)
        monkeypatch.setattr(cpu, "amx_advertised", partial(AMX_ADVERTISED, cpuinfo))
        monkeypatch.setattr(cpu, "_record", partial(RECORD, cpuinfo))
        monkeypatch.setattr(cpu, "_PROBE", count_runs(code, runs))
        return lambda: len(os.listdir(runs))

    return make


def test_physical_cores():
    n = cpu.physical_cores()
    assert 1 <= n <= os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_physical_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cpu.physical_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.skipif(bool(cpu._simulated_trap()), reason="a trap is simulated")
@pytest.mark.parametrize("flags, advertised", [("amx_bf16 amx_tile amx_int8", True), ("avx512f", False)])
def test_amx_flag(tmp_path, flags, advertised):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : fpu {flags}\n")
    assert cpu.amx_advertised(cpuinfo) is advertised


@pytest.mark.skipif(bool(cpu._simulated_trap()), reason="a trap is simulated")
def test_no_list_of_features_is_no_amx(tmp_path):
    assert cpu.amx_advertised(tmp_path / "missing") is False


@pytest.mark.parametrize(
    "code, fate",
    [(LIVES, "ok"), (DIES, "SIGILL"), (CRASHES, "SIGSEGV"), (KILLED, "failed"), ("raise SystemExit(3)", "failed")],
)
def test_child_fates(monkeypatch, code, fate):
    monkeypatch.delenv("AUTODECO_SIMULATE_AMX_TRAP", raising=False)
    assert cpu.probe_in_child(code) == fate


def test_no_interpreter_to_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    assert cpu.probe_in_child(LIVES) == "failed"


@pytest.mark.parametrize("value, fate", [("1", "SIGILL"), ("SIGSEGV", "SIGSEGV"), ("yes", "SIGILL")])
def test_simulated_trap(monkeypatch, tmp_path, value, fate):
    monkeypatch.setenv("AUTODECO_CACHE", str(tmp_path))
    monkeypatch.setenv("AUTODECO_SIMULATE_AMX_TRAP", value)
    assert cpu.amx_advertised(tmp_path / "missing")
    assert (cpu.amx_fate(), cpu.extra_buffers_safe()) == (fate, False)
    simulated = cpu._record()
    monkeypatch.setenv("AUTODECO_SIMULATE_AMX_TRAP", "0")
    assert cpu._record() != simulated, "what was simulated says nothing of the machine"


def test_another_processor_is_another_verdict(tmp_path):
    """A home folder that two machines share, a container that moves: same kernel, same library."""
    records = set()
    for model in ("A", "B"):
        path = tmp_path / model
        path.write_text(f"processor : 0\nmodel name : {model}\nflags : fpu amx_tile\n\nprocessor : 1\n")
        records.add(cpu._record(path))
    assert len(records) == 2


def test_user_without_a_home(machine, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    runs = machine("amx_tile", DIES)
    monkeypatch.setattr(cpu, "cache_dir", homeless)
    assert [cpu.extra_buffers_safe() for _ in range(2)] == [False, False]
    assert runs() == 2


def test_child_that_hangs_is_not_safe(monkeypatch):
    monkeypatch.delenv("AUTODECO_SIMULATE_AMX_TRAP", raising=False)
    monkeypatch.setattr(cpu, "_PROBE_SECONDS", 0.5)
    assert cpu.probe_in_child("import time; time.sleep(60)") == "failed"


def test_without_amx_nothing_is_tried(machine, tmp_path):
    runs = machine("avx512f", DIES)
    assert cpu.extra_buffers_safe()
    assert runs() == 0
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("code, fate", [(LIVES, "ok"), (DIES, "SIGILL"), (CRASHES, "SIGSEGV")])
def test_verdict_is_remembered(machine, tmp_path, code, fate):
    runs = machine("amx_tile", code)
    assert [cpu.extra_buffers_safe() for _ in range(3)] == [fate == "ok"] * 3
    assert runs() == 1, "the probe runs once a processor, kernel and library"
    (record,) = (tmp_path / "cache").iterdir()
    assert record.read_text() == fate


@pytest.mark.parametrize("code", ["raise SystemExit(3)", KILLED])
def test_another_failure_is_not_remembered(machine, tmp_path, code):
    runs = machine("amx_tile", code)
    assert [cpu.extra_buffers_safe() for _ in range(2)] == [False, False]
    assert runs() == 2
    assert not (tmp_path / "cache").exists()


def test_record_cut_short_is_tried_again(machine, tmp_path):
    runs = machine("amx_tile", LIVES)
    cpu.extra_buffers_safe()
    (record,) = (tmp_path / "cache").iterdir()
    record.write_text("")
    assert cpu.extra_buffers_safe()
    assert (runs(), record.read_text()) == (2, "ok")


@pytest.mark.parametrize("code, safe", [(LIVES, True), (DIES, False)])
def test_unwritable_cache_costs_a_probe_each_time(machine, monkeypatch, tmp_path, code, safe):
    """A file stands where the folder should be: unwritable for root as well."""
    (tmp_path / "file").write_text("")
    runs = machine("amx_tile", code)
    monkeypatch.setenv("AUTODECO_CACHE", str(tmp_path / "file" / "cache"))
    assert [cpu.extra_buffers_safe() for _ in range(2)] == [safe] * 2
    assert runs() == 2


@pytest.mark.skipif(not demo_model().exists(), reason="the demo model is not built yet")
def test_the_real_probe_decodes_the_demo_model():
    """On a machine with working AMX, or none, the very code of the probe must survive; where AMX is broken
    it must not, and everything else falls back."""
    assert cpu.probe_in_child(cpu._PROBE) == "ok" or cpu.amx_advertised()


def test_the_probe_does_what_traps():
    """64 tokens in one batch, all decoded when the code has ended: fewer would not reach the tile instructions."""
    code = (
        "import llama_cpp; sizes = []; real = llama_cpp.llama_decode\n"
        "llama_cpp.llama_decode = lambda ctx, batch: (sizes.append(batch.n_tokens), real(ctx, batch))[1]\n"
        f"{cpu._PROBE}\nprint(sizes)"
    ).replace("extra_buffers=True", "extra_buffers=False")
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[64]\n", done.stderr

"""How threads wait: what is set for which pool, that the user's word wins, and that it is there in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.engine import waiting
from autodeco_edge.errors import UsageError

NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY", "KMP_LIBRARY", waiting.VARIABLE)


def python(code: str, **variables: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env={**clean, **variables}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "asked, pool, chosen",
    [
        ("", "libgomp", {"GOMP_SPINCOUNT": str(waiting.SPINS)}),
        ("short", "libgomp", {"GOMP_SPINCOUNT": str(waiting.SPINS)}),
        ("sleep", "libgomp", {"GOMP_SPINCOUNT": "0"}),
        ("123", "libgomp", {"GOMP_SPINCOUNT": "123"}),
        ("spin", "libgomp", {}),
        ("", "libomp", {"KMP_BLOCKTIME": "0"}),
        ("sleep", "libomp", {"KMP_BLOCKTIME": "0"}),
        ("spin", "libomp", {}),
        ("", "vcomp", {}),
        ("", "own", {}),
    ],
)
def test_what_is_set(asked, pool, chosen):
    assert waiting.choose(asked, pool, {}) == chosen


@pytest.mark.parametrize("pool, name", [("libgomp", "GOMP_SPINCOUNT"), ("libgomp", "OMP_WAIT_POLICY"),
                                        ("libomp", "KMP_BLOCKTIME"), ("libomp", "OMP_WAIT_POLICY")])  # fmt: skip
@pytest.mark.parametrize("asked", ["", "sleep", "7"])
def test_a_variable_of_the_users_own_wins(pool, name, asked):
    assert waiting.choose(asked, pool, {name: "whatever"}) == {}


@pytest.mark.parametrize("asked", ["fast", "-1", "1.5", "9" * 30, "٣", " short"])
def test_what_cannot_be_meant(asked):
    with pytest.raises(UsageError, match="allowed short, spin, sleep or a number"):
        waiting.choose(asked, "libgomp", {})


def test_an_import_does_not_fail_on_a_wrong_value():
    code = "from autodeco_edge.engine import engine, waiting; print(waiting.describe())"
    done = python(code, AUTODECO_THREAD_WAIT="fast")
    assert done.returncode == 0 and "got 'fast'" in done.stdout


ROOT = Path(__file__).resolve().parents[2] / "autodeco_edge"
USERS = [".".join(("autodeco_edge", *p.relative_to(ROOT).with_suffix("").parts)) for p in sorted(ROOT.rglob("*.py"))
         if "import llama_cpp" in p.read_text(encoding="utf-8")]  # fmt: skip

IN_TIME = """
import builtins, importlib, os, sys
real = builtins.__import__
def watched(name, *rest):
    if name.split(".")[0] == "llama_cpp" and "llama_cpp" not in sys.modules and "GOMP_SPINCOUNT" not in os.environ:
        print("llama_cpp before the variable")
    return real(name, *rest)
builtins.__import__ = watched
importlib.import_module("{module}")
"""


@pytest.mark.skipif(waiting.pool() != "libgomp", reason="the variable of another pool is read later")
@pytest.mark.parametrize("module", USERS)
def test_it_is_set_before_llama_cpp_is_loaded(module):
    done = python(IN_TIME.format(module=module))
    assert done.returncode == 0, done.stderr
    assert "before the variable" not in done.stdout


@pytest.mark.skipif(waiting.pool() != "libgomp" or sys.platform != "linux", reason="about libgomp on Linux")
@pytest.mark.parametrize(
    "first, variables, words",
    [
        ("", {}, f"spin briefly, then sleep (GOMP_SPINCOUNT={waiting.SPINS})"),
        ("", {"AUTODECO_THREAD_WAIT": "sleep"}, "sleep at once"),
        ("", {"AUTODECO_THREAD_WAIT": "spin"}, "threads spin, as llama.cpp does"),
        ("", {"OMP_WAIT_POLICY": "passive"}, "as your environment says: OMP_WAIT_POLICY=passive"),
        ("import llama_cpp", {}, "OpenMP was loaded before autodeco_edge; import autodeco_edge first"),
        ("import ctypes; ctypes.CDLL('libgomp.so.1')", {}, "OpenMP was loaded before autodeco_edge"),
        ("import numpy", {}, "spin briefly"),
    ],
)
def test_what_doctor_says(first, variables, words):
    done = python(f"{first}\nfrom autodeco_edge.engine.waiting import describe; print(describe())", **variables)
    assert words in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(waiting.pool() != "libgomp", reason="about libgomp")
def test_openmp_itself_takes_it():
    """libgomp shows what it read when it was loaded."""
    code = "from autodeco_edge.engine import library; library.library()"
    shown = python(code, OMP_DISPLAY_ENV="verbose").stderr
    if "GOMP_SPINCOUNT" not in shown:
        pytest.skip("this libgomp does not show it")
    assert f"GOMP_SPINCOUNT = '{waiting.SPINS}'" in shown


def test_a_child_waits_as_it_is_told():
    code = "from autodeco_edge.engine import waiting; print(sorted(waiting.environment('spin').items()))"
    names = {name for name in NAMES if f"'{name}'" in python(code).stdout}
    assert names == {waiting.VARIABLE}, "what this process chose for itself is not handed down"


@pytest.mark.parametrize(
    "needs, pool",
    [
        (b"\0libgomp.so.1\0libm.so.6\0", "libgomp"),
        (b"\0libgomp-24e2ab19.so.1.0.0\0", "libgomp"),  # as a wheel bundles it
        (b"\0libomp.so.5\0", "libomp"),
        (b"\0libiomp5.so\0", "libomp"),
        (b"@rpath/libomp.dylib\0", "libomp"),
        (b"libomp140.x86_64.dll\0", "libomp"),
        (b"VCOMP140.DLL\0", "vcomp"),
        (b"\0libm.so.6\0_ompt\0", "own"),
    ],
)
def test_pools_by_what_a_library_needs(monkeypatch, tmp_path, needs, pool):
    (tmp_path / "libggml-cpu.so").write_bytes(b"\x7fELF" + needs)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert waiting.pool.__wrapped__() == pool


def test_no_llama_cpp_is_no_pool(monkeypatch, tmp_path):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path / "missing"))
    assert waiting.pool.__wrapped__() == "own"

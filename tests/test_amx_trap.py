"""On a machine that advertises AMX and traps on it (simulated) everything runs, and the guard that proves it works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge import demo_model
from tests.support import trap

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not trap.available(), reason="the guard needs Linux and a C compiler")

LOAD = """
import llama_cpp, sys
from autodeco_edge import demo_model
params = llama_cpp.llama_model_default_params()
params.use_extra_bufts = sys.argv[1] == "repacked"
print(bool(llama_cpp.llama_model_load_from_file(str(demo_model()).encode(), params)))
"""


@pytest.fixture(scope="module", params=["SIGILL", "SIGSEGV"])
def trapped(request, tmp_path_factory):
    """``trapped(*arguments)`` runs this Python on such a machine."""
    env = trap.environment(tmp_path_factory.mktemp("trap"), request.param)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-P", *map(str, arguments)]
        return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    run.fate = request.param
    return run


def test_the_guard_ends_a_load_with_repacked_weights_and_no_other(trapped):
    died = trapped("-c", LOAD, "repacked")
    assert died.returncode == -{"SIGILL": 4, "SIGSEGV": 11}[trapped.fate]
    assert "use_extra_bufts" in died.stderr
    assert trapped("-c", LOAD, "plain").stdout == "True\n"


def test_doctor_passes_and_says_what_happened(trapped):
    done = trapped("-m", "autodeco_edge", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{trapped.fate}" in done.stdout and "switched off" in done.stdout and "64 tokens at" in done.stdout


@pytest.mark.parametrize(
    "line", ["run hello -n 2 -t 1", "eval --help", "bench step --n-vocab 500 --n-embd 32 --rounds 2"]
)
def test_commands_live(trapped, line):
    done = trapped("-m", "autodeco_edge", *line.split())
    assert done.returncode == 0, done.stderr


def test_the_drop_in_lives_and_the_original_dies(trapped):
    call = "from {} import Llama; Llama({!r}, n_ctx=64, n_threads=1, verbose=False)('a', max_tokens=1)"
    assert trapped("-c", call.format("autodeco_edge", str(demo_model()))).returncode == 0
    assert trapped("-c", call.format("llama_cpp", str(demo_model()))).returncode < 0


def test_models_are_opened_in_known_places_only():
    """Whoever opens a model by llama.cpp's own names asks the probe; these files do."""
    opens = re.compile(r"llama_cpp\.Llama\(|llama_model_load_from|llama_load_model_from|import_module\(.llama_cpp")
    known = {
        "tests/support/stock.py",
        "tests/test_amx_trap.py",
        "autodeco_edge/engine/model.py",
        "native/examples/simple.c",
    }
    known |= {"tests/engine/test_log.py", "bench/grammar_mask.py"}  # files that are no models; it asks the probe itself
    known.add("tests/engine/test_draft_model.py")  # looks at what Model asks for
    rooms = ("autodeco_edge", "convert", "demo", "bench", "docs", "native", "tests")
    files = [p for room in rooms for suffix in ("*.py", "*.c", "*.h", "*.cpp") for p in (ROOT / room).rglob(suffix)]
    found = {p.relative_to(ROOT).as_posix() for p in files if opens.search(p.read_text(encoding="utf-8"))}
    assert found <= known, "open it through tests/support/stock.py, or set use_extra_bufts from extra_buffers_safe()"

"""A machine on which AMX is advertised and traps, on any Linux: the variable that makes the probe fail, and the
preloaded guard (amx_trap.c) that ends whoever forgets to ask it.

``python -P tests/support/trap.py`` runs the tests that open models there, and ends as they end. Arguments go to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Every way by which a model is opened: engine, batches, drop-in, stock, command line, doctor, bench, single files, training.
TESTS = (
    "tests/test_demo_model.py", "tests/demo/test_export.py", "tests/dropin/test_llama.py", "tests/engine/test_slots.py",
    "tests/convert/test_merge.py::test_stock_llama_cpp_gives_the_same_logits",
    "tests/engine/test_engine.py::test_stock_llama_cpp_loads_the_single_file_as_the_base",
    "tests/native/test_batches.py", "tests/bench/test_decode.py",
)  # fmt: skip


def available() -> bool:
    return sys.platform == "linux" and shutil.which("cc") is not None


def environment(folder: Path, fate: str = "SIGILL") -> dict[str, str]:
    """Variables for a child process; the guard is compiled into ``folder``, and the verdict is kept there."""
    guard = folder / "amx_trap.so"
    source = ROOT / "tests" / "support" / "amx_trap.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", guard, source, "-ldl"], check=True)
    trap = {"AUTODECO_SIMULATE_AMX_TRAP": fate, "AUTODECO_CACHE": str(folder / "cache"), "LD_PRELOAD": str(guard)}
    return {**os.environ, **trap}


def main() -> int:
    if not available():
        print("the simulated AMX trap needs Linux and cc: left out")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", *sys.argv[1:], *TESTS]
        return subprocess.run(command, cwd=ROOT, env=environment(Path(folder)), stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())

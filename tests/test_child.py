"""Whatever lies in the working folder, child interpreters and the package find what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import autodeco_edge
from autodeco_edge.io.interpreter import interpreter

ROOT = Path(__file__).resolve().parent.parent
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


@pytest.fixture
def trap(tmp_path):
    """A folder with modules that must not be found."""
    for name in ("numpy", "json", "random", "llama_cpp", "autodeco_edge"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the working folder')")
    return tmp_path


def run(command, folder, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=folder, env={**CLEAN, **variables}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120)  # fmt: skip


def test_a_child_finds_what_is_installed(trap):
    done = run(interpreter("-c", "import numpy, random, autodeco_edge.engine.cpu"), trap)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_probe_and_bench_loss_do(trap):
    code = "from autodeco_edge.engine.cpu import probe_in_child; print(probe_in_child('import numpy, llama_cpp'))"
    assert run([sys.executable, "-P", "-c", code], trap).stdout == "ok\n"
    pytest.importorskip("torch")
    script = Path(sys.executable).with_name("autodeco-edge")
    loss = ["bench", "loss", "--n-vocab", "500", "--n-tokens", "2", "--rounds", "1", "--json"]
    done = run([script, *loss], trap)
    assert done.returncode == 0, done.stderr


def checkout(folder: Path) -> Path:
    """The source files as a clone has them: `convert` beside the package, no native library."""
    shutil.copytree(
        ROOT / "autodeco_edge", folder / "autodeco_edge", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    shutil.copytree(ROOT / "convert", folder / "convert", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


USE = "import autodeco_edge, autodeco_edge.convert; print(autodeco_edge.__path__)"


def test_a_checkout_as_the_working_folder_gives_way_to_what_is_installed(tmp_path):
    """A plain installation, beside which a checkout is found first; an editable one is found before both."""
    installed = tmp_path / "site"
    checkout(installed)
    shutil.move(installed / "convert", installed / "autodeco_edge" / "convert")
    (tmp_path / "clone").mkdir()
    done = run([sys.executable, "-S", "-c", USE], checkout(tmp_path / "clone"), PYTHONPATH=str(installed))
    assert done.stdout.strip() == str([str(installed / "autodeco_edge")]), done.stderr


def test_a_checkout_that_is_not_installed_is_whole_but_for_the_library(tmp_path):
    done = run([sys.executable, "-S", "-c", USE], checkout(tmp_path))
    assert done.returncode == 0 and str(tmp_path) in done.stdout, done.stderr


def test_module_from_the_checkout(tmp_path):
    done = run([sys.executable, "-m", "autodeco_edge", "run", "hello", "-n", "1", "-t", "1"], checkout(tmp_path))
    assert done.returncode == 0, done.stderr
    assert autodeco_edge.__version__ in run([sys.executable, "-m", "autodeco_edge", "--version"], tmp_path).stdout


def test_no_interpreter(monkeypatch):
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(OSError, match="embedded"):
        interpreter("-c", "pass")

"""What several native tests share: compiling C beside the library, and single files of the small model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"


def compile_c(out: Path, sources: list[Path], *flags: str) -> Path:
    """Compiles with gcc against native/; skips the test where there is none."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    command = ["gcc", "-Wall", "-Wextra", "-Werror", f"-I{NATIVE}", *flags, *map(str, sources), "-o", str(out), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def merged(letters, path: Path) -> Path:
    """The small model with its heads inside."""
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.merge import merge_single_file

    merge_single_file(read_checkpoint(letters.checkpoint), letters.gguf, path)
    return path

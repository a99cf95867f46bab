"""The fuzzer of the loader under ASan and UBSan: 200,000 mutated files, and proof that it would see a fault."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
N_EXECUTIONS = 200_000

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="gcc with its sanitizers"),
]


def fuzz(native: Path, build: Path, n: int, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "BUILD": str(build), **environment}
    env.pop("LD_PRELOAD", None)
    return subprocess.run([native / "fuzz" / "run.sh", str(n), "1"], capture_output=True, text=True, env=env)


def test_200_000_mutated_files_find_nothing(tmp_path):
    done = fuzz(NATIVE, tmp_path, N_EXECUTIONS)
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)
    loaded = int(re.search(r"(\d+) loaded", done.stdout).group(1))
    assert f"{N_EXECUTIONS} executions" in done.stdout and "no finding" in done.stdout
    assert loaded > N_EXECUTIONS // 10, "a good part of the files is sound, so that steps are taken with them"


@pytest.mark.parametrize(
    "name,old,new",
    [
        ("heads", "(size_t) p->ne[1] + ALIGNMENT;", "(size_t) p->ne[1];"),
        ("row", "row->guards = take(row, n_tiles,", "row->guards = take(row, n_tiles - 1,"),
    ],
)
def test_a_planted_fault_is_found(tmp_path, name, old, new):
    """A write behind the weights, and one behind an array of a step."""
    native = tmp_path / "native"
    shutil.copytree(NATIVE, native)
    source = native / f"autodeco-{name}.c"
    text = source.read_text()
    assert text.count(old) == 1
    source.write_text(text.replace(old, new))
    done = fuzz(native, tmp_path / "build", 20_000, BASELINE="1")
    assert done.returncode != 0 and "finding in execution" in done.stderr, done.stdout

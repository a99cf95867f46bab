"""native/autodeco.h is C and C++ for the strictest user: no warning of -Wall -Wextra -Wpedantic -Wshadow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only", f"-I{NATIVE}"]
USE = """
#include "autodeco.h"
#include "autodeco.h"
int main(void) {
    struct autodeco_sampler_params params = autodeco_sampler_default_params();
    struct autodeco_step step;
    (void) params; (void) step;
    return autodeco_check_llama(0, 0) == AUTODECO_STATUS_OK ? 0 : 1;
}
"""


@pytest.mark.parametrize(
    "compiler,standard,suffix",
    [
        ("gcc", "c99", ".c"),
        ("gcc", "c11", ".c"),
        ("gcc", "c17", ".c"),
        ("g++", "c++11", ".cpp"),
        ("g++", "c++20", ".cpp"),
    ],
)
def test_the_header_compiles_without_a_warning(tmp_path, compiler, standard, suffix):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / f"use{suffix}"
    source.write_text(USE)
    done = subprocess.run([compiler, f"-std={standard}", *STRICT, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_sources_compile_without_a_warning(tmp_path):
    """Those that know neither ggml nor llama.cpp, whose headers are not ours to mend."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    names = ["source", "gguf", "heads", "math", "nucleus", "row"]
    for name in names:
        command = ["gcc", "-std=c11", *STRICT, str(NATIVE / f"autodeco-{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

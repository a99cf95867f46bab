"""native/autodeco.h is C and C++ for the strictest user: no warning of -Wall -Wextra -Wpedantic -Wshadow. And who includes what."""

from __future__ import annotations

import re
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


# ---- who knows what -----------------------------------------------------------------------

STANZAS = {"autodeco-sampler.c", "autodeco-mask.c", "autodeco-filters.c"}  # a llama_sampler_i each
ALLOWED = {
    "llama.h": {"autodeco-llama.c", *STANZAS},
    "ggml.h": {"autodeco-llama.c", "autodeco-graph.c", "autodeco-sampler.c"},
}


def includes(path: Path) -> set[str]:
    return set(re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE))


def sources() -> list[Path]:
    return sorted([*NATIVE.glob("*.c"), *NATIVE.glob("*.h")])


def test_llama_and_ggml_are_known_in_few_places():
    assert len(sources()) > 15
    for header, files in ALLOWED.items():
        assert {path.name for path in sources() if header in includes(path)} == files


def test_no_other_header_of_llama_cpp_is_included():
    """Nor any that are not part of C11, of the compiler's intrinsics, or of the system where the source says so."""
    ours = {path.name for path in sources()}
    standard = {
        f"{name}.h"
        for name in [
            "assert",
            "errno",
            "float",
            "limits",
            "math",
            "stdarg",
            "stdbool",
            "stddef",
            "stdint",
            "stdio",
            "stdlib",
            "string",
        ]
    }
    system = {"immintrin.h", "arm_neon.h", "cpuid.h", "intrin.h", "fcntl.h", "unistd.h", "io.h", "windows.h"}
    system |= {"sys/stat.h", "sys/types.h", "fcntl.h"}
    found = set().union(*(includes(path) for path in sources()))
    assert found - ours - standard - system <= set(ALLOWED)


def test_a_stanza_fills_every_place_of_llama_cpps_table():
    for name in STANZAS:
        text = (NATIVE / name).read_text()
        assert "_Static_assert(sizeof(struct llama_sampler_i) == 12 * sizeof(void *)" in text, name

"""The NEON kernels, compiled for arm64 and run under emulation: the bits of AVX2.

Needs a cross compiler and qemu (Debian: gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static); skipped
where they are missing. On an arm64 machine the other tests run the same kernels for real.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
ARM_GCC, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
SOURCES = ["autodeco-row.c", "autodeco-nucleus.c", "autodeco-math.c", "autodeco-dispatch.c"]
COUNTER = NATIVE / "bench" / "count-step.c"
FIRST_LAYER = Path(__file__).parent / "tools" / "first_layer.c"
FLAGS = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]

needs_arm = pytest.mark.skipif(
    not (shutil.which(ARM_GCC) and shutil.which(QEMU)), reason=f"{ARM_GCC} or {QEMU} is not installed"
)


def compile_with(compiler: str, main: Path, out: Path, sets: dict[str, list[str]], *flags: str) -> Path:
    """A program with the given sets of kernels, each with its own flags."""
    objects = []
    for name, extra in sets.items():
        objects.append(str(out.with_suffix(f".{name}.o")))
        source = [f"-DAUTODECO_KERNELS_NAME={name}", "-c", str(NATIVE / "autodeco-kernels.c"), "-o", objects[-1]]
        subprocess.run([compiler, *FLAGS, *extra, *source], check=True)
    sources = [str(main), *(str(NATIVE / s) for s in SOURCES)]
    subprocess.run([compiler, *FLAGS, *flags, f"-I{NATIVE}", *sources, *objects, "-o", str(out), "-lm"], check=True)
    return out


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("neon")
    arm = compile_with(ARM_GCC, COUNTER, folder / "arm", {"baseline": []}, "-static")
    x86 = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mf16c"], "avx512": ["-mavx512f", "-mfma", "-mf16c"]}
    return arm, compile_with("gcc", COUNTER, folder / "x86", x86, "-DAUTODECO_KERNELS_X86")


@needs_arm
@pytest.mark.parametrize("n_vocab,n_embd,sigma", [(40_000, 100, 3.0), (40_000, 64, 0.5), (5000, 17, 1.0), (15, 1, 2.0)])
def test_neon_computes_the_bits_of_avx2(programs, n_vocab, n_embd, sigma):
    arm, x86 = programs
    sizes = [str(n_vocab), str(n_embd), str(sigma), "3"]
    neon = subprocess.run([QEMU, str(arm), "baseline", *sizes], capture_output=True, text=True, check=True).stdout
    avx2 = subprocess.run([str(x86), "avx2", *sizes], capture_output=True, text=True)
    if avx2.returncode == 3:
        pytest.skip(avx2.stderr.strip())
    assert neon.startswith("T ") and neon == avx2.stdout


@needs_arm
def test_neon_computes_rows_together_as_alone(tmp_path):
    program = compile_with(ARM_GCC, FIRST_LAYER, tmp_path / "arm", {"baseline": []}, "-static")
    done = subprocess.run([QEMU, str(program), "baseline"], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 1000, done.stdout + done.stderr

"""How many instructions a step takes, counted by callgrind: the same number on every run and machine load.

A regression test of speed without a clock. The bounds are the counts of the day they were set plus 8 %,
room for another compiler; a change that needs more has to raise them here and say why.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
N_VOCAB, N_EMBD = 32768, 1024

# instructions of one step, by (kernels, standard deviation of the logits); SSE2 has no F16 conversion
COUNTED = {
    ("avx2", 3.0): 838_000,
    ("avx2", 0.5): 1_011_000,
    ("baseline", 3.0): 3_184_000,
    ("baseline", 0.5): 3_402_000,
}

pytestmark = [
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="callgrind runs on Linux"),
]


@pytest.fixture(scope="module")
def counter(tmp_path_factory) -> Path:
    build = tmp_path_factory.mktemp("counter")
    configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-DAUTODECO_BUILD_COUNTER=ON"]
    configure += [f"-DPython3_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(configure, check=True, capture_output=True)
    subprocess.run(["cmake", "--build", str(build), "--target", "autodeco-count-step"], check=True, capture_output=True)
    return build / "native" / "autodeco-count-step"


def instructions(counter: Path, kernels: str, sigma: float, n_steps: int) -> int:
    arguments = [str(counter), kernels, str(N_VOCAB), str(N_EMBD), str(sigma), str(n_steps)]
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1))


@pytest.mark.parametrize("kernels,sigma", COUNTED)
def test_a_step_takes_no_more_instructions_than_it_did(counter, kernels, sigma):
    few, many = (instructions(counter, kernels, sigma, n) for n in (1, 5))
    count = (many - few) // 4
    print(f"{kernels}, sigma {sigma}: {count} instructions a step, {count / N_VOCAB:.2f} a vocabulary entry")
    assert 0.5 * COUNTED[kernels, sigma] < count <= 1.08 * COUNTED[kernels, sigma]

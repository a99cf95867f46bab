"""`autodeco-edge bench` as a process: stdout, stderr, exit codes, weight."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support import warm
from tests.support.letters import make_letters

SMALL = ["--n-vocab", "2000", "--n-embd", "64", "--rounds", "6"]
SHORT = ["-t", "1", "--prompt-tokens", "8", "--tokens", "6", "--rounds", "1"]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def bench(*args) -> subprocess.CompletedProcess:
    return warm.run("bench", *args, timeout=120, text=True)


@pytest.mark.parametrize("type_", ["f32", "f16", "bf16", "q8_0"])
def test_step_json_is_all_of_stdout(type_):
    done = bench("step", *SMALL, "--type", type_, "--rows", "2", "--threads", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["setup"]["outtype"] == type_ and report["setup"]["n_rows"] == 2
    assert {"autodeco_us", "ratio_vs_greedy", "ratio_vs_sweep"} <= set(report["cases"]["peaked"])


def test_step_table():
    done = bench("step", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("peaked logits", "flat logits", "AutoDeco", "greedy", "both plain reads", "T 0.8, P 0.95", "memory"):
        assert words in done.stdout


def test_decode_json_is_all_of_stdout(letters):
    done = bench("decode", "-m", letters.gguf, "--heads", letters.heads, *SHORT, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {"ratio_vs_greedy", "prompt_ratio", "runtime_ratio", "memory_bytes"} <= set(json.loads(done.stdout))


def test_decode_table(letters):
    done = bench("decode", "-m", letters.gguf, "--heads", letters.heads, *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("AutoDeco", "Python engine", "the prompt", "greedy, the prompt", "memory"):
        assert words in done.stdout


@pytest.mark.parametrize(
    "args, code",
    [
        (["step", "--n-vocab", "1"], 2),
        (["step", "--n-embd", "0"], 2),
        (["step", "--rows", "0"], 2),
        (["step", "--n-embd", "48", "--type", "q8_0"], 2),
        (["step", "--type", "q2"], 2),
        (["step", "--rounds", "many"], 2),
        (["decode"], 2),
        (["decode", "-m", "none.gguf"], 66),
        (["decode", "-m", "none.gguf", "--tokens", "0"], 2),
    ],
)
def test_errors_are_one_line(args, code):
    done = bench(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("autodeco-edge: error: ") and done.stderr.count("\n") == 1


def test_decode_errors_on_a_model(letters):
    without = bench("decode", "-m", letters.gguf, *SHORT)
    assert without.returncode == 65 and "no AutoDeco heads inside" in without.stderr
    long = bench("decode", "-m", letters.gguf, "--heads", letters.heads, "--tokens", "1000")
    assert long.returncode == 65 and "context" in long.stderr
    for done in (without, long):
        assert done.stdout == "" and done.stderr.count("\n") == 1


def test_help_and_import_cost_nothing():
    code = "import sys, autodeco_edge.cli; print(*{'numpy', 'llama_cpp', 'gguf', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "")
    assert "decode" in bench("--help").stdout


def test_no_torch():
    code = (
        "import sys; from autodeco_edge.bench.step import StepSetup, run_step\n"
        "run_step(StepSetup(n_vocab=500, n_embd=32, n_rounds=2)); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr

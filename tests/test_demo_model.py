"""The main job on the bundled model: the shipped asset, through the installed command and the engine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest

from autodeco_edge import Engine, SamplingParams, demo_model
from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import chat_prompt
from tests.support import warm
from tests.support.stock import open_stock

N_PROBLEMS = 60
MAX_ASSET_BYTES = 10_000_000


@pytest.fixture(scope="module")
def engine():
    with Engine(demo_model(), n_threads=1) as e:
        yield e


def reply(engine: Engine, prompt: str, **params) -> tuple[str, list]:
    steps = list(
        engine.generate(engine.model.tokenize(prompt, parse_special=True), SamplingParams(**params), max_tokens=200)
    )
    return engine.model.detokenize([s.id for s in steps]).decode(), steps


def test_asset_is_one_small_file_with_both_heads(engine):
    assert demo_model().stat().st_size <= MAX_ASSET_BYTES
    assert engine.heads.has_temp and engine.heads.has_top_p
    assert 0 < engine.heads.mean_temperature < 2 and 0 < engine.heads.mean_top_p <= 1
    assert float(engine.model.metadata("general.sampling.temp")) == pytest.approx(
        engine.heads.mean_temperature, abs=1e-4
    )


def test_run_without_a_model_streams_from_the_demo_model():
    command = [sys.executable, "-m", "autodeco_edge", "run", "Find two numbers that make 83.", "--seed", "1", "--jsonl"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        seconds = time.perf_counter() - start
        rest = process.stdout.read()
    print(f"first token after {seconds:.2f} s")  # reported, not asserted: the machine decides
    records = [json.loads(line) for line in (first + rest).splitlines()]
    assert records[-1]["done"] and records[-1]["finish_reason"] == "stop"
    text = "".join(r["text"] for r in records[:-1])
    a, b = map(int, re.search(r"boxed\{(\d+) \+ (\d+)\}", text).groups())
    assert a > 0 and b > 0


@pytest.mark.parametrize("family", ["make", "chain", "word", "search"])
def test_greedy_answers_are_right(engine, family):
    """Held-out problems by the recipe's own verifier. The card states at least 90 % on 200 or more; 60 problems
    at a true rate of 92 % fall below 80 % once in 700 such tests, and model and problems are fixed."""
    problems = list(families.problems(5, family, N_PROBLEMS, held_out=True))
    right = sum(families.check(p, reply(engine, chat_prompt(p), temperature=0.0)[0]) for p in problems)
    print(f"{family}: {right} of {N_PROBLEMS} right")
    assert right >= 0.8 * N_PROBLEMS


def test_temperature_differs_between_choice_and_computation(engine):
    """A free first number wants a higher T than the difference computed from it. 40 problems, means compared;
    deterministic for the shipped file."""
    free, computed = [], []
    for target in range(40, 80):
        text, steps = reply(
            engine,
            f"<|im_start|>user\nFind two numbers that make {target}.<|im_end|>\n<|im_start|>assistant\n",
            seed=target,
        )
        pieces = [engine.model.token_bytes(s.id).decode() for s in steps]
        first_digit = next((i for i, p in enumerate(pieces) if p.isdigit()), None)
        equals = next((i for i, p in enumerate(pieces) if "=" in p), None)
        if first_digit is None or equals is None:
            continue
        free.append(steps[first_digit].temperature)
        computed += [s.temperature for s, p in zip(steps[equals:], pieces[equals:], strict=True) if p.isdigit()][:2]
    assert len(free) >= 20
    mean_free, mean_computed = sum(free) / len(free), sum(computed) / len(computed)
    print(f"mean T: free choice {mean_free:.2f}, computed {mean_computed:.2f}")
    assert mean_free > mean_computed + 0.1


def test_stock_llama_cpp_loads_the_demo_model():
    llama = open_stock(demo_model(), n_ctx=256)
    out = llama.create_chat_completion(
        [{"role": "user", "content": "Find two numbers that make 83."}], max_tokens=60, temperature=0
    )
    assert "boxed" in out["choices"][0]["message"]["content"]
    llama.close()


def test_doctor_passes():
    done = warm.run("doctor", text=True)
    assert done.returncode == 0, done.stdout
    assert "64 tokens at" in done.stdout and "FAILED" not in done.stdout

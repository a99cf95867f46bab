"""The temperature that entropy alone names: the curve, its turning point, and the method `turn`."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest

from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.eval import entropy
from autodeco_edge.eval.entropy import GRID, Tempered, turning_point
from autodeco_edge.eval.samples import Limits
from autodeco_edge.spec import sampling
from autodeco_edge.spec.heads import softmax
from autodeco_edge.tasks import load_task
from autodeco_edge.text.chat import render
from autodeco_edge.train.gguf_states import HiddenStates
from tests.support import warm

SMALL = ("--count", "2", "--samples", "2", "--seeds", "1", "-t", "1", "-c", "256", "-n", "30")


def curve(turn: float, sign: float = 1.0) -> list[float]:
    return [float(np.exp(sign * (t - turn) ** 3 + t)) for t in GRID]


@pytest.mark.parametrize("turn", [0.3, 0.72, 1.1])
def test_the_turn_of_a_curve_with_one(turn):
    assert turning_point(GRID, curve(turn)) == pytest.approx(turn, abs=0.0501)  # half a step of the grid


def test_a_reply_without_a_doubt_says_nothing_of_the_turn():
    assert turning_point(GRID, [0.0, 0.0, *curve(0.9)[2:]]) == pytest.approx(0.9, abs=0.0501)


def test_the_turn_bears_noise():
    noise = np.random.default_rng(0).normal(0, 0.01, len(GRID))
    assert turning_point(GRID, np.array(curve(0.8)) * np.exp(noise)) == pytest.approx(0.8, abs=0.15)


NONE = {"convex first": curve(0.8, -1.0), "later": curve(3.0), "before": curve(-2.0), "certain": [0.0] * 12 + [1.0] * 3}


@pytest.mark.parametrize("values", NONE.values(), ids=NONE)
def test_curves_that_name_none(values):
    assert turning_point(GRID, values) is None


@pytest.fixture(scope="module")
def model():
    with closing(Model(demo_model())) as found:
        yield found


def test_a_draw_is_that_of_the_specification(model):
    """Tokens and entropies of a reply at T = 0.7, against the specification on logits of the whole sequence at once."""
    prompt = tuple(render(model, list(load_task("demo:make", count=1).problems[0].messages)))
    params = SamplingParams(seed=3, temperature=0.7, heads_mode="none")
    with closing(Engine(model, None, n_slots=2, n_ctx=256, n_threads=1, strategy=Tempered())) as engine:
        ((_, reply),) = engine.run([Request(prompt, params, 40)])
    ids = [*prompt, *(step.id for step in reply.steps)]
    with closing(HiddenStates(model, 256, 1)) as states:
        logits = np.concatenate([rows for _, rows in states.with_logits(ids[:-1])])[len(prompt) - 1 :]
    assert len(logits) == len(reply.steps) > 5
    equal = 0
    for n, (step, row) in enumerate(zip(reply.steps, logits, strict=True)):
        equal += step.id == sampling.draw(row, 0.7, 1.0, sampling.uniform(3, n)).token
        p = softmax(row.astype(np.float64) / 0.7)
        exact = -(p * np.log(p + 1e-300)).sum()
        assert step.entropy == pytest.approx(exact, abs=0.05)  # Q8_0 rounds otherwise in a batch: 0.008 seen
    assert equal >= len(logits) - 1  # a token whose number lies within that rounding


def test_entropy_rises_with_the_temperature(model):
    prompts = [tuple(render(model, list(p.messages))) for p in load_task("demo:make", count=2).problems]
    found = entropy.entropies(model, prompts, Limits(30, 256, 16, 1), 0)
    assert [t for t, _ in found] == list(GRID)
    values = [h for _, h in found]
    assert values[0] < 0.5 * values[6] < 0.5 * values[-1] and values == pytest.approx(
        [h for _, h in entropy.entropies(model, prompts, Limits(30, 256, 16, 1), 0)]
    )


def run(*args):
    return warm.run("eval", *args, text=True, timeout=300)


def test_turn_is_a_method_and_goes_on(tmp_path):
    arguments = ("--task", "demo:make", *SMALL, "--methods", "turn,default", "-o", tmp_path, "--json")
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)["turn"]
    assert [t for t, _ in found["entropies"]] == list(GRID)
    assert found["temperature"] == (turning_point(*zip(*found["entropies"], strict=True)) or 1.0)
    assert json.loads((tmp_path / "samples" / "turn.jsonl").open().readline())["temperature"] == found["temperature"]
    lines = (tmp_path / "entropy.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "entropy.jsonl").write_text("".join(lines[:5]))  # a kill
    again = run(*arguments, "--resume")
    assert again.returncode == 0, again.stderr
    assert np.array(json.loads(again.stdout)["turn"]["entropies"]) == pytest.approx(np.array(found["entropies"]))
    (tmp_path / "entropy.jsonl").unlink()
    refused = run(*arguments, "--resume", "--no-draw")
    assert refused.returncode == 2 and "no entropies yet" in refused.stderr


def test_turn_wants_other_problems(tmp_path):
    rows = [{"problem": f"What is {i} + {i}?", "gt": str(2 * i)} for i in range(3)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = run("--task", tmp_path / "own.jsonl", *SMALL, "--methods", "turn", "-o", tmp_path / "out")
    assert refused.returncode == 2 and "--calibration" in refused.stderr

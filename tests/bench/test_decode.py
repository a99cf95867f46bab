"""The benchmark of a decode on a model of 260 tokens. Times are not asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autodeco_edge.bench import decode
from autodeco_edge.bench.decode import DecodeSetup, Loop, random_prompt, run_decode
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.errors import ContextOverflowError, MissingInputError, NoHeadsError, UsageError
from tests.support.letters import N_CTX, make_letters

SETUP = DecodeSetup(n_prompt=10, n_tokens=12, n_rounds=2, n_threads=1, seed=3)
RATIOS = {
    "ratio_vs_greedy": ("token_us", "autodeco", "greedy"),
    "ratio_vs_default": ("token_us", "autodeco", "default_chain"),
    "ratio_vs_temp_top_p": ("token_us", "autodeco", "temp_top_p"),
    "prompt_ratio": ("prompt_us", "autodeco", "greedy"),
    "runtime_ratio": ("token_us", "runtime", "runtime_c_loop"),
    "prompt_runtime_ratio": ("prompt_us", "runtime", "runtime_c_loop"),
}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def report(letters) -> dict:
    return json.loads(json.dumps(run_decode(letters.gguf, letters.heads, SETUP)))


@pytest.mark.parametrize("name", RATIOS)
def test_ratios_are_those_of_the_medians(report, name):
    """Within 1e-2: the medians of a few microseconds are rounded to a nanosecond."""
    kind, ours, other = RATIOS[name]
    expected = report[kind][ours]["median"] / report[kind][other]["median"]
    assert report[name] == pytest.approx(expected, rel=1e-2)
    paired = report["paired"][name]
    assert 0 < paired["low"] <= paired["median"] <= paired["high"]


def test_rates(report):
    for name, summary in report["token_us"].items():
        assert report["tokens_per_second"][name] == pytest.approx(1e6 / summary["median"], rel=1e-3)
    for name, summary in report["prompt_us"].items():
        rate = SETUP.n_prompt * 1e6 / summary["median"]
        assert report["prompt_tokens_per_second"][name] == pytest.approx(rate, rel=1e-3)


def test_memory(report, letters):
    from autodeco_edge.engine.sampler import Heads

    memory, n_vocab = report["memory_bytes"], report["model"]["n_vocab"]
    assert memory["heads"] > 0 and memory["per_row"] >= n_vocab
    assert memory["per_vocab_entry"] == pytest.approx(memory["per_row"] / n_vocab, abs=1e-3)
    assert report["heads"] == Heads(letters.heads).description


@pytest.fixture(scope="module")
def engine(letters):
    with Engine(letters.gguf, letters.heads, n_ctx=SETUP.n_ctx, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def prompt(engine) -> np.ndarray:
    return random_prompt(engine.model, SETUP)


def test_contenders_drew_and_were_fed_what_greedy_draws(engine, prompt):
    """The greedy context must reply as the engine does at temperature 0, whoever runs beside it."""
    with Loop(engine.model, engine.heads, SETUP, 1) as loop:
        prompt_us, token_us, tokens = loop.round(prompt, SETUP.n_tokens, first=1)
    assert (prompt_us > 0).all() and (token_us > 0).all()
    assert (tokens >= 0).all() and (tokens < engine.model.n_vocab).all()
    steps = engine.generate(
        prompt.tolist(), SamplingParams(temperature=0), max_tokens=SETUP.n_tokens + 1, stop_at_end=False
    )
    greedy = tokens[:, decode._SAMPLERS.index("greedy")]
    assert greedy.tolist() == [step.id for step in steps][1:]


def test_runtime_and_loop_draw_the_same_tokens(engine, prompt):
    with Loop(engine.model, engine.heads, SETUP, 1) as loop:
        timed = decode.time_runtime(engine, loop, prompt, SETUP)
    assert timed.tokens.shape == timed.token_us.shape == (SETUP.n_rounds * SETUP.n_tokens, 2)
    assert (timed.tokens[:, 0] == timed.tokens[:, 1]).all()
    assert len(set(timed.tokens[:, 0].tolist())) > 1


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["n_prompt", "n_tokens", "n_rounds"])
def test_out_of_range(field):
    with pytest.raises(UsageError, match="allowed 1 or more; got 0"):
        DecodeSetup(**{field: 0})


def test_model_without_heads(letters):
    with pytest.raises(NoHeadsError, match="--heads"):
        run_decode(letters.gguf, setup=SETUP)


def test_beyond_the_context(letters):
    with pytest.raises(ContextOverflowError, match=f"context of {N_CTX}"):
        run_decode(letters.gguf, letters.heads, DecodeSetup(n_prompt=N_CTX - 8, n_tokens=8))


def test_missing_model(tmp_path):
    with pytest.raises(MissingInputError):
        run_decode(tmp_path / "none.gguf")


def test_prompt_is_seeded(letters):
    model = Model(letters.gguf)
    assert (random_prompt(model, SETUP) == random_prompt(model, SETUP)).all()

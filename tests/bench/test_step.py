"""The benchmark of a step runs the real thing: its tokens are the reference's. Times are not asserted."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest

from autodeco_edge.bench import _native as native
from autodeco_edge.bench.heads import TEMPERATURE, TOP_P, write_random_heads
from autodeco_edge.bench.step import (
    CASES,
    StepSetup,
    flat_logits,
    peaked_logits,
    report_case,
    run_step,
    tensor_bytes,
    time_step,
)
from autodeco_edge.engine.native import Stats, lib
from autodeco_edge.engine.sampler import Heads
from autodeco_edge.errors import UsageError

N_VOCAB, N_EMBD, N_ROWS = 2000, 64, 3
SETUP = StepSetup(n_vocab=N_VOCAB, n_embd=N_EMBD, n_rows=N_ROWS, n_rounds=12, n_warmup=2, seed=5, outtype="f32")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Heads, and the bytes of their tensors."""
    folder = tmp_path_factory.mktemp("step")
    written = write_random_heads(folder / "heads.gguf", folder / "heads", N_EMBD, outtype="f32", seed=5)
    return Heads(written.path), tensor_bytes(written)


@pytest.fixture(scope="module")
def hidden() -> np.ndarray:
    return np.random.default_rng(8).standard_normal((N_ROWS, N_EMBD), dtype=np.float32)


@pytest.fixture(scope="module", params=CASES)
def logits(request) -> np.ndarray:
    return CASES[request.param](np.random.default_rng(9), N_ROWS, N_VOCAB)


@pytest.fixture(scope="module")
def timed(made, hidden, logits):
    return time_step(SETUP, *made, hidden, logits)


def pointer(a: np.ndarray):
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def reference_token(heads: Heads, hidden: np.ndarray, logits: np.ndarray, seed: int, index: int) -> int:
    temp, top_p, n_kept, stats = ctypes.c_float(), ctypes.c_float(), ctypes.c_int32(), Stats()
    lib.autodeco_ref_forward(
        heads.handle, pointer(hidden), pointer(logits), N_VOCAB, ctypes.byref(temp), ctypes.byref(top_p), stats
    )
    u = lib.autodeco_ref_uniform(seed, index)
    return lib.autodeco_ref_draw(pointer(logits), N_VOCAB, temp, top_p, u, None, ctypes.byref(n_kept))


def test_autodeco_draws_what_the_reference_draws(timed, made, hidden, logits):
    """Every round, every row: each has its own hidden state, logits and seed. The inputs are fixed, and none lies at
    the edge of a nucleus, where fast path and reference may differ."""
    drawn = timed.tokens[:, native.AUTODECO]
    expected = [
        [
            reference_token(made[0], hidden[row], logits[row], SETUP.seed + row, SETUP.n_warmup + i)
            for row in range(N_ROWS)
        ]
        for i in range(SETUP.n_rounds)
    ]
    assert drawn.tolist() == expected


def test_stock_chains_drew_valid_tokens(timed, logits):
    tokens = timed.tokens
    assert tokens.shape == (SETUP.n_rounds, len(native.SAMPLERS), N_ROWS)
    assert (tokens >= 0).all() and (tokens < N_VOCAB).all()
    assert (tokens[:, native.SAMPLERS.index("greedy")] == logits.argmax(axis=1)).all()
    top_40 = np.argsort(-logits, axis=1)[:, :40]
    for row in range(N_ROWS):
        assert np.isin(tokens[:, native.SAMPLERS.index("default_chain"), row], top_40[row]).all()


def test_every_contender_was_timed(timed):
    assert timed.us.shape == (SETUP.n_rounds, len(native.CONTENDERS))
    assert (timed.us > 0).all()


def test_threads_change_no_token(made, hidden, logits, timed):
    from dataclasses import replace

    two = time_step(replace(SETUP, n_threads=2), *made, hidden, logits)
    assert (two.tokens == timed.tokens).all()


def test_random_heads_give_the_constants_of_the_stock_chain(timed):
    """T and P have a spread of 0.1 in their logit (0.05 in T, 0.005 in P); allowed: 5 times that."""
    for step in timed.steps:
        assert step.temp == pytest.approx(TEMPERATURE, abs=0.25)
        assert step.top_p == pytest.approx(TOP_P, abs=0.025)


def test_cases_are_what_they_are_called():
    rng = np.random.default_rng(1)

    def probabilities(logits: np.ndarray) -> np.ndarray:
        w = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
        return w / w.sum(axis=1, keepdims=True)

    assert probabilities(peaked_logits(rng, 4, N_VOCAB)).max(axis=1) == pytest.approx(0.9, abs=1e-4)  # float32
    assert (probabilities(flat_logits(rng, 4, N_VOCAB)).max(axis=1) < 0.01).all()
    assert np.isfinite(peaked_logits(rng, 1, 2)).all()


# ---- report --------------------------------------------------------------------------------------

FIELDS = [f"{name}_us" for name in native.CONTENDERS]
RATIOS = {
    "ratio_vs_greedy": ["greedy_us"],
    "ratio_vs_default": ["default_chain_us"],
    "ratio_vs_temp_top_p": ["temp_top_p_us"],
    "ratio_vs_sweep": ["logits_sweep_us", "weights_sweep_us"],
}


def check_case(case: dict) -> None:
    """Ratios within their rounding, four decimals of a number below 1000."""
    assert set(FIELDS) | set(RATIOS) <= set(case)
    for ratio, others in RATIOS.items():
        assert case[ratio] == pytest.approx(case["autodeco_us"] / sum(case[o] for o in others), rel=1e-3, abs=1e-4)
        paired = case["paired"][ratio]
        assert 0 < paired["low"] <= paired["median"] <= paired["high"]
    for field in FIELDS:
        low, high = case["quartiles"][field]
        assert 0 < case["min"][field] <= low <= case[field] <= high


def test_report_of_a_case(timed):
    check_case(report_case(timed))


def test_report():
    setup = StepSetup(n_vocab=N_VOCAB, n_embd=N_EMBD, n_rounds=8, outtype="q8_0")
    report = json.loads(json.dumps(run_step(setup)))
    assert set(report["cases"]) == {"peaked", "flat"}
    for case in report["cases"].values():
        check_case(case)
    assert report["stock"] == {"temperature": TEMPERATURE, "top_p": TOP_P}
    memory = report["memory_bytes"]
    assert memory["heads"] >= 2 * 256 * N_EMBD and memory["head_weights_read"] >= 2 * 256 * N_EMBD
    assert memory["per_vocab_entry"] == pytest.approx(memory["per_row"] / N_VOCAB, abs=1e-3)


def test_machine_names_no_place():
    from autodeco_edge.bench.machine import describe_machine

    machine = describe_machine()
    assert {"cpu", "physical_cores", "flags", "kernels", "versions"} <= set(machine)
    assert {"llama.cpp", "ggml", "autodeco-edge"} <= set(machine["versions"])
    assert "/" not in json.dumps(machine["versions"])


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field, value",
    [("n_vocab", 1), ("n_embd", 0), ("n_rows", 0), ("n_threads", 0), ("n_rounds", 0), ("outtype", "q4_0")],
)
def test_out_of_range(field, value):
    with pytest.raises(UsageError, match="allowed"):
        StepSetup(**{field: value})


def test_q8_0_needs_whole_blocks():
    with pytest.raises(UsageError, match="multiple of 32"):
        StepSetup(n_embd=48, outtype="q8_0")
    StepSetup(n_embd=48, outtype="f16")


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0"])
def test_a_row_is_the_same_to_the_bit_in_any_batch_on_any_threads(tmp_path, outtype):
    """T, P, token and all else of a step: ggml graphs of 1, 2, 4 and 8 sequences, 1 and 2 threads.

    The rows' hidden states and logits are given. What llama.cpp computes them as may differ in the last bits
    between batch sizes, by its own matrix kernels (tests/native/test_batches.py).
    """
    n_vocab, n_rows = 20_000, 8
    written = write_random_heads(tmp_path / "heads.gguf", tmp_path / "heads", N_EMBD, outtype=outtype, seed=5)
    heads, n_bytes = Heads(written.path), tensor_bytes(written)
    rng = np.random.default_rng(3)
    hidden = rng.standard_normal((n_rows, N_EMBD), dtype=np.float32)
    logits = np.concatenate([make(rng, n_rows // 2, n_vocab) for make in CASES.values()])

    def steps(first: int, n: int, n_threads: int) -> list[bytes]:
        setup = StepSetup(n_vocab=n_vocab, n_embd=N_EMBD, n_rows=n, n_threads=n_threads, n_rounds=2, seed=7 + first)
        rows = slice(first, first + n)
        return [bytes(step) for step in time_step(setup, heads, n_bytes, hidden[rows], logits[rows]).steps]

    alone = [steps(row, 1, 1)[0] for row in range(n_rows)]
    assert len(set(alone)) == n_rows
    for n in (1, 2, 4, 8):
        for n_threads in (1, 2):
            assert sum((steps(first, n, n_threads) for first in range(0, n_rows, n)), []) == alone


def test_memory_is_the_heads_and_a_few_bytes_a_vocabulary_entry():
    """The issue allows 8 a row; 2 rows of a real vocabulary."""
    report = run_step(StepSetup(n_embd=64, n_rows=2, n_rounds=1, n_warmup=0))
    assert 4.0 < report["memory_bytes"]["per_vocab_entry"] < 4.2
    assert report["memory_bytes"]["heads"] < 1.05 * report["memory_bytes"]["head_weights_read"]

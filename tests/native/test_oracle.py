"""numpy = C reference = C fast path = PyTorch, on one table of cases.

The scalar reference (`autodeco_ref_*`) and the row that the graph runs (`autodeco_step_once`) are
called through ctypes on the same heads, hidden states and logits as the numpy specification.
"""

from __future__ import annotations

import ctypes
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.engine import native as _native
from autodeco_edge.engine.native import HeadsMode, lib
from autodeco_edge.engine.sampler import Heads
from autodeco_edge.spec import heads, sampling
from tests.support import checkpoints
from tests.support.weights import weights_of

N_EMBD = 96
EDGE = 1e-6  # a kept set may differ only where the cumulative mass is this close to P


# ---- calling C --------------------------------------------------------------------------


def pointer(a: np.ndarray):
    return a.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def f32(a) -> np.ndarray:
    return np.ascontiguousarray(a, dtype=np.float32)


def c_forward(h: Heads, hidden, logits):
    temp, top_p, stats = ctypes.c_float(), ctypes.c_float(), _native.Stats()
    ok = lib.autodeco_ref_forward(
        h.handle,
        pointer(hidden),
        pointer(logits),
        logits.size,
        ctypes.byref(temp),
        ctypes.byref(top_p),
        ctypes.byref(stats),
    )
    assert ok
    return temp.value, top_p.value, stats


def c_draw(logits, temp_eff, top_p_eff, u):
    kept = (ctypes.c_bool * logits.size)()
    n = ctypes.c_int32()
    token = lib.autodeco_ref_draw(pointer(logits), logits.size, temp_eff, top_p_eff, u, kept, ctypes.byref(n))
    return token, np.frombuffer(kept, dtype=bool), n.value


def step_once(h, hidden, logits, index=0, threads=1, kernels=None, **params):
    p = lib.autodeco_sampler_default_params()
    for name, value in params.items():
        setattr(p, name, value)
    out = _native.Step()
    hidden_pointer = pointer(hidden) if hidden is not None else None
    status = lib.autodeco_step_once(
        h.handle if h else None,
        p,
        kernels,
        hidden_pointer,
        pointer(logits),
        logits.size,
        index,
        threads,
        ctypes.byref(out),
    )
    return status, out


# ---- cases ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The same heads as numpy arrays and in C."""

    weights: heads.HeadWeights
    native: Heads


def make_pair(folder, n_embd=N_EMBD, *, n_extra=5, drop_temp=False, outtype="f32", seed=3) -> Pair:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = checkpoints.random_tensors(n_embd, seed, n_extra=n_extra)
    if drop_temp:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("temp_head")}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"base_model_type": "llama", "hidden_size": n_embd}))
    checkpoint = read_checkpoint(folder)
    write_heads(checkpoint, folder / "heads.gguf", outtype=outtype)
    return Pair(weights_of(checkpoint), Heads(folder / "heads.gguf"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("pair"))


def logits_cases(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shapes of distributions that break samplers."""
    masked = rng.normal(size=n) * 3
    masked[rng.random(n) < 0.5] = -np.inf
    holes = rng.normal(size=n)
    holes[1 :: max(n // 3, 2)] = np.nan
    one_hot = np.full(n, -50.0)
    one_hot[n // 2] = 50.0
    return {
        "normal": rng.normal(size=n) * 3,
        "peaked": rng.normal(size=n) * 12,
        "flat": np.zeros(n),
        "nearly flat": rng.normal(size=n) * 1e-4,
        "one-hot": one_hot,
        "ties": rng.integers(0, 4, size=n).astype(float),
        "masked": masked,
        "NaN holes": holes,
        "one +inf": np.where(np.arange(n) == n // 3, np.inf, rng.normal(size=n)),
        "two +inf": np.where(np.isin(np.arange(n), (0, n - 1)), np.inf, rng.normal(size=n)),
        "tiny weights": np.linspace(0.0, -120.0, n),
        "large": rng.normal(size=n) * 3 + 1e4,
    }


CASES = [(n, name) for n in (2, 7, 4096, 4097, 20000) for name in logits_cases(2, np.random.default_rng(0))]


@pytest.fixture(params=CASES, ids=[f"{name}-{n}" for n, name in CASES])
def case(request):
    n, name = request.param
    rng = np.random.default_rng([n, len(name)])
    return f32(logits_cases(n, rng)[name]), f32(rng.normal(size=N_EMBD))


# ---- heads and statistics ---------------------------------------------------------------


def test_reference_equals_numpy(pair, case):
    """C sums in double and rounds to float once: 1e-5 leaves room for the statistics' own rounding."""
    logits, hidden = case
    temp, top_p, stats = c_forward(pair.native, hidden, logits)
    want_temp, want_top_p, want = heads.forward(pair.weights, hidden, logits)
    assert abs(temp - want_temp) <= 1e-5
    assert abs(top_p - want_top_p) <= 1e-5
    np.testing.assert_allclose(
        [stats.max_prob, stats.entropy, stats.top5_sum],
        [want.max_prob, want.entropy, want.top5_sum],
        rtol=2e-5,
        atol=2e-6,
    )
    np.testing.assert_allclose(stats.prob_var, want.prob_var, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_row_equals_reference(pair, case, threads):
    """The fast row: float weights and a polynomial exp, 1e-5 in T and P as the issue asks."""
    logits, hidden = case
    temp, top_p, stats = c_forward(pair.native, hidden, logits)
    status, step = step_once(pair.native, hidden, logits, threads=threads)
    assert status == 0
    assert abs(step.temp - temp) <= 1e-5
    assert abs(step.top_p - top_p) <= 1e-5
    assert step.max_prob == pytest.approx(stats.max_prob, rel=1e-5)
    assert step.entropy == pytest.approx(stats.entropy, rel=1e-4, abs=1e-5)


def test_row_is_bit_identical_for_any_thread_count(pair, case):
    logits, hidden = case
    first = bytes(step_once(pair.native, hidden, logits, threads=1)[1])
    for threads in (2, 3, 8, 64):
        assert bytes(step_once(pair.native, hidden, logits, threads=threads)[1]) == first


def test_row_equals_pytorch(pair):
    """Identical hidden states and logits, PyTorch in float64: 1e-5 with F32 heads, over 500 random vectors."""
    torch = pytest.importorskip("torch")
    from autodeco_edge.train.checkpoint import load_heads

    module = load_heads(pair.native.path.parent).heads.double().eval()
    rng = np.random.default_rng(5)
    worst = 0.0
    for i in range(500):
        hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=1000) * rng.uniform(0.1, 8))
        with torch.no_grad():
            temp, top_p = module(torch.tensor(hidden).double()[None], torch.tensor(logits).double()[None])
        _, step = step_once(pair.native, hidden, logits, index=i)
        worst = max(worst, abs(step.temp - temp.item()), abs(step.top_p - top_p.item()))
    print(f"largest difference of T or P from PyTorch: {worst:.1e}")
    assert worst <= 1e-5


@pytest.mark.parametrize("n_extra,drop_temp", [(5, False), (1, False), (0, False), (5, True), (1, True)])
def test_basic_heads_and_missing_heads(tmp_path, n_extra, drop_temp):
    p = make_pair(tmp_path, n_extra=n_extra, drop_temp=drop_temp)
    rng = np.random.default_rng(2)
    hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=300) * 2)
    want_temp, want_top_p, _ = heads.forward(p.weights, hidden, logits)
    _, step = step_once(p.native, hidden, logits)
    for got, want in ((step.temp, want_temp), (step.top_p, want_top_p)):
        assert math.isnan(got) if want is None else abs(got - want) <= 1e-5
    assert step.temp_eff == pytest.approx(1.0 if want_temp is None else want_temp, abs=1e-5)
    assert step.top_p_eff == pytest.approx(1.0 if want_top_p is None else want_top_p, abs=1e-5)


@pytest.mark.parametrize("outtype,bound", [("f32", 0.0), ("bf16", 2**-8), ("f16", 2**-11), ("q8_0", 1 / 127)])
def test_storage_types(tmp_path, outtype, bound):
    """Heads stored narrower: the C loader sees what the Python reader sees, to the bit."""
    from autodeco_edge.convert.verify import read_heads_gguf

    p = make_pair(tmp_path, outtype=outtype)
    stored = weights_of(read_heads_gguf(p.native.path))
    rng = np.random.default_rng(4)
    hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=300))
    want_temp, want_top_p, _ = heads.forward(stored, hidden, logits)
    temp, top_p, _ = c_forward(p.native, hidden, logits)
    assert abs(temp - want_temp) <= 1e-5 and abs(top_p - want_top_p) <= 1e-5
    scale = np.abs(p.weights.temp.fc1_weight).max()
    assert np.abs(stored.temp.fc1_weight - p.weights.temp.fc1_weight).max() <= bound * scale


def test_golden_vectors(golden, tmp_path):
    """The official code's own outputs (equations 16), through the C reference and the fast row."""
    from safetensors.numpy import save_file

    i, j = np.arange(256)[:, None], np.arange(4)[None, :]
    k = np.arange(9)[None, :]
    m = np.arange(256)
    tensors = {
        "temp_head.mlp.0.weight": np.sin(0.1 + 0.37 * i + 0.53 * j) / 2,
        "temp_head.mlp.0.bias": 0.1 * np.cos(0.2 + 0.41 * m),
        "temp_head.mlp.2.weight": 0.125 * np.sin(0.2 + 0.53 * m)[None],
        "temp_head.mlp.2.bias": np.array([0.1 * np.cos(0.4)]),
        "top_p_head.mlp.0.weight": np.sin(0.3 + 0.37 * i + 0.53 * k) / 3,
        "top_p_head.mlp.0.bias": 0.1 * np.cos(0.6 + 0.41 * m),
        "top_p_head.mlp.2.weight": 0.125 * np.sin(0.4 + 0.53 * m)[None],
        "top_p_head.mlp.2.bias": np.array([0.1 * np.cos(0.8)]),
    }
    save_file({n: f32(t) for n, t in tensors.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"base_model_type": "llama"}')
    write_heads(read_checkpoint(tmp_path), tmp_path / "g.gguf")
    h = Heads(tmp_path / "g.gguf")
    for row in golden["heads"]:
        hidden, logits = f32(row["hidden"]), f32(row["logits"])
        temp, top_p, stats = c_forward(h, hidden, logits)
        _, step = step_once(h, hidden, logits)
        for got in (temp, step.temp):
            assert got == pytest.approx(row["temperature"], abs=2e-6)
        for got in (top_p, step.top_p):
            assert got == pytest.approx(row["top_p"], abs=2e-6)
        assert stats.entropy == pytest.approx(row["entropy"], rel=1e-6)
        assert stats.prob_var == pytest.approx(row["prob_var"], rel=1e-6)


# ---- random number ----------------------------------------------------------------------


def test_philox_known_answers():
    """Random123's published vectors of philox4x32-10."""
    assert sampling.philox((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 0xFFFFFFFF
    assert sampling.philox((ones,) * 4, (ones, ones)) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)


def test_uniform_equals_numpy_and_is_uniform():
    for seed in (0, 1, 2**32, 2**64 - 1):
        for index in (0, 1, 2**32 + 5):
            assert lib.autodeco_ref_uniform(seed, index) == sampling.uniform(seed, index)
    from scipy.stats import kstest

    draws = [lib.autodeco_ref_uniform(7, i) for i in range(20000)] + [
        lib.autodeco_ref_uniform(s, 0) for s in range(20000)
    ]
    assert kstest(draws, "uniform").pvalue > 1e-6  # fixed inputs: the outcome cannot change between runs


# ---- nucleus and draw -------------------------------------------------------------------


def edge_distance(weights: np.ndarray, top_p: float) -> float:
    """How far P is from the nearest step of the cumulative distribution."""
    c = np.cumsum(np.sort(weights)[::-1]) / weights.sum()
    return float(np.abs(c - top_p).min())


@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize("temp", [1e-6, 0.2, 1.0, 1.9])
def test_reference_nucleus_and_draw_equal_numpy(case, temp, top_p):
    logits, _ = case
    for u in (0.0, 0.4, 0.999999):
        want = sampling.draw(logits, temp, top_p, u)
        token, kept, n = c_draw(logits, temp, top_p, u)
        assert n == kept.sum()
        assert kept[token]
        if temp >= sampling.MIN_TEMP and edge_distance(want_weights(logits, temp), top_p) < EDGE:
            continue
        np.testing.assert_array_equal(kept, want.kept)
        assert token == want.token


def want_weights(logits, temp) -> np.ndarray:
    clean = heads.sanitize(logits)
    return np.exp((clean - clean.max()) / temp)


def test_row_keeps_and_draws_what_the_reference_does(case):
    """Without heads and with a user's temperature and top-p, against the sorted reference."""
    logits, _ = case
    rng = np.random.default_rng(logits.size)
    for index in range(20):
        temp, top_p = float(np.float32(rng.uniform(0.05, 2.0))), float(np.float32(rng.uniform(0.0, 1.0)))
        _, step = step_once(None, None, logits, index=index, seed=9, temp=temp, top_p=top_p)
        u = sampling.uniform(9, index)
        token, kept, n = c_draw(logits, temp, top_p, u)
        weights = want_weights(logits, temp)
        if edge_distance(weights, top_p) < EDGE:
            assert abs(step.n_kept - n) <= max(2, 2e-3 * logits.size)
            continue
        assert step.n_kept == n
        assert kept[step.token]
        edges = np.cumsum(np.where(kept, weights, 0))
        if np.abs(edges / edges[-1] - u).min() > EDGE:
            assert step.token == token


def test_ties_go_to_the_lower_ids():
    logits = f32([1.0, 1.0, 1.0, 1.0, 0.0])
    _, step = step_once(None, None, logits, temp=1.0, top_p=0.4)
    token, kept, n = c_draw(logits, 1.0, 0.4, 0.99)
    assert n == step.n_kept == 2
    assert list(kept) == [True, True, False, False, False]
    assert token == 1


def test_no_finite_logit_is_an_error_and_never_a_token():
    for value in (-np.inf, np.nan):
        logits = f32(np.full(50, value))
        status, step = step_once(None, None, logits)
        assert status == _native.Status.NO_LOGIT
        assert step.token == -1
        assert c_draw(logits, 1.0, 1.0, 0.5)[0] == -1


def test_head_output_that_is_not_finite_falls_back_to_one(pair):
    logits = f32(np.linspace(0, 1, 100))
    _, step = step_once(pair.native, f32(np.full(N_EMBD, np.nan)), logits)
    assert (step.temp, step.top_p) == (1.0, 1.0)


@pytest.mark.parametrize("mode", list(HeadsMode))
def test_modes_apply_and_report_the_right_heads(pair, mode):
    rng = np.random.default_rng(6)
    hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=500))
    temp, top_p, _ = c_forward(pair.native, hidden, logits)
    _, step = step_once(pair.native, hidden, logits, heads_mode=mode, temp=0.5, top_p=0.5)
    uses_t, uses_p = mode in (HeadsMode.BOTH, HeadsMode.TEMP), mode in (HeadsMode.BOTH, HeadsMode.TOP_P)
    want_temp, want_top_p = sampling.effective(temp if uses_t else None, top_p if uses_p else None, 0.5, 0.5)
    assert step.temp_eff == pytest.approx(want_temp, abs=1e-5)
    assert step.top_p_eff == pytest.approx(want_top_p, abs=1e-5)
    assert math.isnan(step.temp) == (mode == HeadsMode.NONE)
    assert math.isnan(step.top_p) == (not uses_p)


@pytest.mark.parametrize("temp", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("limits", [(0, 0), (0.9, 0), (0, 0.7), (0.6, 0.7), (0.65, 0.65)], ids=str)
def test_limits_hold_after_the_factors(pair, temp, limits):
    """0 = no limit; within 1e-6: one product in float against one in double."""
    rng = np.random.default_rng(14)
    hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=500))
    low, high = limits
    named = {"temp_min": low, "temp_max": high, "top_p_min": low, "top_p_max": high}
    _, step = step_once(pair.native, hidden, logits, temp=temp, top_p=0.5, **named)
    want = sampling.effective(
        step.temp, step.top_p, temp, 0.5, temp_range=(low, high or math.inf), top_p_range=(low, high or 1.0)
    )
    assert (step.temp_eff, step.top_p_eff) == pytest.approx(want, abs=1e-6)
    assert (step.temp_eff == 0) == (temp == 0), "greedy stays greedy"
    token, _, n_kept = c_draw(logits, step.temp_eff, step.top_p_eff, sampling.uniform(0, 0))
    assert (step.token, step.n_kept) == (token, n_kept)


def test_logprob_is_of_the_raw_distribution(pair):
    rng = np.random.default_rng(8)
    hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=5000) * 3)
    _, step = step_once(pair.native, hidden, logits, temp=0.3, top_p=0.5, logprob=True)
    want = np.log(heads.softmax(logits.astype(np.float64))[step.token])
    assert step.logprob == pytest.approx(want, abs=1e-5)
    _, silent = step_once(pair.native, hidden, logits, temp=0.3, top_p=0.5)
    assert math.isnan(silent.logprob)
    assert (silent.token, silent.temp, silent.top_p) == (step.token, step.temp, step.top_p)


def test_min_p_drops_before_the_cut():
    logits = f32([3.0, 2.0, 1.0, 0.0])
    weights = np.exp(logits - 3.0)
    _, step = step_once(None, None, logits, min_p=float(weights[2]) * 0.99)
    assert step.n_kept == 3


def test_drawn_tokens_follow_the_exact_distribution(pair):
    """200,000 draws at one position against the float64 probabilities: chi-square, false alarm 1e-6
    (and none in practice: seed and inputs are fixed)."""
    from scipy.stats import chisquare

    rng = np.random.default_rng(12)
    hidden, logits = f32(rng.normal(size=N_EMBD)), f32(rng.normal(size=40) * 1.5)
    _, step = step_once(pair.native, hidden, logits)
    want = sampling.draw(logits, step.temp_eff, step.top_p_eff, 0.0)
    counts = np.zeros(logits.size)
    for index in range(200_000):
        counts[step_once(pair.native, hidden, logits, index=index, seed=77)[1].token] += 1
    assert counts[~want.kept].sum() == 0
    expected = want.probs[want.kept] * counts.sum()
    assert chisquare(counts[want.kept], expected).pvalue > 1e-6
    # the test sees a sampler that is slightly wrong: T off by 3 percent
    wrong = sampling.draw(logits, step.temp_eff * 1.03, step.top_p_eff, 0.0).probs[want.kept]
    assert chisquare(counts[want.kept], wrong / wrong.sum() * counts.sum()).pvalue < 1e-6

"""Every set of vector instructions against the sorted double reference.

10,000 random and adversarial distributions. The reference is a prefix of the order (logit descending,
id ascending), so two kept sets are equal when they are of equal size; a set may differ only by tokens
whose cumulative mass lies within 1e-6 of P, which a float weight of 9e-8 relative error cannot tell apart.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from autodeco_edge.engine.native import Stats, lib
from autodeco_edge.engine.sampler import kernels
from autodeco_edge.spec import heads, sampling
from tests.native.test_oracle import EDGE, N_EMBD, c_forward, f32, make_pair, pointer, step_once
from tests.support.weights import weights_of

N_CASES = 10_000
FUSED = ("avx512", "avx2")  # sets with FMA compute the same bits


KERNELS = kernels()

SHAPES = {
    "normal": lambda r, n: r.normal(size=n) * r.uniform(0.5, 4),
    "flat": lambda r, n: r.normal(size=n) * r.uniform(0, 0.5),
    "constant": lambda r, n: np.full(n, r.normal()),
    "peaked": lambda r, n: np.where(np.arange(n) == r.integers(n), 25.0, r.normal(size=n) * 2),
    "one-hot": lambda r, n: np.where(np.arange(n) == r.integers(n), 80.0, -80.0),
    "ties across the cut": lambda r, n: r.integers(0, r.integers(2, 6), size=n).astype(float),
    "masked": lambda r, n: np.where(r.random(n) < r.uniform(0.1, 0.99), -np.inf, r.normal(size=n) * 3),
    "denormal logits": lambda r, n: r.integers(-4, 5, size=n) * 1e-42,
    "denormal weights": lambda r, n: np.linspace(0, -r.uniform(80, 110), n)[r.permutation(n)],
    "two clusters": lambda r, n: np.where(r.random(n) < 0.5, 0.0, -r.uniform(1e-6, 12)) + r.normal(size=n) * 1e-6,
    "geometric": lambda r, n: -np.exp2(-np.arange(n) % 120.0),
    "ascending": lambda r, n: np.linspace(0, r.uniform(0.1, 30), n),
    "large": lambda r, n: r.normal(size=n) * 3 + r.choice([1e4, -1e4]),
    "NaN holes": lambda r, n: np.where(r.random(n) < 0.3, np.nan, r.normal(size=n)),
    "infinite": lambda r, n: np.where(np.isin(np.arange(n), r.integers(n, size=3)), np.inf, r.normal(size=n)),
}


def size_of(rng: np.random.Generator, index: int) -> int:
    """Small ones mostly; whole vocabularies now and then; sizes around vectors (16) and tiles (512)."""
    if index % 100 == 0:
        return int(rng.integers(30_000, 152_000))
    edges = [2, 15, 16, 17, 511, 512, 513, 1024, 1025, 4096, 5000]
    return int(rng.choice(edges)) if index % 3 == 0 else int(rng.integers(2, 3000))


def make_case(index: int):
    rng = np.random.default_rng([20, index])
    shape = list(SHAPES)[index % len(SHAPES)]
    logits = f32(SHAPES[shape](rng, max(size_of(rng, index), 4)))
    if not np.isfinite(logits).any() and not (logits == np.inf).any():
        logits[0] = 0.0
    temp = float(np.float32(rng.uniform(0.05, 2.0)))
    top_p = float(np.float32(rng.choice([0.0, 0.5, 0.9, 0.95, 0.999, 1.0, rng.uniform(0, 1)])))
    return logits, temp, top_p, index


def kept_counts(logits, temp, top_p) -> tuple[int, int]:
    """Fewest and most tokens kept for a P within EDGE of top_p."""
    clean = heads.sanitize(logits)
    weights = np.exp((clean - clean.max()) / temp)
    order = np.lexsort((np.arange(clean.size), -clean))
    before = np.concatenate(([0.0], np.cumsum(weights[order])[:-1])) / weights.sum()
    positive = weights[order] > 0
    low = positive & (before < top_p - EDGE)
    high = positive & ((before < top_p + EDGE) | (top_p >= 1.0))
    return max(int(low.sum()), 1), max(int(high.sum()), 1)


@pytest.mark.parametrize("part", range(10))
def test_every_kernel_keeps_and_draws_what_the_reference_does(part):
    for index in range(part * N_CASES // 10, (part + 1) * N_CASES // 10):
        logits, temp, top_p, seed = make_case(index)
        low, high = kept_counts(logits, temp, top_p)
        u = sampling.uniform(seed, 0)
        want = sampling.draw(logits, temp, top_p, u)
        steps = {}
        for name in KERNELS:
            status, step = step_once(None, None, logits, kernels=name.encode(), seed=seed, temp=temp, top_p=top_p)
            assert status == 0
            assert low <= step.n_kept <= high, (index, name)
            if step.n_kept == want.kept.sum():
                assert want.kept[step.token], (index, name)
                edges = np.cumsum(want.probs)
                assert step.token == want.token or np.abs(edges - u).min() < EDGE, (index, name)
            steps[name] = bytes(step)
        assert len({steps[name] for name in FUSED if name in steps}) <= 1, index


def test_reference_agrees_with_itself_on_the_same_cases():
    """The C reference and numpy keep the same sets: the bounds above are taken from numpy."""
    for index in range(0, N_CASES, 23):
        logits, temp, top_p, _ = make_case(index)
        low, high = kept_counts(logits, temp, top_p)
        n = ctypes.c_int32()
        lib.autodeco_ref_draw(pointer(logits), logits.size, temp, top_p, 0.5, None, ctypes.byref(n))
        assert low <= n.value <= high


@pytest.fixture(scope="module", params=["f32", "f16", "bf16", "q8_0"])
def pair(request, tmp_path_factory):
    return make_pair(tmp_path_factory.mktemp(request.param), outtype=request.param)


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_evaluates_the_heads(pair, name):
    """T and P against the scalar reference on the same stored weights, within 1e-5."""
    rng = np.random.default_rng(8)
    for index in range(60):
        logits, *_ = make_case(index)
        hidden = f32(rng.normal(size=N_EMBD))
        temp, top_p, _ = c_forward(pair.native, hidden, logits)
        _, step = step_once(pair.native, hidden, logits, kernels=name.encode())
        assert abs(step.temp - temp) <= 1e-5
        assert abs(step.top_p - top_p) <= 1e-5, index


@pytest.mark.parametrize("name", KERNELS)
def test_the_entropy_keeps_its_guard(pair, name):
    """-q ln(q + 1e-8) over 60,000 tokens, from flat to certain: what the 1e-8 takes off goes from 6e-4 nats to
    nothing, by the polynomial, by the series for small q, and by both in one row. 2e-6 absolute and 3e-7
    relative: sums of float weights."""
    rng = np.random.default_rng(4)
    hidden = f32(rng.normal(size=N_EMBD))
    logits = f32(rng.normal(size=60_000) * 2)
    for top in np.arange(0.0, 60.0, 1.5):
        logits[777] = top
        _, step = step_once(pair.native, hidden, logits, kernels=name.encode())
        stats = Stats()
        assert lib.autodeco_ref_stats(pointer(logits), logits.size, step.temp, ctypes.byref(stats))
        assert step.entropy == pytest.approx(stats.entropy, abs=2e-6, rel=3e-7), top


@pytest.mark.parametrize("outtype,n_embd", [("f32", 1), ("f16", 17), ("bf16", 100), ("f16", 47), ("q8_0", 32)])
def test_hidden_sizes_that_fill_no_vector(tmp_path, outtype, n_embd):
    p = make_pair(tmp_path, n_embd=n_embd, outtype=outtype)
    rng = np.random.default_rng(n_embd)
    hidden, logits = f32(rng.normal(size=n_embd)), f32(rng.normal(size=700))
    from autodeco_edge.convert.verify import read_heads_gguf

    want_temp, want_top_p, _ = heads.forward(weights_of(read_heads_gguf(p.native.path)), hidden, logits)
    for name in KERNELS:
        _, step = step_once(p.native, hidden, logits, kernels=name.encode())
        assert abs(step.temp - want_temp) <= 1e-5 and abs(step.top_p - want_top_p) <= 1e-5


def test_a_wide_head_in_float_is_as_good_as_in_double(tmp_path):
    """The widest released hidden size, 7168: sums of 448 floats a lane, still 1e-5 in T."""
    p = make_pair(tmp_path, n_embd=7168, outtype="f16")
    from autodeco_edge.convert.verify import read_heads_gguf

    weights = weights_of(read_heads_gguf(p.native.path))
    rng = np.random.default_rng(1)
    for _ in range(10):
        hidden, logits = f32(rng.normal(size=7168) * 3), f32(rng.normal(size=300))
        want_temp, want_top_p, _ = heads.forward(weights, hidden, logits)
        _, step = step_once(p.native, hidden, logits)
        assert abs(step.temp - want_temp) <= 1e-5 and abs(step.top_p - want_top_p) <= 1e-5


def test_a_kernel_this_cpu_lacks_falls_back_to_the_baseline():
    rng = np.random.default_rng(0)
    logits = f32(rng.normal(size=5000))
    _, unknown = step_once(None, None, logits, kernels=b"amx9000", temp=0.7, top_p=0.8)
    _, baseline = step_once(None, None, logits, kernels=b"baseline", temp=0.7, top_p=0.8)
    assert bytes(unknown) == bytes(baseline)
    assert KERNELS[-1] == "baseline"

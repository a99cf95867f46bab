"""Hidden states and weights beyond what sums in float can hold: T and P as the float64 formula gives them.

A unit of the first layer whose float sum overflows is summed again in double, so that the sigmoid saturates (T = 0
or 2, P = 0 or 1) where the formula does. Only what is not a number there falls back to 1.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.convert.verify import read_heads_gguf
from autodeco_edge.engine.sampler import Heads
from autodeco_edge.spec import heads
from tests.native.test_kernels import KERNELS
from tests.native.test_oracle import N_EMBD, Pair, c_forward, f32, make_pair, step_once
from tests.support import checkpoints
from tests.support.weights import weights_of

HUGE = 3e38
SIGNS = np.where(np.random.default_rng(1).random(N_EMBD) < 0.5, -1.0, 1.0)

HIDDEN = {
    "all 3e38": np.full(N_EMBD, HUGE),
    "all -3e38": np.full(N_EMBD, -HUGE),
    "one 3e38": np.where(np.arange(N_EMBD) == 7, HUGE, 0.5),
    "the last -3e38": np.where(np.arange(N_EMBD) == N_EMBD - 1, -HUGE, 0.5),
    "mixed signs": SIGNS * HUGE,
    "mixed 1e38": SIGNS * np.linspace(0.1, 1.0, N_EMBD) * 1e38,
    "cancelling": np.where(np.arange(N_EMBD) % 2, HUGE, -HUGE),
    "1e20": SIGNS * 1e20,
    "1e37 and 1": np.where(np.arange(N_EMBD) % 3, 1.0, 1e37),
    "largest float": np.full(N_EMBD, np.finfo(np.float32).max),
}


@pytest.fixture(scope="module", params=["f32", "f16", "bf16", "q8_0"])
def pair(request, tmp_path_factory) -> Pair:
    made = make_pair(tmp_path_factory.mktemp(request.param), outtype=request.param)
    return Pair(weights_of(read_heads_gguf(made.native.path)), made.native)


def expected(weights, hidden, logits) -> tuple[float, float]:
    """T and P in float64; 1 where they are not numbers."""
    with np.errstate(all="ignore"):
        temp, top_p, _ = heads.forward(weights, hidden, logits)
    return (temp if np.isfinite(temp) else 1.0), (top_p if np.isfinite(top_p) else 1.0)


LOGITS = f32(np.random.default_rng(2).normal(size=300) * 2)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", HIDDEN)
def test_a_huge_hidden_state_saturates_as_in_float64(pair, name, kernels):
    hidden = f32(HIDDEN[name])
    temp, top_p = expected(pair.weights, hidden, LOGITS)
    assert temp < 1e-6 or temp > 2 - 1e-6 or name == "1e37 and 1", "the case saturates"
    status, step = step_once(pair.native, hidden, LOGITS, kernels=kernels.encode())
    reference = c_forward(pair.native, hidden, LOGITS)
    assert status == 0
    assert (step.temp, step.top_p) == pytest.approx((temp, top_p), abs=1e-5)
    assert reference[:2] == pytest.approx((temp, top_p), abs=1e-5)
    assert 0 <= step.token < LOGITS.size


@pytest.mark.parametrize("threads", [2, 5, 300])
def test_saturation_does_not_depend_on_threads(pair, threads):
    for hidden in HIDDEN.values():
        one = bytes(step_once(pair.native, f32(hidden), LOGITS)[1])
        assert bytes(step_once(pair.native, f32(hidden), LOGITS, threads=threads)[1]) == one


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("places", [[0], [N_EMBD - 1], [3, 50], list(range(N_EMBD))], ids=str)
def test_infinite_and_nan_hidden_states_follow_the_formula(pair, value, places):
    """+-inf in places: what float64 makes of them, 1 where that is NaN; a NaN always falls back."""
    hidden = f32(np.random.default_rng(3).normal(size=N_EMBD))
    hidden[places] = value
    temp, top_p = expected(pair.weights, hidden, LOGITS)
    if np.isnan(value):
        assert (temp, top_p) == (1.0, 1.0)
    for kernels in KERNELS:
        status, step = step_once(pair.native, hidden, LOGITS, kernels=kernels.encode())
        assert status == 0
        assert (step.temp, step.top_p) == pytest.approx((temp, top_p), abs=1e-5), kernels


@pytest.mark.parametrize("scale", [1e30, 1e36, 1e38])
@pytest.mark.parametrize("layer", ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight"])
def test_huge_weights(tmp_path, scale, layer):
    from safetensors.numpy import save_file

    tensors = checkpoints.random_tensors(N_EMBD, 5, n_extra=5)
    for key in tensors:
        if key.endswith(layer):
            peak = np.abs(tensors[key]).max()
            tensors[key] = f32(tensors[key].astype(np.float32) / peak * scale)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"base_model_type": "llama", "hidden_size": N_EMBD}))
    checkpoint = read_checkpoint(tmp_path)
    write_heads(checkpoint, tmp_path / "heads.gguf", outtype="f32")
    native, weights = Heads(tmp_path / "heads.gguf"), weights_of(checkpoint)
    rng = np.random.default_rng(6)
    for size in (1.0, 1e5, 1e30):
        hidden = f32(rng.normal(size=N_EMBD) * size)
        want = expected(weights, hidden, LOGITS)
        for kernels in KERNELS:
            _, step = step_once(native, hidden, LOGITS, kernels=kernels.encode())
            assert (step.temp, step.top_p) == pytest.approx(want, abs=1e-5), (size, kernels)

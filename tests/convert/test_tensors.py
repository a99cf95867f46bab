"""The casts: bit-exact where the type stays, equal to ggml's own where it changes, within the stated bounds."""

import numpy as np
import pytest

from autodeco_edge.convert.tensors import RawTensor, cast, cast_bound
from autodeco_edge.errors import UsageError
from convert_makers import to_bits

RNG = np.random.default_rng(11)
VALUES = {
    "normal": RNG.normal(0, 0.05, (32, 96)),
    "wide range": RNG.normal(0, 1, (32, 96)) * 10.0 ** RNG.integers(-30, 3, (32, 96)),
    "tiny": RNG.normal(0, 1e-40, (32, 96)),
    "around the f16 subnormals": RNG.normal(0, 1, (32, 96)) * 2.0 ** RNG.integers(-30, -10, (32, 96)),
    "halves": RNG.integers(-254, 255, (32, 96)) / 2.0,
    "zeros": np.zeros((32, 96)),
    "one spike a block": np.where(np.arange(96) % 32 == 0, 100.0, 1e-3) * np.ones((32, 1)),
}


def raw(values, dtype="F32"):
    return RawTensor(dtype, values.shape, to_bits(values.astype(np.float32), dtype).tobytes())


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("target", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("source", ["F32", "BF16", "F16"])
def test_error_within_the_bound(name, source, target):
    tensor = raw(np.clip(VALUES[name], -6e4, 6e4), source)
    stored = cast(tensor, target, name)
    error = np.abs(stored.f32().astype(np.float64) - tensor.f32())
    assert (error <= cast_bound(tensor, target)).all()


@pytest.mark.parametrize("name", ["normal", "halves", "zeros", "one spike a block"])
@pytest.mark.parametrize("target", ["F16", "BF16", "Q8_0"])
def test_bits_are_those_of_ggml(name, target):
    from gguf import GGMLQuantizationType, quants

    values = VALUES[name].astype(np.float32)
    theirs = quants.quantize(values, GGMLQuantizationType[target])
    ours = cast(raw(values), target, name)
    assert ours.data == theirs.tobytes()
    assert np.array_equal(ours.f32(), quants.dequantize(theirs, GGMLQuantizationType[target]))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_same_type_keeps_every_bit(dtype):
    bits = RNG.integers(0, 1 << 14, (8, 32)).astype("<u4" if dtype == "F32" else "<u2")
    tensor = RawTensor(dtype, (8, 32), bits.tobytes())
    assert cast(tensor, dtype, "x") is tensor
    assert not cast_bound(tensor, dtype).any()
    back = cast(cast(tensor, "F32", "x"), dtype, "x")
    assert back.data == tensor.data  # F32 holds every BF16 and F16


def test_columns_keep_bits():
    tensor = raw(VALUES["normal"], "BF16")
    left, right = tensor.columns(0, 91), tensor.columns(91, 96)
    assert left.shape == (32, 91) and right.shape == (32, 5)
    assert np.array_equal(np.hstack([left.f32(), right.f32()]), tensor.f32())


def test_what_cannot_be_cast():
    with pytest.raises(UsageError, match="multiple of 32, these have 30"):
        cast(raw(np.ones((2, 30))), "Q8_0", "w")
    for target in ("F16", "Q8_0"):
        with pytest.raises(UsageError, match="too large"):
            cast(raw(np.full((2, 32), 1e9)), target, "w")
    with pytest.raises(UsageError, match="too large"):
        cast(raw(np.full((2, 32), 3.4e38)), "BF16", "w")

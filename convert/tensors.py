"""Head tensors as raw bits, and the exact or rounded casts between their types.

Owns ``RawTensor`` and the five types a head tensor may have (F32, F16, BF16, Q8_0). A
cast to the same type changes no bit. Knows no file format. numpy has no bfloat16, so
BF16 is kept as its upper 16 bits of the float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import FormatError, UsageError

FLOAT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
Q8_0_BLOCK = 32  # elements that share one f16 scale
_Q8_0_LAYOUT = np.dtype([("d", "<f2"), ("q", "i1", (Q8_0_BLOCK,))])  # 34 bytes


@dataclass(frozen=True)
class RawTensor:
    """Bits of a tensor: ``dtype`` F32, F16, BF16 or Q8_0, ``shape`` row-major, ``data`` little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)  # megabytes

    def f32(self) -> np.ndarray:
        """The values as float32 [*shape]; exact for every type."""
        return _TO_F32[self.dtype](self.data).reshape(self.shape)

    def is_finite(self) -> bool:
        """False when any value is NaN or infinite."""
        return bool(np.isfinite(self.f32()).all())

    def columns(self, begin: int, end: int) -> RawTensor:
        """Columns [begin, end) of a float matrix [rows, cols], bits kept."""
        width = FLOAT_BYTES[self.dtype]
        matrix = np.frombuffer(self.data, dtype=f"<u{width}").reshape(self.shape)
        part = np.ascontiguousarray(matrix[:, begin:end])
        return RawTensor(self.dtype, part.shape, part.tobytes())


def cast(tensor: RawTensor, dtype: str, name: str) -> RawTensor:
    """``tensor`` as ``dtype``; ``name`` is for messages. The same type keeps every bit."""
    if tensor.dtype == dtype:
        return tensor
    if dtype == "Q8_0" and tensor.shape[-1] % Q8_0_BLOCK:
        raise UsageError(
            f"{name}: q8_0 needs rows of a multiple of {Q8_0_BLOCK}, these have {tensor.shape[-1]}; "
            "use --outtype auto, f32, f16 or bf16"
        )
    with np.errstate(over="ignore", under="ignore"):
        result = RawTensor(dtype, tensor.shape, _FROM_F32[dtype](tensor.f32()))
    if not result.is_finite():
        raise UsageError(f"{name}: a weight is too large for {dtype.lower()}; use --outtype f32 or bf16")
    return result


def cast_bound(tensor: RawTensor, dtype: str) -> np.ndarray:
    """Largest allowed |stored - original| per value, float64 [*shape], after a cast to ``dtype``.

    F16    half a unit in the 11-bit significand: 2^-11 |w|, or 2^-25 in the subnormal range
    BF16   half a unit in the 8-bit significand:   2^-8 |w|, or 2^-134 in the subnormal range
    Q8_0   d = max|w| / 127 over the block: half a step of rounding, and the f16 rounding of d
           (2^-11 d, or 2^-25) times the step number, at most 127
    The factor 1 + 1e-6 covers the float32 arithmetic of the rounding itself.
    """
    w = np.abs(tensor.f32().astype(np.float64))
    if tensor.dtype == dtype or dtype == "F32":
        return np.zeros_like(w)
    if dtype == "F16":
        return np.maximum(w * 2.0**-11, 2.0**-25)
    if dtype == "BF16":
        return np.maximum(w * 2.0**-8, 2.0**-134)
    blocks = w.reshape(-1, Q8_0_BLOCK)
    d = blocks.max(axis=1, keepdims=True) / 127
    bound = (0.5 * d + 127 * np.maximum(d * 2.0**-11, 2.0**-25)) * (1 + 1e-6)
    return np.broadcast_to(bound, blocks.shape).reshape(tensor.shape)


def _f32_to_bf16(values: np.ndarray) -> bytes:
    """Round to nearest, ties to even; the values are finite."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2").tobytes()


def _bf16_to_f32(data: bytes) -> np.ndarray:
    return (np.frombuffer(data, dtype="<u2").astype("<u4") << 16).view("<f4")


def _f32_to_q8_0(values: np.ndarray) -> bytes:
    """ggml's reference q8_0, bit for bit: d = max|w|/127 stored as f16, q = round half away from zero (w/d)."""
    blocks = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, Q8_0_BLOCK)
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    out = np.zeros(len(blocks), dtype=_Q8_0_LAYOUT)
    out["d"] = d[:, 0].astype("<f2")
    # A scale that underflows to zero in f16 makes the block zero; ggml would divide by it.
    inverse = np.divide(np.float32(1), d, out=np.zeros_like(d), where=out["d"][:, None] != 0)
    steps = blocks * inverse
    size = np.abs(steps)
    whole = np.floor(size)
    out["q"] = (np.sign(steps) * (whole + np.floor(2 * (size - whole)))).astype(np.int8)
    return out.tobytes()


def _q8_0_to_f32(data: bytes) -> np.ndarray:
    blocks = np.frombuffer(data, dtype=_Q8_0_LAYOUT)
    return (blocks["q"].astype(np.float32) * blocks["d"].astype(np.float32)[:, None]).reshape(-1)


_TO_F32 = {
    "F32": lambda data: np.frombuffer(data, dtype="<f4"),
    "F16": lambda data: np.frombuffer(data, dtype="<f2").astype(np.float32),
    "BF16": _bf16_to_f32,
    "Q8_0": _q8_0_to_f32,
}
_FROM_F32 = {
    "F32": lambda values: np.ascontiguousarray(values, dtype="<f4").tobytes(),
    "F16": lambda values: values.astype("<f2").tobytes(),
    "BF16": _f32_to_bf16,
    "Q8_0": _f32_to_q8_0,
}


def require_float(dtype: str, name: str) -> None:
    """Raises FormatError unless ``dtype`` is one a checkpoint may hold heads in."""
    if dtype not in FLOAT_BYTES:
        raise FormatError(f"{name}: dtype {dtype}; allowed: BF16, F16, F32")

"""ctypes bindings of native/bench/autodeco-bench.h, one to one, no logic.

Owns signatures and struct layouts. Does not interpret a status or keep a handle.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint64, c_void_p
from pathlib import Path

from ..engine import library as _lib
from ..engine import native as _native

SAMPLERS = ("autodeco", "greedy", "default_chain", "temp_top_p", "dist")
CONTENDERS = (*SAMPLERS, "graph_overhead", "logits_sweep", "weights_sweep", "logits_copy", "logits_pad")
AUTODECO = SAMPLERS.index("autodeco")


class StepParams(ctypes.Structure):
    _fields_ = [
        ("seed", c_uint64),
        ("n_weight_bytes", c_size_t),
        ("n_vocab", c_int32),
        ("n_rows", c_int32),
        ("n_rounds", c_int32),
        ("n_warmup", c_int32),
        ("n_threads", c_int32),
        ("temp", c_float),
        ("top_p", c_float),
    ]


class DecodeParams(ctypes.Structure):
    _fields_ = [
        ("seed", c_uint64),
        ("n_ctx", c_int32),
        ("n_batch", c_int32),
        ("n_threads", c_int32),
        ("temp", c_float),
        ("top_p", c_float),
    ]


_ERR = [c_char_p, c_size_t]
_FLOATS, _DOUBLES, _TOKENS = POINTER(c_float), POINTER(c_double), POINTER(c_int32)

_SIGNATURES = {
    "autodeco_bench_step": (
        c_int,
        [c_void_p, StepParams, _FLOATS, _FLOATS, _DOUBLES, _TOKENS, POINTER(_native.Step), POINTER(c_size_t), *_ERR],
    ),
    "autodeco_bench_decode_init": (c_int, [c_void_p, c_void_p, DecodeParams, POINTER(c_void_p), *_ERR]),
    "autodeco_bench_decode_free": (None, [c_void_p]),
    "autodeco_bench_decode_n_samplers": (c_int32, []),
    "autodeco_bench_decode_prompt": (c_int, [c_void_p, c_int, _TOKENS, c_int32, _DOUBLES, _TOKENS, *_ERR]),
    "autodeco_bench_decode_token": (c_int, [c_void_p, c_int, c_int32, _DOUBLES, _TOKENS, *_ERR]),
    "autodeco_bench_decode_round": (
        c_int,
        [c_void_p, _TOKENS, c_int32, c_int32, c_int32, _DOUBLES, _DOUBLES, _TOKENS, *_ERR],
    ),
    "autodeco_bench_decode_n_sampler_bytes": (c_size_t, [c_void_p]),
    "ggml_version": (c_char_p, []),
}


def _library() -> ctypes.CDLL:
    """libautodeco-bench lies beside libautodeco, which is loaded first, and finds its functions too."""
    beside = Path(_lib.library()._name)
    return ctypes.CDLL(str(beside.with_name(beside.name.replace("autodeco", "autodeco-bench"))))


lib = _native.bind(_library(), _SIGNATURES)


def check(status: int, err: ctypes.Array) -> None:
    """Raises the exception of a status that is not OK."""
    from ..errors import AutodecoError, OutOfMemoryError

    if status == _native.Status.MEMORY:
        raise OutOfMemoryError(err.value.decode("utf-8", "replace"))
    if status != _native.Status.OK:
        raise AutodecoError(err.value.decode("utf-8", "replace"))

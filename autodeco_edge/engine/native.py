"""ctypes bindings of native/autodeco.h, one to one, no logic.

Owns signatures and struct layouts. Does not interpret a status or keep a handle.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from enum import IntEnum
from typing import Any

from . import library as _lib


class Status(IntEnum):
    OK = 0
    NOT_FOUND = 1
    FORMAT = 2
    NO_HEADS = 3
    ARCH = 4
    N_EMBD = 5
    N_VOCAB = 6
    VERSION = 7
    MEMORY = 8
    NO_NORM = 9
    NOT_ATTACHED = 10
    NO_LOGIT = 11
    BYPASSED = 12
    ARGUMENT = 13
    IO = 14


class HeadsMode(IntEnum):
    BOTH = 0
    TEMP = 1
    TOP_P = 2
    NONE = 3


class SamplerParams(ctypes.Structure):
    _fields_ = [
        ("seed", c_uint64),
        ("temp", c_float),
        ("top_p", c_float),
        ("min_p", c_float),
        ("heads_mode", c_int),
        ("cpu_draw", c_bool),
        ("logprob", c_bool),
        ("temp_min", c_float),
        ("temp_max", c_float),
        ("top_p_min", c_float),
        ("top_p_max", c_float),
    ]


class Step(ctypes.Structure):
    _fields_ = [
        ("token", c_int32),
        ("temp", c_float),
        ("top_p", c_float),
        ("temp_eff", c_float),
        ("top_p_eff", c_float),
        ("n_kept", c_int32),
        ("entropy", c_float),
        ("max_prob", c_float),
        ("logprob", c_float),
    ]


class Stats(ctypes.Structure):
    _fields_ = [("max_prob", c_float), ("entropy", c_float), ("prob_var", c_float), ("top5_sum", c_float)]


_FLOATS = POINTER(c_float)
_ERR = [c_char_p, c_size_t]

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "autodeco_llama_version": (c_char_p, []),
    "autodeco_check_llama": (c_int, _ERR),
    "autodeco_kernels_name": (c_char_p, [c_int32]),
    "autodeco_log_line": (c_char_p, [c_int32]),
    "autodeco_log_clear": (None, []),
    "autodeco_log_set_verbose": (None, [c_bool]),
    "autodeco_heads_load_from_file": (c_int, [c_char_p, POINTER(c_void_p), *_ERR]),
    "autodeco_heads_free": (None, [c_void_p]),
    "autodeco_heads_n_embd": (c_int32, [c_void_p]),
    "autodeco_heads_n_hidden": (c_int32, [c_void_p]),
    "autodeco_heads_n_vocab": (c_int32, [c_void_p]),
    "autodeco_heads_n_extra": (c_int32, [c_void_p]),
    "autodeco_heads_has_temp": (c_bool, [c_void_p]),
    "autodeco_heads_has_top_p": (c_bool, [c_void_p]),
    "autodeco_heads_mean_temp": (c_float, [c_void_p]),
    "autodeco_heads_mean_top_p": (c_float, [c_void_p]),
    "autodeco_heads_memory": (c_size_t, [c_void_p]),
    "autodeco_heads_desc": (c_int, [c_void_p, c_char_p, c_size_t]),
    "autodeco_heads_check_model": (c_int, [c_void_p, c_void_p, *_ERR]),
    "autodeco_sampler_default_params": (SamplerParams, []),
    "autodeco_sampler_init": (c_void_p, [c_void_p, SamplerParams]),
    "autodeco_sampler_init_draw": (c_void_p, [c_void_p]),
    "autodeco_sampler_get_steps": (c_int32, [c_void_p, POINTER(Step), c_int32]),
    "autodeco_sampler_status": (c_int, [c_void_p, *_ERR]),
    "autodeco_sampler_sample": (c_int, [c_void_p, c_void_p, c_void_p, c_int32, POINTER(Step), *_ERR]),
    "autodeco_sampler_n_fallbacks": (c_int64, [c_void_p]),
    "autodeco_sampler_memory": (c_size_t, [c_void_p]),
    "autodeco_sampler_set_params": (None, [c_void_p, SamplerParams]),
    "autodeco_sampler_get_params": (SamplerParams, [c_void_p]),
    "autodeco_sampler_set_seed": (None, [c_void_p, c_uint64]),
    "autodeco_sampler_get_position": (c_uint64, [c_void_p]),
    "autodeco_sampler_set_position": (None, [c_void_p, c_uint64]),
    "autodeco_mask_init": (c_void_p, []),
    "autodeco_mask_set": (None, [c_void_p, c_void_p, c_int32]),
    "autodeco_filters_init": (c_void_p, []),
    "autodeco_filters_set": (c_int, [c_void_p, c_void_p]),
    "autodeco_ref_uniform": (c_double, [c_uint64, c_uint64]),
    "autodeco_ref_stats": (c_bool, [_FLOATS, c_int32, c_float, POINTER(Stats)]),
    "autodeco_ref_forward": (c_bool, [c_void_p, _FLOATS, _FLOATS, c_int32, _FLOATS, _FLOATS, POINTER(Stats)]),
    "autodeco_ref_draw": (
        c_int32,
        [_FLOATS, c_int32, c_float, c_float, c_double, POINTER(c_bool), POINTER(c_int32)],
    ),
    "autodeco_step_once": (
        c_int,
        [c_void_p, SamplerParams, c_char_p, _FLOATS, _FLOATS, c_int32, c_uint64, c_int32, POINTER(Step)],
    ),
}


def bind(library: ctypes.CDLL, signatures: Mapping[str, tuple[Any, Sequence[Any]]]) -> ctypes.CDLL:
    """The library, with types on the functions named: {name: (restype, argtypes)}."""
    for name, (restype, argtypes) in signatures.items():
        function = getattr(library, name)
        function.restype = restype
        function.argtypes = argtypes
    return library


lib = bind(_lib.library(), _SIGNATURES)

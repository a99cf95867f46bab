"""The mask as a sampler of llama.cpp: bits, ids that are none, clones, and callers in C who get it wrong."""

from __future__ import annotations

import ctypes
import math

import llama_cpp
import numpy as np

from autodeco_edge.engine.native import lib


def as_sampler(handle):
    return ctypes.cast(handle, llama_cpp.llama_sampler_p_ctypes)


def survivors(smpl, ids) -> list[int]:
    keep = (llama_cpp.llama_token_data * len(ids))(*[(i, 1.0, 0.0) for i in ids])
    array = llama_cpp.llama_token_data_array(keep, len(ids), -1, False)
    llama_cpp.llama_sampler_apply(smpl, ctypes.byref(array))
    assert all(c.logit in (1.0, -math.inf) for c in keep)
    return [c.id for c in keep if c.logit == 1.0]


IDS = [7, 0, 95, 31, 32, 64, 96, -1, -(2**31), 2**31 - 1]


def test_bits_decide_and_ids_beyond_are_masked():
    words = np.array([1 << 31 | 1, 1, 1 << 31], dtype=np.uint32)
    handle = lib.autodeco_mask_init()
    smpl = as_sampler(handle)
    assert llama_cpp.llama_sampler_name(smpl) == b"autodeco-mask"
    assert survivors(smpl, IDS) == IDS, "without words everything is allowed"
    lib.autodeco_mask_set(handle, words.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32)), 3)
    clone = llama_cpp.llama_sampler_clone(smpl)
    for each in (smpl, clone):
        assert survivors(each, IDS) == [0, 95, 31, 32]
    lib.autodeco_mask_set(handle, words.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32)), -5)
    assert survivors(smpl, IDS) == []
    lib.autodeco_mask_set(handle, None, 0)
    assert survivors(smpl, IDS) == IDS and survivors(clone, IDS) == [0, 95, 31, 32]
    for each in (smpl, clone):
        llama_cpp.llama_sampler_free(each)


def test_samplers_of_others_are_left_alone():
    greedy = llama_cpp.llama_sampler_init_greedy()
    lib.autodeco_mask_set(ctypes.cast(greedy, ctypes.c_void_p), None, 3)
    lib.autodeco_mask_set(None, None, 3)
    llama_cpp.llama_sampler_free(greedy)

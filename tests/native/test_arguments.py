"""What a caller in C may get wrong: a status or nothing, never a crash."""

from __future__ import annotations

import ctypes
import math

import llama_cpp
import numpy as np
import pytest

from autodeco_edge import Heads, Model
from autodeco_edge.engine import native as _native
from autodeco_edge.engine.native import Status, lib
from tests.native.test_oracle import f32, pointer, step_once
from tests.support.letters import make_letters

ERR = 256


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def heads(letters) -> Heads:
    return Heads(letters.heads)


def err():
    return ctypes.create_string_buffer(ERR), ERR


# ---- heads ------------------------------------------------------------------------------


def test_loading_wants_a_path_and_a_place(letters):
    text, n = err()
    handle = ctypes.c_void_p()
    assert lib.autodeco_heads_load_from_file(None, ctypes.byref(handle), text, n) == Status.ARGUMENT
    assert b"NULL" in text.value
    assert lib.autodeco_heads_load_from_file(str(letters.heads).encode(), None, None, 0) == Status.ARGUMENT


def test_no_heads_have_no_size(heads):
    assert [getattr(lib, f"autodeco_heads_{n}")(None) for n in ("n_embd", "n_hidden", "n_vocab", "n_extra")] == [0] * 4
    assert not lib.autodeco_heads_has_temp(None) and not lib.autodeco_heads_has_top_p(None)
    assert math.isnan(lib.autodeco_heads_mean_temp(None)) and math.isnan(lib.autodeco_heads_mean_top_p(None))
    assert lib.autodeco_heads_memory(None) == 0
    text, n = err()
    assert lib.autodeco_heads_desc(None, text, n) == len(text.value) and text.value == b"no heads"
    assert lib.autodeco_heads_desc(heads.handle, None, 0) == len(heads.description)
    lib.autodeco_heads_free(None)


def test_checking_a_model_wants_both(heads, letters):
    text, n = err()
    assert lib.autodeco_heads_check_model(heads.handle, None, text, n) == Status.ARGUMENT
    model = Model(letters.gguf)
    assert lib.autodeco_heads_check_model(None, model.handle, None, 0) == Status.ARGUMENT
    assert lib.autodeco_heads_check_model(heads.handle, model.handle, None, 0) == Status.OK


# ---- a step -----------------------------------------------------------------------------


def raw_step(heads, hidden, logits, n_vocab, n_threads=1, out=True):
    step = _native.Step()
    params = lib.autodeco_sampler_default_params()
    return lib.autodeco_step_once(heads, params, None, hidden, logits, n_vocab, 0, n_threads, step if out else None)


def test_a_step_with_bad_arguments_is_refused(heads):
    n_vocab = heads.n_vocab
    assert n_vocab, "the letters' heads know their vocabulary"
    hidden, logits = f32(np.ones(heads.n_embd)), f32(np.linspace(0, 1, n_vocab))
    h, x, y = heads.handle, pointer(hidden), pointer(logits)
    assert raw_step(h, x, y, n_vocab) == Status.OK
    assert raw_step(h, None, y, n_vocab) == Status.ARGUMENT
    assert raw_step(h, x, None, n_vocab) == Status.ARGUMENT
    assert raw_step(h, x, y, n_vocab, out=False) == Status.ARGUMENT
    for n_threads in (0, -1):
        assert raw_step(h, x, y, n_vocab, n_threads) == Status.ARGUMENT
    for n in (0, -1, -(2**31), 2**31 - 1):
        assert raw_step(None, None, y, n) == Status.ARGUMENT
    for n in (1, n_vocab - 1):
        assert raw_step(h, x, y, n) == Status.N_VOCAB
    assert raw_step(None, None, y, 1) == Status.OK


def test_the_reference_with_bad_arguments_is_refused(heads):
    logits, hidden = f32(np.linspace(0, 1, heads.n_vocab)), f32(np.ones(heads.n_embd))
    t, p, stats = ctypes.c_float(), ctypes.c_float(), _native.Stats()
    good = [heads.handle, pointer(hidden), pointer(logits), heads.n_vocab, t, p, stats]
    good = [ctypes.byref(a) if isinstance(a, (ctypes.c_float, _native.Stats)) else a for a in good]
    assert lib.autodeco_ref_forward(*good)
    for i in (0, 1, 2, 4, 5, 6):
        assert not lib.autodeco_ref_forward(*[None if k == i else a for k, a in enumerate(good)]), i
    assert not lib.autodeco_ref_forward(*good[:3], heads.n_vocab - 1, *good[4:])
    assert not lib.autodeco_ref_stats(None, 5, 1.0, stats) and not lib.autodeco_ref_stats(pointer(logits), 5, 1.0, None)
    assert not lib.autodeco_ref_stats(pointer(logits), 0, 1.0, stats)
    assert lib.autodeco_ref_draw(None, 5, 1.0, 1.0, 0.5, None, None) == -1
    assert lib.autodeco_ref_draw(pointer(logits), 0, 1.0, 1.0, 0.5, None, None) == -1


@pytest.mark.parametrize("field", ["temp", "top_p", "min_p", "temp_min", "temp_max", "top_p_min", "top_p_max"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 3e38, -3e38, 1e-45, 2.0])
def test_settings_beyond_reason_still_draw_a_token(heads, field, value):
    """The Python side refuses them; a caller in C gets a token of the vocabulary."""
    rng = np.random.default_rng(3)
    for n in (1, 2, 40, 5000):
        logits = f32(rng.normal(size=n) * 3)
        for fixed in ({}, {"temp": 3e38}, {"top_p": 0.9}, {"min_p": 0.5, "top_p": 0.5}):
            status, step = step_once(None, None, logits, **{**fixed, field: value})
            assert status == Status.OK
            assert 0 <= step.token < n and 1 <= step.n_kept <= n, (n, fixed)


# ---- samplers ---------------------------------------------------------------------------


def foreign():
    return llama_cpp.llama_sampler_init_greedy()


@pytest.mark.parametrize("kind", ["NULL", "greedy", "chain"])
def test_a_sampler_that_is_not_ours_is_refused(kind):
    smpl = {
        "NULL": lambda: None,
        "greedy": foreign,
        "chain": lambda: llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params()),
    }[kind]()
    handle = ctypes.cast(smpl, ctypes.c_void_p) if smpl else None
    text, n = err()
    step = _native.Step()
    assert lib.autodeco_sampler_status(handle, text, n) == Status.ARGUMENT
    assert text.value
    assert lib.autodeco_sampler_sample(handle, handle, None, -1, step, text, n) == Status.ARGUMENT
    assert lib.autodeco_sampler_init_draw(handle) is None
    assert lib.autodeco_sampler_get_steps(handle, step, 1) == 0
    assert lib.autodeco_sampler_n_fallbacks(handle) == lib.autodeco_sampler_memory(handle) == 0
    lib.autodeco_sampler_set_params(handle, lib.autodeco_sampler_default_params())
    lib.autodeco_sampler_set_seed(handle, 4)
    lib.autodeco_sampler_set_position(handle, 4)
    assert lib.autodeco_sampler_get_position(handle) == 0
    assert lib.autodeco_sampler_get_params(handle).temp == 1.0
    if smpl:
        llama_cpp.llama_sampler_free(smpl)


def test_our_sampler_takes_what_it_is_told():
    params = lib.autodeco_sampler_default_params()
    params.temp = 0.5
    smpl = lib.autodeco_sampler_init(None, params)
    params.temp, params.cpu_draw = 0.25, True
    lib.autodeco_sampler_set_params(smpl, params)
    lib.autodeco_sampler_set_seed(smpl, 2**64 - 1)
    lib.autodeco_sampler_set_position(smpl, 7)
    got = lib.autodeco_sampler_get_params(smpl)
    assert (got.temp, got.cpu_draw, got.seed) == (0.25, False, 2**64 - 1), "cpu_draw cannot change"
    assert lib.autodeco_sampler_get_position(smpl) == 7
    assert lib.autodeco_sampler_get_steps(smpl, None, 3) == 0
    llama_cpp.llama_sampler_free(ctypes.cast(smpl, llama_cpp.llama_sampler_p_ctypes))


def make_context(model, chain):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 64, 1, 1
    attached = (llama_cpp.llama_sampler_seq_config * 1)()
    attached[0].sampler = ctypes.cast(chain, ctypes.c_void_p)
    params.samplers, params.n_samplers = attached, 1
    return llama_cpp.llama_init_from_model(model.handle, params), attached


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_sampling_without_an_output_is_refused(letters, heads, cpu_draw):
    """llama_sampler_sample alone aborts the process there."""
    from autodeco_edge.engine.sampler import Sampler, SamplingParams

    model, sampler = Model(letters.gguf), Sampler(heads, SamplingParams(), cpu_draw=cpu_draw)
    ctx, attached = make_context(model, sampler.chain)
    step, (text, n) = _native.Step(), err()
    sample = lib.autodeco_sampler_sample
    assert sample(sampler._smpl, None, ctx, -1, step, text, n) == Status.ARGUMENT
    assert sample(sampler._smpl, sampler.chain, None, -1, step, text, n) == Status.ARGUMENT
    assert sample(sampler._smpl, sampler.chain, ctx, -1, None, text, n) == Status.ARGUMENT
    assert sample(sampler._smpl, sampler.chain, ctx, -1, step, text, n) == Status.NOT_ATTACHED
    assert b"no output" in text.value
    batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(1), 1)
    assert llama_cpp.llama_decode(ctx, batch) == 0
    for row in (1, 2, 2**31 - 1, -2, -(2**31)):
        assert sample(sampler._smpl, sampler.chain, ctx, row, step, text, n) == Status.NOT_ATTACHED, row
    assert sample(sampler._smpl, sampler.chain, ctx, -1, step, text, n) == Status.OK
    llama_cpp.llama_free(ctx)
    sampler.close()


def test_a_chain_without_the_sampler_is_a_bypass(letters, heads):
    from autodeco_edge.engine.sampler import Sampler, SamplingParams

    model = Model(letters.gguf)
    ours, attached = Sampler(heads, SamplingParams()), Sampler(heads, SamplingParams(seed=3))
    ctx, _keep = make_context(model, attached.chain)
    assert llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(1), 1)) == 0
    step, (text, n) = _native.Step(), err()
    assert lib.autodeco_sampler_sample(ours._smpl, attached.chain, ctx, -1, step, text, n) == Status.BYPASSED
    llama_cpp.llama_free(ctx)
    ours.close()
    attached.close()

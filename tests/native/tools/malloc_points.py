"""Run under failing_calls.so: every allocation of libautodeco fails once, alone and with all behind it.

Prints {scenario: [allocations, statuses seen]} as JSON. A crash is a signal, which the test sees.

    python malloc_points.py FAILING_CALLS.SO MODEL HEADS SINGLE_FILE ALIGNED_HEADS
"""

from __future__ import annotations

import ctypes
import json
import math
import sys

import llama_cpp
import numpy as np

from autodeco_edge import Model
from autodeco_edge.engine import native as _native
from autodeco_edge.engine.native import Status, lib

failing = ctypes.CDLL(sys.argv[1])
failing.failing_malloc_arm.restype = ctypes.c_bool
failing.failing_malloc_arm.argtypes = [ctypes.c_long, ctypes.c_bool]
failing.failing_malloc_disarm.restype = ctypes.c_long
failing.failing_reads_arm.restype = ctypes.c_long
failing.failing_reads_arm.argtypes = [ctypes.c_long, ctypes.c_int]
MODEL, HEADS, SINGLE, ALIGNED = sys.argv[2:6]
ERR = ctypes.create_string_buffer(512)


def load(path: str):
    handle = ctypes.c_void_p()
    status = lib.autodeco_heads_load_from_file(path.encode(), ctypes.byref(handle), ERR, len(ERR))
    assert bool(handle) == (status == Status.OK), "out is set on OK only"
    assert status != Status.MEMORY or b"no memory for" in ERR.value, ERR.value
    return handle, status


def loading(path: str):
    def run() -> int:
        handle, status = load(path)
        lib.autodeco_heads_free(handle)
        return status

    return run


heads, _ = load(HEADS)
n_vocab = lib.autodeco_heads_n_vocab(heads)
logits = np.random.default_rng(1).normal(size=n_vocab).astype(np.float32)
hidden = np.ones(lib.autodeco_heads_n_embd(heads), dtype=np.float32)
FLOATS = ctypes.POINTER(ctypes.c_float)
model = Model(MODEL)


def settings(cpu_draw: bool = False, logprob: bool = False):
    params = lib.autodeco_sampler_default_params()
    params.cpu_draw, params.logprob = cpu_draw, logprob
    return params


def step() -> int:
    x, y = (a.ctypes.data_as(FLOATS) for a in (hidden, logits))
    return lib.autodeco_step_once(heads, settings(), None, x, y, n_vocab, 0, 1, _native.Step())


def reference_draw() -> int:
    token = lib.autodeco_ref_draw(logits.ctypes.data_as(FLOATS), n_vocab, 1.0, 0.9, 0.5, None, None)
    return Status.MEMORY if token == -2 else Status.OK


def as_sampler(handle):
    return ctypes.cast(handle, llama_cpp.llama_sampler_p_ctypes)


def make_chain(params):
    """The chain, its first sampler; (None, None) without memory."""
    smpl = lib.autodeco_sampler_init(heads, params)
    if not smpl:
        return None, None
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    llama_cpp.llama_sampler_chain_add(chain, as_sampler(smpl))
    if params.cpu_draw:
        llama_cpp.llama_sampler_chain_add(chain, as_sampler(lib.autodeco_sampler_init_draw(smpl)))
    return chain, smpl


def status_of(smpl) -> int:
    return lib.autodeco_sampler_status(smpl, ERR, len(ERR))


def members_of(chain) -> list:
    n = llama_cpp.llama_sampler_chain_n(chain)
    return [ctypes.cast(llama_cpp.llama_sampler_chain_get(chain, i), ctypes.c_void_p) for i in range(n)]


def cloning(cpu_draw: bool):
    """A clone without memory is used like any other, and says so."""

    def run() -> int:
        chain, _ = make_chain(settings(cpu_draw))
        if not chain:
            return Status.MEMORY
        copy = llama_cpp.llama_sampler_clone(chain)
        candidates = (llama_cpp.llama_token_data * 3)(*[(i, float(i), 0.0) for i in range(3)])
        array = llama_cpp.llama_token_data_array(candidates, 3, -1, False)
        llama_cpp.llama_sampler_apply(copy, ctypes.byref(array))
        assert 0 <= array.selected < 3
        llama_cpp.llama_sampler_accept(copy, 1)
        llama_cpp.llama_sampler_reset(copy)
        again = llama_cpp.llama_sampler_clone(copy)
        members = [member for each in (copy, again) for member in members_of(each)]
        seen = [status_of(member) for member in members]
        for member, status in zip(members, seen, strict=True):
            name = llama_cpp.llama_sampler_name(as_sampler(member))
            assert name.startswith(b"autodeco") and (status == Status.MEMORY) == (name == b"autodeco-no-memory")
        for each in (again, copy, chain):
            llama_cpp.llama_sampler_free(each)
        if Status.MEMORY in seen:  # a draw whose other half had no memory never ran
            assert set(seen) <= {Status.OK, Status.MEMORY, Status.NOT_ATTACHED}
            return Status.MEMORY
        assert set(seen) == {Status.OK}
        return Status.OK

    return run


def decoding(cpu_draw: bool, logprob: bool):
    """A context, three tokens, and what a decode loop asks for."""

    def run() -> int:
        chain, smpl = make_chain(settings(cpu_draw, logprob))
        if not chain:
            return Status.MEMORY
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = 64, 1, 1
        attached = (llama_cpp.llama_sampler_seq_config * 1)()
        attached[0].sampler = ctypes.cast(chain, ctypes.c_void_p)
        params.samplers, params.n_samplers = attached, 1
        ctx = llama_cpp.llama_init_from_model(model.handle, params)
        status, out = status_of(smpl), _native.Step()
        for token in range(3):
            if status == Status.OK:
                llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1))
                status = lib.autodeco_sampler_sample(smpl, chain, ctx, -1, out, ERR, len(ERR))
        llama_cpp.llama_free(ctx)
        llama_cpp.llama_sampler_free(chain)
        return status

    return run


def masking() -> int:
    """A mask cloned without memory allows nothing."""
    smpl = lib.autodeco_mask_init()
    if not smpl:
        return Status.MEMORY
    copy = llama_cpp.llama_sampler_clone(as_sampler(smpl))
    keep = (llama_cpp.llama_token_data * 2)(*[(i, 1.0, 0.0) for i in range(2)])
    array = llama_cpp.llama_token_data_array(keep, 2, -1, False)
    again = llama_cpp.llama_sampler_clone(copy)
    for each in (copy, again):
        llama_cpp.llama_sampler_apply(each, ctypes.byref(array))
    lib.autodeco_mask_set(ctypes.cast(copy, ctypes.c_void_p), None, 0)
    for each in (again, copy, as_sampler(smpl)):
        llama_cpp.llama_sampler_free(each)
    seen = {candidate.logit for candidate in keep}
    assert seen in ({1.0}, {-math.inf})
    return Status.OK if seen == {1.0} else Status.MEMORY


def filtering() -> int:
    """A place for filters cloned without memory lets nothing through."""
    smpl = lib.autodeco_filters_init()
    if not smpl:
        return Status.MEMORY
    copy = llama_cpp.llama_sampler_clone(as_sampler(smpl))
    again = llama_cpp.llama_sampler_clone(copy)
    keep = (llama_cpp.llama_token_data * 2)(*[(i, 1.0, 0.0) for i in range(2)])
    array = llama_cpp.llama_token_data_array(keep, 2, -1, False)
    for each in (copy, again):
        llama_cpp.llama_sampler_apply(each, ctypes.byref(array))
        llama_cpp.llama_sampler_accept(each, 1)
        llama_cpp.llama_sampler_reset(each)
    seen = {candidate.logit for candidate in keep}
    assert seen in ({1.0}, {-math.inf})
    inner = ctypes.cast(llama_cpp.llama_sampler_init_greedy(), ctypes.c_void_p)
    given = lib.autodeco_filters_set(ctypes.cast(again, ctypes.c_void_p), inner)
    assert (given == Status.OK) == (seen == {1.0})
    for each in (again, copy, as_sampler(smpl), *([as_sampler(inner)] if given != Status.OK else [])):
        llama_cpp.llama_sampler_free(each)
    return Status.OK if seen == {1.0} else Status.MEMORY


def decoding_three() -> int:
    """Three sequences in one batch: the one without memory says so, the others draw."""
    made = [make_chain(settings(cpu_draw=i == 1)) for i in range(3)]
    if not all(chain for chain, _ in made):
        for chain, _ in made:
            if chain:
                llama_cpp.llama_sampler_free(chain)
        return Status.MEMORY
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch, params.n_seq_max, params.kv_unified = 64, 2, 2, 3, True
    attached = (llama_cpp.llama_sampler_seq_config * 3)()
    for i, (chain, _) in enumerate(made):
        attached[i].seq_id, attached[i].sampler = i, ctypes.cast(chain, ctypes.c_void_p)
    params.samplers, params.n_samplers = attached, 3
    ctx = llama_cpp.llama_init_from_model(model.handle, params)
    batch = llama_cpp.llama_batch_init(3, 0, 1)
    batch.n_tokens = 3
    for i in range(3):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = i, 0, 1, i, True
    llama_cpp.llama_decode(ctx, batch)
    seen = [
        lib.autodeco_sampler_sample(smpl, chain, ctx, i, _native.Step(), ERR, len(ERR))
        for i, (chain, smpl) in enumerate(made)
    ]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(ctx)
    for chain, _ in made:
        llama_cpp.llama_sampler_free(chain)
    assert set(seen) <= {Status.OK, Status.MEMORY}, seen
    return max(seen)


SCENARIOS = {
    "mask": masking,
    "filters": filtering,
    "decode three sequences": decoding_three,
    "load a heads file": loading(HEADS),
    "load a single file": loading(SINGLE),
    "step": step,
    "reference draw": reference_draw,
    "clone": cloning(False),
    "clone a pair": cloning(True),
    "decode": decoding(False, False),
    "decode with the draw on the CPU": decoding(True, False),
    "decode with log-probabilities": decoding(True, True),
}


def run_all(scenario, on: bool) -> tuple[int, list[int]]:
    """Fails the 1st, 2nd, ... allocation until none is left to fail."""
    seen = []
    for n in range(1, 1000):
        assert failing.failing_malloc_arm(n, on)
        status = scenario()
        asked = failing.failing_malloc_disarm()
        if asked < n:
            assert status == Status.OK, status
            return n - 1, seen
        seen.append(int(status))
    raise AssertionError("no end")


result = {}
for name, scenario in SCENARIOS.items():
    assert scenario() == Status.OK, name
    for on in (False, True):
        result[f"{name}, {'and all behind' if on else 'one'}"] = run_all(scenario, on)
for name, path in (("a heads file", HEADS), ("a single file", SINGLE), ("another alignment", ALIGNED)):
    for way, number in (("EIO", 0), ("EINTR", 1), ("short", 2), ("end", 3)):
        seen = []
        for n in range(1, 10_000):
            failing.failing_reads_arm(n, number)
            status = loading(path)()
            if failing.failing_reads_arm(0, 0) < n:
                break
            assert status == Status.OK or b"cannot be read" in ERR.value
            seen.append(int(status))
        result[f"read {name}, {way}"] = [len(seen), seen]
print(json.dumps(result))

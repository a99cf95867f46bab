"""The sampler through its own table of functions: cloning, copying, states without a graph, and graphs that do not fit."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from autodeco_edge import Heads, Model
from autodeco_edge.engine import native as _native
from autodeco_edge.engine.native import Status, lib
from autodeco_edge.engine.sampler import Sampler, SamplingParams
from tests.native.test_arguments import make_context
from tests.native.test_refusals import Graph, as_handle, status_of
from tests.support.letters import make_letters, write_model


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def heads(letters) -> Heads:
    return Heads(letters.heads)


def make(heads, **settings):
    params = lib.autodeco_sampler_default_params()
    for name, value in settings.items():
        setattr(params, name, value)
    return ctypes.cast(
        lib.autodeco_sampler_init(heads.handle if heads else None, params), llama_cpp.llama_sampler_p_ctypes
    )


def candidates(logits):
    array = (llama_cpp.llama_token_data * len(logits))(*[(i, x, 0.0) for i, x in enumerate(logits)])
    return llama_cpp.llama_token_data_array(array, len(logits), -1, False), array


def apply(smpl, logits) -> int:
    array, keep = candidates(logits)
    llama_cpp.llama_sampler_apply(smpl, ctypes.byref(array))
    return keep[array.selected].id


def draw_of(smpl):
    return ctypes.cast(lib.autodeco_sampler_init_draw(as_handle(smpl)), llama_cpp.llama_sampler_p_ctypes)


# ---- names, clones, copies ----------------------------------------------------------------


def test_names(heads):
    smpl = make(heads, cpu_draw=True)
    draw = draw_of(smpl)
    assert [llama_cpp.llama_sampler_name(s) for s in (smpl, draw)] == [b"autodeco", b"autodeco-draw"]
    llama_cpp.llama_sampler_free(smpl)
    assert status_of(draw)[0] == Status.OK, "the pair's state lives as long as one of them"
    llama_cpp.llama_sampler_free(draw)


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_a_clone_carries_settings_position_and_status(heads, cpu_draw):
    smpl = make(heads, seed=9, temp=0.5, cpu_draw=cpu_draw)
    for token in range(3):
        llama_cpp.llama_sampler_accept(smpl, token)
    apply(smpl, [0.0, 2.0, 1.0])
    clone = llama_cpp.llama_sampler_clone(smpl)
    assert status_of(clone)[0] == status_of(smpl)[0] == Status.NOT_ATTACHED
    assert lib.autodeco_sampler_get_position(as_handle(clone)) == 3
    assert lib.autodeco_sampler_get_params(as_handle(clone)).seed == 9
    twice = llama_cpp.llama_sampler_clone(smpl)  # an heir that no draw has taken is let go
    llama_cpp.llama_sampler_accept(clone, 1)
    assert lib.autodeco_sampler_get_position(as_handle(smpl)) == 3
    for each in (smpl, clone, twice):
        llama_cpp.llama_sampler_free(each)


def test_a_draw_cloned_alone_reports_and_does_not_abort(heads):
    smpl = make(heads, cpu_draw=True)
    draw = draw_of(smpl)
    alone = llama_cpp.llama_sampler_clone(draw)
    assert apply(alone, [0.0, 1.0, 5.0]) == 0
    assert status_of(alone)[0] == Status.NOT_ATTACHED
    apply(alone, [0.0, 1.0])
    for each in (smpl, draw, alone):
        llama_cpp.llama_sampler_free(each)


def test_a_cloned_chain_draws_the_same_tokens(letters, heads):
    """The clone of a pair keeps the pair together: attached to its own context it repeats the first."""
    model, tokens = Model(letters.gguf), []
    first = Sampler(heads, SamplingParams(seed=4), cpu_draw=True)
    for chain in (first.chain, llama_cpp.llama_sampler_clone(first.chain)):
        ctx, _keep = make_context(model, chain)
        drawn, token = [], 1
        for _ in range(8):
            assert (
                llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1)) == 0
            )
            token = llama_cpp.llama_sampler_sample(chain, ctx, -1)
            drawn.append(token)
        tokens.append(drawn)
        llama_cpp.llama_free(ctx)
        if chain != first.chain:
            llama_cpp.llama_sampler_free(chain)
    assert tokens[0] == tokens[1]
    first.close()


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_copied_state_has_the_steps_there_is_room_for(letters, heads, cpu_draw):
    """llama.cpp copies state between samplers that are attached: the steps come along, up to the other's rows."""
    model = Model(letters.gguf)
    source, target, loose = (Sampler(heads, SamplingParams(seed=s), cpu_draw=cpu_draw) for s in (1, 2, 3))
    contexts = [make_context(model, s.chain) for s in (source, target)]
    for ctx, _ in contexts:
        assert llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(1), 1)) == 0
    smpl = ctypes.cast(source._smpl, llama_cpp.llama_sampler_p_ctypes)
    for other, n in ((target, 1), (loose, 0)):
        to = ctypes.cast(other._smpl, llama_cpp.llama_sampler_p_ctypes)
        smpl.contents.iface.contents.copy_state(smpl, to)
        out = (_native.Step * 2)()
        assert lib.autodeco_sampler_get_steps(other._smpl, out, 2) == n
        mine = (_native.Step * 1)()
        lib.autodeco_sampler_get_steps(source._smpl, mine, 1)
        assert n == 0 or bytes(out[0]) == bytes(mine[0])
        assert lib.autodeco_sampler_get_steps(other._smpl, None, 0) == n
    for ctx, _ in contexts:
        llama_cpp.llama_free(ctx)
    for each in (source, target, loose):
        each.close()


# ---- graphs -----------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="the bare graph is built through libggml-base.so")


@linux
def test_logits_of_another_vocabulary_are_refused(heads):
    smpl = make(heads)
    data = Graph(heads.n_embd, n_vocab=heads.n_vocab - 1).apply(smpl)
    status, message = status_of(smpl)
    assert status == Status.N_VOCAB
    assert str(heads.n_vocab) in message and str(heads.n_vocab - 1) in message
    assert not data.sampled
    llama_cpp.llama_sampler_reset(smpl)
    assert status_of(smpl)[0] == Status.N_VOCAB, "the graph stays what it is"
    llama_cpp.llama_sampler_free(smpl)


@linux
def test_a_graph_before_backend_init_is_left_alone(heads):
    smpl = make(heads)
    assert not Graph(heads.n_embd, n_vocab=heads.n_vocab).apply(smpl, init=False).sampled
    llama_cpp.llama_sampler_free(smpl)


@linux
@pytest.mark.parametrize("n_outputs,n_graphs", [(1, 3), (2, 3), (4, 2)])
def test_more_rows_than_promised_share_the_last_node(heads, n_outputs, n_graphs):
    """llama.cpp builds no more rows than it said; a bare graph may."""
    smpl = make(heads)
    graph = Graph(heads.n_embd, n_vocab=heads.n_vocab)
    assert graph.apply(smpl, n_outputs=n_outputs).sampled
    for _ in range(n_graphs):
        assert graph.apply(smpl, init=False).sampled
    assert status_of(smpl)[0] == Status.OK
    assert lib.autodeco_sampler_memory(as_handle(smpl)) > 0
    llama_cpp.llama_sampler_free(smpl)


# ---- models that do not fit ---------------------------------------------------------------


@pytest.mark.parametrize(
    "keys,want",
    [
        ({"arch": "llama"}, Status.OK),
        ({"arch": "qwen2"}, Status.ARCH),
        ({"n_embd": 64}, Status.N_EMBD),
        ({"n_vocab": 11}, Status.N_VOCAB),
    ],
)
def test_another_model_is_named(tmp_path, letters, keys, want):
    from tests.native.test_corpus import corpus

    file = corpus.heads_file()
    file.keys["general.architecture"] = (corpus.STRING, corpus.string(keys.get("arch", "llama")))
    if keys.get("n_embd"):
        file.keys["autodeco.embedding_length"] = (corpus.U32, corpus.u32(64))
        for head in ("temp", "top_p"):
            tensor = file.tensors[f"autodeco.{head}.fc1.weight"]
            tensor.ne, tensor.data = (64, corpus.N_HIDDEN), tensor.data * 2
    if "n_vocab" in keys:
        file.keys["autodeco.vocab_size"] = (corpus.U32, corpus.u32(keys["n_vocab"]))
    else:
        del file.keys["autodeco.vocab_size"]
    (tmp_path / "heads.gguf").write_bytes(file.bytes())
    native, text = Heads(tmp_path / "heads.gguf"), ctypes.create_string_buffer(256)
    model = Model(letters.gguf)
    assert lib.autodeco_heads_check_model(native.handle, model.handle, text, 256) == want
    assert (want == Status.OK) == (text.value == b"")


# ---- logits that hold nothing ---------------------------------------------------------------


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_a_model_that_gives_nan_has_no_logit(tmp_path, heads, cpu_draw):
    """Weights of NaN: the graph's draw and the CPU's say NO_LOGIT, no token, no abort."""
    from tests.support.letters import N_EMBD

    path = write_model(tmp_path / "nan.gguf", tensors={"output_norm.weight": np.full(N_EMBD, np.nan, dtype=np.float32)})
    model, sampler = Model(path), Sampler(heads, SamplingParams(logprobs=True), cpu_draw=cpu_draw)
    ctx, _keep = make_context(model, sampler.chain)
    assert llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(1), 1)) == 0
    step, text = _native.Step(), ctypes.create_string_buffer(256)
    assert lib.autodeco_sampler_sample(sampler._smpl, sampler.chain, ctx, -1, step, text, 256) == Status.NO_LOGIT
    assert b"no finite logit" in text.value
    assert lib.autodeco_sampler_n_fallbacks(sampler._smpl) == 1, "T of a NaN hidden state; P is not asked for"
    llama_cpp.llama_free(ctx)
    sampler.close()


def test_a_filter_that_masks_everything_has_no_logit(letters, heads):
    """Between the two stanzas every candidate is set to -inf."""
    bias = (llama_cpp.llama_logit_bias * heads.n_vocab)(*[(i, -math.inf) for i in range(heads.n_vocab)])
    mask = lambda chain: llama_cpp.llama_sampler_chain_add(  # noqa: E731
        chain, llama_cpp.llama_sampler_init_logit_bias(heads.n_vocab, heads.n_vocab, bias)
    )
    model, sampler = Model(letters.gguf), Sampler(heads, SamplingParams(), filters=(mask,))
    ctx, _keep = make_context(model, sampler.chain)
    assert llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(1), 1)) == 0
    step, text = _native.Step(), ctypes.create_string_buffer(256)
    assert lib.autodeco_sampler_sample(sampler._smpl, sampler.chain, ctx, -1, step, text, 256) == Status.NO_LOGIT
    # a second draw of the same row finds none left
    assert lib.autodeco_sampler_sample(sampler._smpl, sampler.chain, ctx, -1, step, text, 256) == Status.NO_LOGIT
    llama_cpp.llama_free(ctx)
    sampler.close()


def test_ids_beyond_the_vocabulary_are_passed_over(letters, heads):
    """A filter may hand over candidates that no model knows: they are not drawn, and not written anywhere."""
    model, sampler = Model(letters.gguf), Sampler(heads, SamplingParams(seed=2), cpu_draw=True)
    ctx, _keep = make_context(model, sampler.chain)
    assert llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(1), 1)) == 0
    draw = llama_cpp.llama_sampler_chain_get(sampler.chain, 2)
    ids = [-1, -(2**31), heads.n_vocab, 2**31 - 1, 7]
    keep = (llama_cpp.llama_token_data * len(ids))(*[(i, 1.0, 0.0) for i in ids])
    array = llama_cpp.llama_token_data_array(keep, len(ids), -1, False)
    llama_cpp.llama_sampler_apply(draw, ctypes.byref(array))
    assert keep[array.selected].id == 7
    # and a row more than the graph has computed
    llama_cpp.llama_sampler_apply(draw, ctypes.byref(array))
    assert array.selected == 0 and status_of(draw)[0] == Status.NOT_ATTACHED
    llama_cpp.llama_free(ctx)
    sampler.close()


# ---- llama.cpp ------------------------------------------------------------------------------


def test_the_kernels_named_in_the_environment_are_used():
    code = (
        "from autodeco_edge.engine.sampler import kernels, kernels_in_use\n"
        "from tests.native.test_oracle import step_once, f32\n"
        "import numpy as np\n"
        "a = bytes(step_once(None, None, f32(np.arange(900)), temp=3.0)[1])\n"
        "b = bytes(step_once(None, None, f32(np.arange(900)), temp=3.0, kernels=b'baseline')[1])\n"
        "print(a == b, kernels_in_use())\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "AUTODECO_KERNELS": "baseline", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=env)
    assert done.stdout.split() == ["True", "baseline"], done.stderr


def test_the_loaded_llama_cpp_is_the_one_compiled_against():
    text = ctypes.create_string_buffer(256)
    assert lib.autodeco_check_llama(text, 256) == Status.OK and text.value == b""
    assert lib.autodeco_check_llama(None, 0) == Status.OK
    assert lib.autodeco_kernels_name(-1) is None and lib.autodeco_kernels_name(99) is None

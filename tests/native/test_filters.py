"""Filters in a place of their own: replaced between two tokens, in the same graph."""

from __future__ import annotations

import ctypes

import llama_cpp
import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.native import Status, lib
from autodeco_edge.engine.sampler import Sampler
from autodeco_edge.errors import UsageError
from tests.native.test_batches import PROMPTS, Context, letters  # noqa: F401  a fixture
from tests.native.test_mask import as_sampler


def handle_of(smpl) -> ctypes.c_void_p:
    return ctypes.cast(smpl, ctypes.c_void_p)


def bias(token: int, value: float, n_vocab: int):
    array = (llama_cpp.llama_logit_bias * 1)()
    array[0].token, array[0].bias = token, value
    return llama_cpp.llama_sampler_init_logit_bias(n_vocab, 1, array)


def logits_after(smpl, n: int = 4) -> list[float]:
    keep = (llama_cpp.llama_token_data * n)(*[(i, 1.0, 0.0) for i in range(n)])
    array = llama_cpp.llama_token_data_array(keep, n, -1, False)
    llama_cpp.llama_sampler_apply(smpl, ctypes.byref(array))
    return [c.logit for c in keep]


# ---- the sampler alone --------------------------------------------------------------------


def test_what_is_inside_is_applied_and_replaced():
    place = lib.autodeco_filters_init()
    smpl = as_sampler(place)
    assert llama_cpp.llama_sampler_name(smpl) == b"autodeco-filters"
    assert logits_after(smpl) == [1.0] * 4
    for call in (lambda: llama_cpp.llama_sampler_accept(smpl, 1), lambda: llama_cpp.llama_sampler_reset(smpl)):
        call()
    for token in (1, 3):  # the second frees the first
        assert lib.autodeco_filters_set(place, handle_of(bias(token, 5.0, 4))) == Status.OK
        assert logits_after(smpl) == [6.0 if i == token else 1.0 for i in range(4)]
    assert lib.autodeco_filters_set(place, None) == Status.OK
    assert logits_after(smpl) == [1.0] * 4
    llama_cpp.llama_sampler_free(smpl)


def test_accepted_tokens_reach_what_is_inside_and_a_reset_forgets_them():
    place = lib.autodeco_filters_init()
    smpl = as_sampler(place)
    inner = handle_of(llama_cpp.llama_sampler_init_penalties(4, 64, 1.0, 0.0, 2.0))
    assert lib.autodeco_filters_set(place, inner) == Status.OK
    assert lib.autodeco_filters_set(place, inner) == Status.OK, "the same again is not freed"
    llama_cpp.llama_sampler_accept(smpl, 2)
    assert logits_after(smpl) == [1.0, 1.0, -1.0, 1.0]
    clone = llama_cpp.llama_sampler_clone(smpl)
    llama_cpp.llama_sampler_reset(smpl)
    assert logits_after(smpl) == [1.0] * 4
    assert logits_after(clone) == [1.0, 1.0, -1.0, 1.0], "a clone has what is inside, with its memory"
    for each in (smpl, clone):
        llama_cpp.llama_sampler_free(each)


def test_callers_who_get_it_wrong_are_told():
    place = lib.autodeco_filters_init()
    greedy = handle_of(llama_cpp.llama_sampler_init_greedy())
    assert lib.autodeco_filters_set(None, greedy) == Status.ARGUMENT
    assert lib.autodeco_filters_set(greedy, greedy) == Status.ARGUMENT
    assert lib.autodeco_filters_set(place, place) == Status.ARGUMENT
    for each in (place, greedy):
        llama_cpp.llama_sampler_free(as_sampler(each))


# ---- attached -----------------------------------------------------------------------------


def test_filters_change_between_two_tokens_and_the_graph_stays(letters):  # noqa: F811
    """llama.cpp counts the decodes whose graph it could use again: all but the first two."""
    context = Context(letters, [SamplingParams(seed=1)], cpu_draws=[True])
    (sampler,) = context.samplers
    n_vocab = context.model.n_vocab
    ids = context.model.tokenize(PROMPTS[0])
    context.decode([(t, i, 0, i == len(ids) - 1) for i, t in enumerate(ids)])
    token = context.sample(0, -1).token
    reused = []
    for n, wanted in enumerate((65, None, 97, 65)):
        if wanted is not None:
            sampler.set_filters(
                (lambda chain, w=wanted: llama_cpp.llama_sampler_chain_add(chain, bias(w, 90.0, n_vocab)),)
            )
        else:
            sampler.set_filters(())
        before = llama_cpp.llama_perf_context(context.ctx).n_reused
        context.decode([(token, len(ids) + n, 0, True)])
        token = context.sample(0, 0).token
        reused.append(llama_cpp.llama_perf_context(context.ctx).n_reused - before)
        assert wanted is None or token == wanted
    assert reused == [0, 1, 1, 1], "the first follows a prompt, which is another graph"
    context.close()


def test_a_sampler_that_draws_in_the_graph_takes_no_filters(letters):  # noqa: F811
    context = Context(letters, [SamplingParams()])
    (sampler,) = context.samplers
    sampler.set_filters(())
    with pytest.raises(UsageError, match="cpu_draw"):
        sampler.set_filters((lambda chain: None,))
    context.close()


def test_a_filter_that_fails_leaves_those_before(letters):  # noqa: F811
    def fails(chain: int) -> None:
        raise RuntimeError("no")

    sampler = Sampler(None, SamplingParams(), cpu_draw=True)
    sampler.set_filters((lambda chain: llama_cpp.llama_sampler_chain_add(chain, bias(1, 3.0, 4)),))
    with pytest.raises(RuntimeError):
        sampler.set_filters((fails,))
    assert logits_after(as_sampler(sampler._place)) == [1.0, 4.0, 1.0, 1.0]
    sampler.close()


def test_requests_with_filters_share_a_sampler(letters):  # noqa: F811
    """Each request has its own; only drawing elsewhere needs another sampler. The replies are those of an engine of their own."""
    filters = [{"logit_bias": {65: 80.0}}, {"logit_bias": {97: 80.0}}, {}, {"presence_penalty": 1.5, "top_k": 5}]

    def reply(engine: Engine, settings: dict) -> list[int]:
        built = FilterParams(**settings).build(engine.model)
        request = Request(
            engine.model.tokenize(b"one"), SamplingParams(seed=3), max_tokens=6, filters=built, stop_at_end=False
        )
        ((_, done),) = engine.run([request])
        return [step.id for step in done.steps]

    with Engine(letters.gguf, letters.heads, n_ctx=256, n_threads=1) as engine:
        samplers, got = [], []
        for settings in filters:
            got.append(reply(engine, settings))
            samplers.append(engine.strategy.samplers[0])
    for settings, ids in zip(filters, got, strict=True):
        with Engine(letters.gguf, letters.heads, n_ctx=256, n_threads=1) as engine:
            assert reply(engine, settings) == ids
    assert got[0] == [65] * 6 and got[1] == [97] * 6
    assert samplers[0] is samplers[1] and samplers[1] is not samplers[2] is not samplers[3]

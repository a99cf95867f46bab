"""llama-cpp-python's sampling arguments as a chain of ours, in the shape that it expects of a sampler.

Owns the translation. Does not own the context that the chain is attached to, nor the heads in it.
"""

from __future__ import annotations

import ctypes
import operator
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import llama_cpp
import numpy as np
from llama_cpp import _internals as internals
from llama_cpp.llama_grammar import LlamaGrammar

from ..engine.filters import Filter, penalties_and_top_k
from ..engine.grammar import Grammar
from ..engine.mask import GrammarMask
from ..engine.sampler import Sampler, SamplingParams
from ..errors import UsageError

if TYPE_CHECKING:
    from .llama import Llama

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


def grammar_of(given: Any) -> Grammar:
    """What a caller may pass as ``grammar``. Raises UsageError for anything else, FormatError for one that is refused."""
    if isinstance(given, Grammar):
        return given
    if isinstance(given, str):
        return Grammar.from_text(given)
    if isinstance(given, LlamaGrammar):
        return Grammar.from_text(given._grammar, given._root)
    raise UsageError(f"grammar: a LlamaGrammar, GBNF or Lark text, or a Grammar; got {type(given).__name__}")


class Chain(internals.LlamaSampler):
    """An AutoDeco chain in the shape llama-cpp-python expects of a sampler."""

    def __init__(self, llama: Llama, **kwargs: Any) -> None:
        self._llama = llama
        self._failures: list[BaseException] = []
        self._filters = _filters(llama, kwargs, self._failures)  # kept alive: a chain may call back into them
        self._sampler = Sampler(llama.autodeco, _params(llama, kwargs), filters=self._filters)
        self.native = self._sampler.native
        self.sampler = self._sampler.chain

    def sample(self, ctx: Any, idx: int = -1) -> int:
        try:
            step = self._sampler.sample(ctx.ctx, len(self._llama.steps))
        finally:
            if self._failures:  # raised in a callback, where ctypes would only print it
                raise self._failures.pop(0)
        self._llama.steps.append(step)
        return step.id

    def close(self) -> None:
        self.sampler = None
        sampler = getattr(self, "_sampler", None)
        if sampler:
            sampler.close()


def _params(llama: Llama, kwargs: dict[str, Any]) -> SamplingParams:
    if kwargs.get("mirostat_mode"):
        raise UsageError("mirostat_mode cannot be combined with heads; leave it at 0, or pass heads=None")
    if kwargs.get("typical_p", 1.0) < 1.0:
        raise UsageError("typical_p cannot be combined with heads; leave it at 1.0, or pass heads=None")
    return SamplingParams(
        seed=_seed(llama._seed),
        temperature=_within(kwargs.get("temp", 1.0), 100.0),
        top_p=_within(kwargs.get("top_p", 1.0), 1.0),
        min_p=_within(kwargs.get("min_p", 0.0), 1.0),
        heads_mode=llama.heads_mode,
        logprobs=llama._n_top > 0,
        top_logprobs=llama._n_top,
    )


def _within(value: float, largest: float) -> float:
    """llama.cpp takes any number: beyond its range a filter is as at the end of it."""
    return min(max(value, 0.0), largest)


def _seed(seed: int) -> int:
    """32 bits of a negative one, as llama.cpp reads it; so -1 = random."""
    seed = operator.index(seed)
    bits = seed % 2**32 if seed < 0 else seed % 2**64
    return secrets.randbits(32) if bits == llama_cpp.LLAMA_DEFAULT_SEED else bits


def _filters(llama: Llama, kwargs: dict[str, Any], failures: list[BaseException]) -> tuple[Filter, ...]:
    """What has to happen before the cut, in the official order (equations 4); empty = draw in the graph."""
    filters: list[Filter] = []
    if kwargs.get("logits_processor") is not None:
        filters.append(_processors(llama, kwargs["logits_processor"], failures))
    if kwargs.get("grammar") is not None:
        filters.append(GrammarMask(grammar_of(kwargs["grammar"]), llama._model, llama._model.vocab))
    penalties = (
        kwargs.get("repeat_penalty", 1.0),
        kwargs.get("frequency_penalty", 0.0),
        kwargs.get("presence_penalty", 0.0),
    )
    last_n, top_k = llama.last_n_tokens_size, kwargs.get("top_k", 0)
    return (*filters, *penalties_and_top_k(llama._n_vocab, last_n, penalties, top_k))


def grammar_as_processor(llama: Llama, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for llama-cpp-python's own chain, where the mask goes in as a logits processor: its chain is not ours to
    add to. What the mask raises goes into ``llama._failures``, since ctypes would only print it."""
    llama._failures = []
    if kwargs.get("grammar") is None:
        return kwargs
    if llama.draft_model is not None:
        raise UsageError("a grammar cannot be combined with draft_model here; leave one of them out")
    mask = GrammarMask(grammar_of(kwargs["grammar"]), llama._model, llama._model.vocab)
    seen: list[int] = []  # how many ids stood there at the last draw

    def process(ids: Any, scores: np.ndarray) -> np.ndarray:
        try:
            for token in ids[seen[-1] :] if seen else ():
                mask.accept(int(token))
            seen.append(len(ids))
            mask.prepare()
        except BaseException as error:
            llama._failures.append(error)
        return np.where(mask.allowed(len(scores)), scores, np.float32(-np.inf))

    others = kwargs.get("logits_processor") or []
    return {**kwargs, "grammar": None, "logits_processor": llama_cpp.LogitsProcessorList([*others, process])}


def _processors(llama: Llama, processors: Sequence[Callable[..., Any]], failures: list[BaseException]) -> Filter:
    """Python logits processors (logit_bias is one) as the first filter, while the candidates are still
    the whole vocabulary in order. What one of them raises goes into ``failures``."""

    def apply(_smpl: Any, candidates: Any) -> None:
        n = candidates.contents.size
        data = ctypes.cast(candidates.contents.data, ctypes.POINTER(llama_cpp.llama_token_data * n)).contents
        view = np.frombuffer(data, dtype=_TOKEN_DATA)
        scores = np.ascontiguousarray(view["logit"])
        try:
            for processor in processors:
                scores = np.asarray(processor(llama._input_ids, scores), dtype=np.float32)
            view["logit"] = scores
        except BaseException as error:
            failures.append(error)

    interface = llama_cpp.llama_sampler_i()  # zeroed: every other slot is NULL
    interface.apply = llama_cpp.llama_sampler_i_apply(apply)

    def add(chain: Any) -> None:  # the chain reads the interface until it is freed, and the Chain keeps this closure
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init(ctypes.byref(interface), None))

    return add

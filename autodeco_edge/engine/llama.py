"""``autodeco_edge.Llama``: llama-cpp-python's ``Llama`` with ``heads=``.

Owns the translation from its sampling arguments to an AutoDeco chain. Everything else
(completion, chat, streaming, tokeniser) is inherited. Internal hooks it relies on, all of
the pinned 0.3.36: ``_init_sampler``, ``_requires_eval``, ``context_params``, ``model_params``.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import secrets
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _internals as internals

from ..errors import UsageError
from . import native as _native  # noqa: F401  loads libautodeco and installs the log before any model is opened
from .cpu import extra_buffers_safe
from .grammar import Grammar
from .mask import GrammarMask
from .pairing import check_heads, open_heads
from .sampler import Heads, Sampler, SamplingParams, Step

# llama-cpp-python's own defaults (0.8 or 0.2, 0.95, 0.05, 40) would multiply T and P without anybody
# having asked for it: with heads, what a caller does not name is left to the heads (semantics 3.2).
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_NEUTRAL = {"temperature": 1.0, "temp": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0}


class Llama(llama_cpp.Llama):
    """Drop-in for ``llama_cpp.Llama``.

    model_path  GGUF
    heads       heads file, Heads, "auto" (those inside the model, if any) or None (stock behaviour)
    heads_mode  "both", "temp", "top-p" or "none"; may be changed between calls
    the rest    as in llama_cpp.Llama

    ``temperature`` multiplies the predicted T (0 = greedy), ``top_p`` the predicted P, both 1 unless
    given; ``min_p`` and ``top_k`` are off unless given. Penalties, ``logit_bias``, grammars and JSON
    schemas apply before the cut, with T and P still from the heads. ``steps`` holds the Steps of the
    last generation.

    ``grammar`` may be a LlamaGrammar, GBNF or Lark text, or a Grammar; ``response_format`` of a chat is
    {"type": "text"}, {"type": "json_object"} with or without "schema", or the OpenAI API's
    {"type": "json_schema", "json_schema": {"schema": ...}}. They are held to by llguidance, with heads and without;
    a schema that cannot be is refused (FormatError).

    Raises UsageError for what cannot be combined with heads (mirostat, typical_p, logits_all,
    draft_model, embedding), and what Heads and Engine raise.

    >>> from autodeco_edge import Llama
    >>> llm = Llama("model.gguf", heads="heads.gguf")
    >>> llm("Once upon a time", max_tokens=16)["choices"][0]["text"]
    """

    _closed = False
    _failures: list[BaseException] = []  # of the mask in llama-cpp-python's own chain

    def __init__(
        self, model_path: str, *args: Any, heads: Any = "auto", heads_mode: str = "both", **kwargs: Any
    ) -> None:
        missing = heads == "auto" and not os.path.exists(model_path)  # llama_cpp.Llama has its own word for it
        self.autodeco: Heads | None = None if missing else open_heads(heads, model_path)
        self.heads_mode = heads_mode
        self.steps: list[Step] = []
        if self.autodeco:
            _refuse_unsupported(kwargs)
        super().__init__(model_path, *args, **kwargs)
        if self.autodeco:
            check_heads(self.autodeco, self._model.model, model_path)

    # llama_cpp.Llama builds both structs in its constructor; these see them on the way in.

    @property
    def model_params(self):
        return self._model_params

    @model_params.setter
    def model_params(self, params) -> None:
        params.use_extra_bufts = extra_buffers_safe()
        self._model_params = params

    def _init_sampler(self, **kwargs: Any):
        if self.autodeco is None:
            return super()._init_sampler(**_grammar_as_processor(self, kwargs))
        self.steps = []
        self._requires_eval = True  # an exact cache hit would return the token that the last chain drew
        chain = _Chain(self, **kwargs)
        llama_cpp.llama_set_sampler(self._ctx.ctx, 0, chain.sampler)
        self._attached = chain  # the context borrows it until the next one comes
        return chain

    def close(self) -> None:
        """Free the context before the chain that it borrows."""
        if hasattr(self, "_stack"):  # a constructor that failed has none, and __del__ comes here all the same
            super().close()
        self._attached = None
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the model is closed; make another Llama")

    def eval(self, tokens: Any) -> None:
        self._check_open()  # a stream may go on after close()
        super().eval(tokens)

    def sample(self, *args: Any, **kwargs: Any) -> int:
        """As inherited, but only after ``generate``: the heads run during the decode, so their chain must be there first."""
        if self.autodeco and self._sampler is None:
            raise UsageError(
                "sample() after eval() alone cannot be combined with heads; use generate(), or pass heads=None"
            )
        token = super().sample(*args, **kwargs)
        if self._failures:
            raise self._failures.pop(0)
        return token


def _refuse_unsupported(kwargs: dict[str, Any]) -> None:
    for name, why in {
        "logits_all": "per-token log-probabilities are in Llama.steps",
        "draft_model": "speculative decoding with heads is not supported here",
        "embedding": "make a second Llama for embeddings",
    }.items():
        if kwargs.get(name):
            raise UsageError(f"{name} cannot be combined with heads: {why}; leave it out, or pass heads=None")


def _with_neutral_defaults(name: str):
    """The inherited method, with neutral sampling for arguments the caller did not name."""
    inherited = getattr(llama_cpp.Llama, name)
    signature = inspect.signature(inherited)
    neutral = {k: v for k, v in _NEUTRAL.items() if k in signature.parameters}

    @functools.wraps(inherited)
    def method(self, *args, **kwargs):
        self._check_open()
        if self.autodeco is None:
            return inherited(self, *args, **kwargs)
        given = signature.bind_partial(self, *args, **kwargs).arguments
        return inherited(self, *args, **{**{k: v for k, v in neutral.items() if k not in given}, **kwargs})

    return method


def _with_response_format(inherited):
    """create_chat_completion, with the schema of a response format as a grammar of ours."""
    signature = inspect.signature(inherited)

    @functools.wraps(inherited)
    def method(self, *args, **kwargs):
        given = signature.bind(self, *args, **kwargs).arguments
        grammar = grammar_of_format(given.get("response_format"))
        if grammar is not None:
            if given.get("grammar") is not None:
                raise UsageError("grammar and response_format exclude each other; give one")
            extra = given.pop("kwargs", {})
            return inherited(**{**given, **extra, "response_format": None, "grammar": grammar})
        return inherited(self, *args, **kwargs)

    return method


for _name in ("__call__", "create_completion", "create_chat_completion", "generate"):
    setattr(Llama, _name, _with_neutral_defaults(_name))
Llama.create_chat_completion = _with_response_format(Llama.create_chat_completion)


def grammar_of_format(form: Any) -> Grammar | None:
    """The grammar of a ``response_format``; None for text. Raises UsageError for another form, FormatError for its schema."""
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return Grammar.from_schema(_schema(form, "schema", {"type": "object"}))
    inner = form.get("json_schema") if kind == "json_schema" else None
    if isinstance(inner, dict) and "schema" in inner:
        return Grammar.from_schema(_schema(inner, "schema", None))
    raise UsageError(
        'response_format: allowed {"type": "text"}, {"type": "json_object", "schema": ...} and '
        f'{{"type": "json_schema", "json_schema": {{"schema": ...}}}}; got {str(form)[:80]!r}'
    )


def _schema(form: dict[str, Any], key: str, default: Any) -> Any:
    schema = form.get(key)
    schema = default if schema is None else schema
    if isinstance(schema, dict | bool):
        return schema
    raise UsageError(f"response_format: the schema is an object; got {str(schema)[:80]!r}")


def grammar_of(given: Any) -> Grammar:
    """What a caller may pass as ``grammar``. Raises UsageError for anything else, FormatError for one that is refused."""
    if isinstance(given, Grammar):
        return given
    if isinstance(given, str):
        return Grammar.from_text(given)
    if isinstance(given, llama_cpp.LlamaGrammar):
        return Grammar.from_text(given._grammar, given._root)
    raise UsageError(f"grammar: a LlamaGrammar, GBNF or Lark text, or a Grammar; got {type(given).__name__}")


class _Chain(internals.LlamaSampler):
    """An AutoDeco chain in the shape llama-cpp-python expects of a sampler."""

    def __init__(self, llama: Llama, **kwargs: Any) -> None:
        self._llama = llama
        self._failures: list[BaseException] = []
        self._filters = _filters(llama, kwargs, self._failures)  # kept alive: a chain may call back into them
        self._sampler = Sampler(llama.autodeco, _params(llama, kwargs), filters=self._filters)
        self.sampler = self._sampler.chain

    def sample(self, ctx, idx: int = -1) -> int:
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
    if kwargs.get("typical_p", 1.0) != 1.0:
        raise UsageError("typical_p cannot be combined with heads; leave it at 1.0, or pass heads=None")
    seed = llama._seed
    return SamplingParams(
        seed=secrets.randbits(32) if seed == llama_cpp.LLAMA_DEFAULT_SEED else seed,
        temperature=max(kwargs.get("temp", 1.0), 0.0),
        top_p=kwargs.get("top_p", 1.0),
        min_p=kwargs.get("min_p", 0.0),
        heads_mode=llama.heads_mode,
    )


def _filters(llama: Llama, kwargs: dict[str, Any], failures: list[BaseException]) -> tuple:
    """What has to happen before the cut, in the official order (semantics 3.2); empty = draw in the graph."""
    filters = []
    if kwargs.get("logits_processor") is not None:
        filters.append(_processors(llama, kwargs["logits_processor"], failures))
    if kwargs.get("grammar") is not None:
        filters.append(GrammarMask(grammar_of(kwargs["grammar"]), llama, llama._model.vocab))
    penalties = (
        kwargs.get("repeat_penalty", 1.0),
        kwargs.get("frequency_penalty", 0.0),
        kwargs.get("presence_penalty", 0.0),
    )
    if penalties != (1.0, 0.0, 0.0):
        last_n = llama.last_n_tokens_size
        filters.append(_adder(lambda: llama_cpp.llama_sampler_init_penalties(llama._n_vocab, last_n, *penalties)))
    if 0 < kwargs.get("top_k", 0) < llama._n_vocab:  # llama.cpp may put it into the graph, where a larger k aborts
        filters.append(_adder(lambda: llama_cpp.llama_sampler_init_top_k(kwargs["top_k"])))
    return tuple(filters)


def _adder(make):
    def add(chain) -> None:
        smpl = make()
        if not smpl:
            raise UsageError("a penalty was refused by llama.cpp; check its range")
        llama_cpp.llama_sampler_chain_add(chain, smpl)

    return add


def _grammar_as_processor(llama: Llama, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments for llama-cpp-python's own chain, where the mask goes in as a logits processor: its chain is not ours to
    add to. What the mask raises goes into ``llama._failures``, since ctypes would only print it."""
    llama._failures = []
    if kwargs.get("grammar") is None:
        return kwargs
    if llama.draft_model is not None:
        raise UsageError("a grammar cannot be combined with draft_model here; leave one of them out")
    mask = GrammarMask(grammar_of(kwargs["grammar"]), llama, llama._model.vocab)
    seen: list[int] = []  # how many ids stood there at the last draw

    def process(ids, scores):
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


def _processors(llama: Llama, processors, failures: list[BaseException]):
    """Python logits processors (logit_bias is one) as the first filter, while the candidates are still
    the whole vocabulary in order. What one of them raises goes into ``failures``."""

    def apply(_smpl, candidates) -> None:
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

    def add(chain) -> None:
        add.alive = interface  # the chain reads it until it is freed, and the Chain keeps this closure
        llama_cpp.llama_sampler_chain_add(chain, llama_cpp.llama_sampler_init(ctypes.byref(interface), None))

    return add

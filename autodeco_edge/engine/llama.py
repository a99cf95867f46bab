"""``autodeco_edge.Llama``: llama-cpp-python's ``Llama`` with ``heads=``.

Owns the translation from its sampling arguments to an AutoDeco chain. Everything else
(completion, chat, streaming, tokeniser) is inherited. Internal hooks it relies on, all of
the pinned 0.3.36: ``_init_sampler``, ``_requires_eval``, ``context_params``, ``model_params``, ``_stack``,
``_model``, ``_ctx``, ``_batch``.

One thread generates at a time. A generation begun in the thread that left another one half way ends that one;
from another thread it is refused with BusyError. ``close`` may come from any thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import operator
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _internals as internals
from llama_cpp.llama_grammar import LlamaGrammar

from ..errors import BusyError, FormatError, MissingInputError, UsageError, check_range
from ..gguf.model_check import check_model
from . import native as _native  # noqa: F401  loads libautodeco and installs the log before any model is opened
from .context import MAX_CONTEXT, MAX_THREADS
from .cpu import extra_buffers_safe
from .filters import Filter, penalties_and_top_k
from .grammar import Grammar
from .handle import Handle
from .mask import GrammarMask
from .model import check_id, check_iterable, metadata, token_bytes
from .pairing import check_heads, open_heads
from .sampler import Heads, Sampler, SamplingParams, Step
from .tokenizer import Tokenizer

# llama-cpp-python's own defaults (0.8 or 0.2, 0.95, 0.05, 40) would multiply T and P without anybody
# having asked for it: with heads, what a caller does not name is left to the heads (equations 4).
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_NEUTRAL = {"temperature": 1.0, "temp": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0}


def _kept(name: str, prepare: Callable[[Any, Any], object] = lambda llama, value: None) -> Any:
    """An attribute that is there while the Llama is open; ``prepare`` sees what is put into it."""

    def read(llama: Any) -> Any:
        llama.native.check()
        return llama.__dict__[name]

    def write(llama: Any, value: Any) -> None:
        prepare(llama, value)
        llama.__dict__[name] = value

    return property(read, write)


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

    _failures: list[BaseException] = []  # of the mask in llama-cpp-python's own chain

    def __init__(
        self, model_path: str, *args: Any, heads: Any = "auto", heads_mode: str = "both", **kwargs: Any
    ) -> None:
        resources = contextlib.ExitStack()
        self.native = Handle("the model", None, lambda _pointer: resources.close(), exclusive=True)
        self._gate = threading.Lock()
        self._generation: _Generation | None = None  # the one that is going on
        self._inside: int | None = None  # the thread that has the turn
        self._in_callback = False
        self._attached: _Chain | None = None
        self._vocab_only = bool(kwargs.get("vocab_only"))
        if os.path.exists(model_path):
            check_model(model_path)
        missing = heads == "auto" and not os.path.exists(model_path)  # llama_cpp.Llama has its own word for it
        unused = missing or self._vocab_only
        self.autodeco: Heads | None = None if unused else open_heads(heads, model_path)
        self.heads_mode = heads_mode
        self.steps: list[Step] = []
        _check_options(kwargs)
        if self.autodeco:
            _refuse_unsupported(kwargs)
        try:
            super().__init__(model_path, *args, **kwargs)
        finally:
            if hasattr(self, "_stack"):
                resources.callback(self._stack.close)
        if self.lora_path and not self._lora_adapter:  # a null pointer, which only the first decode would notice
            raise FormatError(f"{self.lora_path}: llama.cpp cannot load this LoRA file; check lora_path")
        if self.autodeco:
            check_heads(self.autodeco, self._model.model, model_path)

    # llama_cpp.Llama builds both structs in its constructor; these see them on the way in.

    @property
    def model_params(self) -> llama_cpp.llama_model_params:
        return self._model_params

    @model_params.setter
    def model_params(self, params: llama_cpp.llama_model_params) -> None:
        params.use_extra_bufts = extra_buffers_safe()
        self._model_params = params

    # It keeps what it owns in three attributes; these let nobody reach one after close or in a forked child.

    _model = _kept("_kept_model", lambda llama, model: _Model.protect(model, llama.native))
    _ctx = _kept("_kept_ctx")
    _batch = _kept("_kept_batch", lambda llama, batch: setattr(batch, "__class__", _Batch))

    def _init_sampler(self, **kwargs: Any) -> Any:  # type: ignore[override]  # passed on by name
        if kwargs.get("logits_processor") is not None:
            kwargs["logits_processor"] = [self._as_callback(p) for p in kwargs["logits_processor"]]
        if self.autodeco is None:
            return super()._init_sampler(**_grammar_as_processor(self, kwargs))
        self.steps = []
        self._requires_eval = True  # an exact cache hit would return the token that the last chain drew
        me: Any = weakref.proxy(self)
        chain = _Chain(me, **kwargs)
        self._attach(chain)
        return chain

    def _attach(self, chain: _Chain) -> None:
        """The context borrows ``chain`` until the next one comes."""
        self.native.need(chain.native)
        before, self._attached = self._attached, chain
        llama_cpp.llama_set_sampler(self._ctx.ctx, 0, chain.sampler)
        if before:
            self.native.drop(before.native)

    # ---- whose turn it is ------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread in the context at a time. A call that ``generate`` makes on the way is part of its turn; one
        from a callback is not. Raises BusyError out of turn, and what Handle.check raises."""
        if self._vocab_only:
            raise UsageError("the model was loaded with vocab_only=True, and only tokenises; load it without")
        me = threading.get_ident()
        if self._inside == me and not self._in_callback:
            yield
            return
        with self.native.call():
            self._inside = me
            try:
                yield
            finally:
                self._inside = None

    def _as_callback(self, function: Callable[..., Any]) -> Callable[..., Any]:
        llama: Any = weakref.proxy(self)

        def call(*args: Any) -> Any:
            llama._in_callback = True
            try:
                return function(*args)
            finally:
                llama._in_callback = False

        return call

    def _take_turns(self, tokens: Generator[int, Any, Any]) -> Generator[int, Any, None]:
        """A generation of ``generate``, drawn token by token, each in one turn."""
        me = _Generation()
        self._begin(me)
        received = None
        try:
            while True:
                with self._turn():
                    self._check_current(me)
                    try:
                        token = tokens.send(received)
                    except StopIteration:
                        return
                received = yield token
        finally:
            if self._generation is me:
                self._generation = None

    def _begin(self, new: _Generation) -> None:
        with self._gate:
            if self._generation and self._generation.is_elsewhere():
                raise BusyError("the model is generating in another thread; make one Llama for each thread, or wait")
            self._generation = new

    def _check_current(self, generation: _Generation) -> None:
        if self._generation is not generation:
            raise BusyError("the model has begun another generation since; finish one before the next, or make two")
        generation.thread = threading.current_thread()

    # ---- the inherited methods that reach the context ------------------------------------

    def eval(self, tokens: Sequence[int]) -> None:
        with self._turn():
            super().eval([check_id(t, self._n_vocab) for t in check_iterable(tokens)])

    def sample(self, *args: Any, **kwargs: Any) -> int:
        """As inherited, but only after ``generate``: the heads run during the decode, so their chain must be there first."""
        with self._turn():
            if self.autodeco and self._sampler is None:
                raise UsageError(
                    "sample() after eval() alone cannot be combined with heads; use generate(), or pass heads=None"
                )
            if self.n_tokens == 0:
                raise UsageError("sample() needs the logits of an eval(); call that first")
            token = super().sample(*args, **kwargs)
            if self._failures:
                raise self._failures.pop(0)
            return token

    def set_seed(self, seed: int | None) -> None:
        """As inherited; -1 and None = random."""
        self._seed = llama_cpp.LLAMA_DEFAULT_SEED if seed is None else seed

    # ---- lifetime ------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse all further use; freed now, or when the call returns that another thread is in."""
        native = getattr(self, "native", None)
        if native is None:
            return
        if native.is_foreign:
            self._leave_to_the_parent()
        native.close()

    def _leave_to_the_parent(self) -> None:
        """A forked child has copies of what the parent frees, and none of the threads that freeing may join."""
        for name in ("_kept_batch", "_kept_ctx", "_kept_model"):
            if name in self.__dict__:
                self.__dict__[name]._exit_stack.pop_all()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        heads = None if self.autodeco is None else str(self.autodeco.path)
        inherited: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {**inherited, "heads": heads, "heads_mode": self.heads_mode}


class _Generation:
    """A generation that has begun, and the thread that drew its last token."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()

    def is_elsewhere(self) -> bool:
        return self.thread is not threading.current_thread() and self.thread.is_alive()


class _Model(internals.LlamaModel):
    """llama-cpp-python's model, which checks ids and texts before llama.cpp sees them."""

    def protect(self, native: Handle) -> None:
        """Make a LlamaModel one of these."""
        self.__class__ = _Model
        self._native, self._n_vocab = native, self.n_vocab()
        self._tokenizer = Tokenizer(native, self.vocab, metadata(self.model, "tokenizer.ggml.pre"))

    def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
        return self._tokenizer.encode(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> bytes:
        """As inherited, with tokens of more than 32 bytes in full; without the blank that a leading BOS brings."""
        ids = [check_id(t, self._n_vocab) for t in check_iterable(tokens)]
        with self._native.call(shared=True):
            text = b"".join(token_bytes(self.vocab, t, special) for t in ids)
            return text[1:] if ids and ids[0] == self.token_bos() and text[:1] == b" " else text

    def token_to_piece(self, token: int, special: bool = False) -> bytes:
        return self._checked(super().token_to_piece, token, special)

    def token_get_text(self, token: int) -> str:
        return self._checked(super().token_get_text, token)

    def token_get_score(self, token: int) -> float:
        return self._checked(super().token_get_score, token)

    def token_get_attr(self, token: int) -> int:
        return self._checked(super().token_get_attr, token)

    def _checked(self, method: Callable[..., Any], token: int, *args: Any) -> Any:
        with self._native.call(shared=True):
            return method(check_id(token, self._n_vocab), *args)


class _Batch(internals.LlamaBatch):
    """llama-cpp-python's batch, which writes into its arrays only where they are."""

    def set_batch(self, batch: Sequence[int], *args: Any, **kwargs: Any) -> None:
        self._check(0, len(batch))
        super().set_batch(batch, *args, **kwargs)

    def add_sequence(self, batch: Sequence[int], *args: Any, **kwargs: Any) -> None:
        self._check(self.batch.n_tokens, len(batch))
        super().add_sequence(batch, *args, **kwargs)

    def _check(self, n_before: int, n: int) -> None:
        if not 0 < n <= self._n_tokens - n_before:
            raise UsageError(f"a batch of {n} tokens: allowed 1 to {self._n_tokens - n_before}; give other text")


_CACHE_TYPES = (0, 1, 2, 3, 6, 7, 8, 20, 30)  # f32 f16 q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl bf16: llama.cpp's own list


def _check_options(kwargs: dict[str, Any]) -> None:
    """Raises UsageError for what llama.cpp would abort on."""
    for name in ("n_batch", "n_ubatch"):
        check_range(name, kwargs.get(name, 512), 0, 2**31 - 1, "tokens")
    for name in ("n_threads", "n_threads_batch"):
        check_range(name, kwargs.get(name) or 0, 0, MAX_THREADS, "0 = chosen by llama-cpp-python")
    check_range("n_ctx", kwargs.get("n_ctx", 512), 0, MAX_CONTEXT, "0 = the model's own")
    for name in ("type_k", "type_v"):
        if kwargs.get(name) not in (None, *_CACHE_TYPES):
            raise UsageError(f"{name}: allowed {', '.join(map(str, _CACHE_TYPES))}; got {kwargs[name]}")
    lora = kwargs.get("lora_path")
    if lora and not os.path.isfile(lora):
        raise MissingInputError(f"{lora}: no such LoRA file; check lora_path")


def _refuse_unsupported(kwargs: dict[str, Any]) -> None:
    for name, why in {
        "logits_all": "per-token log-probabilities are in Llama.steps",
        "draft_model": "speculative decoding with heads is not supported here",
        "embedding": "make a second Llama for embeddings",
    }.items():
        if kwargs.get(name):
            raise UsageError(f"{name} cannot be combined with heads: {why}; leave it out, or pass heads=None")


def _with_neutral_defaults(name: str) -> Callable[..., Any]:
    """The inherited method, with neutral sampling for arguments the caller did not name."""
    inherited = getattr(llama_cpp.Llama, name)
    signature = inspect.signature(inherited)
    neutral = {k: v for k, v in _NEUTRAL.items() if k in signature.parameters}

    @functools.wraps(inherited)
    def method(self: Llama, *args: Any, **kwargs: Any) -> Any:
        self.native.check()
        if self.autodeco is not None:
            given = signature.bind_partial(self, *args, **kwargs).arguments
            kwargs = {**{k: v for k, v in neutral.items() if k not in given}, **kwargs}
        if name == "generate":
            return self._take_turns(inherited(self, *args, **kwargs))
        with self.native.call(shared=True):
            reply = inherited(self, *args, **kwargs)
        return _kept_open(self, reply) if isinstance(reply, Iterator) else reply

    return method


def _kept_open(llama: Llama, parts: Iterator[Any]) -> Iterator[Any]:
    """The parts of a stream, with nothing freed while one is made."""
    while True:
        with llama.native.call(shared=True):
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


def _in_turn(name: str) -> Callable[..., Any]:
    """The inherited method, in a turn of its own."""
    inherited = getattr(llama_cpp.Llama, name)

    @functools.wraps(inherited)
    def method(self: Llama, *args: Any, **kwargs: Any) -> Any:
        with self._turn():
            return inherited(self, *args, **kwargs)

    return method


def _with_response_format(inherited: Callable[..., Any]) -> Callable[..., Any]:
    """create_chat_completion, with the schema of a response format as a grammar of ours."""
    signature = inspect.signature(inherited)

    @functools.wraps(inherited)
    def method(self: Llama, *args: Any, **kwargs: Any) -> Any:
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
for _name in ("reset", "embed", "save_state", "load_state"):
    setattr(Llama, _name, _in_turn(_name))
Llama.create_chat_completion = _with_response_format(Llama.create_chat_completion)  # type: ignore[method-assign]


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
    if isinstance(given, LlamaGrammar):
        return Grammar.from_text(given._grammar, given._root)
    raise UsageError(f"grammar: a LlamaGrammar, GBNF or Lark text, or a Grammar; got {type(given).__name__}")


class _Chain(internals.LlamaSampler):
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


def _grammar_as_processor(llama: Llama, kwargs: dict[str, Any]) -> dict[str, Any]:
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

"""``autodeco_edge.Llama``: llama-cpp-python's ``Llama`` with ``heads=``.

Owns the class: what is open, whose turn it is, which arguments go where. Sampling is chain.py, chats are chat.py;
completion, streaming and the rest are inherited. Internal hooks it relies on, all of the pinned 0.3.36:
``_init_sampler``, ``_requires_eval``, ``context_params``, ``model_params``, ``_stack``, ``_model``, ``_ctx``, ``_batch``,
``_chat_handlers``.

One thread generates at a time. A generation begun in the thread that left another one half way ends that one;
from another thread it is refused with BusyError. ``close`` may come from any thread.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import llama_cpp
from llama_cpp.llama_chat_format import guess_chat_format_from_gguf_metadata

from ..engine import native as _native  # noqa: F401  loads libautodeco and installs the log before any model is opened
from ..engine.cpu import extra_buffers_safe
from ..engine.handle import Handle
from ..engine.model import check_id, check_iterable
from ..engine.pairing import check_heads, open_heads
from ..engine.sampler import MAX_TOP, Heads, Step
from ..errors import BusyError, DamagedModelError, FormatError, MissingModelError, UsageError, check_range
from ..gguf.model_check import check_model
from .chain import Chain, grammar_as_processor
from .chat import chat_handlers
from .checked import CheckedBatch, CheckedModel
from .formats import grammar_of_format
from .logprobs import logprobs_of
from .options import check_options, check_texts, refuse_unknown, refuse_unsupported
from .signatures import Signatures
from .trial import check_overrides

# llama-cpp-python's own defaults (0.8 or 0.2, 0.95, 0.05, 40) would multiply T and P without anybody
# having asked for it: with heads, what a caller does not name is left to the heads (equations 4).
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


class Llama(Signatures, llama_cpp.Llama):
    """Drop-in for ``llama_cpp.Llama``.

    model_path  GGUF
    heads       heads file, Heads, "auto" (those inside the model, if any) or None (stock behaviour)
    heads_mode  "both", "temp", "top-p" or "none"; may be changed between calls
    the rest    as in llama_cpp.Llama

    ``temperature`` multiplies the predicted T (0 = greedy), ``top_p`` the predicted P, both 1 unless
    given; ``min_p`` and ``top_k`` are off unless given. None counts as not given. Penalties, ``logit_bias``, grammars and JSON
    schemas apply before the cut, with T and P still from the heads. ``steps`` holds the Steps of the
    last generation. ``logprobs`` and ``top_logprobs`` (0 to 20) need no ``logits_all``, but no ``stream`` or ``echo``.

    ``grammar`` may be a LlamaGrammar, GBNF or Lark text, or a Grammar; ``response_format`` of a chat is
    {"type": "text"}, {"type": "json_object"} with or without "schema", or the OpenAI API's
    {"type": "json_schema", "json_schema": {"schema": ...}}. They are held to by llguidance, with heads and without;
    a schema that cannot be is refused (FormatError).

    Chats go through the model's own template in the environment of transformers, as in ``autodeco-edge run``, unless
    ``chat_format`` or ``chat_handler`` names another. A thought whose marks are control tokens, which would be lost
    in the text (gpt-oss, Magistral), is the message's "reasoning_content".

    Raises UsageError for what cannot be combined with heads (mirostat, typical_p, logits_all,
    draft_model, embedding), for text with half a surrogate pair, for ``kv_overrides`` that llama.cpp does not
    survive, and what Heads and Engine raise. A model that is not there or cannot be read is a ValueError as well, as in
    llama_cpp (MissingModelError, DamagedModelError).

    >>> from autodeco_edge import Llama
    >>> llm = Llama("model.gguf", heads="heads.gguf")
    >>> llm("Once upon a time", max_tokens=16)["choices"][0]["text"]
    """

    _failures: list[BaseException] = []  # of the mask in llama-cpp-python's own chain

    def _construct(
        self,
        model_path: str | os.PathLike[str],
        *args: Any,
        heads: Any = "auto",
        heads_mode: str = "both",
        **kwargs: Any,
    ) -> None:
        refuse_unknown(kwargs)
        resources = contextlib.ExitStack()
        self.native = Handle("the model", None, lambda _pointer: resources.close(), exclusive=True)
        self._gate = threading.Lock()
        self._generation: _Generation | None = None  # the one that is going on
        self._inside: int | None = None  # the thread that has the turn
        self._in_callback = False
        self._attached: Chain | None = None
        self._vocab_only = bool(kwargs.get("vocab_only"))
        model_path = os.fspath(model_path)
        check_texts({"model_path": model_path, **kwargs})
        no_text = _checked(model_path)
        self.autodeco: Heads | None = None if self._vocab_only else open_heads(heads, model_path)
        self.heads_mode = heads_mode
        self._n_top = 0  # likeliest tokens to report with each step
        self.steps: list[Step] = []
        check_options(kwargs)
        if self.autodeco:
            refuse_unsupported(kwargs)
        check_overrides(model_path, kwargs)
        try:
            llama_cpp.Llama.__init__(self, model_path, *args, **kwargs)
        finally:
            if hasattr(self, "_stack"):
                resources.callback(self._stack.close)
        self._model.no_text = no_text
        if self.lora_path and not self._lora_adapter:  # a null pointer, which only the first decode would notice
            raise FormatError(f"{self.lora_path}: llama.cpp cannot load this LoRA file; check lora_path")
        if self.autodeco:
            check_heads(self.autodeco, self._model.model, model_path)
        self._take_over_chats(kwargs.get("chat_format"))

    def _take_over_chats(self, chosen: str | None) -> None:
        """The model's own templates are filled by ours; a format or handler that the user named is left alone."""
        self.metadata = {**self.metadata, **self._model.templates}
        self._chat_handlers = chat_handlers(self._model, self.metadata)
        self._guessed_format = guess_chat_format_from_gguf_metadata(self.metadata)
        if self._guessed_format and chosen is None and self.chat_handler is None:
            self.chat_format = self._guessed_format
            self._chat_handlers[self.chat_format] = self._chat_handlers["chat_template.default"]

    # llama_cpp.Llama builds both structs in its constructor; these see them on the way in.

    @property
    def model_params(self) -> llama_cpp.llama_model_params:
        return self._model_params

    @model_params.setter
    def model_params(self, params: llama_cpp.llama_model_params) -> None:
        params.use_extra_bufts = extra_buffers_safe()
        self._model_params = params

    # It keeps what it owns in three attributes; these let nobody reach one after close or in a forked child.

    _model = _kept("_kept_model", lambda llama, model: CheckedModel.protect(model, llama.native))
    _ctx = _kept("_kept_ctx")
    _batch = _kept("_kept_batch", lambda llama, batch: setattr(batch, "__class__", CheckedBatch))

    def _init_sampler(self, **kwargs: Any) -> Any:  # type: ignore[override]  # passed on by name
        if kwargs.get("logits_processor") is not None:
            kwargs["logits_processor"] = [self._as_callback(p) for p in kwargs["logits_processor"]]
        if self.autodeco is None:
            return super()._init_sampler(**grammar_as_processor(self, kwargs))
        self.steps = []
        self._requires_eval = True  # an exact cache hit would return the token that the last chain drew
        me: Any = weakref.proxy(self)
        chain = Chain(me, **kwargs)
        self._attach(chain)
        return chain

    def _attach(self, chain: Chain) -> None:
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
            except BaseException as error:
                if llama.autodeco is not None:
                    raise  # the chain of ours keeps it
                llama._failures.append(error)  # ctypes would print it, and the reply go on as if nothing had been asked
                return args[-1]
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
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        if state["chat_format"] == self._guessed_format:
            state["chat_format"] = None  # so that it is guessed again, and not taken for the user's own choice
        return {**state, "heads": heads, "heads_mode": self.heads_mode}


class _Generation:
    """A generation that has begun, and the thread that drew its last token."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()

    def is_elsewhere(self) -> bool:
        return self.thread is not threading.current_thread() and self.thread.is_alive()


def _checked(model_path: str) -> Any:
    """What check_model says; before heads are looked for, so that the model is named where both are missing."""
    if not os.path.exists(model_path):
        raise MissingModelError(f"{model_path}: no such model file; check model_path")
    try:
        return check_model(model_path)
    except FormatError as error:
        raise DamagedModelError(str(error)) from None


def _with_neutral_defaults(name: str) -> Callable[..., Any]:
    """The inherited method, with neutral sampling for arguments the caller did not name."""
    inherited = getattr(llama_cpp.Llama, name)
    signature = inspect.signature(inherited)
    neutral = {k: v for k, v in _NEUTRAL.items() if k in signature.parameters}

    @functools.wraps(inherited)
    def method(self: Llama, *args: Any, **kwargs: Any) -> Any:
        self.native.check()
        given = signature.bind_partial(self, *args, **kwargs).arguments
        check_texts({**given, **given.get("kwargs", {})})
        given = {k: v for k, v in given.items() if not (k in _NEUTRAL and v is None)}  # as if it were not there
        if self.autodeco is not None:
            given = {**neutral, **given}
        args, kwargs = (
            (),
            {**{k: v for k, v in given.items() if k not in ("self", "kwargs")}, **given.get("kwargs", {})},
        )
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
    signature = inspect.signature(inherited)

    @functools.wraps(inherited)
    def method(self: Llama, *args: Any, **kwargs: Any) -> Any:
        check_texts(signature.bind_partial(self, *args, **kwargs).arguments)
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


def _with_logprobs(inherited: Callable[..., Any]) -> Callable[..., Any]:
    """create_completion, with log-probabilities out of the Steps: llama-cpp-python keeps the logits of all tokens for them."""
    signature = inspect.signature(inherited)

    @functools.wraps(inherited)
    def method(self: Llama, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        n_top = given.get("logprobs")
        if n_top is None or self.autodeco is None:
            return inherited(self, *args, **kwargs)
        check_range("logprobs", n_top, 0, MAX_TOP, "likeliest tokens beside each")
        if given.get("stream") or given.get("echo"):
            raise UsageError("logprobs with heads: not with stream or echo; Llama.steps has them for every token")
        del given["logprobs"], given["self"]
        self._n_top = max(n_top, 1)
        try:
            reply = inherited(self, **given)
        finally:
            self._n_top = 0
        choice = reply["choices"][0]
        choice["logprobs"] = logprobs_of(self, choice["text"], n_top)
        return reply

    return method


for _name in ("__call__", "create_completion", "create_chat_completion", "generate"):
    setattr(Llama, _name, _with_neutral_defaults(_name))
for _name in ("reset", "embed", "save_state", "load_state"):
    setattr(Llama, _name, _in_turn(_name))
Llama.create_chat_completion = _with_response_format(Llama.create_chat_completion)  # type: ignore[method-assign]
for _name in ("__call__", "create_completion"):
    setattr(Llama, _name, _with_logprobs(getattr(Llama, _name)))
Llama.__init__ = Llama._construct  # type: ignore[method-assign,assignment]

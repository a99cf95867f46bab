"""Heads and samplers as Python objects: the owners of libautodeco's handles.

Owns lifetimes, the mapping from a status to an exception, and the order of a sampler
chain. Does not load models or run them (see engine.py).
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import llama_cpp
import numpy as np

from ..errors import (
    AutodecoError,
    FormatError,
    MismatchError,
    MissingInputError,
    NoHeadsError,
    OutOfMemoryError,
    StorageError,
    UsageError,
    check_range,
)
from . import native as _native
from .handle import Handle, Owner
from .model import deferred_interrupt
from .native import HeadsMode, Status, lib

_EXCEPTIONS = {
    Status.NOT_FOUND: MissingInputError,
    Status.FORMAT: FormatError,
    Status.NO_HEADS: NoHeadsError,
    Status.ARCH: MismatchError,
    Status.N_EMBD: MismatchError,
    Status.N_VOCAB: MismatchError,
    Status.MEMORY: OutOfMemoryError,
    Status.NO_LOGIT: FormatError,
    Status.NO_NORM: MismatchError,
    Status.IO: StorageError,
}

MAX_TOP = 20  # of Step.top
HEADS_MODES = {"both": HeadsMode.BOTH, "temp": HeadsMode.TEMP, "top-p": HeadsMode.TOP_P, "none": HeadsMode.NONE}


def _check(status: int, err: ctypes.Array[ctypes.c_char]) -> None:
    if status == Status.OK:
        return
    raise _EXCEPTIONS.get(Status(status), AutodecoError)(err.value.decode("utf-8", "replace"))


def _known(x: float) -> float | None:
    return None if math.isnan(x) else x


@dataclass(frozen=True)
class SamplingParams:
    """What the user sets; the defaults leave everything to the heads.

    seed         64-bit seed of the counter-based random number
    temperature  multiplies T, >= 0; 0 = greedy (equations 4)
    top_p        multiplies P, in [0, 1]
    min_p        tokens below min_p x the largest are dropped before the cut; 0 = off
    heads_mode   "both", "temp", "top-p" or "none": which heads are applied
    logprobs     report Step.logprob: a second exponential for every logit, a tenth of the step's time
    top_logprobs report so many of the likeliest tokens in Step.top, 0 to 20; the draw is then on the CPU: same tokens, slower
    temp_range   (low, high) that T* is kept within after the factor, 0 <= low <= high; high 0 = no upper limit.
                 Greedy stays greedy
    top_p_range  (low, high) that P* is kept within, likewise
    """

    seed: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    heads_mode: str = "both"
    logprobs: bool = False
    temp_range: tuple[float, float] = (0.0, 0.0)
    top_p_range: tuple[float, float] = (0.0, 0.0)
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, 0.0, 100.0, "0 = greedy, 1 = the heads' own")
        check_range("top-p", self.top_p, 0.0, 1.0, "1 = the heads' own")
        check_range("min-p", self.min_p, 0.0, 1.0, "0 = off")
        if self.heads_mode not in HEADS_MODES:
            raise UsageError(f"heads mode: allowed {', '.join(HEADS_MODES)}; got '{self.heads_mode}'")
        _check_limits("temperature range", self.temp_range, 100.0)
        _check_limits("top-p range", self.top_p_range, 1.0)
        check_range("top logprobs", self.top_logprobs, 0, MAX_TOP, "0 = none")
        if not isinstance(self.seed, int | np.integer) or not 0 <= self.seed < 2**64:
            raise UsageError(f"seed: allowed 0 to 2^64 - 1; got {self.seed}")

    def native(self, cpu_draw: bool) -> _native.SamplerParams:
        return _native.SamplerParams(
            self.seed,
            self.temperature,
            self.top_p,
            self.min_p,
            HEADS_MODES[self.heads_mode],
            cpu_draw,
            self.logprobs,
            *self.temp_range,
            *self.top_p_range,
        )


def _check_limits(name: str, limits: tuple[float, float], largest: float) -> None:
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise UsageError(f"{name}: allowed (low, high); got {limits!r}")
    low, high = limits
    check_range(f"{name}, low end", low, 0.0, largest, "0 = none")
    check_range(f"{name}, high end", high, 0.0, largest, "0 = none")
    if high and low > high:
        raise UsageError(f"{name}: the low end must not exceed the high end; got {low:g} to {high:g}")


@dataclass(frozen=True)
class Step:
    """One drawn token; token ids only, text is the caller's business.

    index            position in the reply, from 0
    id               token id
    temperature      T of the head in (0, 2); None where no head was evaluated
    top_p            P of the head in (0, 1); None where no head was evaluated
    temperature_eff  T* = T x user's within the user's range, what the logits were divided by; 0 = greedy
    top_p_eff        P* = P x user's within the user's range, the nucleus mass
    n_kept           tokens in the nucleus
    entropy          nats, of softmax(l / T), at least 0
    max_prob         of softmax(l / T)
    logprob          ln softmax(l)[id], temperature 1, before any cut; None unless SamplingParams.logprobs
    top              (id, logprob) of the likeliest tokens, likeliest first, before filters and cut; () unless asked for
    text             what became readable with it, where ``Engine.generate`` or ``chat`` drew it; else None
    """

    index: int
    id: int
    temperature: float | None
    top_p: float | None
    temperature_eff: float
    top_p_eff: float
    n_kept: int
    entropy: float
    max_prob: float
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()
    text: str | None = field(default=None, compare=False)


def kernels() -> list[str]:
    """Sets of vector instructions that this CPU can run a step with, fastest first, "baseline" last."""
    names: list[str] = []
    while (name := lib.autodeco_kernels_name(len(names))) is not None:
        names.append(name.decode())
    return names


def kernels_in_use() -> str:
    """The fastest, or the one that AUTODECO_KERNELS names; the baseline where it names none of them."""
    known = kernels()
    wanted = os.environ.get("AUTODECO_KERNELS", known[0])
    return wanted if wanted in known else known[-1]


class Heads(Owner):
    """Trained heads in memory, immutable, shared by any number of samplers.

    path: a heads file, or a model with heads in its metadata.
    Raises MissingInputError, FormatError, or NoHeadsError for a sound GGUF without heads.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        handle = ctypes.c_void_p()
        err = ctypes.create_string_buffer(512)
        _check(lib.autodeco_heads_load_from_file(os.fsencode(path), ctypes.byref(handle), err, len(err)), err)
        self.native = Handle("the heads", handle, lib.autodeco_heads_free)

    @property
    def handle(self) -> ctypes.c_void_p:
        """The autodeco_heads pointer, for a caller that keeps these Heads open. Raises UsageError after close."""
        return self.native.pointer

    n_embd = property(lambda self: self._call(lib.autodeco_heads_n_embd))
    n_hidden = property(lambda self: self._call(lib.autodeco_heads_n_hidden))
    n_vocab = property(lambda self: self._call(lib.autodeco_heads_n_vocab) or None)
    n_extra = property(lambda self: self._call(lib.autodeco_heads_n_extra))
    has_temp = property(lambda self: self._call(lib.autodeco_heads_has_temp))
    has_top_p = property(lambda self: self._call(lib.autodeco_heads_has_top_p))
    mean_temperature = property(lambda self: _known(self._call(lib.autodeco_heads_mean_temp)))
    mean_top_p = property(lambda self: _known(self._call(lib.autodeco_heads_mean_top_p)))

    @property
    def description(self) -> str:
        buf = ctypes.create_string_buffer(256)
        self._call(lib.autodeco_heads_desc, buf, len(buf))
        return buf.value.decode("utf-8", "replace")

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.native.call() as handle:
            return function(handle, *arguments)

    def step(self, hidden: np.ndarray, logits: np.ndarray, params: SamplingParams, index: int = 0) -> Step:
        """What the sampler makes of one position, by the code that the graph runs: T, P and the token of random number
        ``index``. hidden float32 [n_embd], post-norm; logits float32 [n_vocab], raw; both contiguous, or UsageError."""
        hidden = _row("hidden", hidden, self.n_embd)
        logits = _row("logits", logits, self.n_vocab)
        check_range("index", index, 0, 2**64 - 1, "of the random number")
        raw = _native.Step()
        status = self._call(
            lib.autodeco_step_once,
            params.native(False),
            None,
            _floats(hidden),
            _floats(logits),
            len(logits),
            index,
            1,
            raw,
        )
        if status != Status.OK:
            raise AutodecoError(
                f"the sampler refused a position ({Status(status).name.lower()}); check model and heads"
            )
        return _step(index, raw)

    def check_model(self, model: int) -> None:
        """Raises MismatchError naming the field in which `model` (a llama_model pointer) differs."""
        if not model:
            raise UsageError("heads: allowed a llama_model pointer; got none")
        err = ctypes.create_string_buffer(512)
        _check(self._call(lib.autodeco_heads_check_model, model, err, len(err)), err)


@runtime_checkable
class Guide(Protocol):
    """A filter that is told of each draw."""

    def __call__(self, chain: int, /) -> None: ...

    def prepare(self) -> None: ...

    def accept(self, token: int, /) -> None: ...

    def reset(self) -> None: ...


class Sampler(Owner):
    """The AutoDeco sampler and the chain that owns it, ready to be attached to one context.

    heads     Heads, or None: plain sampling with the same reports
    filters   callables ``add(chain_pointer)`` that append CPU samplers (grammar, penalties, ...);
              with any of them, or with cpu_draw, the heads run in the graph and the cut and the
              draw on the CPU, behind the filters. A Guide among them (GrammarMask) is called
              around each draw. ``set_filters`` puts others in their place.

    A chain attaches once. A context that borrows it takes ``native`` among its needs: ``close`` then waits for it.
    """

    def __init__(
        self,
        heads: Heads | None,
        params: SamplingParams,
        *,
        filters: tuple[Callable[[int], None], ...] = (),
        cpu_draw: bool = False,
    ) -> None:
        self.heads = heads
        self.cpu_draw = cpu_draw or bool(filters) or params.top_logprobs > 0
        self._n_top = params.top_logprobs
        self._raw = _native.Step()  # made once: a token's time outside llama.cpp is spent on cold memory
        self._err = ctypes.create_string_buffer(512)
        self._smpl = lib.autodeco_sampler_init(heads.handle if heads else None, params.native(self.cpu_draw))
        if not self._smpl:
            raise OutOfMemoryError("no memory for a sampler")
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        needs = [heads.native] if heads else []
        self.native = Handle("the sampler", chain, llama_cpp.llama_sampler_free, needs=needs)
        self._add(self._smpl)  # first: only there can it read the logits' row
        self._filters: tuple[Callable[[int], None], ...] = ()  # kept alive: what they appended may point into them
        self._guides: tuple[Guide, ...] = ()
        if self.cpu_draw:
            self._place = lib.autodeco_filters_init()
            self._add(self._place)
            self._add(lib.autodeco_sampler_init_draw(self._smpl))
        self.set_filters(filters)

    @property
    def chain(self) -> int:
        """The llama_sampler chain, for a caller that keeps this Sampler open. Raises UsageError after close."""
        return self.native.pointer

    def _add(self, smpl: int | None) -> None:
        if not smpl:
            raise OutOfMemoryError("no memory for a sampler")
        pointer = ctypes.cast(smpl, llama_cpp.llama_sampler_p_ctypes)
        llama_cpp.llama_sampler_chain_add(self.chain, pointer)

    def set_params(self, params: SamplingParams) -> None:
        self._n_top = params.top_logprobs
        with self.native.call():
            lib.autodeco_sampler_set_params(self._smpl, params.native(self.cpu_draw))

    def set_filters(self, filters: tuple[Callable[[int], None], ...]) -> None:
        """Other filters from the next token on, in the same graph. Raises UsageError where the graph draws."""
        if filters == self._filters:
            return
        if not self.cpu_draw:
            raise UsageError("filters: allowed for a sampler that draws on the CPU; make it with cpu_draw=True")
        inner = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        try:
            for add in filters:
                add(inner)
        except BaseException:
            llama_cpp.llama_sampler_free(inner)
            raise
        with deferred_interrupt(), self.native.call():  # it must never hold a chain whose filters nobody keeps
            _check(lib.autodeco_filters_set(self._place, ctypes.cast(inner, ctypes.c_void_p)), self._err)
            self._filters, self._guides = filters, tuple(f for f in filters if isinstance(f, Guide))

    def reset(self) -> None:
        """Back to the first random number; filters forget what they accepted."""
        with self.native.call() as chain:
            llama_cpp.llama_sampler_reset(chain)
        for guide in self._guides:
            guide.reset()

    @property
    def position(self) -> int:
        """Tokens accepted so far: the index of the next random number."""
        with self.native.call():
            return lib.autodeco_sampler_get_position(self._smpl)

    @position.setter
    def position(self, n_accepted: int) -> None:
        check_range("position", n_accepted, 0, 2**64 - 1, "tokens accepted so far")
        with self.native.call():
            lib.autodeco_sampler_set_position(self._smpl, n_accepted)

    @property
    def n_fallbacks(self) -> int:
        """Head outputs that were not finite and fell back to 1."""
        with self.native.call():
            return lib.autodeco_sampler_n_fallbacks(self._smpl)

    def check(self) -> None:
        """Raises what went wrong in the graph or the draw, if anything."""
        err = ctypes.create_string_buffer(512)
        with self.native.call():
            _check(lib.autodeco_sampler_status(self._smpl, err, len(err)), err)

    def sample(self, ctx: int, index: int, i_batch: int = -1) -> Step:
        """Draw (or fetch, where the graph drew), accept, and report.

        ctx      the llama_context that the chain is attached to, which the caller keeps open
        index    goes into the Step
        i_batch  index in the batch of the token whose output it is, -1 = the last output
        """
        if not ctx:
            raise UsageError("sampler: allowed a llama_context pointer; got none")
        for guide in self._guides:
            guide.prepare()
        with self.native.call() as chain:
            status = lib.autodeco_sampler_sample(self._smpl, chain, ctx, i_batch, self._raw, self._err, len(self._err))
            if status != Status.OK:
                _check(status, self._err)
        for guide in self._guides:
            guide.accept(self._raw.token)
        return _step(index, self._raw, likeliest(row_logits(ctx, i_batch), self._n_top) if self._n_top else ())


def _row(name: str, values: np.ndarray, n: int | None) -> np.ndarray:
    """Raises UsageError unless values is what C reads: n contiguous float32, or any number from 1 for None."""
    sound = isinstance(values, np.ndarray) and values.dtype == np.float32 and values.ndim == 1
    sound = sound and values.flags.c_contiguous and values.flags.aligned
    if sound and len(values) == (n or min(max(len(values), 1), 2**31 - 1)):
        return values
    got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
    raise UsageError(f"{name}: allowed a contiguous float32 array ({n or 'n'},); got {got}")


def _floats(values: np.ndarray) -> Any:
    """Pointer to values that ``_row`` has passed, and that the caller keeps alive."""
    return values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def likeliest(logits: np.ndarray, n: int) -> tuple[tuple[int, float], ...]:
    """(id, ln softmax(logits)[id]) of the n largest of float32 [V], largest first, the lower id first where two are equal."""
    values = np.where(np.isnan(logits), -np.inf, logits.astype(np.float64))
    ids = np.argpartition(-values, min(n, len(values)) - 1)[:n]
    ids = ids[np.lexsort((ids, -values[ids]))]
    largest = values[ids[0]]
    if not np.isfinite(largest):
        return ()
    total = largest + math.log(np.exp(values - largest).sum())
    return tuple((int(i), float(values[i] - total)) for i in ids if values[i] > -np.inf)


def logprob_of(logits: np.ndarray, token: int) -> float:
    """ln softmax(logits)[token] of float32 [V]."""
    values = np.where(np.isnan(logits), -np.inf, logits.astype(np.float64))
    return float(values[token] - values.max() - math.log(np.exp(values - values.max()).sum()))


def row_logits(ctx: int, i_batch: int) -> np.ndarray:
    """What the graph left of a row's logits, [V] float32, borrowed until the next decode."""
    n = llama_cpp.llama_get_sampled_logits_count_ith(ctx, i_batch)
    if n:
        return np.ctypeslib.as_array(llama_cpp.llama_get_sampled_logits_ith(ctx, i_batch), (n,))
    vocab = llama_cpp.llama_model_get_vocab(llama_cpp.llama_get_model(ctx))
    row = llama_cpp.llama_get_logits_ith(ctx, i_batch)
    return np.ctypeslib.as_array(row, (llama_cpp.llama_vocab_n_tokens(vocab),))


def _step(index: int, raw: _native.Step, top: tuple[tuple[int, float], ...] = ()) -> Step:
    return Step(
        index=index,
        id=raw.token,
        temperature=_known(raw.temp),
        top_p=_known(raw.top_p),
        temperature_eff=raw.temp_eff,
        top_p_eff=raw.top_p_eff,
        n_kept=raw.n_kept,
        entropy=raw.entropy,
        max_prob=raw.max_prob,
        logprob=_known(raw.logprob),
        top=top,
    )

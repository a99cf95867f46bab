"""The engine: a model, its heads, and a context that turns token ids into Steps.

Owns the context, its key-value cache and the decode loop. Knows token ids only; text,
chat and files of results belong to the layers above.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp
import numpy as np

from ..errors import (
    AutodecoError,
    BusyError,
    ContextOverflowError,
    MismatchError,
    NoHeadsError,
    OutOfMemoryError,
    UsageError,
)
from .cpu import physical_cores
from .library import log
from .model import Model, deferred_interrupt, new_context
from .sampler import Heads, Sampler, SamplingParams, Step

DEFAULT_CONTEXT = 4096
_BATCH = 512
_MAX_CONTEXT = 2**24  # llama.cpp takes 32 bits and would silently cut more
_MAX_THREADS = 512  # GGML_MAX_N_THREADS


def demo_model() -> Path:
    """The bundled demo model: one GGUF with its heads inside."""
    return Path(__file__).parents[1] / "assets" / "autodeco-demo-q8_0.gguf"


def open_heads(heads: str | os.PathLike[str] | Heads | None, model_path: str | os.PathLike[str]) -> Heads | None:
    """What ``heads=`` means: a path, Heads, None, or "auto": those in the metadata of the model, if any."""
    if heads is None or isinstance(heads, Heads):
        return heads
    if heads != "auto":
        return Heads(heads)
    try:
        return Heads(model_path)
    except NoHeadsError:
        return None


def check_heads(heads: Heads, model, model_path: str | os.PathLike[str]) -> None:
    """Raises MismatchError unless the heads belong to ``model`` (a llama_model pointer) loaded from ``model_path``."""
    try:
        heads.check_model(model)
        if heads.path != Path(model_path):
            _check_fingerprints(heads, model_path)
    except MismatchError as error:
        raise MismatchError(f"{heads.path} does not fit {model_path}: {error}") from None


def _check_fingerprints(heads: Heads, model_path: str | os.PathLike[str]) -> None:
    """Same shapes, another model: told apart by the tokenizer and the output norm, where the heads file
    records them (docs/format.md section 6). Only then is the model's header read a second time."""
    from ..convert.base import open_base
    from ..convert.verify import check_base, read_heads_gguf

    loaded = read_heads_gguf(heads.path)
    if loaded.tokenizer_sha256 or loaded.norm_sha256:
        file, base = open_base(model_path)
        file.close()
        check_base(loaded, base)


@dataclass
class Timings:
    """Seconds and tokens of the last generation; load_s is the engine's own."""

    load_s: float = 0.0
    prompt_n: int = 0
    prompt_cached: int = 0
    prompt_s: float = 0.0
    predicted_n: int = 0
    predicted_s: float = 0.0

    def as_dict(self) -> dict[str, float | int | None]:
        return {
            "load_s": round(self.load_s, 4),
            "prompt_n": self.prompt_n,
            "prompt_cached": self.prompt_cached,
            "prompt_s": round(self.prompt_s, 4),
            "prompt_per_second": _rate(self.prompt_n, self.prompt_s),
            "predicted_n": self.predicted_n,
            "predicted_s": round(self.predicted_s, 4),
            "predicted_per_second": _rate(self.predicted_n, self.predicted_s),
        }


def _rate(n: int, seconds: float) -> float | None:
    return round(n / seconds, 2) if seconds > 0 else None


@dataclass
class _Cache:
    """Tokens whose keys and values stand in the context, in order."""

    tokens: list[int] = field(default_factory=list)

    def common(self, prompt: Sequence[int]) -> int:
        n = 0
        for a, b in zip(self.tokens, prompt, strict=False):
            if a != b:
                break
            n += 1
        return min(n, len(prompt) - 1)  # the last prompt token is always decoded: it makes the logits


class _Rows:
    """A batch's columns as arrays [_BATCH] over llama.cpp's own memory; every row belongs to sequence 0."""

    def __init__(self, batch) -> None:
        self.token = np.ctypeslib.as_array(batch.token, (_BATCH,))
        self.pos = np.ctypeslib.as_array(batch.pos, (_BATCH,))
        self.logits = np.ctypeslib.as_array(batch.logits, (_BATCH,))
        for i in range(_BATCH):
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0


class Engine:
    """Generates with AutoDeco on one sequence.

    model         path of a GGUF, or a Model
    heads         path of a heads file, a Heads, None for no heads, or "auto": those inside the model, if any
    n_ctx         context in tokens; 0 = the model's own limit or 4096, whichever is smaller
    n_threads     0 = one a physical core
    cpu_draw      cut and draw on the CPU instead of in the graph: same tokens, slower
    extra_buffers see Model

    Raises what Model and Heads raise, MismatchError for heads of another model, and
    OutOfMemoryError for a context that does not fit.

    >>> engine = Engine("model.gguf", heads="heads.gguf")
    >>> for step in engine.generate(engine.model.tokenize("Hello"), max_tokens=16):
    ...     print(step.id, step.temperature, step.top_p)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        heads: str | os.PathLike[str] | Heads | None = "auto",
        *,
        n_ctx: int = 0,
        n_threads: int = 0,
        n_gpu_layers: int = 0,
        cpu_draw: bool = False,
        extra_buffers: bool | None = None,
    ) -> None:
        start = time.perf_counter()
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._ctx = None
        check_limits(n_ctx, n_threads)
        self.model = (
            model if isinstance(model, Model) else Model(model, n_gpu_layers=n_gpu_layers, extra_buffers=extra_buffers)
        )
        self.heads = open_heads(heads, self.model.path)
        if self.heads:
            check_heads(self.heads, self.model.handle, self.model.path)
        self._cpu_draw, self._filtered = cpu_draw, False
        self.sampler = Sampler(self.heads, SamplingParams(), cpu_draw=cpu_draw)
        self.n_ctx = n_ctx or min(self.model.n_ctx_train, DEFAULT_CONTEXT)
        self.n_threads = n_threads or physical_cores()
        self._ctx = self._make_context()
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._rows = _Rows(self._batch)
        self._cache = _Cache()
        self.sampler.check()  # an architecture without result_norm is refused here
        self.finish_reason: str | None = None
        self.timings = Timings(load_s=time.perf_counter() - start)

    def _make_context(self):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = _BATCH
        params.n_seq_max = 1
        params.n_outputs_max_per_seq = 1
        params.n_threads = params.n_threads_batch = self.n_threads
        params.no_perf = True
        # Attached when the context is made, so that the graph is reserved with our nodes in it. The
        # context borrows the array and the chain.
        self._attached = (llama_cpp.llama_sampler_seq_config * 1)()
        self._attached[0].seq_id = 0
        self._attached[0].sampler = ctypes.cast(self.sampler.chain, ctypes.c_void_p)
        params.samplers = self._attached
        params.n_samplers = 1
        return new_context(self.model, params, f"a context of {self.n_ctx} tokens", "pass a smaller -c")

    def set_filters(self, filters: Sequence[Callable[[int], None]] = ()) -> None:
        """Put CPU samplers (filters.py) between the logits and the cut from the next generation on; () = none.

        Raises BusyError while a generation runs.
        """
        self._check_alive()
        if not filters and not self._filtered:
            return
        with self._exclusive(), deferred_interrupt():  # the context must never hold a chain that nobody owns
            sampler = Sampler(self.heads, SamplingParams(), filters=tuple(filters), cpu_draw=self._cpu_draw)
            llama_cpp.llama_set_sampler(self._ctx, 0, sampler.chain)
            self.sampler.close()
            self.sampler = sampler
            self._filtered = bool(filters)
            self.sampler.check()

    # ---- generation ----------------------------------------------------------------

    def generate(
        self,
        prompt: Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int = -1,
        reuse_prefix: bool = False,
        stop_at_end: bool = True,
    ) -> Iterator[Step]:
        """Draw tokens after ``prompt`` (ids), one Step each, the end token included.

        max_tokens    -1 = until the end token or the end of the context
        reuse_prefix  keep the cached keys and values of a shared beginning: faster in a
                      conversation, while another split of the prompt may change the last bits
        stop_at_end   False goes on past end tokens (benchmarks, parity tests)

        ``finish_reason`` is then "stop" (end token) or "length". Raises UsageError for an empty
        prompt, ContextOverflowError where it leaves no room, BusyError while another generation runs.
        """
        self._check_prompt(prompt)
        with self._exclusive():
            self.sampler.set_params(params or SamplingParams())
            self.sampler.reset()
            yield from self._loop(list(prompt), max_tokens, reuse_prefix, stop_at_end)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Two threads on one context abort the process."""
        if not self._lock.acquire(blocking=False):
            raise BusyError("the engine is generating already; make one engine a thread, or wait")
        try:
            yield
        finally:
            self._lock.release()

    def _loop(self, prompt: list[int], max_tokens: int, reuse_prefix: bool, stop_at_end: bool) -> Iterator[Step]:
        self.finish_reason = None
        self._start_timings()
        self._prefill(prompt, self._cache.common(prompt) if reuse_prefix else 0)
        room = self.n_ctx - len(prompt)
        limit = room if max_tokens < 0 else min(max_tokens, room)
        self.finish_reason = "length"
        pending: list[int] = []  # the token drawn last, not yet in the cache
        for index in range(limit):
            start = time.perf_counter()
            if pending:
                self._decode(pending, last=True)
            step = self.sampler.sample(self._ctx, index)
            pending = [step.id]
            ended = stop_at_end and self.model.is_end(step.id)
            self.finish_reason = "stop" if ended else "length"
            self.timings.predicted_n += 1
            self.timings.predicted_s += time.perf_counter() - start
            yield step
            if ended:
                return

    def prefill(self, prompt: Sequence[int]) -> None:
        """Decode a prompt from scratch and draw nothing."""
        self._check_prompt(prompt)
        with self._exclusive():
            self._start_timings()
            self._prefill(list(prompt), 0)

    def _start_timings(self) -> None:
        self.timings = Timings(load_s=self.timings.load_s)

    def _prefill(self, prompt: list[int], n_cached: int) -> None:
        start = time.perf_counter()
        n_cached = self._keep(n_cached)
        for i in range(n_cached, len(prompt), _BATCH):
            chunk = prompt[i : i + _BATCH]
            self._decode(chunk, last=i + len(chunk) == len(prompt))  # one row of logits, not one a prompt token
        self.timings.prompt_n = len(prompt) - n_cached
        self.timings.prompt_cached = n_cached
        self.timings.prompt_s = time.perf_counter() - start

    def _check_prompt(self, prompt: Sequence[int]) -> None:
        self._check_alive()
        if not prompt:
            raise UsageError("the prompt is empty; give at least one token")
        bad = next((t for t in prompt if not 0 <= t < self.model.n_vocab), None)
        if bad is not None:
            raise UsageError(f"token id {bad}: allowed 0 to {self.model.n_vocab - 1}")
        if len(prompt) >= self.n_ctx:
            raise ContextOverflowError(
                f"the prompt has {len(prompt)} tokens, the context {self.n_ctx}; shorten it, or pass a larger -c "
                f"(this model was trained with {self.model.n_ctx_train})"
            )

    def _check_alive(self) -> None:
        if os.getpid() != self._pid:
            raise BusyError("the engine was made in another process; make one after the fork")
        if not self._ctx:
            raise UsageError("the engine is closed; make another one")

    # ---- the cache and the batch -----------------------------------------------------

    def _keep(self, n: int) -> int:
        """Forget all but the first n cached tokens; returns how many are left. Recurrent models cannot cut
        in the middle: they start again from nothing."""
        memory = llama_cpp.llama_get_memory(self._ctx)
        if not llama_cpp.llama_memory_seq_rm(memory, 0, n, -1):
            llama_cpp.llama_memory_clear(memory, True)
            n = 0
        del self._cache.tokens[n:]
        return n

    def _decode(self, tokens: list[int], last: bool) -> None:
        """Run the graph over ``tokens``; ``last`` asks for the logits (and the draw) of the last one."""
        self._check_alive()  # a generation may go on after close() or in a forked child
        n, n_past = len(tokens), len(self._cache.tokens)
        self._batch.n_tokens = n
        self._rows.token[:n] = tokens
        self._rows.pos[:n] = range(n_past, n_past + n)
        self._rows.logits[: n - 1] = 0
        self._rows.logits[n - 1] = last
        log.clear()
        status = llama_cpp.llama_decode(self._ctx, self._batch)
        if status != 0:
            self._cache.tokens.clear()
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._ctx), True)
            raise _decode_error(status)
        self._cache.tokens.extend(tokens)

    # ---- lifetime --------------------------------------------------------------------

    def close(self) -> None:
        """Free the context, then the chain it borrowed. The model goes with its last owner."""
        if getattr(self, "_ctx", None) and os.getpid() == self._pid:
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._ctx)
            self._ctx = None
            self.sampler.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def check_limits(n_ctx: int, n_threads: int) -> None:
    """Raises UsageError for a context or a number of threads that llama.cpp would not take."""
    if n_ctx != 0 and not 2 <= n_ctx <= _MAX_CONTEXT:
        raise UsageError(f"context: allowed 2 to {_MAX_CONTEXT} tokens, or 0 for the model's own; got {n_ctx}")
    if not 0 <= n_threads <= _MAX_THREADS:
        raise UsageError(f"threads: allowed 1 to {_MAX_THREADS}, or 0 for one a physical core; got {n_threads}")


def _decode_error(status: int) -> AutodecoError:
    reason = log.last_error() or "no reason given"
    kind = {1: ContextOverflowError, -2: OutOfMemoryError}.get(status, AutodecoError)
    return kind(f"llama.cpp could not decode the batch (status {status}: {reason}); try a smaller -c or prompt")

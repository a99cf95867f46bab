"""The one place where llama.cpp computes: a context, its batch, and what its status codes mean.

Owns the llama_context, the batch arrays, the cells of each sequence, and the order in which all of it is freed. Nothing
else in the package calls llama_decode. Knows nothing of requests, samplers or text.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import llama_cpp
import numpy as np

from ..errors import AutodecoError, ContextOverflowError, OutOfMemoryError, UsageError
from .handle import Handle, Owner
from .library import log
from .model import Model, deferred_interrupt, new_context

MAX_CONTEXT = 2**24  # tokens; llama.cpp takes 32 bits and would silently cut more
MAX_THREADS = 512  # GGML_MAX_N_THREADS


class Row(NamedTuple):
    """One token of a batch: its id, position and sequence, and whether its output is wanted."""

    token: int
    position: int
    sequence: int
    output: bool


@dataclass(frozen=True)
class ContextParams:
    """
    n_ctx         cells in all
    n_sequences   each with positions of its own
    n_batch       rows of one decode
    n_threads
    samplers      sequence -> handle of the llama_sampler chain that runs in the graph
    own_cells     every sequence has cells of its own, an equal part of n_ctx, and attends to no others; else all share
                  n_ctx cells, attend past each other's, and ``copy`` costs nothing
    states        outputs are hidden states; logits only where ``on_node`` lets the graph go on to them
    on_node       Python callback of llama.cpp's scheduler, or None
    n_outputs     of a sequence in one decode, at most
    """

    n_ctx: int
    n_sequences: int
    n_batch: int
    n_threads: int
    samplers: Mapping[int, Handle]
    own_cells: bool = False
    states: bool = False
    on_node: Callable[[int, bool, int], bool] | None = None
    n_outputs: int = 1


def check_limits(n_ctx: int, n_threads: int) -> None:
    """Raises UsageError for a context or a number of threads that llama.cpp would not take."""
    if n_ctx != 0 and not 2 <= n_ctx <= MAX_CONTEXT:
        raise UsageError(f"context: allowed 2 to {MAX_CONTEXT} tokens, or 0 for the model's own; got {n_ctx}")
    if not 0 <= n_threads <= MAX_THREADS:
        raise UsageError(f"threads: allowed 1 to {MAX_THREADS}, or 0 for one a physical core; got {n_threads}")


class Context(Owner):
    """
    what    the context in words, and ``advice``: for the message of an OutOfMemoryError

    Raises OutOfMemoryError. Model and samplers outlive it, whatever is closed first. One call at a time: a second
    one is refused with BusyError.
    """

    def __init__(self, model: Model, params: ContextParams, what: str, advice: str) -> None:
        self.model, self.params = model, params
        self._on_node = params.on_node and llama_cpp.ggml_backend_sched_eval_callback(params.on_node)  # borrowed
        self._samplers = dict(params.samplers)
        self._make_batch(params.n_batch)
        with model.native.call():
            ctx = new_context(model, self._native(params), what, advice)
            needs = [model.native, *self._samplers.values()]
            self.native = Handle("the engine", ctx, _freer(self._batch), needs=needs, exclusive=True)
        self._memory = llama_cpp.llama_get_memory(ctx)
        self._n_swa = llama_cpp.llama_model_n_swa(model.handle)

    def _native(self, params: ContextParams) -> llama_cpp.llama_context_params:
        native = llama_cpp.llama_context_default_params()
        native.n_ctx = params.n_ctx
        native.n_batch = native.n_ubatch = params.n_batch
        native.n_seq_max, native.kv_unified = params.n_sequences, params.n_sequences > 1 and not params.own_cells
        native.n_threads = native.n_threads_batch = params.n_threads
        native.no_perf = True
        if self._on_node:
            native.cb_eval = self._on_node
        if params.states:
            native.embeddings = True
            native.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
            native.attention_type = llama_cpp.LLAMA_ATTENTION_TYPE_CAUSAL
        else:
            native.n_outputs_max_per_seq = params.n_outputs
        self._attach(native, params.samplers)
        return native

    def _attach(self, native: llama_cpp.llama_context_params, samplers: Mapping[int, Handle]) -> None:
        """Attached when the context is made, so that its graph is reserved with their nodes in it. The context
        borrows the array and the chains."""
        self._attached = (llama_cpp.llama_sampler_seq_config * len(samplers))()
        for config, (sequence, chain) in zip(self._attached, samplers.items(), strict=True):
            config.seq_id, config.sampler = sequence, ctypes.cast(chain.pointer, ctypes.c_void_p)
        native.samplers, native.n_samplers = self._attached, len(samplers)

    def _make_batch(self, n: int) -> None:
        self._batch = llama_cpp.llama_batch_init(n, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, (n,))
        self._position = np.ctypeslib.as_array(self._batch.pos, (n,))
        self._output = np.ctypeslib.as_array(self._batch.logits, (n,))
        self._sequence = [0] * n  # what stands in the batch: setting it costs more than a look
        for i in range(n):
            self._batch.n_seq_id[i] = 1
            self._batch.seq_id[i][0] = 0

    # ---- computing -------------------------------------------------------------------

    def decode(self, rows: Sequence[Row]) -> None:
        """Run the graph over at most n_batch rows.

        Raises ContextOverflowError where no cell is free, OutOfMemoryError, AutodecoError; what the failed batch left
        in the cells is then for ``keep`` to cut.
        """
        # A callback into Python would lose a Ctrl-C that arrives in it.
        with self.native.call() as ctx, deferred_interrupt() if self._on_node else nullcontext():
            self._fill(rows)
            log.clear()
            status = llama_cpp.llama_decode(ctx, self._batch)
        if status != 0:
            raise _decode_error(status, len(rows))

    def _fill(self, rows: Sequence[Row]) -> None:
        n = self._batch.n_tokens = len(rows)
        tokens, positions, sequences, outputs = zip(*rows, strict=True)
        self._token[:n], self._position[:n], self._output[:n] = tokens, positions, outputs
        for i, sequence in enumerate(sequences):
            if self._sequence[i] != sequence:
                self._sequence[i] = self._batch.seq_id[i][0] = sequence

    def states(self, rows: Sequence[int]) -> np.ndarray:
        """Hidden states [n, H] float32 of n rows of the last batch whose output was wanted, copied."""
        return self._outputs(llama_cpp.llama_get_embeddings_ith, rows, self.model.n_embd)

    def logits(self, rows: Sequence[int]) -> np.ndarray:
        """Logits [n, V] float32 likewise."""
        return self._outputs(llama_cpp.llama_get_logits_ith, rows, self.model.n_vocab)

    def _outputs(self, get: Callable[[Any, int], Any], rows: Sequence[int], width: int) -> np.ndarray:
        with self.native.call() as ctx:
            return np.stack([np.ctypeslib.as_array(get(ctx, i), (width,)) for i in rows])

    # ---- cells -----------------------------------------------------------------------

    def keep(self, sequence: int, n: int) -> int:
        """Forget all but the first n tokens of a sequence; returns how many are left: n, or 0 where a cache cannot be
        cut in the middle (a recurrent state, a window that has moved on)."""
        with self.native.call():
            if n and llama_cpp.llama_memory_seq_rm(self._memory, sequence, n, -1) and self._window_holds(sequence, n):
                return n
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            return 0

    def _window_holds(self, sequence: int, n: int) -> bool:
        """Whether all that position n attends to through a sliding window is still there."""
        return not self._n_swa or llama_cpp.llama_memory_seq_pos_min(self._memory, sequence) <= max(0, n - self._n_swa)

    def copy(self, source: int, target: int) -> None:
        """The target gets the source's cells, shared, in place of its own."""
        with self.native.call():
            llama_cpp.llama_memory_seq_rm(self._memory, target, -1, -1)
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def clear(self) -> None:
        """Forget every sequence."""
        with self.native.call():
            llama_cpp.llama_memory_clear(self._memory, True)

    def attach(self, sequence: int, chain: Handle) -> None:
        """Another chain for a sequence; llama.cpp reserves its graph anew. The one before may be closed then."""
        with self.native.call() as ctx, deferred_interrupt():  # it must never hold a chain that nobody owns
            self.native.need(chain)
            llama_cpp.llama_set_sampler(ctx, sequence, chain.pointer)
            before, self._samplers[sequence] = self._samplers.get(sequence), chain
            if before:
                self.native.drop(before)


def _freer(batch: llama_cpp.llama_batch) -> Callable[[int], None]:
    """Frees a context and its batch. Apart from the Context, which it would otherwise keep alive."""

    def free(ctx: int) -> None:
        llama_cpp.llama_free(ctx)
        llama_cpp.llama_batch_free(batch)

    return free


def _decode_error(status: int, n_rows: int) -> AutodecoError:
    reason = log.last_error() or "no reason given"
    kind = {1: ContextOverflowError, -2: OutOfMemoryError}.get(status, AutodecoError)
    return kind(
        f"llama.cpp could not decode a batch of {n_rows} tokens (status {status}: {reason}); "
        "try a smaller context or prompt, or fewer sequences"
    )

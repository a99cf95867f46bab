"""Many sequences at once: requests in, replies out, as many side by side as there are slots.

Owns a context with a sampler attached to each sequence, and the order of the work: a slot that falls free
takes the next request, and requests that follow one another with the same prompt share its keys and
values. Knows token ids only. One conversation at a time is the business of engine.py.

llama.cpp adds up a batch in another order than single tokens, so a reply may differ from the engine's in the
last bits of its logits, and the more so in its tokens: runs with other slots agree in distribution.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import llama_cpp
import numpy as np

from ..errors import AutodecoError, ContextOverflowError, OutOfMemoryError, UsageError, check_range
from .cpu import physical_cores
from .engine import check_heads, open_heads
from .library import log
from .model import Model, new_context
from .sampler import Heads, Sampler, SamplingParams, Step

MAX_PARALLEL = 255  # llama.cpp's sequences, less the one that keeps the prompt
_PREFILL = 512

StockChain = Callable[[int], list[int]]  # seed -> llama_sampler pointers, ending in one that draws


@dataclass(frozen=True)
class Request:
    """One reply to draw. prompt: ids; params: settings and seed; max_tokens: at most so many."""

    prompt: tuple[int, ...]
    params: SamplingParams
    max_tokens: int


@dataclass
class Reply:
    """What came: one Step a token, the end token included; finish_reason "stop" (end token) or "length"."""

    request: Request
    steps: list[Step] = field(default_factory=list)
    finish_reason: str = "length"


class Slot:
    """A sequence, and the reply that is being drawn in it, if any."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.reply: Reply | None = None
        self.n_past = 0

    def begin(self, params: SamplingParams) -> None:
        """A new reply."""

    def close(self) -> None:
        """After the context is freed."""


class _HeadsSlot(Slot):
    """Tokens are drawn in the graph."""

    def __init__(self, sequence: int, heads: Heads | None) -> None:
        super().__init__(sequence)
        self.sampler = Sampler(heads, SamplingParams())

    def begin(self, params: SamplingParams) -> None:
        self.sampler.set_params(params)
        self.sampler.reset()

    def take(self, _ctx, _row: int, index: int) -> Step:
        return self.sampler.take(index)

    def close(self) -> None:
        self.sampler.close()


class _StockSlot(Slot):
    """Tokens are drawn by llama.cpp's own samplers, for comparison."""

    def __init__(self, sequence: int, make: StockChain) -> None:
        super().__init__(sequence)
        self._make = make
        self._chain = None

    def begin(self, params: SamplingParams) -> None:
        self.close()
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in self._make(params.seed):
            llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def take(self, ctx, row: int, index: int) -> Step:
        nan = float("nan")
        return Step(
            index, llama_cpp.llama_sampler_sample(self._chain, ctx, row), None, None, nan, nan, 0, nan, nan, None
        )

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None


class BatchEngine:
    """Draws replies to many prompts side by side.

    model       path of a GGUF, or a Model
    heads       as for Engine
    n_parallel  sequences side by side
    n_ctx       tokens of one sequence, prompt included; 0 = the model's own limit
    n_threads   0 = one a physical core
    stock       makes llama.cpp samplers from a seed: they draw instead, and of a request's settings only the
                seed counts; Steps then carry the token and nothing else

    Raises what Engine raises.

    >>> engine = BatchEngine("model.gguf", "heads.gguf", n_parallel=16)
    >>> for number, reply in engine.run(requests): ...
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        heads: str | os.PathLike[str] | Heads | None = "auto",
        *,
        n_parallel: int = 16,
        n_ctx: int = 0,
        n_threads: int = 0,
        stock: StockChain | None = None,
    ) -> None:
        check_range("parallel sequences", n_parallel, 1, MAX_PARALLEL, "how many replies are drawn side by side")
        self._ctx = None
        self.model = model if isinstance(model, Model) else Model(model)
        self.heads = None if stock else open_heads(heads, self.model.path)
        if self.heads:
            check_heads(self.heads, self.model.handle, self.model.path)
        self.n_ctx = n_ctx or self.model.n_ctx_train
        self._slots = [self._make_slot(i, stock) for i in range(n_parallel)]
        self._ctx = self._make_context(n_threads or physical_cores())
        self._memory = llama_cpp.llama_get_memory(self._ctx)
        self._store, self._stored = n_parallel, ()  # the sequence that keeps a prompt, and the ids in it
        self._batch = llama_cpp.llama_batch_init(max(_PREFILL, n_parallel), 0, 1)
        for slot in self._slots:
            if isinstance(slot, _HeadsSlot):
                slot.sampler.check()  # an architecture without result_norm is refused here

    def _make_slot(self, sequence: int, stock: StockChain | None) -> Slot:
        return _StockSlot(sequence, stock) if stock else _HeadsSlot(sequence, self.heads)

    def _make_context(self, n_threads: int):
        n_sequences = len(self._slots) + 1
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.n_ctx * n_sequences
        params.n_batch = params.n_ubatch = max(_PREFILL, n_sequences)
        params.n_seq_max, params.kv_unified = n_sequences, True  # a prompt's cells are shared, not copied
        params.n_outputs_max_per_seq = 1
        params.n_threads = params.n_threads_batch = n_threads
        params.no_perf = True
        self._configure(params)
        what = f"{n_sequences} sequences of {self.n_ctx} tokens"
        return new_context(self.model, params, what, "take fewer at once, or a smaller context")

    def _configure(self, params) -> None:
        """What the context needs for the way tokens are drawn: a sampler attached to each sequence."""
        attached = [slot for slot in self._slots if isinstance(slot, _HeadsSlot)]
        self._attached = (llama_cpp.llama_sampler_seq_config * len(attached))()  # borrowed by the context
        for config, slot in zip(self._attached, attached, strict=True):
            config.seq_id, config.sampler = slot.sequence, ctypes.cast(slot.sampler.chain, ctypes.c_void_p)
        params.samplers, params.n_samplers = self._attached, len(attached)

    # ---- the work -------------------------------------------------------------------

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply]]:
        """Draw a reply to each request; yields (number of the request, Reply) as they end, in any order.

        Requests are taken when a slot is free. Raises UsageError for an empty prompt, ContextOverflowError
        where a prompt leaves no room.
        """
        self._forget()
        source = enumerate(requests)
        numbers: dict[int, int] = {}  # sequence -> request
        while True:
            for slot in self._slots:
                if slot.reply is None and (entry := next(source, None)):
                    numbers[slot.sequence], request = entry
                    self._begin(slot, request)
            active = [slot for slot in self._slots if slot.reply]
            if not active:
                return
            self._decode([self._next_row(slot) for slot in active])
            for slot, step in zip(active, self._draw(active), strict=True):
                if self._extend(slot, step):
                    reply, slot.reply = slot.reply, None
                    yield numbers[slot.sequence], reply

    def _begin(self, slot: Slot, request: Request) -> None:
        self._check(request)
        prefix = request.prompt[:-1]
        if prefix != self._stored:
            self._remember(prefix)
        llama_cpp.llama_memory_seq_rm(self._memory, slot.sequence, -1, -1)
        if prefix:
            llama_cpp.llama_memory_seq_cp(self._memory, self._store, slot.sequence, -1, -1)
        slot.begin(request.params)
        slot.reply, slot.n_past = Reply(request), len(prefix)

    def _remember(self, prefix: tuple[int, ...]) -> None:
        """Keys and values of ``prefix`` into the store."""
        llama_cpp.llama_memory_seq_rm(self._memory, self._store, -1, -1)
        self._stored = ()
        rows = [(token, position, self._store, False) for position, token in enumerate(prefix)]
        for start in range(0, len(rows), _PREFILL):
            self._decode(rows[start : start + _PREFILL])
        self._stored = prefix

    def _next_row(self, slot: Slot) -> tuple[int, int, int, bool]:
        steps = slot.reply.steps
        return (steps[-1].id if steps else slot.reply.request.prompt[-1], slot.n_past, slot.sequence, True)

    def _draw(self, active: Sequence[Slot]) -> list[Step]:
        """The next token of each, whose outputs are the rows of the last batch in this order."""
        return [slot.take(self._ctx, row, len(slot.reply.steps)) for row, slot in enumerate(active)]

    def _extend(self, slot: Slot, step: Step) -> bool:
        """True when the reply is complete with this token."""
        reply = slot.reply
        reply.steps.append(step)
        slot.n_past += 1
        if self.model.is_end(step.id):
            reply.finish_reason = "stop"
            return True
        return len(reply.steps) == reply.request.max_tokens or slot.n_past + 1 == self.n_ctx

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Run the graph over (token, position, sequence, output) rows."""
        batch, n = self._batch, len(rows)
        batch.n_tokens = n
        tokens, positions, sequences, outputs = zip(*rows, strict=True)
        np.ctypeslib.as_array(batch.token, (n,))[:] = tokens
        np.ctypeslib.as_array(batch.pos, (n,))[:] = positions
        np.ctypeslib.as_array(batch.logits, (n,))[:] = outputs
        for i, sequence in enumerate(sequences):
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
        log.clear()
        status = llama_cpp.llama_decode(self._ctx, batch)
        if status:
            kind = OutOfMemoryError if status == -2 else AutodecoError
            reason = log.last_error() or "no reason given"
            raise kind(
                f"llama.cpp could not decode a batch of {n} tokens (status {status}: {reason}); take fewer at once"
            )

    def _check(self, request: Request) -> None:
        if not request.prompt:
            raise UsageError("the prompt is empty; give at least one token")
        if len(request.prompt) >= self.n_ctx:
            raise ContextOverflowError(
                f"the prompt has {len(request.prompt)} tokens, the context of a sequence {self.n_ctx}; give a larger one"
            )

    def _forget(self) -> None:
        """Nothing of an earlier run that was left in the middle."""
        llama_cpp.llama_memory_clear(self._memory, True)
        self._stored = ()
        for slot in self._slots:
            slot.reply = None

    # ---- lifetime ---------------------------------------------------------------------

    def close(self) -> None:
        """Free the context, then the chains it borrowed."""
        if getattr(self, "_ctx", None):
            llama_cpp.llama_batch_free(self._batch)
            llama_cpp.llama_free(self._ctx)
            self._ctx = None
            for slot in self._slots:
                slot.close()

    def __enter__(self) -> BatchEngine:
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

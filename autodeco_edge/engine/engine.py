"""The engine: a model, its heads, and slots that draw replies side by side.

Owns how they are made and freed, and what may be asked; who draws when is its scheduler's. ``run``, evaluation,
collecting, reward training and the benchmarks differ in who submits and who reads. Knows token ids only; text belongs to
the layers above.

A batch of several sequences is added up in another order than single tokens, so replies drawn side by side may differ
from those drawn alone in the last bits of T and P, and the more so in their tokens (docs/decisions/0024).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import AutodecoError, BusyError, ContextOverflowError, UsageError, check_range
from .context import Context, ContextParams, check_limits
from .cpu import physical_cores
from .draft_kinds import open_drafts
from .drafting import Drafting
from .drafts import DRAFT_MAX, DraftParams, Drafts
from .generation import Generation, Reply, Request, Timings, Work
from .handle import Owner
from .model import Model, check_id, check_iterable
from .pairing import check_heads, open_heads
from .sampler import Heads, SamplingParams
from .scheduler import Scheduler
from .shared_prompt import SharedPrompt
from .slots import Slot
from .strategies import HeadsStrategy, Strategy

DEFAULT_CONTEXT = 4096
MAX_SLOTS = 255  # llama.cpp's sequences, less the one that keeps a shared prompt
_BATCH = 512


class Engine(Owner):
    """Generates with AutoDeco.

    model          path of a GGUF, or a Model
    heads          path of a heads file, a Heads, None for no heads, or "auto": those inside the model, if any
    more_heads     further heads of the same model, each under the name by which a Request asks for it
    n_slots        replies drawn side by side, 1 to 255; further requests wait in a queue
    n_ctx          context of a slot in tokens; 0 = the model's own limit or 4096, whichever is smaller
    n_threads      0 = one a physical core
    n_gpu_layers   of the model, where this is a path, and of a draft model; -1 = all that llama.cpp can
    cpu_draw       cut and draw on the CPU instead of in the graph: same tokens, slower
    extra_buffers  see Model
    strategy       draws in place of the heads (strategies.py)
    share_prompts  keep a sequence for prompts that many requests share; decoding is slower, for all slots' cells are
                   searched for each token
    deterministic  neighbours change no bit of a reply: every slot has batches of its own; slower from the second slot
                   on, and a prompt is always computed from its beginning
    n_batch        tokens of a tick at most, 1 to 2048: a cancelled prompt ends after a tick
    draft          "ngram": guess how a reply goes on from what is alike before, and compute several tokens at once; the
                   same tokens, sooner where the guesses are right (docs/speculative.md). The path of a GGUF: a smaller
                   model of the same vocabulary guesses. "off" or None; or Drafts
    draft_max      tokens of a guess at most
    draft_cost     what a further row of a batch takes, as a share of one row's time: how sure a guess has to be. None =
                   measured here, which takes about a second

    Raises what Model and Heads raise, MismatchError for heads of another model, and
    OutOfMemoryError for a context that does not fit.

    Any thread may submit, read and cancel; whoever reads drives the engine for all. Two replies at once:

    >>> engine = Engine("model.gguf", heads="heads.gguf", n_slots=2)
    >>> one, two = (engine.submit(Request(tuple(engine.model.tokenize(t)))) for t in ("Hello", "Goodbye"))
    >>> for step in one:
    ...     print(step.id, step.temperature, step.top_p)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Model,
        heads: str | os.PathLike[str] | Heads | None = "auto",
        *,
        n_slots: int = 1,
        n_ctx: int = 0,
        n_threads: int = 0,
        n_gpu_layers: int = 0,
        cpu_draw: bool = False,
        extra_buffers: bool | None = None,
        strategy: Strategy | None = None,
        share_prompts: bool = False,
        deterministic: bool = False,
        n_batch: int = _BATCH,
        draft: str | os.PathLike[str] | Drafts | None = None,
        draft_max: int = DRAFT_MAX,
        draft_cost: float | None = None,
        more_heads: Mapping[str, str | os.PathLike[str] | Heads] | None = None,
    ) -> None:
        start = time.perf_counter()
        check_limits(n_ctx, n_threads)
        check_range("slots", n_slots, 1, MAX_SLOTS, "how many replies are drawn side by side")
        self.model = (
            model if isinstance(model, Model) else Model(model, n_gpu_layers=n_gpu_layers, extra_buffers=extra_buffers)
        )
        self.heads = None if strategy else open_heads(heads, self.model.path)
        named = {name: open_heads(each, self.model.path) for name, each in (more_heads or {}).items()}
        self.more_heads = {name: each for name, each in named.items() if each}
        for each in (self.heads, *self.more_heads.values()):
            if each:
                check_heads(each, self.model.handle, self.model.path)
        self.n_ctx = n_ctx or min(self.model.n_ctx_train, DEFAULT_CONTEXT)
        self.n_threads = n_threads or physical_cores()
        if share_prompts and deterministic:
            raise UsageError("share_prompts and deterministic exclude each other; choose one")
        self._shares_prompts = share_prompts
        self.n_slots, self.deterministic = n_slots, deterministic
        check_range("batch", n_batch, 1, 2048, "tokens of a tick")
        self.n_batch = n_batch
        self.draft_max = draft_max
        self._drafts = open_drafts(
            draft,
            DraftParams(draft_max, draft_cost),
            self.model,
            n_slots=n_slots,
            n_ctx=self.n_ctx,
            n_threads=self.n_threads,
            n_gpu_layers=n_gpu_layers,
        )
        # Drafts that are drawn are judged by logits, which are not to be had from the graph.
        is_drawn = bool(self._drafts and self._drafts.is_drawn)
        self.strategy = strategy or HeadsStrategy(self.heads, cpu_draw=cpu_draw or is_drawn, more_heads=self.more_heads)
        if self._drafts and deterministic:
            raise UsageError("draft and deterministic exclude each other: rows change last bits too; choose one")
        self._context = self._make_context()
        self.native = self._context.native
        self.strategy.check()
        self._scheduler = self._make_scheduler()
        self._load_s = time.perf_counter() - start

    @property
    def _has_own_cells(self) -> bool:
        """Not where a shared prompt is copied by reference. Nor where slots have several outputs each: llama.cpp computes rows
        of own cells in parts, and a sampler takes the first row of a part for the first of the batch."""
        return not self._shares_prompts and self._drafts is None

    def _make_context(self) -> Context:
        n_sequences = self.n_slots + self._shares_prompts
        needs = self.strategy.needs(self.n_slots)
        params = ContextParams(
            n_ctx=self.n_ctx * n_sequences,
            n_sequences=n_sequences,
            n_batch=max(self.n_batch, n_sequences),
            n_threads=self.n_threads,
            samplers=needs.samplers,
            own_cells=self._has_own_cells,
            states=needs.states,
            on_node=needs.on_node,
            n_outputs=1 + self.draft_max if self._drafts else 1,
        )
        of = (
            f"{n_sequences} sequences of {self.n_ctx} tokens"
            if n_sequences > 1
            else f"a context of {self.n_ctx} tokens"
        )
        return Context(
            self.model,
            params,
            of,
            "give a smaller context (-c, n_ctx)" + (", or fewer at once" if n_sequences > 1 else ""),
        )

    def _make_scheduler(self) -> Scheduler:
        drafting = Drafting(self._drafts, self.draft_max)
        drafting.prepare(self._context)
        return Scheduler(
            self._context,
            self.strategy,
            [Slot(sequence) for sequence in range(self.n_slots)],
            shared=SharedPrompt(Slot(self.n_slots)) if self._shares_prompts else None,
            drafting=drafting,
            is_end=self.model.is_end,
            deterministic=self.deterministic,
        )

    # ---- requests --------------------------------------------------------------------

    def submit(self, request: Request) -> Generation:
        """A reply that is drawn as soon as a slot is free and somebody reads.

        Raises UsageError for an empty prompt, a token that the vocabulary does not have and settings out of range,
        ContextOverflowError for a prompt that leaves no room.
        """
        self._check(request)
        room = self.n_ctx - len(request.prompt)
        limit = room if request.max_tokens < 0 else min(request.max_tokens, room)
        work = Work(request, limit, Timings(load_s=self._load_s))
        self._scheduler.add(work)
        return Generation(work, self._advance, self._scheduler.cancel)

    def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams | None = None,
        *,
        max_tokens: int = -1,
        spelt: bool = True,
        **options: Any,
    ) -> Generation:
        """``submit`` in one call, for a slot that is free now; a text is tokenised; ``options`` as in Request.

        spelt  False leaves Step.text out, which takes a call of llama.cpp a token

        Raises what ``submit`` raises, and BusyError where no slot is free.

        >>> engine = Engine("model.gguf", heads="heads.gguf")
        >>> print("".join(step.text for step in engine.generate("Once upon a time", max_tokens=16)))
        """
        self.native.check()
        if self.n_free == 0:
            raise BusyError("the engine is generating already; make one with more slots, or wait")
        ids = self.model.tokenize(prompt) if isinstance(prompt, str) else check_iterable(prompt)
        request = Request(tuple(ids), params or SamplingParams(), max_tokens, **options)
        generation = self.submit(request)
        return generation.spelt(self.model.token_bytes) if spelt and self.model.has_text else generation

    def prefill(self, prompt: Sequence[int]) -> Generation:
        """Decode a prompt from scratch and draw nothing. Raises what ``generate`` raises."""
        generation = self.generate(prompt, max_tokens=0, spelt=False)
        for _ in generation:
            pass
        return generation

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Reply]]:
        """Draw a reply to each request; yields (number of the request, Reply) as they end, in any order.

        Requests are taken when a slot is free. An engine that is idle starts from empty cells, so that the same requests
        give the same replies to the bit whatever ran before. Raises what ``submit`` raises, and what a reply failed with.
        """
        self.native.check()
        self._scheduler.forget()
        source = enumerate(requests)
        active: dict[int, tuple[Generation, Reply]] = {}
        try:
            while True:
                while self.n_free > 0 and (entry := next(source, None)):
                    number, request = entry
                    active[number] = self.submit(request), Reply(request)
                if not active:
                    return
                self.tick()
                for number in _read(active):
                    generation, reply = active.pop(number)
                    reply.finish_reason = generation.finish_reason or reply.finish_reason
                    yield number, reply
        finally:
            for generation, _ in active.values():
                generation.cancel()

    @property
    def n_free(self) -> int:
        """Slots that neither draw nor are spoken for by the queue."""
        return self._scheduler.n_free

    @property
    def n_fallbacks(self) -> int:
        """Head outputs that were not finite and fell back to T = 1 or P = 1, so far."""
        return getattr(self.strategy, "n_fallbacks", 0)

    def _check(self, request: Request) -> None:
        self.native.check()
        if not isinstance(request.params, SamplingParams):
            raise UsageError(f"params: allowed SamplingParams; got {type(request.params).__name__}")
        if not request.prompt:
            raise UsageError("the prompt is empty; give at least one token")
        for token in request.prompt:
            check_id(token, self.model.n_vocab)
        if len(request.prompt) >= self.n_ctx:
            raise ContextOverflowError(
                f"the prompt has {len(request.prompt)} tokens, the context {self.n_ctx}; shorten it, or give a larger context (-c, n_ctx) "
                f"(this model was trained with {self.model.n_ctx_train})"
            )
        check_range("max tokens", request.max_tokens, -1, 2**31, "-1 = to the end of the context")
        if request.heads is not None and request.heads not in self.more_heads:
            names = ", ".join(self.more_heads) or "none"
            raise UsageError(f"heads: named in this engine {names}; got '{request.heads}'")
        if request.share_prompt and not self._shares_prompts:
            raise UsageError("share_prompt: this engine keeps no shared prompt; make it with share_prompts=True")

    def tick(self) -> bool:
        """Admit, compute one batch, draw and deliver; False when there is nothing to do. A reply that fails ends alone.

        Raises UsageError once closed, BusyError in a forked child.
        """
        self.native.check()
        return self._scheduler.tick()

    def _advance(self, work: Work) -> None:
        """A tick for a reader that waits; another thread may have brought the step meanwhile."""
        if not self.tick() and not work.ended and not work.steps:
            raise AutodecoError("the engine has nothing to compute for a reply that has not ended")

    # ---- lifetime --------------------------------------------------------------------

    def close(self) -> None:
        """End what runs, then free context and samplers. Waits for a tick of another thread. The model goes with its
        last owner."""
        native = getattr(self, "native", None)  # a constructor that failed has none
        if native is None or native.closed or native.is_foreign:
            return
        with self._scheduler.lock:
            self._scheduler.end(UsageError("the engine is closed; make another one"))
            native.close()
            self.strategy.close()
            if self._drafts:
                self._drafts.close()


def _read(active: dict[int, tuple[Generation, Reply]]) -> list[int]:
    """Moves the steps that wait into the replies; the numbers of those that have ended. Raises what one failed with."""
    ended = []
    for number, (generation, reply) in active.items():
        reply.steps += generation.read()
        if generation.ended:
            generation.read()  # raises what it failed with
            ended.append(number)
    return ended

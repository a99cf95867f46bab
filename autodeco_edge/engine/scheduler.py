"""The scheduler of an engine: who is in which slot, and what one batch after another brings them.

Owns the queue, the slots and the lock. A ``tick`` admits requests, packs prompt pieces and decode steps of all slots into
one batch, computes it, draws and delivers. Does not know how an engine is made, nor what may be asked of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import AutodecoError
from .context import Context
from .drafting import Drafting
from .drawing import Drawing
from .generation import Request, Work
from .sampler import Step
from .shared_prompt import SharedPrompt
from .slots import Piece, Slot, divide
from .strategies import Strategy


class Scheduler:
    """
    slots          replies are drawn in
    shared         computes prompts that several of them share; None = none are
    is_end         whether a token ends a reply
    deterministic  every slot has batches of its own, and cells that were empty when its prompt began
    """

    def __init__(
        self,
        context: Context,
        strategy: Strategy,
        slots: Sequence[Slot],
        *,
        shared: SharedPrompt | None,
        drafting: Drafting,
        is_end: Callable[[int], bool],
        deterministic: bool,
    ) -> None:
        self._context, self._strategy, self.slots = context, strategy, slots
        self._shared, self._drafting = shared, drafting
        self._is_end, self._deterministic = is_end, deterministic
        self._fed = [*slots, *([shared.slot] if shared else [])]
        self._queue: deque[Work] = deque()
        self._turn = 0
        self.lock = threading.Lock()

    @property
    def n_free(self) -> int:
        """Slots that neither draw nor are spoken for by the queue."""
        return sum(slot.work is None or slot.work.cancelled for slot in self.slots) - len(self._queue)

    def add(self, work: Work) -> None:
        """To the queue, from any thread."""
        self._queue.append(work)

    def tick(self) -> bool:
        """One batch; False when there is nothing to do. A reply that fails ends alone."""
        with self.lock:
            self._reap()
            self._admit()
            pieces = self._pieces()
            if not pieces:
                return False
            try:
                for batch in self._batches(pieces):
                    self._compute(batch)
            except BaseException:  # Ctrl-C
                self._abandon(pieces)
                raise
            self._hand_out_prompt()
            return True

    def cancel(self, work: Work) -> None:
        """From any thread, and at any stage."""
        if work.ended:
            return
        work.cancelled = True
        if self.lock.acquire(blocking=False):  # else the tick that holds it, or the next one, sees to it
            try:
                self._reap()
            finally:
                self.lock.release()

    def forget(self) -> None:
        """Empty cells, unless somebody else's reply is in them."""
        with self.lock:
            self._reap()
            if self.n_free == len(self.slots):
                self._context.clear()
                for slot in self._fed:
                    slot.tokens = []
                    slot.free()

    def end(self, error: BaseException) -> None:
        """Every reply, drawn or waiting. The caller holds the lock."""
        for slot in self.slots:
            slot.end("error", error)
        for work in self._queue:
            work.end("error", error)
        self._queue.clear()

    # ---- who is in which slot --------------------------------------------------------

    def _reap(self) -> None:
        """Free what cancelled replies hold."""
        for slot in self.slots:
            if slot.work and slot.work.cancelled:
                slot.end("cancelled")
        for work in [work for work in self._queue if work.cancelled]:
            self._queue.remove(work)
            work.end("cancelled")

    def _admit(self) -> None:
        while self._queue and (slot := self._slot_for(self._queue[0].request)):
            work = self._queue.popleft()
            try:
                self._begin(slot, work)
            except AutodecoError as error:
                work.end("error", error)
                slot.free()

    def _slot_for(self, request: Request) -> Slot | None:
        """A free one, with most of the prompt in its cells; None while another prompt is shared than the one it asks for."""
        free = [slot for slot in self.slots if slot.work is None]
        if not free:
            return None
        shared = self._shared if request.share_prompt else None
        if shared and not shared.prepare(self._context, request.prompt[:-1], self.slots):
            return None
        if not request.reuse_prefix:
            return free[0]
        return max(free, key=lambda s: (0 if s.loses_most(request) else s.reusable(request), -s.turn))

    def _begin(self, slot: Slot, work: Work) -> None:
        request = work.request
        self._strategy.begin(self._context, slot.sequence, request)
        self._drafting.begin(slot.sequence, request)
        slot.cut(self._context, 0 if self._deterministic else slot.reusable(request))
        self._turn += 1
        slot.take(work, self._turn)
        work.timings.prompt_cached = len(slot.tokens)
        work.timings.prompt_n = len(request.prompt) - len(slot.tokens)
        self._hand_out_prompt()

    def _hand_out_prompt(self) -> None:
        if self._shared:
            self._shared.hand_out(self._context, self.slots)

    # ---- one batch -------------------------------------------------------------------

    def _pieces(self) -> list[Piece]:
        n_rows = self._context.params.n_batch
        if self._deterministic:
            return [Piece(slot, min(slot.n_missing, n_rows)) for slot in self.slots if slot.n_missing]
        return divide(self._fed, n_rows)

    def _batches(self, pieces: list[Piece]) -> list[list[Piece]]:
        if self._deterministic:
            return [[piece] for piece in pieces]
        return [self._drafting.behind(pieces, self._context.params.n_batch)]

    def _compute(self, pieces: Sequence[Piece]) -> None:
        start = time.perf_counter()
        rows = [row for piece in pieces for row in piece.rows()]
        try:
            self._context.decode(rows)
        except AutodecoError as error:
            self._retry(pieces, error)
            return
        seconds = time.perf_counter() - start
        drawing: list[Drawing] = []
        row = -1
        for piece in pieces:
            _charge(piece, seconds)
            if piece.draws and (work := piece.slot.work):
                drawn_from = self._drafting.drawn_from(piece)
                drawing.append(Drawing(piece.slot, work, row + piece.n, piece.draft, drawn_from))
            row += piece.n_rows
            piece.done()
        self._draw(drawing)

    def _retry(self, pieces: Sequence[Piece], error: AutodecoError) -> None:
        """Each alone after a batch that failed, so that none dies of a neighbour's trouble."""
        for piece in pieces:
            n = len(piece.slot.tokens)
            piece.slot.cut(self._context, n)
            if piece.draft and len(piece.slot.tokens) == n:
                self._compute([replace(piece, draft=())])
            elif len(pieces) == 1 or len(piece.slot.tokens) < n:
                self._fail(piece.slot, error)
            else:
                self._compute([piece])

    def _fail(self, slot: Slot, error: AutodecoError) -> None:
        if self._shared and slot is self._shared.slot:
            self._shared.fail(self.slots, error)
        else:
            slot.end("error", error)

    def _abandon(self, pieces: Sequence[Piece]) -> None:
        """After an interrupt it is not known what the cells hold beyond the tokens that were there before."""
        for slot in (piece.slot for piece in pieces):
            slot.cut(self._context, len(slot.tokens))
            if self._shared and slot is self._shared.slot:
                interrupted = AutodecoError("the shared prompt was interrupted; submit the request again")
                self._shared.fail(self.slots, interrupted)
            else:
                slot.end("cancelled")

    # ---- what it brings --------------------------------------------------------------

    def _draw(self, drawing: Sequence[Drawing]) -> None:
        """The row of each, then the next one of those whose draft had guessed the token, and so on."""
        for each in drawing:
            if each.work.limit == 0:
                each.slot.end("length")
        due = [each for each in drawing if not each.work.ended]
        while due:
            start = time.perf_counter()
            steps = self._strategy.draw(self._context, [each.output() for each in due])
            seconds = time.perf_counter() - start
            for each, step in zip(due, steps, strict=True):
                each.work.timings.predicted_s += seconds
                self._deliver(each, step)
            due = [each for each in due if each.goes_on]
        for each in drawing:
            each.forget_rest(self._context)
            self._drafting.learn(each)

    def _deliver(self, each: Drawing, step: Step | AutodecoError) -> None:
        slot, work = each.slot, each.work
        if isinstance(step, AutodecoError):
            self._fail(slot, step)
            return
        work.timings.predicted_n += 1
        each.steps.append(step)
        work.timings.draft_n_accepted += each.is_guessed
        work.deliver(step, self._is_end(step.id))
        if work.ended:
            slot.free()
        else:
            slot.target.append(step.id)


def _charge(piece: Piece, seconds: float) -> None:
    """Time of a batch, to each reply that had rows in it."""
    if work := piece.slot.work:
        work.timings.draft_n += len(piece.draft)
        if piece.slot.is_reading:
            work.timings.prompt_s += seconds
            work.timings.prompt_done += piece.n
        else:
            work.timings.predicted_s += seconds

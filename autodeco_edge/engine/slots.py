"""The sequences of an engine: what each has in its cells, and what it feeds to the next batch.

Owns a slot's tokens and its place in a reply (waiting for a shared prompt, reading its prompt, decoding), and the
division of a batch among the slots. Does not decode and does not draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .context import Context, Row
from .generation import Request, Work


@dataclass
class Slot:
    """One sequence.

    tokens   in its cells, in order; they stay when a reply has ended, for one that begins alike
    target   tokens that the cells have to hold before the next draw: the prompt, then one more with every token drawn
    work     the reply that is being drawn; None = free
    waiting  for its prompt, which is computed once for several slots
    owner    whose tokens are in the cells
    turn     number of the last request that it took
    """

    sequence: int
    tokens: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    work: Work | None = None
    waiting: bool = False
    owner: str = ""
    turn: int = 0

    def common(self, prompt: Sequence[int]) -> int:
        """How many tokens of a prompt stand in the cells; its last one never counts, for it makes the logits."""
        n = 0
        for a, b in zip(self.tokens, prompt[:-1], strict=False):
            if a != b:
                break
            n += 1
        return n

    def reusable(self, request: Request) -> int:
        """The same for a request: none where it asks for none, or somebody else's tokens are in the cells."""
        return self.common(request.prompt) if request.reuse_prefix and request.owner == self.owner else 0

    def loses_most(self, request: Request) -> bool:
        """Whether taking the request would throw away more of what another conversation may go on with than it uses."""
        return 2 * self.reusable(request) < len(self.tokens)

    def cut(self, context: Context, n: int) -> None:
        """Forget all but the first n tokens, or all where the cache cannot be cut."""
        del self.tokens[context.keep(self.sequence, n) :]

    @property
    def n_missing(self) -> int:
        """Tokens to feed before the next draw."""
        return 0 if self.waiting else len(self.target) - len(self.tokens)

    @property
    def is_reading(self) -> bool:
        """More than the one token of a decode step is missing, or nothing has been drawn yet."""
        return self.work is None or self.work.n_drawn == 0

    def take(self, work: Work, turn: int) -> None:
        """A reply begins here; what the cells keep of an earlier one is cut already."""
        request = work.request
        self.work, self.target, self.waiting = work, list(request.prompt), request.share_prompt
        self.owner, self.turn = request.owner, turn

    def end(self, reason: str, error: BaseException | None = None) -> None:
        if self.work:
            self.work.end(reason, error)
        self.free()

    def free(self) -> None:
        self.work, self.target, self.waiting = None, self.tokens, False


@dataclass(frozen=True)
class Piece:
    """The next n tokens of a slot; ``draws`` when they complete its target and a reply goes on from there.

    draft  tokens that may follow, computed in the same batch
    """

    slot: Slot
    n: int
    draft: tuple[int, ...] = ()

    @property
    def n_rows(self) -> int:
        return self.n + len(self.draft)

    @property
    def draws(self) -> bool:
        return self.slot.work is not None and self.n == self.slot.n_missing

    def rows(self) -> list[Row]:
        slot, start = self.slot, len(self.slot.tokens)
        end = start + self.n
        rows = [Row(slot.target[i], i, slot.sequence, False) for i in range(start, end)]
        if self.draws:
            rows[-1] = Row(slot.target[end - 1], end - 1, slot.sequence, True)
        return rows + [Row(token, end + i, slot.sequence, True) for i, token in enumerate(self.draft)]

    def done(self) -> None:
        """The rows are in the cells."""
        start = len(self.slot.tokens)
        self.slot.tokens.extend(self.slot.target[start : start + self.n])
        self.slot.tokens.extend(self.draft)


def divide(slots: Sequence[Slot], n_rows: int) -> list[Piece]:
    """A batch of at most n_rows: every decode step, then the prompts, the shortest first and whole, so that replies begin
    as early as they can. A quarter of what the steps leave belongs to the prompt that has waited the longest: short ones
    may pass it, but do not stop it."""
    wanting = sorted((s for s in slots if s.n_missing > 0), key=lambda s: (s.is_reading, s.n_missing))
    oldest = min((s for s in wanting if s.is_reading), key=lambda s: s.turn, default=None)
    n_left = n_rows - sum(not s.is_reading for s in wanting)
    kept = min(oldest.n_missing, max(1, n_left // 4)) if oldest else 0
    pieces, left = [], n_rows
    for slot in wanting:
        kept = 0 if slot is oldest else kept
        n = min(slot.n_missing, left - kept if slot.is_reading else left)
        if n > 0:
            pieces.append(Piece(slot, n))
            left -= n
    return sorted(pieces, key=lambda piece: piece.slot.sequence)

"""Drafts: tokens that a reply may go on with, guessed before the model is asked.

Owns where a draft comes from and how long it is. Does not judge it: the engine computes the rows of a draft beside the
last token, draws each with its own random number, and keeps what is equal (docs/speculative.md). So a draft changes
the time that a reply takes, and nothing else; that holds for drafts that are functions of the tokens before them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import MismatchError, UsageError, check_range

if TYPE_CHECKING:
    from .model import Model
    from .sampler import Step

KINDS = ("ngram", "off")
DRAFT_MAX = 16
MAX_DRAFT = 62  # rows of one sequence: beyond 64 llama.cpp's attention adds up in another order
ROW_COST = 0.5


@dataclass(frozen=True)
class DraftParams:
    """
    n_max     tokens of a draft at most
    row_cost  what a further row of a batch takes, as a share of the time of one: little where a model's weights come from
              memory once a batch, 0.4 to 0.6 where a processor is busy with a single row
    """

    n_max: int = DRAFT_MAX
    row_cost: float = ROW_COST

    def __post_init__(self) -> None:
        check_range("draft max", self.n_max, 1, MAX_DRAFT, "tokens of a draft")
        check_range("draft cost", self.row_cost, 0.0, 1.0, "of a further row, as a share of one row's time")


class Drafts(ABC):
    """For slots of sequences 0 to n - 1. ``close`` after the last draft."""

    def begin(self, sequence: int) -> None:  # noqa: B027  not every kind remembers something
        """A slot takes a request; nothing of the one before may come into its drafts."""

    @abstractmethod
    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        """At most n_max tokens to follow ``tokens``, prompt and reply so far."""

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:  # noqa: B027
        """What was drawn behind ``tokens``: equal to the draft as far as it was accepted, and one more. Also without a draft."""

    def close(self) -> None:  # noqa: B027
        """Free what it owns."""


def best_length(survival: Iterable[float], row_cost: float) -> int:
    """Of a draft whose tokens survive with these probabilities, each given those before it: how many are worth their rows.

    Most tokens in the least time: 1 for the token that comes anyhow and what is expected of the draft, over a row's time
    and row_cost for each further one, and half of that for a graph of another shape. 0 where no draft is best.
    """
    best, length, expected, alive = 1.0, 0, 1.0, 1.0
    for n, probability in enumerate(survival, 1):
        alive *= probability
        expected += alive
        rate = expected / (1.0 + row_cost * (n + 0.5))
        if rate > best:
            best, length = rate, n
        if alive <= row_cost * rate:  # and so are all that follow: each lowers the rate
            break
    return length


# ---- prompt lookup ----------------------------------------------------------------------

_ALIKE = (5, 12)  # tokens before that are alike: fewer, some, many
_FREE = (1, 8)  # tokens in the nucleus that the source was drawn from: certain, some choice, more
# How often the token that followed last time follows again: by what the source was drawn from (the last row: it is in the
# prompt, nobody has drawn it), and by the number of tokens alike. Of SmolLM2-135M with its heads; docs/speculative.md.
_ODDS = ((0.85, 0.95, 0.98), (0.60, 0.75, 0.85), (0.25, 0.45, 0.60), (0.40, 0.75, 0.90))
_WEIGHT = 6.0  # of these, in trials, against what is seen in the reply


@dataclass
class _Memory:
    """Of one reply.

    seen    where each pair of tokens last went on
    kept    size of the nucleus that each token of the reply was drawn from
    odds    (successes, trials) by source and likeness
    asked   source and likeness of each token of the last draft
    """

    seen: dict[tuple[int, ...], int] = field(default_factory=dict)
    n_seen: int = 2
    kept: list[int] = field(default_factory=list)
    odds: list[list[list[float]]] = field(
        default_factory=lambda: [[[_WEIGHT * p, _WEIGHT] for p in row] for row in _ODDS]
    )
    asked: list[tuple[int, int]] = field(default_factory=list)


class PromptLookup(Drafts):
    """The tokens that followed when prompt and reply last ended as they do now: quotations, edits, names, brackets.

    The heads say how far: where the model had a choice the last time, in a large nucleus, it will hardly choose the same
    again, and the draft ends.
    """

    def __init__(self, params: DraftParams | None = None) -> None:
        self._row_cost = (params or DraftParams()).row_cost
        self._memories: dict[int, _Memory] = {}

    def begin(self, sequence: int) -> None:
        self._memories[sequence] = _Memory()

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        memory = self._memories[sequence]
        start = self._last(memory, tokens)
        if start is None:
            memory.asked = []
            return []
        n_prompt = len(tokens) - len(memory.kept)
        n_alike = alike(tokens, start)
        memory.asked = [(_source(memory.kept, start - n_prompt + i), _likeness(n_alike + i)) for i in range(n_max)]
        odds = (memory.odds[source][likeness] for source, likeness in memory.asked)
        n = best_length((successes / trials for successes, trials in odds), self._row_cost)
        return continued(tokens, start, n)

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:
        memory = self._memories[sequence]
        memory.kept += [step.n_kept for step in steps]
        for (source, likeness), token, step in zip(memory.asked, draft, steps, strict=False):
            memory.odds[source][likeness][0] += token == step.id
            memory.odds[source][likeness][1] += 1.0

    def _last(self, memory: _Memory, tokens: Sequence[int]) -> int | None:
        """Where the last two tokens went on before; tokens are only added, so that each is looked at once."""
        for end in range(memory.n_seen, len(tokens)):
            memory.seen[tuple(tokens[end - 2 : end])] = end
        memory.n_seen = max(memory.n_seen, len(tokens))
        return memory.seen.get(tuple(tokens[-2:])) if len(tokens) > 1 else None


def alike(tokens: Sequence[int], start: int) -> int:
    """How many tokens before ``start`` are those at the end, up to the most that make a difference."""
    n = 0
    while n < min(_ALIKE[-1], start) and tokens[start - 1 - n] == tokens[-1 - n]:
        n += 1
    return n


def continued(tokens: Sequence[int], start: int, n: int) -> list[int]:
    """n tokens from ``start`` on; what runs into the end goes on with itself."""
    draft: list[int] = []
    for i in range(start, start + n):
        draft.append(tokens[i] if i < len(tokens) else draft[i - len(tokens)])
    return draft


def _likeness(n: int) -> int:
    return sum(n >= limit for limit in _ALIKE)


def _source(kept: Sequence[int], i: int) -> int:
    """Of token i of the reply, or one before it or not yet drawn; strategies that cut nothing keep 0 tokens."""
    if not 0 <= i < len(kept) or kept[i] == 0:
        return len(_FREE) + 1
    return sum(kept[i] > limit for limit in _FREE)


# ---- what ``draft=`` means ----------------------------------------------------------------


def check_draft(draft: str) -> None:
    """Raises UsageError for what cannot be meant, before a model is loaded."""
    if draft not in KINDS:
        raise UsageError(f"draft: allowed {' or '.join(KINDS)}; got '{draft}'")


def open_drafts(draft: str | Drafts | None, params: DraftParams, model: Model, n_ctx: int) -> Drafts | None:
    """What ``draft=`` means for an engine: "ngram", "off" or None, or Drafts. Raises UsageError, MismatchError for a model
    whose cache cannot be cut."""
    if draft is None or draft == "off":
        return None
    if not isinstance(draft, Drafts):
        check_draft(draft)
    _check_room(params.n_max, n_ctx)
    _check_cache(model)
    return draft if isinstance(draft, Drafts) else PromptLookup(params)


def _check_room(n_max: int, n_ctx: int) -> None:
    """A token before the draft and one behind it."""
    if n_max + 2 > n_ctx:
        raise UsageError(
            f"draft: {n_max} tokens at once need a context of {n_max + 2}, this one has {n_ctx}; "
            "give a larger context (-c, n_ctx) or a shorter draft (--draft-max, draft_max)"
        )


def _check_cache(model: Model) -> None:
    """A recurrent state has no tokens in it that could be taken back. (A sliding window can be: llama.cpp keeps all of it.)"""
    if model.is_recurrent:
        raise MismatchError(
            f"draft: {model.path.name} keeps a recurrent state, from which rejected tokens cannot be taken back; use --draft off"
        )

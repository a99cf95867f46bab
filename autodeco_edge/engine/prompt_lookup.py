"""Drafts by prompt lookup: a reply that begins to repeat something goes on repeating it.

Owns the search in prompt and reply, and how likely what it finds is to hold. Knows token ids and the Steps of the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .drafts import DraftParams, Drafts, Odds, best_length, nucleus_class
from .generation import Request
from .sampler import Step

_ALIKE = (5, 12)  # tokens before that are alike: fewer, some, many
# How often the token that followed last time follows again: by what the source was drawn from (the last row: it is in the
# prompt, nobody has drawn it), and by the number of tokens alike. Of SmolLM2-135M with its heads; docs/speculative.md.
_ODDS = ((0.85, 0.95, 0.98), (0.60, 0.75, 0.85), (0.25, 0.45, 0.60), (0.40, 0.75, 0.90))


@dataclass
class _Memory:
    """Of one reply.

    seen    where each pair of tokens last went on
    kept    size of the nucleus that each token of the reply was drawn from
    odds    by source and likeness
    asked   source and likeness of each token of the last draft
    """

    seen: dict[tuple[int, ...], int] = field(default_factory=dict)
    n_seen: int = 2
    kept: list[int] = field(default_factory=list)
    odds: Odds = field(default_factory=lambda: Odds(_ODDS))
    asked: list[tuple[int, int]] = field(default_factory=list)


class PromptLookup(Drafts):
    """The tokens that followed when prompt and reply last ended as they do now: quotations, edits, names, brackets.

    The heads say how far: where the model had a choice the last time, in a large nucleus, it will hardly choose the same
    again, and the draft ends.
    """

    def __init__(self, params: DraftParams | None = None) -> None:
        self._row_cost = (params or DraftParams()).row_cost
        self._memories: dict[int, _Memory] = {}

    def begin(self, sequence: int, request: Request) -> None:
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
        survival = (memory.odds.of(*asked) for asked in memory.asked)
        return continued(tokens, start, best_length(survival, self._row_cost))

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:
        memory = self._memories[sequence]
        memory.kept += [step.n_kept for step in steps]
        memory.odds.learn(memory.asked, draft, steps)

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
    return nucleus_class(kept[i]) if 0 <= i < len(kept) and kept[i] else len(_ODDS) - 1

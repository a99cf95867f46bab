"""Drafts by prompt lookup: a reply that begins to repeat something goes on repeating it.

Owns the search in prompt and reply, and how likely what it finds is to hold. Knows token ids and the Steps of the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .draft_cost import Stake
from .drafts import DraftParams, Drafts, Length, Odds, best_length, nucleus_class
from .generation import Request
from .sampler import Step

_N_PLACES = 8  # of those where the last two tokens stood: the latest
_ALIKE = (5, 12)  # tokens before that are alike: fewer, some, many
_WITNESS = 3  # tokens alike that make a place worth hearing
_ALONE, _SECONDED, _CONTRADICTED = range(3)
_N_SOURCES = 4
# How often the token that followed there follows again, by the number of tokens alike. A row for what it was drawn from (in the
# last one it is in the prompt, nobody has drawn it), and three such tables: no other place has so much alike, or others have,
# and agree, or do not. Of SmolLM2-135M with its heads; docs/speculative.md.
_ODDS = (
    (0.85, 0.90, 0.98), (0.45, 0.50, 0.80), (0.22, 0.50, 0.60), (0.35, 0.75, 0.88),
    (0.92, 0.97, 0.99), (0.75, 0.80, 0.90), (0.75, 0.85, 0.90), (0.90, 0.95, 0.98),
    (0.20, 0.65, 0.80), (0.40, 0.35, 0.60), (0.10, 0.30, 0.50), (0.15, 0.45, 0.80),
)  # fmt: skip


@dataclass
class _Memory:
    """Of one reply.

    places  where each pair of tokens went on
    kept    size of the nucleus that each token of the reply was drawn from
    odds    by source and witness, and by likeness
    asked   these two of each token of the last draft, and of some behind it
    stake   what drafts may still lose
    """

    places: dict[tuple[int, ...], list[int]] = field(default_factory=dict)
    n_seen: int = 2
    kept: list[int] = field(default_factory=list)
    odds: Odds = field(default_factory=lambda: Odds(_ODDS))
    asked: list[tuple[int, int]] = field(default_factory=list)
    stake: Stake = field(default_factory=Stake)


class PromptLookup(Drafts):
    """The tokens that followed where prompt and reply stood most as they do now: quotations, edits, names, brackets.

    How far is said by other such places, which went on alike or not, and by the heads: where the model had a choice the last
    time, in a large nucleus, it will hardly choose the same again, and the draft ends.
    """

    def __init__(self, params: DraftParams | None = None) -> None:
        params = params or DraftParams()
        self.costs, self.to_measure = params.costs, params.row_cost is None
        self._memories: dict[int, _Memory] = {}

    def begin(self, sequence: int, request: Request) -> None:
        self._memories[sequence] = _Memory()

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        memory = self._memories[sequence]
        memory.asked = []
        places = self._places(memory, tokens)
        if not places:
            return []
        draft: list[int] = []
        length = Length(self.costs, n_beside=self.n_beside, stake=memory.stake.left)
        return draft[: best_length(_survival(memory, tokens, places, n_max, draft), length)]

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:
        memory = self._memories[sequence]
        memory.kept += [step.n_kept for step in steps]
        memory.odds.learn(memory.asked, draft, steps)
        memory.stake.settle(self.costs.of_draft(len(draft), self.n_beside), len(steps))

    def _places(self, memory: _Memory, tokens: Sequence[int]) -> list[int]:
        """Where the last two tokens went on before; tokens are only added, so that each is looked at once."""
        for end in range(memory.n_seen, len(tokens)):
            memory.places.setdefault(tuple(tokens[end - 2 : end]), []).append(end)
        memory.n_seen = max(memory.n_seen, len(tokens))
        return memory.places.get(tuple(tokens[-2:]), [])[-_N_PLACES:] if len(tokens) > 1 else []


def _survival(
    memory: _Memory, tokens: Sequence[int], places: Sequence[int], n_max: int, draft: list[int]
) -> Iterator[float]:
    """Of each token from the best place on, if those before it are right; the token goes into the draft."""
    start, n_alike, others = best_place(tokens, places)
    n_prompt = len(tokens) - len(memory.kept)
    for i in range(n_max):
        draft.append(token_at(tokens, draft, start + i))
        agreeing = [place for place in others if token_at(tokens, draft, place + i) == draft[i]]
        witness = (_SECONDED if len(agreeing) == len(others) else _CONTRADICTED) if others else _ALONE
        others = agreeing
        row = witness * _N_SOURCES + _source(memory.kept, start - n_prompt + i)
        memory.asked.append((row, sum(n_alike + i >= limit for limit in _ALIKE)))
        yield memory.odds.of(*memory.asked[-1])


def best_place(tokens: Sequence[int], places: Sequence[int]) -> tuple[int, int, list[int]]:
    """(the latest of those with most tokens alike, how many these are, the other places worth hearing)."""
    n_alike = {place: alike(tokens, place) for place in places}
    best = max(places, key=lambda place: (n_alike[place], place))
    enough = min(n_alike[best], _WITNESS)
    return best, n_alike[best], [place for place in places if place != best and n_alike[place] >= enough]


def alike(tokens: Sequence[int], place: int) -> int:
    """How many tokens before ``place`` are those at the end, up to the most that make a difference."""
    n = 0
    while n < min(_ALIKE[-1], place) and tokens[place - 1 - n] == tokens[-1 - n]:
        n += 1
    return n


def token_at(tokens: Sequence[int], draft: Sequence[int], i: int) -> int:
    """Of tokens and draft, one behind the other."""
    return tokens[i] if i < len(tokens) else draft[i - len(tokens)]


def _source(kept: Sequence[int], i: int) -> int:
    """Of token i of the reply, or one before it or not yet drawn; strategies that cut nothing keep 0 tokens."""
    return nucleus_class(kept[i]) if 0 <= i < len(kept) and kept[i] else _N_SOURCES - 1

"""Drafts: tokens that a reply may go on with, guessed before the model is asked.

Owns what a kind of draft is, how long one is, and what is refused. Does not judge it: the engine computes the rows of a
draft beside the last token, draws each with its own random number, and keeps what is equal (docs/speculative.md). So a
draft changes the time that a reply takes, and nothing else; that holds for drafts that are functions of the reply so far.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from ..errors import MismatchError, MissingInputError, UsageError, check_range
from .draft_cost import SHAPES, USUAL, Costs

if TYPE_CHECKING:
    import numpy as np

    from .generation import Request
    from .model import Model
    from .sampler import Step

KINDS = ("ngram", "off")  # or the path of a GGUF
DRAFT_MAX = 16
MAX_DRAFT = 62  # rows of one sequence: beyond 64 llama.cpp's attention adds up in another order


@dataclass(frozen=True)
class DraftParams:
    """
    n_max     tokens of a draft at most
    row_cost  what a further row of a batch takes, as a share of the time of one; None = as measured when an engine is made
    """

    n_max: int = DRAFT_MAX
    row_cost: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.n_max, bool) or not isinstance(self.n_max, int):
            raise UsageError(f"draft max: allowed whole numbers; got {self.n_max!r}")
        check_range("draft max", self.n_max, 1, MAX_DRAFT, "tokens of a draft")
        if self.row_cost is not None:
            check_range("draft cost", self.row_cost, 0.0, 1.0, "of a further row, as a share of one row's time")

    @property
    def costs(self) -> Costs:
        return USUAL if self.row_cost is None else Costs.linear(self.row_cost)


class Drafts(ABC):
    """For slots of sequences 0 to n - 1. ``close`` after the last draft.

    is_drawn    its tokens have random numbers of their own; ``drawn_from`` says what they were drawn from
    costs       of rows; ``to_measure``: by the engine that takes these drafts
    n_beside    rows of others in the batch that the next draft is for
    """

    is_drawn = False
    costs: Costs = USUAL
    to_measure = False
    n_beside = 0

    def begin(self, sequence: int, request: Request) -> None:  # noqa: B027  not every kind remembers something
        """A slot takes a request; nothing of the one before may come into its drafts."""

    @abstractmethod
    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        """At most n_max tokens to follow ``tokens``, prompt and reply so far."""

    def drawn_from(self, sequence: int) -> Sequence[np.ndarray]:
        """Of the last draft: float64 [V] a token, [] where it was not drawn."""
        return ()

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:  # noqa: B027
        """What was drawn behind ``tokens``: equal to the draft as far as it was accepted, and one more. Also without a draft."""

    def close(self) -> None:  # noqa: B027
        """Free what it owns."""


class Length:
    """How long a draft should be: most tokens in the least time, among the lengths that batches have.

    The batch gets n_beside tokens of others and one that comes anyhow, and what is expected of the draft. 0 where no draft
    is best, or where none can be paid from the stake if nothing of it is right.

    token_cost  of a token of the draft itself, in times of one row
    """

    def __init__(self, costs: Costs, *, n_beside: int = 0, stake: float = inf, token_cost: float = 0.0) -> None:
        self._costs, self._beside, self._token_cost = costs, n_beside, token_cost
        self._n, self._alive, self._expected = 0, 1.0, n_beside + 1.0
        self._base = costs.of(n_beside + 1)
        self._limit = self._base + stake * self._base / (n_beside + 1)
        self._rate = self._expected / self._base
        self.best = 0

    def add(self, probability: float) -> bool:
        """One token more, which survives with this probability if those before it do; ``goes_on`` then."""
        self._n += 1
        self._alive *= probability
        self._expected += self._alive
        if self._n + 1 in SHAPES and (rate := self._rate_of(self._n)) > self._rate:
            self._rate, self.best = rate, self._n
        return self.goes_on

    @property
    def goes_on(self) -> bool:
        """Whether a token more may be worth it."""
        return any(self._rate_of(n - 1) > self._rate for n in SHAPES if n > self._n + 1)

    def _rate_of(self, n: int) -> float:
        """Of n tokens, if those that are still to come survive for certain; 0 where the stake does not pay for them."""
        cost = self._costs.of(self._beside + 1 + n) + self._token_cost * n
        return (self._expected + self._alive * (n - self._n)) / cost if cost <= self._limit else 0.0


def best_length(survival: Iterable[float], length: Length) -> int:
    """For probabilities that are known beforehand."""
    all(map(length.add, survival))
    return length.best


class Odds:
    """How often a guess of a class is right: as it is at first, for ``WEIGHT`` trials, then as it is seen to be."""

    WEIGHT = 6.0

    def __init__(self, at_first: Sequence[Sequence[float]]) -> None:
        self._counts = [[[self.WEIGHT * p, self.WEIGHT] for p in row] for row in at_first]

    def of(self, row: int, column: int) -> float:
        right, trials = self._counts[row][column]
        return right / trials

    def learn(self, classes: Sequence[tuple[int, int]], draft: Sequence[int], steps: Sequence[Step]) -> None:
        for (row, column), token, step in zip(classes, draft, steps, strict=False):
            self._counts[row][column][0] += token == step.id
            self._counts[row][column][1] += 1.0


def nucleus_class(n_kept: int) -> int:
    """What a token was drawn from: 0 a certainty, 1 some choice, 2 more."""
    return sum(n_kept > limit for limit in (1, 8))


# ---- what is refused ----------------------------------------------------------------------


def check_draft(draft: str) -> None:
    """Raises UsageError for what cannot be meant, MissingInputError for a file that is not there: before a model is loaded."""
    if draft in KINDS:
        return
    if not draft.endswith(".gguf"):
        raise UsageError(f"draft: allowed {', '.join(KINDS)} or the path of a .gguf file; got '{draft}'")
    if not os.path.exists(draft):
        raise MissingInputError(f"draft: {draft}: no such model file; give the path of a GGUF file")


def check_target(params: DraftParams, model: Model, n_ctx: int) -> None:
    """Raises UsageError for a context without room, MismatchError for a model whose cache cannot be cut."""
    if params.n_max + 2 > n_ctx:  # a token before the draft and one behind it
        raise UsageError(
            f"draft: {params.n_max} tokens at once need a context of {params.n_max + 2}, this one has {n_ctx}; "
            "give a larger context (-c, n_ctx) or a shorter draft (--draft-max, draft_max)"
        )
    check_cache(model)


def check_cache(model: Model) -> None:
    """A recurrent state has no tokens in it that could be taken back. (A sliding window can be: llama.cpp keeps all of it.)"""
    if model.is_recurrent:
        raise MismatchError(
            f"draft: {model.path.name} keeps a recurrent state, from which rejected tokens cannot be taken back; use --draft off"
        )

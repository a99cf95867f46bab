"""Drafts: tokens that a reply may go on with, guessed before the model is asked.

Owns where a draft comes from and how long it is. Does not judge it: the engine computes the rows of a draft beside the
last token, draws each with its own random number, and keeps what is equal (docs/speculative.md). So a draft changes
the time that a reply takes, and nothing else; that holds for drafts that are functions of the tokens before them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import llama_cpp

from ..errors import MismatchError, UsageError, check_range
from .model import Model
from .sampler import Step

DRAFT_MAX = 8
MAX_DRAFT = 62  # rows of one sequence: beyond 64 llama.cpp's attention adds up in another order


class Drafts(ABC):
    """For slots of sequences 0 to n - 1. ``close`` after the last draft."""

    def begin(self, sequence: int) -> None:  # noqa: B027  not every kind remembers something
        """A slot takes a request; nothing of the one before may come into its drafts."""

    @abstractmethod
    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        """At most n_max tokens to follow ``tokens``, prompt and reply so far."""

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:  # noqa: B027
        """What was drawn at the rows of a draft: equal tokens as far as it was accepted, and one more."""

    def close(self) -> None:  # noqa: B027
        """Free what it owns."""


class PromptLookup(Drafts):
    """The tokens that followed when prompt and reply last ended as they do now: quotations, edits, names, brackets.

    n_min  tokens at least that have to be alike
    """

    def __init__(self, n_min: int = 3) -> None:
        self._n_min = n_min
        self._seen: dict[int, dict[tuple[int, ...], int]] = {}
        self._n_seen: dict[int, int] = {}

    def begin(self, sequence: int) -> None:
        self._seen[sequence], self._n_seen[sequence] = {}, self._n_min

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        seen = self._index(sequence, tokens)
        start = seen.get(tuple(tokens[len(tokens) - self._n_min :]))
        return [] if start is None else list(tokens[start : start + n_max])

    def _index(self, sequence: int, tokens: Sequence[int]) -> dict[tuple[int, ...], int]:
        """Where each run of n_min tokens last went on; tokens are only added, so that each is looked at once."""
        seen, n = self._seen[sequence], self._n_min
        for end in range(self._n_seen[sequence], len(tokens)):
            seen[tuple(tokens[end - n : end])] = end
        self._n_seen[sequence] = max(self._n_seen[sequence], len(tokens))
        return seen


def open_drafts(draft: str | Drafts | None, draft_max: int, model: Model, n_ctx: int) -> Drafts | None:
    """What ``draft=`` means for an engine: "ngram", "off" or None, or Drafts. Raises UsageError, MismatchError for a model
    whose cache cannot be cut."""
    check_range("draft max", draft_max, 1, MAX_DRAFT, "tokens of a draft")
    if draft is None or draft == "off":
        return None
    _check_room(draft_max, n_ctx)
    _check_cache(model)
    if isinstance(draft, Drafts):
        return draft
    if draft == "ngram":
        return PromptLookup()
    raise UsageError(f"draft: allowed ngram or off; got '{draft}'")


def _check_room(draft_max: int, n_ctx: int) -> None:
    """A token before the draft and one behind it."""
    if draft_max + 2 > n_ctx:
        raise UsageError(
            f"draft: {draft_max} tokens at once need a context of {draft_max + 2}, this one has {n_ctx}; "
            "give a larger context (-c, n_ctx) or a shorter draft (--draft-max, draft_max)"
        )


def _check_cache(model: Model) -> None:
    """A recurrent state has no tokens in it that could be taken back. (A sliding window can be: llama.cpp keeps all of it.)"""
    if llama_cpp.llama_model_is_recurrent(model.handle) or llama_cpp.llama_model_is_hybrid(model.handle):
        raise MismatchError(
            f"draft: {model.path.name} keeps a recurrent state, from which rejected tokens cannot be taken back; use --draft off"
        )

"""A family of questions: its specifications, its wording, and what counts as an answer.

Owns the shape alone. The questions are in `names` and `numbers`, the list of families in `families`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """
    name            "many:country"; the part before the colon tells whether one answer is right or many
    specifications  all `gt`, in a fixed order; each is one problem
    question        what is asked for, put into one of ``phrases``
    answer          (gt, completion) -> key of the right answer given, None where there is none
    split_key       specifications with one key share a split
    """

    name: str
    specifications: Callable[[], Sequence[str]]
    question: Callable[[str], str]
    phrases: tuple[str, ...]
    answer: Callable[[str, str], str | None]
    split_key: Callable[[str], str] = str

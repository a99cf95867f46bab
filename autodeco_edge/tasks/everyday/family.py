"""A family of questions: its specifications, its wording, and what counts as an answer.

Owns the shape alone. The questions are in `names` and `numbers`, the list of families in `families`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class QuestionFamily:
    """
    name            "many:country"; the part before the colon tells whether one answer is right or many
    specifications  all `gt`, in a fixed order; each is one problem
    question        what is asked for, put into one of ``phrases``
    examples        (gt, reply): turns before the question that show the form of an answer; never asked themselves
    answer          (gt, completion) -> key of the right answer given, None where there is none
    split_key       specifications with one key share a split
    """

    name: str
    specifications: Callable[[], Sequence[str]]
    question: Callable[[str], str]
    phrases: tuple[str, ...]
    answer: Callable[[str, str], str | None]
    examples: tuple[tuple[str, str], ...]
    split_key: Callable[[str], str] = str

    def prompt(self, gt: str, phrase: int) -> str:
        return self.phrases[phrase].format(self.question(gt))

    def asked(self) -> list[str]:
        """The specifications that are problems."""
        shown = {gt for gt, _ in self.examples}
        return [gt for gt in self.specifications() if gt not in shown]

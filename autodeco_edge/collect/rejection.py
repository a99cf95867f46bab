"""Which replies are kept.

Owns the verdict on an answer and the row that is recorded of it. The rules themselves are in tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import FormatError, UsageError
from ..tasks import Problem, Verdict, Verifier
from ..tasks.math_pool import available
from ..tasks.problem import MATH
from .source import Answer

ACCEPT = ("official", "math-verify", "both")
RIGHT, WRONG = "right", "wrong"
CUT = "cut"  # ended by a limit: never kept, whatever it says
EMPTY = "empty"  # ended at once
UNREADABLE = "unreadable"  # no valid Unicode: it could not be written as text
VERDICTS = (RIGHT, WRONG, CUT, EMPTY, UNREADABLE)


@dataclass(frozen=True)
class Candidate:
    """One judged reply. problem: id; sample: number of the draw; text: of a right one alone."""

    problem: str
    sample: int
    verdict: str
    n_tokens: int
    text: str | None = None

    def row(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of_row(cls, row: dict[str, Any], path: object) -> Candidate:
        """Raises FormatError for a row that ``row`` cannot have written."""
        try:
            draw = cls(**row)
        except TypeError:
            draw = None
        if draw is None or draw.verdict not in VERDICTS or (draw.verdict == RIGHT) != isinstance(draw.text, str):
            raise FormatError(f"{path}: holds {str(row)[:80]}, which is no draw; remove the file and start again")
        return draw


class Judge:
    """A context manager around the verifier's processes.

    accept  whose word counts for a math problem: the official string rule, math-verify, or both

    Raises UsageError for another rule, and where math-verify is needed and not installed.
    """

    def __init__(self, accept: str, problems: Sequence[Problem]) -> None:
        if accept not in ACCEPT:
            raise UsageError(f"accept: allowed {', '.join(ACCEPT)}; got {accept!r}")
        needed = accept != "official" and any(problem.kind == MATH for problem in problems)
        if needed and not available():
            raise UsageError(f"accept {accept}: math-verify is not installed; pip install math-verify")
        self._accept = accept
        self._verifier = Verifier(math_verify=needed)

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self._verifier.close()

    def __call__(self, answer: Answer) -> Candidate:
        verdict = self._verdict(answer)
        text = answer.text if verdict == RIGHT else None
        return Candidate(answer.problem.id, answer.sample, verdict, answer.n_tokens, text)

    def _verdict(self, answer: Answer) -> str:
        if not answer.ended:
            return CUT
        if answer.text is None:
            return UNREADABLE
        if not answer.text.strip():
            return EMPTY
        (verdict,) = self._verifier.check([(answer.problem, answer.text)])
        return RIGHT if self._accepted(verdict) else WRONG

    def _accepted(self, verdict: Verdict) -> bool:
        if verdict.math_verify is None or self._accept == "official":  # a problem of another kind has one rule
            return verdict.right
        return verdict.math_verify and (verdict.right or self._accept == "math-verify")

"""What a collector asks of whatever draws replies.

Owns the settings of a draw and the shape of an answer. Knows neither engine nor network.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import UsageError, check_range
from ..eval.schedule import Job
from ..tasks import Problem


@dataclass(frozen=True)
class DrawSettings:
    """How each reply is drawn. The constants default to the base model's own distribution, as in the paper."""

    max_tokens: int = 2048
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    n_parallel: int = 16

    def check(self, n_samples: int) -> None:
        check_range("max tokens", self.max_tokens, 1, 2**24)
        check_range("temperature", self.temperature, 0.0, 100.0, "1 = the model's own distribution")
        check_range("top-p", self.top_p, 0.0, 1.0, "1 = the model's own distribution")
        check_range("seed", self.seed, 0, 2**64 - 1)
        check_range("parallel", self.n_parallel, 1, 255)
        if self.temperature == 0 and n_samples > 1:
            raise UsageError("temperature 0 draws the same reply each time; pass -n 1, or a temperature above 0")


@dataclass(frozen=True)
class Answer:
    """One reply, not yet judged.

    text      what is trained on, without the end marker; None where the bytes are no text
    ended     the model ended it; False where a limit did
    n_tokens  with the end token; 0 where the server does not say
    """

    problem: Problem
    sample: int
    text: str | None
    ended: bool
    n_tokens: int


class ReplySource(Protocol):
    """n_together: jobs of one call of ``answers`` whose replies depend on one another (eval/schedule.py); 0: none do."""

    n_together: int

    def header(self) -> dict[str, Any]:
        """What tells this source from another: draws of two sources never go into one file."""

    def answers(self, jobs: Iterator[Job]) -> Generator[Answer, None, None]:
        """Replies as they end, in any order. Jobs are taken one by one, when there is room for another.
        Close the generator before the source."""

    def record(self, problem: Problem, text: str) -> dict[str, Any]:
        """The training record of a reply: prompt and completion, or messages."""

    def close(self) -> None:
        """Free what it holds."""

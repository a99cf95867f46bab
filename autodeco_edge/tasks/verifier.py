"""Whether a completion solves its problem, by the rule of the problem's kind.

Owns the choice of rule. A completion that was cut by a token limit is the caller's business.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import answers, gym, sources
from .demo import families
from .math_pool import MathPool, available
from .problem import CHOICE, DEMO, MATH, Problem

GYM_SCRIPT = Path(__file__).with_name("gym_worker.py")
NOTE = "math-verify is not installed: answers are judged by the official rule alone; pip install math-verify"


@dataclass(frozen=True)
class Verdict:
    """right: by the main rule (math: official string rule; choice: the letter; rg: the library; else the family's verifier)."""

    right: bool
    math_verify: bool | None  # None: not a math problem, not asked for, or math-verify not installed
    key: str  # two right completions with different keys are distinct solutions


class Verifier:
    """Judges completions; a context manager that ends the processes math-verify and reasoning-gym run in.

    They are started at the first problem that needs them. timeout_s: seconds for one answer; one that takes longer is wrong by
    math-verify. Where math-verify is wanted and not installed, a line on stderr (NOTE) says so, once.
    """

    def __init__(self, *, math_verify: bool = True, n_processes: int = 1, timeout_s: float = 5.0) -> None:
        self._wanted = math_verify
        self._pool = MathPool(n_processes, timeout_s)
        self._gym = MathPool(n_processes, timeout_s, GYM_SCRIPT, "reasoning-gym")

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()
        self._gym.close()

    def check(self, pairs: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        """One verdict a (problem, completion), in their order."""
        second, scored = self._by_math_verify(pairs), self._by_gym(pairs)
        verdicts = []
        for i, (problem, completion) in enumerate(pairs):
            right, key = scored.get(i) or judge(problem, completion)
            verdicts.append(Verdict(right, second.get(i), key))
        return verdicts

    def _by_gym(self, pairs: Sequence[tuple[Problem, str]]) -> dict[int, tuple[bool, str]]:
        """(right, key) by index, of reasoning-gym's problems alone."""
        asked = [i for i, (problem, _) in enumerate(pairs) if sources.is_gym(problem.kind)]
        read = [gym.question_for_worker(*pairs[i]) for i in asked]
        found = self._gym.check([(spec, answer) for spec, answer, _ in read])
        return {i: (right, key) for i, right, (*_, key) in zip(asked, found, read, strict=True)}

    def _by_math_verify(self, pairs: Sequence[tuple[Problem, str]]) -> dict[int, bool]:
        """Verdicts by index, of the math problems alone."""
        asked = [i for i, (problem, _) in enumerate(pairs) if problem.kind == MATH]
        if not (asked and self._wanted):
            return {}
        if not available():
            self._wanted = False
            print(f"autodeco-edge: {NOTE}", file=sys.stderr, flush=True)
            return {}
        found = self._pool.check([(pairs[i][0].gt, pairs[i][1]) for i in asked])
        return dict(zip(asked, found, strict=True))


def judge(problem: Problem, completion: str) -> tuple[bool, str]:
    """(right, key) by the main rule; not of reasoning-gym's, which a Verifier alone judges. Raises ValueError for another kind."""
    if problem.kind == MATH:
        return answers.official(completion, problem.gt), answers.key(completion)
    if problem.kind == CHOICE:
        letter = answers.letter(completion)
        return letter == problem.gt, letter or ""
    if sources.has_kind(problem.kind) and not sources.is_gym(problem.kind):
        return sources.judge(problem, completion)
    if not problem.kind.startswith(DEMO):
        raise ValueError(
            f"{problem.id}: kind {problem.kind!r}; allowed {MATH}, {CHOICE}, {DEMO}<family>, {sources.ALLOWED}"
        )
    family = problem.kind.removeprefix(DEMO)
    return families.verify(family, problem.gt, completion), families.answer_key(family, completion)

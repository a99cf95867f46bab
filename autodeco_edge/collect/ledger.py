"""Which draws are still wanted, and which are kept.

Owns the rule that makes the kept set independent of timing: of each problem the right draws with the lowest numbers
are kept, not those that came first. Replies drawn side by side end short ones first, and a kill loses the long ones
in the air; the rule favours neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from ..eval.schedule import Job, groups
from ..tasks import Problem
from .rejection import CUT, EMPTY, RIGHT, UNREADABLE, Candidate


class Ledger:
    """
    n     draws a problem
    keep  at most so many right ones of a problem
    stop  draw no more of a problem than its kept ones need
    """

    def __init__(self, problems: Sequence[Problem], n: int, keep: int, stop: bool) -> None:
        self.problems, self.n, self.keep, self.stop = problems, n, keep, stop
        self._draws: dict[str, dict[int, Candidate]] = {problem.id: {} for problem in problems}

    def add(self, draw: Candidate) -> None:
        """A draw that is no part of this run (resumed with fewer problems or a smaller n) is left aside."""
        if draw.problem in self._draws and draw.sample < self.n:
            self._draws[draw.problem].setdefault(draw.sample, draw)

    def jobs(self) -> Iterator[Job]:
        """What is missing. Each is looked at when it is asked for, with all that is known by then.

        A problem's draws follow one another, so that they share the prompt's keys and values; where right ones end
        it, each problem has its first draw before any has its second.
        """
        if self.stop:
            order = ((problem, k) for k in range(self.n) for problem in self.problems)
        else:
            order = ((problem, k) for problem in self.problems for k in range(self.n))
        return ((problem, k) for problem, k in order if self._wanted(problem.id, k))

    def _wanted(self, problem: str, sample: int) -> bool:
        draws = self._draws[problem]
        return sample not in draws and (not self.stop or self._needed(draws.values(), sample))

    def _needed(self, draws: Iterable[Candidate], sample: int) -> bool:
        return sum(draw.sample < sample for draw in draws if draw.verdict == RIGHT) < self.keep

    def has(self, problem: Problem, sample: int) -> bool:
        return sample in self._draws[problem.id]

    def groups(self, size: int, least: int) -> Iterator[list[Job]]:
        """All jobs of each group that has one missing: for replies that depend on their neighbours (eval/schedule.py).

        size, least: jobs of a group, and of one that has to take several of a problem without knowing the first.
        Every draw of a group has to be added before the next one is asked for.
        """
        found = self._stopping(size, least) if self.stop else groups(self.problems, self.n, size)
        return (group for group in found if not all(self.has(*job) for job in group))

    def _stopping(self, size: int, least: int) -> Iterator[list[Job]]:
        """What a group holds is decided by the draws of the groups before it alone: a kill changes nothing there."""
        told: dict[str, list[Candidate]] = {problem.id: [] for problem in self.problems}
        while group := list(islice(self._open(told, size, least), size)):
            yield group
            for problem, k in group:
                told[problem.id].append(self._draws[problem.id][k])

    def _open(self, told: dict[str, list[Candidate]], size: int, least: int) -> Iterator[Job]:
        seen = {(problem, draw.sample) for problem, draws in told.items() for draw in draws}
        taken: set[str] = set()
        n_taken = 0
        for k in range(self.n):
            for problem in self.problems:
                if (problem.id, k) in seen or not self._needed(told[problem.id], k):
                    continue
                if problem.id in taken and n_taken >= least:
                    return
                taken.add(problem.id)
                n_taken += 1
                yield problem, k

    def kept_of(self, problem: str) -> list[Candidate]:
        right = [draw for _, draw in sorted(self._draws[problem].items()) if draw.verdict == RIGHT]
        return right[: self.keep]

    def kept(self) -> Iterator[tuple[Problem, Candidate]]:
        """In the order of the problems, then of the draws."""
        for problem in self.problems:
            for draw in self.kept_of(problem.id):
                yield problem, draw

    # ---- figures ---------------------------------------------------------------------

    def summary(self) -> dict[str, dict[str, Any]]:
        """Per kind, then in "all": problems, those unsolved (no right draw), draws by verdict, kept ones, tokens drawn."""
        kinds = sorted({problem.kind for problem in self.problems})
        groups = {kind: [problem.id for problem in self.problems if problem.kind == kind] for kind in kinds}
        return {name: self._figures(ids) for name, ids in {**groups, "all": list(self._draws)}.items()}

    def _figures(self, ids: list[str]) -> dict[str, Any]:
        draws = [draw for i in ids for draw in self._draws[i].values()]
        verdicts = [draw.verdict for draw in draws]
        return {
            "problems": len(ids),
            "unsolved": sum(not self.kept_of(i) for i in ids),
            "drawn": len(draws),
            **{name: verdicts.count(name) for name in (RIGHT, CUT, EMPTY, UNREADABLE)},
            "kept": sum(len(self.kept_of(i)) for i in ids),
            "tokens": sum(draw.n_tokens for draw in draws),
        }

"""Which replies are drawn together: a function of problems and numbers, not of what a kill left undone.

Owns the cut of a run into groups. A reply's last bits, and through them now and then its tokens, depend on what shares
a batch with it: a matrix product of 16 rows adds up otherwise than one of 15. So a group is drawn from its first reply
to its last with nothing else in the engine, and one that a kill cut in two is drawn again whole; the replies that are
recorded come again and are left out. A resumed run then has the very replies of one that was never stopped. (Same
machine, threads and slots.)

Price: the slots fall idle one by one at a group's end, and a kill costs up to a group of work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from ..tasks import Problem

Job = tuple[Problem, int]  # a problem and the number of the draw, from 0

NEIGHBOURS = 16  # draws of a problem that follow one another and share its prompt; more are drawn in a later pass
ROUNDS = (
    8  # replies of a group that a slot draws one after another: 7 % more batches than without groups, 4 would be 25 %
)


def group_size(n_parallel: int) -> int:
    return ROUNDS * n_parallel


def groups(problems: Sequence[Problem], n: int, size: int) -> Iterator[list[Job]]:
    """The draws 0 to n - 1 of every problem, ``size`` at a time.

    Passes begin at multiples of NEIGHBOURS whatever n is: a run that goes on with more draws repeats at most the last one.
    """
    for start in range(0, n, NEIGHBOURS):
        jobs = ((problem, k) for problem in problems for k in range(start, min(n, start + NEIGHBOURS)))
        while group := list(islice(jobs, size)):
            yield group

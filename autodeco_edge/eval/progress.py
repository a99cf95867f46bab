"""How far an evaluation is: replies drawn of those that are planned, and the time that the rest takes at this pace.

Owns the lines that are said of it. Replies that were there before count, but not for the pace.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from ..io.printing import say
from .samples import Sample

QUIET_S = 20.0  # at most, between two lines
ENOUGH = 16  # replies drawn, for a pace


class Progress:
    def __init__(self, n_planned: int) -> None:
        self.n_planned, self._n_known, self._n_drawn = n_planned, 0, 0
        self._began = self._said = time.monotonic()

    def read(self, samples: Iterable[Sample], name: str, n_there: int, n_total: int) -> Iterator[Sample]:
        """The same samples, of which the first ``n_there`` were there before, with a line now and then."""
        for n, sample in enumerate(samples, 1):
            if n <= n_there:
                self._n_known += 1
            else:
                self._n_drawn += 1
            if time.monotonic() - self._said > QUIET_S:
                self._said = time.monotonic()
                say(f"{name}: {n} of {n_total} replies{self._rest()}")
            yield sample

    def _rest(self) -> str:
        left = self.n_planned - self._n_known - self._n_drawn
        if self._n_drawn < ENOUGH or left <= 0:
            return ""
        return f"; all methods: {duration(left * (time.monotonic() - self._began) / self._n_drawn)} more at this pace"


def duration(seconds: float) -> str:
    """In the largest unit that says enough."""
    if seconds < 90:
        return f"about {max(round(seconds), 1)} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"

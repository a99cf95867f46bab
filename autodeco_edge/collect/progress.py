"""What the user sees of a run: a bar on a terminal, lines elsewhere, one for every fifty problems or a minute.

Owns stderr during a run, and the clock.
"""

from __future__ import annotations

import sys
import time

from ..io.printing import say
from .rejection import RIGHT, Candidate

PROBLEMS_A_LINE = 50
QUIET_S = 60.0  # at most: long replies make few draws


class CollectProgress:
    """
    n_total   draws there will be at most, those of an earlier run included
    n_before  those of an earlier run
    n_a_line  draws between two lines at most
    """

    def __init__(self, n_total: int, n_before: int, n_a_line: int) -> None:
        self._total, self._before, self._a_line = n_total, n_before, n_a_line
        self._drawn = self._right = self._tokens = 0
        self._clock = self._said = time.monotonic()
        self._bar, self._row = _bar(n_total, n_before) if sys.stderr.isatty() else (None, None)

    def add(self, draw: Candidate) -> None:
        self._drawn += 1
        self._right += draw.verdict == RIGHT
        self._tokens += draw.n_tokens
        if self._bar:
            self._bar.update(self._row, advance=1, description=self._figures())
        elif self._drawn % self._a_line == 0 or time.monotonic() - self._said > QUIET_S:
            self._said = time.monotonic()
            say(f"{self._before + self._drawn} of {self._total}: {self._figures()}")

    def _figures(self) -> str:
        share = 100 * self._right / self._drawn
        return f"{self._drawn} drawn, {self._right} right ({share:.1f} %), {self.rate():.0f} tok/s"

    def rate(self) -> float:
        """Tokens a second so far."""
        return self._tokens / max(time.monotonic() - self._clock, 1e-9)

    def __enter__(self) -> CollectProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()


def _bar(n_total: int, n_before: int):
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=Console(stderr=True, highlight=False))
    bar.start()
    return bar, bar.add_task("", total=n_total, completed=n_before)

"""A bar on stderr for work of which nothing is seen yet: reading a long prompt, loading a model.

Owns when there is one: on a terminal that can move its cursor, and only for work that takes a while. It is gone when
the work is done.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType

_PATIENCE_SECONDS = 0.3  # less than that is no wait


class Bar:
    """Context manager; ``show(done, total)`` as often as there is news."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._from = time.monotonic() + _PATIENCE_SECONDS
        self._wanted = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._progress = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, done: float, total: float) -> None:
        if not self._wanted or time.monotonic() < self._from:
            return
        if self._progress is None:
            self._progress = _progress()
            self._task = self._progress.add_task(self._what, total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total, refresh=True)


def _progress():
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)

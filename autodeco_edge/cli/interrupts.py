"""Ctrl-C in a program that works and waits by turns: never lost, never at the wrong place.

Owns the handler of SIGINT. While work is done it raises KeyboardInterrupt. While a line is read it ends the
prompt a moment later, so that an Enter typed before it comes first: then it is the work begun that stops.
"""

from __future__ import annotations

import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_MOMENT_SECONDS = 0.02


class Interrupts:
    """Context manager around a whole session; only the main thread can have one."""

    def __init__(self) -> None:
        self._working = False
        self._pending = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Inside, Ctrl-C raises KeyboardInterrupt; so does one that the prompt before did not hear."""
        self._working = True
        try:
            self.check()
            yield
            self.check()
        finally:
            self.rest()

    def check(self) -> None:
        """Raises what a callback or a destructor on the way has swallowed."""
        if self._pending:
            raise KeyboardInterrupt

    def rest(self) -> None:
        """Nothing runs: Ctrl-C is for the prompt."""
        self._working = self._pending = False

    def _handle(self, _number: int, _frame: object) -> None:
        self._pending = True
        if self._working:
            raise KeyboardInterrupt
        self._wake_later()

    def _wake_later(self) -> None:
        timer = threading.Timer(_MOMENT_SECONDS, self._wake)
        timer.daemon = True
        timer.start()

    def _wake(self) -> None:
        """Asks the prompt to end, again and again: it may not have begun yet."""
        from prompt_toolkit.application.current import get_app_or_none

        if not self._pending or self._working:
            return
        app = get_app_or_none()
        if app is not None and app.is_running and app.loop is not None:
            with suppress(RuntimeError):  # its loop closed meanwhile: the work that follows will check
                app.loop.call_soon_threadsafe(self._end, app)
        self._wake_later()

    def _end(self, app) -> None:
        if not (self._pending and app.is_running and app.future is not None and not app.future.done()):
            return
        if _unread(app):  # typed before the interrupt, and this process was too busy to read it: it comes first
            self._wake_later()
            return
        self._pending = False
        app.exit(exception=KeyboardInterrupt())


def _unread(app) -> bool:
    """Whether keys wait to be read. Unknown (Windows, no terminal) counts as no."""
    try:
        return bool(select.select([app.input.fileno()], [], [], 0)[0])
    except (OSError, ValueError, NotImplementedError):
        return False

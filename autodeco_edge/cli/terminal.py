"""A keyboard that belongs to the conversation from its beginning to its end.

Owns the terminal's mode, Ctrl-C as a signal while prompt_toolkit reads, and what is typed while nobody reads: it is
not echoed into a reply, and the next prompt begins with it. POSIX only.
"""

from __future__ import annotations

import os
import select
import termios
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.input.vt100 import Vt100Input, raw_mode
from prompt_toolkit.key_binding import KeyPress

_LOCAL_FLAGS, _CONTROL_CHARACTERS = 3, 6  # fields of tcgetattr
_MOST_EMPTY_READS = 100  # of a terminal that is gone


class SignalInput(Vt100Input):
    def raw_mode(self) -> AbstractContextManager[None]:
        return _RawWithSignals(self.fileno())

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """What is typed or pasted inside is read at once, so that a Ctrl-C behind it is met, and kept for the next prompt."""
        keys: list[KeyPress] = []
        stop, tell = os.pipe()
        thread = threading.Thread(target=self._read_until, args=(stop, keys), daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.write(tell, b".")
            thread.join()
            os.close(stop)
            os.close(tell)
            store_typeahead(self, keys)

    def _read_until(self, stop: int, keys: list[KeyPress]) -> None:
        n_empty = 0
        while n_empty < _MOST_EMPTY_READS and not self.closed:
            if stop in select.select([self.fileno(), stop], [], [])[0]:
                return
            new = self.read_keys()
            keys += new
            n_empty = 0 if new else n_empty + 1


class _RawWithSignals(raw_mode):
    """Raw, but for VINTR; Ctrl-Z and Ctrl-\\ stay keys, for they would leave the terminal raw."""

    def __enter__(self) -> None:
        super().__enter__()
        with suppress(termios.error):
            attributes = termios.tcgetattr(self.fileno)
            attributes[_LOCAL_FLAGS] |= termios.ISIG | termios.NOFLSH  # what was typed before stays
            disabled = bytes([os.fpathconf(self.fileno, "PC_VDISABLE") & 0xFF])
            for key in (termios.VSUSP, termios.VQUIT):
                attributes[_CONTROL_CHARACTERS][key] = disabled
            termios.tcsetattr(self.fileno, termios.TCSANOW, attributes)

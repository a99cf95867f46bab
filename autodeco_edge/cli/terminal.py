"""A keyboard whose Ctrl-C is a signal while prompt_toolkit reads it.

Owns the terminal's mode. POSIX only.
"""

from __future__ import annotations

import os
import termios
from contextlib import AbstractContextManager, suppress

from prompt_toolkit.input.vt100 import Vt100Input, raw_mode

_LOCAL_FLAGS, _CONTROL_CHARACTERS = 3, 6  # fields of tcgetattr


class SignalInput(Vt100Input):
    def raw_mode(self) -> AbstractContextManager[None]:
        return _RawWithSignals(self.fileno())


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

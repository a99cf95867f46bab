"""The line where somebody types: keys, history, completion, the terminal itself.

Owns what a terminal is told. Knows nothing of conversations and replies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.utils import is_dumb_terminal

from ..io.printing import say
from .commands import QUOTES
from .completion import SlashCompleter
from .config_file import state_dir
from .last_conversation import private_folder

if TYPE_CHECKING:
    from .terminal import SignalInput


class LineReader:
    """
    toolbar    the line below the one that is typed
    remembers  whether lines are kept on disk, for the next time
    """

    def __init__(self, toolbar: Callable[[], str], remembers: bool) -> None:
        self._input = _input()
        self._session: PromptSession[str] = PromptSession(
            history=_history(remembers),
            multiline=Condition(_is_open),
            key_bindings=_keys(),
            completer=SlashCompleter(),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            bottom_toolbar=toolbar,
            enable_suspend=True,
            input=self._input,
        )

    def keyboard(self) -> AbstractContextManager[None]:
        """The terminal is ours inside, between two prompts too."""
        return self._input.raw_mode() if self._input else nullcontext()

    def read(self, begun: str) -> str:
        """A line, or several between triple quotes; ``begun`` is there to go on with. Raises EOFError for Ctrl-D,
        KeyboardInterrupt."""
        return self._session.prompt("> ", handle_sigint=False, default=begun).strip()

    @property
    def typed(self) -> str:
        """What stood in the line when it was left."""
        return self._session.default_buffer.text

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """What is typed inside, while a reply comes, is the beginning of the next line; a paste stays one message."""
        output = None if self._input is None or is_dumb_terminal() else self._session.app.output
        if output:
            output.enable_bracketed_paste()
            output.flush()
        with self._input.set_aside() if self._input else nullcontext():
            yield
        if output:
            output.disable_bracketed_paste()
            output.flush()


def _is_open() -> bool:
    """Whether the text begins with triple quotes that are not closed yet: Enter then breaks the line."""
    text = get_app().current_buffer.text.strip()
    return text.startswith(QUOTES) and not (len(text) >= 2 * len(QUOTES) and text.endswith(QUOTES))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add(Keys.Vt100MouseEvent)
    def _(event) -> None:
        """Nothing: no mouse is asked for, and prompt_toolkit fails on a colour that somebody pastes (ESC[31m)."""

    return keys


def _history(remember: bool) -> History:
    if not remember:
        return InMemoryHistory()
    path = state_dir() / "history"
    try:
        private_folder()
        os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
    except OSError as error:
        say(f"note: no history is kept ({path}: {error.strerror})")
        return InMemoryHistory()
    return _Lines(path)


class _Lines(FileHistory):
    """The history on disk; a line that cannot be written there must not end the conversation."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            super().store_string(string)


def _input() -> SignalInput | None:
    """The keyboard, with Ctrl-C as a signal at all times. prompt_toolkit would read it as a byte while it
    holds the terminal, and a byte that comes just after Enter is met by nobody."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        return None
    from .terminal import SignalInput

    return SignalInput(sys.stdin)

"""A conversation on a terminal: read a line, reply, repeat.

Owns the messages so far, the keys and the history of lines. Slash commands are commands.py; replies are
session.py. Ctrl-C stops a reply or clears the line typed, at an empty prompt it leaves with 130; Ctrl-D ends.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys

from ..errors import AutodecoError, ContextOverflowError, MissingInputError
from ..io.printing import StdoutError, one_line, say
from ..io.reading import check_text
from ..text.chat import Conversation
from .commands import SlashCommands
from .completion import SlashCompleter
from .config_file import state_dir
from .session import Session

HINT = "/help lists the commands. /exit or Ctrl-D ends, Ctrl-C stops a reply."
QUOTES = '"""'


def converse(session: Session) -> None:
    """Read, reply, repeat, until /exit or Ctrl-D. An interrupt at the empty prompt goes on upwards."""
    chat = Chat(session)
    say(f"{session.engine.model.description} · {session.heads_line()}", HINT)
    while (line := chat.read()) is not None:
        if line:
            chat.handle(line)


class Chat:
    """The conversation and what is done with a line."""

    def __init__(self, session: Session) -> None:
        options = session.options
        self.session = session
        self.conversation = _last_conversation() if options.resume else Conversation()
        if options.system:
            self.conversation.system = options.system
        self.commands = SlashCommands(self)
        self._remember = options.history
        self._reader = _reader(session, options.history)

    # ---- reading -----------------------------------------------------------------------------

    def read(self) -> str | None:
        """A line, or several between triple quotes; '' for a line given up, None at the end."""
        self.session.interrupts.rest()
        try:
            line = self._reader.prompt("> ", handle_sigint=False).strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            if not self._reader.default_buffer.text:
                raise
            return ""
        if line.startswith(QUOTES):
            line = line.removeprefix(QUOTES).removesuffix(QUOTES).strip()
        return None if line == "/exit" else line

    # ---- doing -------------------------------------------------------------------------------

    def handle(self, line: str) -> None:
        """A command or a turn. What goes wrong is one line, and the conversation goes on: whatever it is, unless
        nobody can see the reply any more."""
        try:
            with self.session.interrupts.working():
                line = check_text(line, "the line")
                if line.startswith("/"):
                    self.commands.run(line)
                else:
                    self.turn(line)
        except KeyboardInterrupt:
            say("", "[stopped]")
        except (StdoutError, BrokenPipeError):
            raise
        except AutodecoError as error:
            say(one_line(error) + (" (or /clear)" if isinstance(error, ContextOverflowError) else ""))
        except MemoryError:
            say("out of memory; the conversation goes on, try a shorter message or /clear")
        except Exception as error:
            say(f"internal error: {type(error).__name__}: {one_line(error)}; the conversation goes on")

    def turn(self, text: str) -> None:
        """A reply to one more message; a reply that was stopped leaves no trace in the conversation."""
        session, messages = self.session, self.conversation.messages
        before = list(messages)
        self.conversation.add("user", text)
        try:
            if session.is_raw:
                trace = session.reply(session.engine.model.tokenize(text))
            else:
                trace = session.reply(session.conversation_ids(self.conversation), reuse_prefix=True)
        except BaseException:
            self.conversation.messages = before
            raise
        if session.shortfall:
            say(f"note: {session.shortfall}")
        self.conversation.add("assistant", *session.answer(trace))
        session.next_seed()
        self.keep()

    def keep(self) -> None:
        """Write the conversation where --continue finds it."""
        if not self._remember:
            return
        try:
            _private_folder()
            self.conversation.save(_last_path())
        except StdoutError:
            raise
        except (AutodecoError, OSError, ValueError) as error:
            self._remember = False
            say(f"note: the conversation is not kept for --continue ({error})")


def _last_path() -> Path:
    return state_dir() / "last-conversation.json"


def _last_conversation() -> Conversation:
    try:
        return Conversation.load(_last_path())
    except MissingInputError:
        raise MissingInputError("--continue: there is no last conversation; leave it out to start one") from None


def _private_folder() -> None:
    """What somebody wrote to a model is nobody else's business."""
    state_dir().mkdir(mode=0o700, parents=True, exist_ok=True)


# ---- the prompt -------------------------------------------------------------------------------


def _reader(session: Session, remember: bool) -> PromptSession[str]:
    return PromptSession(
        history=_history(remember),
        multiline=Condition(_is_open),
        key_bindings=_keys(),
        completer=SlashCompleter(),
        complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
        bottom_toolbar=lambda: _toolbar(session),
        input=_input(),
    )


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
        _private_folder()
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


def _toolbar(session: Session) -> str:
    params, engine = session.params, session.engine
    by = "" if session.plain else "x"  # factors of what the heads say
    return (
        f" context {session.n_used}/{engine.n_ctx} · heads {params.heads_mode if engine.heads else 'none'}"
        f" · temp {by}{params.temperature:g} · top-p {by}{params.top_p:g} · seed {params.seed}"
    )


def _input() -> Input | None:
    """The keyboard, with Ctrl-C as a signal at all times. prompt_toolkit would read it as a byte while it
    holds the terminal, and a byte that comes just after Enter is met by nobody."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        return None
    from .terminal import SignalInput

    return SignalInput(sys.stdin)

"""A conversation on a terminal: read a line, reply, repeat.

Owns the messages so far. Lines are typed in line_reader.py; slash commands are commands.py; replies are session.py.
Ctrl-C stops a reply or clears the line typed; at an empty prompt the first says how to leave and the second leaves with
130, for one that comes as a reply ends is meant for the reply. Ctrl-D ends.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AutodecoError, ContextOverflowError, UsageError
from ..io.printing import StdoutError, one_line, say
from ..io.reading import check_text
from ..text.chat import Conversation
from .commands import ENDS, QUOTES, SlashCommands
from .last_conversation import load_last, save_last
from .line_reader import LineReader
from .session import MORE_CONTEXT, Session
from .status import heads_line, model_line
from .window import Window

if TYPE_CHECKING:
    from ..text.trace import Trace

HINT = "/help lists the commands. /exit or Ctrl-D ends, Ctrl-C stops a reply."
LEAVE_HINT = "[Ctrl-C again ends, so does /exit]"
NEARLY_FULL = 0.8  # of the context
_RECALLED_LINES, _RECALLED_LETTERS = 12, 800  # of the last answer, for somebody who comes back


def converse(session: Session) -> None:
    """Read, reply, repeat, until /exit or Ctrl-D. An interrupt at the empty prompt goes on upwards."""
    chat = Chat(session)
    say(model_line(session.engine, session.options.model), heads_line(session.engine), HINT)
    with chat.keyboard():
        if session.options.resume:
            chat.recall()
        while (line := chat.read()) is not None:
            if line:
                chat.handle(line)


class Chat:
    """The conversation and what is done with a line."""

    def __init__(self, session: Session) -> None:
        options = session.options
        self.session = session
        self.conversation = load_last() if options.resume else Conversation()
        if options.system:
            self.conversation.system = options.system
        self.commands = SlashCommands(self)
        self.window = Window()
        self.own_file: Path | None = None  # where /save put it, or /load found it
        self._remember = options.history
        self._lines = LineReader(self._toolbar, options.history)
        self._is_leaving = self._was_nearly_full = False
        self._draft: tuple[str, list[dict[str, str]]] | None = None  # a message to write anew, and what stood before it

    def keyboard(self) -> AbstractContextManager[None]:
        """The terminal is ours inside, between two prompts too."""
        return self._lines.keyboard()

    def _toolbar(self) -> str:
        session, params = self.session, self.session.params
        by = "" if session.plain else "x"  # factors of what the heads say
        return (
            f" context {session.n_used}/{session.engine.n_ctx} · heads {params.heads_mode if session.engine.heads else 'none'}"
            f" · temp {by}{params.temperature:g} · top-p {by}{params.top_p:g} · seed {params.seed}"
        )

    # ---- reading -----------------------------------------------------------------------------

    def read(self) -> str | None:
        """A line, or several between triple quotes; '' for a line given up, None at the end."""
        self.session.interrupts.rest()
        try:
            line = self._lines.read(self._draft[0] if self._draft else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            return self._interrupted()
        self._is_leaving = False
        if not line:
            self._draft = None
        return None if line.lower() in ENDS else line

    def _interrupted(self) -> str:
        was_editing, self._draft = self._draft is not None, None
        if self._lines.typed or was_editing:
            self._is_leaving = False
            return ""
        if self._is_leaving:
            raise KeyboardInterrupt
        self._is_leaving = True
        say(LEAVE_HINT)
        return ""

    # ---- doing -------------------------------------------------------------------------------

    def handle(self, line: str) -> None:
        """A command or a turn. What goes wrong is one line, and the conversation goes on: whatever it is, unless
        nobody can see the reply any more."""
        try:
            with self._lines.set_aside(), self.session.interrupts.working():
                line = check_text(line, "the line")
                draft, self._draft = self._draft, None
                text = line.removeprefix(QUOTES).removesuffix(QUOTES).strip() if line.startswith(QUOTES) else line
                if line.startswith("/"):
                    self.commands.run(line)
                elif text and draft:
                    self._again(text, draft[1])
                elif text:
                    self.turn(text)
        except KeyboardInterrupt:
            self._is_leaving = False
            say("", "[stopped]")
        except (StdoutError, BrokenPipeError):
            raise
        except AutodecoError as error:
            more = "; here: /set ctx-size N, or /clear" if isinstance(error, ContextOverflowError) else ""
            say(one_line(error) + more)
        except MemoryError:
            say("out of memory; the conversation goes on, try a shorter message or /clear")
        except Exception as error:
            say(f"internal error: {type(error).__name__}: {one_line(error)}; the conversation goes on")

    def turn(self, text: str) -> None:
        """A reply to one more message. One that was stopped stays as far as it came; one that had not begun, or failed,
        leaves no trace in the conversation."""
        session, last = self.session, self.session.last
        before, left_out = list(self.conversation.messages), self.window.n_left_out
        self.conversation.add("user", text)
        try:
            if session.is_raw:
                trace = session.reply(session.engine.model.tokenize(text))
            else:
                trace = session.reply(self._prompt(), reuse_prefix=True)
        except KeyboardInterrupt:
            if session.last is last or not session.last.records:
                self._take_back(before, left_out)
            else:
                self._add_reply(session.last)
            raise
        except BaseException:
            self._take_back(before, left_out)
            raise
        if session.shortfall:
            say(f"note: {session.shortfall}")
        self._add_reply(trace)
        self._say_if_nearly_full()

    def _take_back(self, messages: list[dict[str, str]], left_out: int) -> None:
        """As if nothing had been said."""
        self.conversation.messages, self.window.n_left_out = messages, left_out
        self.measure()

    def _add_reply(self, trace: Trace) -> None:
        self.conversation.add("assistant", *self.session.answer(trace))
        self.session.next_seed()
        self.keep()

    def edit(self, number: int) -> None:
        """The next line begins with this message of the user, the first being the last; sent, it takes its place."""
        messages = self.conversation.messages
        asked = [i for i, m in enumerate(messages) if m["role"] == "user"]
        if len(asked) < number:
            raise UsageError(
                f"/edit: there {'is 1 message' if len(asked) == 1 else f'are {len(asked)} messages'} of yours; got {number}"
            )
        at = asked[-number]
        text = messages[at]["content"]
        self._draft = f"{QUOTES}{text}{QUOTES}" if text.startswith(("/", QUOTES)) else text, messages[:at]

    def _again(self, text: str, before: list[dict[str, str]]) -> None:
        """Instead of what stood there, unless nothing came of it."""
        whole, self.conversation.messages = self.conversation.messages, list(before)
        try:
            self.turn(text)
        except BaseException:
            if len(self.conversation.messages) <= len(before):
                self.conversation.messages = whole
                self.measure()
            raise

    def regenerate(self) -> bool:
        """Another reply to the last message; False where there is none."""
        whole = list(self.conversation.messages)
        text = self.conversation.take_back()
        if text is None:
            return False
        before = self.conversation.messages
        self.conversation.messages = whole
        self._again(text, before)
        return True

    def prompt_for(self, text: str) -> list[int]:
        """Of the conversation with one more message, or, without a text, up to the last one of the user."""
        session, messages = self.session, list(self.conversation.messages)
        if not text:
            asked = [i for i, m in enumerate(messages) if m["role"] == "user"]
            if not asked:
                raise UsageError("/compare TEXT: there is no message to compare yet; give one")
            text, messages = messages[asked[-1]]["content"], messages[: asked[-1]]
        if session.is_raw:
            return session.engine.model.tokenize(text)
        return self._fitting([*messages, {"role": "user", "content": text}], Window(self.window.n_left_out))

    def _prompt(self) -> list[int]:
        before = self.window.n_left_out
        ids = self._fitting(self.conversation.messages, self.window)
        if self.window.n_left_out > before and len(ids) < self.session.engine.n_ctx:
            say(
                f"[the oldest {self.window.n_left_out} messages are left out: the context is full; more: {MORE_CONTEXT}]"
            )
        return ids

    def _fitting(self, messages: list[dict[str, str]], window: Window) -> list[int]:
        """Ids of all messages, or of what of them still fits."""
        session = self.session
        if session.options.context_full == "shift":
            n_ctx, limit = session.engine.n_ctx, session.options.n
            room = n_ctx // 4 if limit < 0 else min(limit, n_ctx // 4)
            messages = window.fit(messages, lambda some: len(session.conversation_ids(some)), n_ctx, room)
        return session.conversation_ids(messages)

    def _say_if_nearly_full(self) -> None:
        n_ctx, n_used = self.session.engine.n_ctx, self.session.n_used
        nearly = n_used >= NEARLY_FULL * n_ctx
        if nearly and not self._was_nearly_full and n_used < n_ctx:
            then = (
                "the oldest turns will be left out"
                if self.session.options.context_full == "shift"
                else "the conversation stops"
            )
            say(f"[the context is {n_used / n_ctx:.0%} full; then {then}; more: {MORE_CONTEXT}]")
        self._was_nearly_full = nearly

    def replace(self, conversation: Conversation) -> None:
        """Go on with another one, and know how much of the context it takes."""
        self.conversation = conversation
        self.refit()

    def refit(self) -> None:
        """In another context, or another conversation: nothing is left out of it yet."""
        self.window = Window()
        self.measure()

    def measure(self) -> None:
        """Before a reply has measured it."""
        session, seen = self.session, self.window.seen(self.conversation.messages)
        session.n_used = 0
        if any(m["role"] != "system" for m in seen) and not session.is_raw:
            with suppress(AutodecoError):  # a template that wants an answer, say: the next reply will show
                session.n_used = min(len(session.conversation_ids(seen)), session.engine.n_ctx)

    def recall(self) -> None:
        """The end of the conversation that is gone on with."""
        self.measure()
        messages = self.conversation.messages
        said = [m for m in messages if m["role"] != "system"][-2:]
        for message in said:
            text = message["content"]
            lines = text[:_RECALLED_LETTERS].splitlines()
            more = ["..."] if len(lines) > _RECALLED_LINES or len(text) > _RECALLED_LETTERS else []
            mark = "you: " if message["role"] == "user" else ""
            say(*(f"{mark}{line}" for line in [*lines[:_RECALLED_LINES], *more]))
        say(f"[going on with {len(messages)} messages · context {self.session.n_used}/{self.session.engine.n_ctx}]")

    def keep(self) -> None:
        """Write the conversation where --continue finds it."""
        if not self._remember:
            return
        try:
            save_last(self.conversation)
        except StdoutError:
            raise
        except (AutodecoError, OSError, ValueError) as error:
            self._remember = False
            say(f"note: the conversation is not kept for --continue ({error})")

"""The slash commands of a conversation: their names, help and deeds.

Owns no state: a command changes the conversation or the session it is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..io.atomic import refuse_foreign
from ..io.printing import say
from ..io.reading import user_path
from .session import Session
from .settable import REOPEN, SETTABLE, changed_option, is_changed, nearest, option_name, shown
from .status import device_line, heads_line, model_line, threads_words

if TYPE_CHECKING:
    from .conversation import Chat

HEADS = {"on": "both", "off": "none", "temp": "temp", "top-p": "top-p"}
QUOTES = '"""'  # around a message of several lines, or one that begins with a slash
_KEYS = (
    'Keys: """ begins and ends several lines, Alt-Enter breaks a line, Tab completes, Up recalls, Ctrl-C stops a reply.'
)


@dataclass(frozen=True)
class SlashCommand:
    usage: str
    help: str

    @property
    def name(self) -> str:
        return self.usage.split()[0]


CHOICES = {"/heads": tuple(HEADS), "/set": SETTABLE}
ENDS = ("/exit", "/quit", "/bye", "/q")
# What other programs call them.
ALIASES = {
    **dict.fromkeys(ENDS, "/exit"), "/?": "/help", "/h": "/help", "/new": "/clear", "/reset": "/clear", "/retry": "/regen"
}  # fmt: skip
FILES = ("/save", "/load", "/model")

COMMANDS = (
    SlashCommand("/help", "this list"),
    SlashCommand("/exit", "end; so does Ctrl-D"),
    SlashCommand("/clear", "forget the conversation, but not the system message"),
    SlashCommand("/regen", "another reply to the last message"),
    SlashCommand("/edit [N]", "write your last message, or the Nth from the end, anew and send it again"),
    SlashCommand("/compare [TEXT]", "a reply with heads and one with their mean as constants, side by side"),
    SlashCommand("/model [NAME]", "show the model, or go on with another: a name, user/repo or a file"),
    SlashCommand("/system [TEXT]", "show or change the system message; - removes it"),
    SlashCommand("/set [NAME VALUE]", "show the options, or change one; - puts back its default"),
    SlashCommand("/show", "model, heads, context, device, and the options that were changed"),
    SlashCommand("/save [-f] FILE", "write the conversation; -f in place of another one"),
    SlashCommand("/load FILE", "go on with a saved conversation"),
    SlashCommand("/stats", "speed, context and means of the last reply"),
    SlashCommand("/trace", "T and P of the last reply as a plot"),
    SlashCommand("/heads [on|off|temp|top-p|FILE]", "show the heads, or which of them apply, or take others"),
)


class SlashCommands:
    """What a line that begins with a slash does."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    @property
    def _session(self) -> Session:
        return self._chat.session

    def run(self, line: str) -> None:
        """Raises UsageError for an unknown command, and what the command raises."""
        word, rest = (*line.split(None, 1), "")[:2]
        name = ALIASES.get(word.lower(), word.lower())
        usages = {c.name: c.usage for c in COMMANDS}
        if name not in usages:
            hint = nearest(name, list(usages)) or "/help lists them"
            raise UsageError(f"{word}: no such command; {hint}; a message that begins so goes between {QUOTES}")
        if rest and usages[name] == name:
            raise UsageError(f"{word}: takes nothing behind it; got '{rest}'")
        getattr(self, "_" + name[1:])(rest)

    def _help(self, _: str) -> None:
        width = max(len(c.usage) for c in COMMANDS)
        say(*(f"{c.usage:<{width}}  {c.help}" for c in COMMANDS), indent=width + 2)
        say(f"/set takes: {', '.join(SETTABLE)}", _KEYS)

    def _clear(self, _: str) -> None:
        self._chat.conversation.clear()
        self._chat.replace(self._chat.conversation)
        say("[cleared]")

    def _regen(self, _: str) -> None:
        if not self._chat.regenerate():
            raise UsageError("/regen: there is no message to reply to yet")

    def _system(self, text: str) -> None:
        if text:
            self._chat.conversation.system = None if text == "-" else text
        say(f"[system: {self._chat.conversation.system or 'none'}]")

    def _set(self, text: str) -> None:
        session = self._session
        if not text:
            self._options(SETTABLE)
            return
        word, value = (*text.removeprefix("parameter ").split(None, 1), "")[:2]  # as ollama has it
        name = option_name(word, [c.name for c in COMMANDS])
        if not value:
            raise UsageError(f"/set {name} VALUE: a value is missing; it is {shown(name, session)} now")
        changed = changed_option(session.options, name, value)
        if name in REOPEN:
            session.reopen(changed)
            self._chat.refit()
        else:
            session.set_options(changed)
        say(f"[{name}: {shown(name, session)}]")

    def _show(self, _: str) -> None:
        """What /set lists is long: here what does not stand at its default."""
        self._facts()
        self._options([name for name in SETTABLE if is_changed(name, self._session.options)])
        say("[the other options are at their defaults; /set lists them all]")

    def _options(self, names: Sequence[str]) -> None:
        for name in names:
            _row(name, shown(name, self._session))
        _row("next seed", str(self._session.params.seed))

    def _facts(self) -> None:
        session, engine = self._session, self._session.engine
        what = heads_line(engine).removeprefix("heads that ")
        heads = f"{what}: {engine.heads.description}" if engine.heads else "none"
        for name, value in (
            ("model", model_line(engine, session.options.model)),
            ("file", str(engine.model.path)),
            ("heads", heads),
            ("context", f"{session.n_used} of {engine.n_ctx} tokens; trained with {engine.model.n_ctx_train}"),
            ("device", f"{device_line(session.options)}, {threads_words(engine.n_threads)}"),
        ):
            _row(name, value)

    def _save(self, path: str) -> None:
        force, _, rest = path.partition(" ")
        path = rest.strip() if force == "-f" else path
        _need(path, "/save [-f] FILE")
        target = user_path(path)
        refuse_foreign(target, _is_conversation, "a saved conversation")
        if force != "-f" and os.path.isfile(target) and target != self._chat.own_file:
            raise UsageError(f"{path}: another conversation is saved there; /save -f {path} replaces it")
        self._chat.conversation.save(target)
        self._chat.own_file = target
        say(f"[saved {len(self._chat.conversation.messages)} messages to {path}]")

    def _load(self, path: str) -> None:
        from ..text.chat import Conversation

        _need(path, "/load FILE")
        self._chat.replace(Conversation.load(user_path(path)))
        self._chat.own_file = user_path(path)
        say(f"[loaded {len(self._chat.conversation.messages)} messages from {path}]")

    def _stats(self, _: str) -> None:
        say(self._session.stats_line())
        if self._session.last_summary:
            timings = self._session.last_summary["timings"]
            say(
                f"[prompt from the cache {timings['prompt_cached']} tokens · loaded in {timings['load_s']:.2f} s"
                f" · {threads_words(self._session.engine.n_threads)} · ended: {self._session.last_summary['finish_reason']}]"
            )

    def _trace(self, _: str) -> None:
        from .terminal_plot import draw

        if self._session.last is None or not self._session.last.records:
            raise UsageError("/trace: there is no reply yet")
        draw(self._session.last.records, sys.stderr)

    def _heads(self, mode: str) -> None:
        options = self._session.options
        if not mode:
            say(f"[heads: {options.heads_mode}; {heads_line(self._session.engine)}]")
            return
        if mode.lower() in HEADS:
            self._session.set_options(replace(options, heads_mode=HEADS[mode.lower()]))
            say(f"[heads: {HEADS[mode.lower()]}]")
            return
        if not any(c in mode for c in "./\\"):
            raise UsageError(f"/heads: allowed {', '.join(HEADS)} or a heads file; got '{mode}'")
        self._session.reopen(replace(options, heads=str(user_path(mode)), no_heads=False, heads_mode="both"))
        say(f"[{heads_line(self._session.engine)}]")

    def _model(self, name: str) -> None:
        from .arguments import check_model

        if not name:
            self._say_model()
            return
        name = str(user_path(name)) if name.startswith("~") else name
        check_model(name, None)
        changed = replace(self._session.options, model=name, heads=None, no_heads=False, heads_mode="both")
        self._session.reopen(changed, same_model=False)
        self._chat.refit()
        self._say_model()

    def _say_model(self) -> None:
        session = self._session
        say(f"[{model_line(session.engine, session.options.model)} · {heads_line(session.engine)}]")

    def _edit(self, number: str) -> None:
        if number and not (number.isascii() and number.isdecimal() and int(number) > 0):
            raise UsageError(f"/edit: allowed 1 for your last message, 2 for the one before, and so on; got '{number}'")
        self._chat.edit(int(number or 1))

    def _compare(self, text: str) -> None:
        from .compare import compare

        compare(self._session, self._chat.prompt_for(text))


def _row(name: str, value: str) -> None:
    say(f"{name:<20} {value}", indent=21)


def _is_conversation(path: Path) -> bool:
    from ..text.chat import Conversation

    Conversation.load(path)
    return True


def _need(argument: str, usage: str) -> None:
    if not argument:
        raise UsageError(f"{usage}: a file name is missing")

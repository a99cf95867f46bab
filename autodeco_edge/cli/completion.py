"""What Tab offers in a conversation: commands, and what they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from ..io.printing import safe_line
from .commands import CHOICES, COMMANDS, FILES
from .settable import VALUES


class SlashCompleter(Completer):
    """Nothing for a message; for a line that begins with a slash, the words that fit where the cursor is."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        words = document.text_before_cursor.lstrip().split(" ")
        if not words[0].startswith("/"):
            return
        if len(words) > 1 and words[0] in FILES:
            rest = " ".join(words[1:])
            found = self._paths.get_completions(Document(rest, len(rest)), event)
            yield from (c for c in found if safe_line(c.text) == c.text)  # others would be shown as they are
        else:
            yield from (
                Completion(word, start_position=-len(words[-1]))
                for word in _offers(words)
                if word.startswith(words[-1])
            )


def _offers(words: Sequence[str]) -> Sequence[str]:
    if len(words) == 1:
        return [command.name for command in COMMANDS]
    if len(words) == 2:
        return CHOICES.get(words[0], ())
    return VALUES.get(words[1], ()) if words[0] == "/set" and len(words) == 3 else ()

"""From the words of a command line to files and a prompt.

Owns which word is a model and which the prompt, what is piped in, and when a name has to be looked up
(hub): an existing path never is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingInputError, UsageError
from .options import RunOptions


@dataclass(frozen=True)
class Files:
    """What to load. heads is a path, None for no heads, or "auto": those inside the model."""

    model: Path
    heads: Path | str | None
    note: str | None = None


def split_words(options: RunOptions) -> tuple[str | None, str | None]:
    """(model, prompt) of the positional words and of -m, -hf. Raises UsageError for words too many.

    One word is the prompt, unless no option names a model and it is itself a .gguf file that is there, a
    name of the registry or user/repo.
    """
    words = list(options.words or ())
    named = [m for m in (options.model, options.hf) if m is not None]
    if len(named) > 1:
        raise UsageError("-m and -hf exclude each other; choose one")
    if not named and words and (is_model(words[0]) or len(words) == 2):
        named.append(words.pop(0))
    if len(words) > 1:
        raise UsageError(f"one prompt only, got '{words[1]}' as well; put the prompt in quotes")
    return (named or [None])[0], (words or [None])[0]


def is_model(word: str) -> bool:
    """Whether a word names a model rather than being a prompt."""
    if not word or any(c.isspace() for c in word):
        return False
    if word.endswith(".gguf"):
        return Path(word).is_file()
    from ..hub.resolve import find_entry

    try:
        find_entry(word)
    except MissingInputError:
        return False
    return True


def find_files(model: str | None, options: RunOptions) -> Files:
    """The files behind the names, downloaded where needed. Raises what hub.resolve raises."""
    from ..engine.pairing import demo_model

    if model is None:
        return Files(demo_model(), _local_heads(options))
    if _is_path(model) and (options.heads is None or _is_path(options.heads)):
        return Files(Path(model), _local_heads(options))
    from ..hub import resolve

    wanted = "none" if options.no_heads else options.heads
    found = resolve(model, wanted, offline=options.offline)
    heads = None if options.no_heads else found.heads or "auto"
    return Files(found.model, heads, found.note)


def _local_heads(options: RunOptions) -> Path | str | None:
    if options.no_heads:
        return None
    return Path(options.heads) if options.heads else "auto"


def _is_path(text: str) -> bool:
    """Whether it can only be meant as a file: it is there, or looks like one that ought to be."""
    try:
        return Path(text).exists() or text.endswith((".gguf", ".bin")) or text.startswith((".", "/", "~"))
    except (OSError, ValueError):
        return True


def read_prompt(prompt: str | None) -> str | None:
    """PROMPT with piped stdin before it; None = a conversation on a terminal."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else _read_stdin()
    if prompt is None and not piped and sys.stdin is not None and sys.stdin.isatty():
        return None
    text = "\n".join(part for part in (piped.rstrip("\n"), prompt or "") if part)
    if not text.strip():
        raise UsageError("the prompt is empty; give one as an argument or on stdin")
    if any("\ud800" <= c <= "\udfff" for c in text):  # how Python carries bytes of an argument that are no UTF-8
        raise UsageError("the prompt is not UTF-8 text; convert it first")
    return text


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the text on stdin is not UTF-8; convert it first") from None

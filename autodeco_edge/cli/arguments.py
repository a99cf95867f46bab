"""From the words of a command line to files and a prompt.

Owns which word is a model and which the prompt, and when a name has to be looked up
(hub): an existing path never is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingInputError, UsageError
from ..io.reading import user_path
from .options import RunOptions
from .piped import piped_text

STDIN = "-"


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
    words = [word for word in options.words or () if word != STDIN]
    named = [m for m in (options.model, options.hf) if m is not None]
    if len(named) > 1:
        raise UsageError("-m and -hf exclude each other; choose one")
    if not named and words and (is_model(words[0]) or len(words) == 2):
        named.append(_home(words.pop(0)))
    if len(words) > 1:
        raise UsageError(f"one prompt only, got '{words[1]}' as well; put the prompt in quotes")
    return (named or [None])[0], (words or [None])[0]


def is_model(word: str) -> bool:
    """Whether a word names a model rather than being a prompt."""
    if not word or any(c.isspace() for c in word):
        return False
    if word.endswith(".gguf"):
        return _is_file(_home(word))
    from ..hub.resolve import find_entry

    try:
        find_entry(word)
    except MissingInputError:
        return False
    return True


def _home(word: str) -> str:
    """A word that begins with ~ is a path."""
    return str(user_path(word)) if word.startswith("~") else word


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except (OSError, ValueError):  # too long for a name, say
        return False


def find_files(model: str | None, options: RunOptions) -> Files:
    """The files behind the names, downloaded where needed. Raises what hub.resolve raises."""
    from ..engine.pairing import demo_model

    model = model or str(demo_model())
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


def read_prompt(prompt: str | None, from_stdin: bool = False) -> str | None:
    """PROMPT with piped stdin before it; None = a conversation on a terminal. ``from_stdin``: a lone - was given."""
    piped = piped_text(prompt is not None, from_stdin)
    if prompt is None and not piped and sys.stdin.isatty() and not from_stdin:
        return None
    text = "\n".join(part for part in (piped.rstrip("\n"), prompt or "") if part)
    if not text.strip():
        raise UsageError("the prompt is empty; give one as an argument or on stdin")
    return text

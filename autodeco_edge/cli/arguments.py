"""From the words of a command line to files and a prompt.

Owns which word is a model and which the prompt, and when a name has to be looked up
(hub): an existing path never is.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from ..errors import MissingInputError, UsageError
from ..io.reading import user_path
from .config_file import read_config
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
    """(model, prompt) of the positional words and of -m, -hf. Raises UsageError for two prompts.

    Unless an option names the model, the first word does where it is one, or looks like one, or stands before a
    prompt in quotes. Words without quotes are one prompt.
    """
    words = [word for word in options.words or () if word != STDIN]
    named = [m for m in (options.model, options.hf) if m is not None]
    if len(named) > 1:
        raise UsageError("-m and -hf exclude each other; choose one")
    if not named and words and (is_model(words[0]) or (len(words) == 2 and _is_quoted(words[1]))):
        named.append(_home(words.pop(0)))
    if len(words) > 1 and (quoted := next((word for word in words[1:] if _is_quoted(word)), None)):
        raise UsageError(f"one prompt only, got '{quoted}' as well; put the prompt in quotes")
    return (named or [None])[0], " ".join(words) or None


def _is_quoted(word: str) -> bool:
    return any(c.isspace() for c in word)


def is_model(word: str) -> bool:
    """Whether a word names a model, or is meant to, rather than being a prompt."""
    if not word or _is_quoted(word):
        return False
    from ..hub.names import looks_like_model
    from ..hub.resolve import find_entry

    if looks_like_model(word) or _real_name(word) != word:
        return True
    try:
        find_entry(word)
    except MissingInputError:
        return False
    return True


def _home(word: str) -> str:
    """A word that begins with ~ is a path."""
    return str(user_path(word)) if word.startswith("~") else word


def _real_name(word: str | None) -> str | None:
    """What an alias of the configuration file stands for; any other word is itself."""
    return _home(read_config().aliases.get(word, word)) if word else word


def check_model(model: str | None, words: list[str] | None) -> None:
    """Raises MissingInputError, with the nearest names, for a model that is none: before stdin is read or a file fetched."""
    from ..hub.resolve import find_entry

    model = _real_name(model)
    if model is None or _is_file(model):
        return
    try:
        if _is_path(model) and not os.path.isdir(model):
            raise MissingInputError(f"{model}: no such file{_near_files(Path(model))}")
        find_entry(model)
    except MissingInputError as error:
        alone = words == [model] and not _is_path(model)
        raise MissingInputError(
            f"{error} (to say it to the demo model: -m demo {model})" if alone else str(error)
        ) from None


def _near_files(path: Path) -> str:
    """What to say of models with nearly this name in the same folder."""
    try:
        names = [found.name for found in path.parent.glob("*.gguf")]
    except (OSError, ValueError):
        names = []
    near = get_close_matches(path.name, names, 3, 0.4)
    return f"; did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else "; give a GGUF file"


def find_files(model: str | None, options: RunOptions) -> Files:
    """The files behind the names, downloaded where needed. Raises what hub.resolve raises."""
    from ..engine.pairing import demo_model
    from ..hub.resolve import NO_HEADS, resolve

    model = _real_name(model) or str(demo_model())
    wanted = NO_HEADS if options.no_heads else options.heads
    if _is_path(model) and (wanted in (None, NO_HEADS) or _is_path(wanted)):
        found = Files(Path(model), wanted and Path(wanted))
    else:
        resolved = resolve(model, wanted, offline=options.offline)
        found = Files(resolved.model, resolved.heads, resolved.note)
    return replace(found, heads=None if wanted == NO_HEADS else found.heads or "auto")


def _is_path(text: str) -> bool:
    """Whether it can only be meant as a file: it is there, or looks like one that ought to be. A folder may have the name
    of a model."""
    return _is_file(text) or text.endswith((".gguf", ".bin")) or text.startswith((".", "/", "~"))


def _is_file(text: str) -> bool:
    try:
        return os.path.exists(text) and not os.path.isdir(text)  # a pipe and a device have words of their own
    except (OSError, ValueError):  # too long for a name, say
        return False


def read_prompt(prompt: str | None, from_stdin: bool = False) -> str | None:
    """PROMPT with piped stdin before it; None = a conversation on a terminal. ``from_stdin``: a lone - was given."""
    piped = piped_text(prompt is not None, from_stdin)
    if prompt is None and not piped and sys.stdin.isatty() and not from_stdin:
        return None
    text = "\n".join(part for part in (piped.rstrip("\n"), prompt or "") if part)
    if not text.strip():
        raise UsageError("the prompt is empty; give one as an argument or on stdin")
    return text

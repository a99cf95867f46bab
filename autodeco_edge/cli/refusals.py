"""What the parser refuses, in our words: what, what is allowed, what came, and where the help is.

Owns the wording alone. The parser is click or typer's own copy of it, whose classes lie in private modules: its errors
are told apart by their names and by what they carry.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from types import UnionType
from typing import Any, get_args, get_type_hints

from ..errors import UsageError

_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def refusal(error: Any, value: Any = None, source: str = "") -> UsageError:
    """Of the parser's own error; ``value`` and ``source`` (a variable's name) of a parameter that was not taken."""
    words = _WORDS.get(type(error).__name__, _other)(error, value, source)
    ctx = error.ctx
    more = f"; see {ctx.command_path} --help" if ctx and not words.endswith("?") else ""
    return UsageError(words + more)


def is_parsers(error: BaseException) -> bool:
    """A name without a command is a question, and no error."""
    return hasattr(error, "format_message") and type(error).__name__ != "NoArgsIsHelpError"


def expected(command: Any, name: str) -> str:
    """What a parameter takes, such as "a number"."""
    hint = get_type_hints(command.callback).get(name) if command.callback else None
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return next((words for kind, words in _KINDS.items() if kind in kinds), "another value")


def label(parameter: Any) -> str:
    """--max-tokens of -n, --max-tokens; HEADS of an argument."""
    if parameter.param_type_name == "option":
        return max((each.split("/")[0] for each in parameter.opts), key=len)
    return str(parameter.metavar or parameter.name.upper())


def _bad_value(error: Any, value: Any, source: str) -> str:
    if error.param is None or value is None:
        return _other(error, value, source)
    where = source or label(error.param)
    return f"{where}: expected {expected(error.ctx.command, error.param.name)}; got {value!r}"


def _missing(error: Any, value: Any, source: str) -> str:
    return f"{label(error.param)} is missing"


def _no_option(error: Any, value: Any, source: str) -> str:
    known = [flag for p in error.ctx.command.params for flag in p.opts if flag.startswith("--")]
    near = get_close_matches(error.option_name, known, 1)
    return f"{error.option_name}: no such option" + (f"; did you mean {near[0]}?" if near else "")


def _bad_option(error: Any, value: Any, source: str) -> str:
    takes = "takes no value" if "not take" in error.message else "a value is missing"
    return f"{error.option_name}: {takes}"


def _other(error: Any, value: Any, source: str) -> str:
    if extra := re.search(r"unexpected extra arguments? ?\(?s?\)? \((.*)\)$", error.message):
        return f"one word too many: {extra[1]}"
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        near = get_close_matches(unknown[1], list(error.ctx.command.commands), 1)
        return f"{unknown[1]}: no such command" + (f"; did you mean {near[0]}?" if near else "")
    return str(error.format_message()).rstrip(".")


_WORDS = {
    "BadParameter": _bad_value,
    "MissingParameter": _missing,
    "NoSuchOption": _no_option,
    "BadOptionUsage": _bad_option,
}

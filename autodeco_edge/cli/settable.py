"""The options that a conversation may change: their names, how a value is taken, and how one is shown.

Owns the words in which `/set` and `/show` say a value, for a number alone does not say what it does: 1 is "off" for a
penalty, and for the temperature a factor of what the heads say. Knows the parser, and no command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .options import CONTEXT_FULL, FORMS, NEUTRAL, RunOptions, run_command
from .settings import convert, parameters
from .status import whose

if TYPE_CHECKING:
    from .session import Session

SETTABLE = (
    "temp", "top-p", "temp-range", "top-p-range", "min-p", "top-k", "repeat-penalty", "frequency-penalty",
    "presence-penalty", "repeat-last-n", "heads-mode", "seed", "max-tokens", "stop", "grammar", "json-schema", "regex",
    "color-by", "hide-thinking", "context-full", "ctx-size",
)  # fmt: skip
NAMES = {"temperature": "temp", "num-ctx": "ctx-size", "num-predict": "max-tokens", "n": "max-tokens"}  # of others
GRAMMARS = ("grammar", "json-schema", "regex")
REOPEN = ("ctx-size",)  # what another context is needed for
VALUES = {
    "context-full": CONTEXT_FULL,
    "color-by": FORMS,
    "heads-mode": ("both", "none", "temp", "top-p"),
    "hide-thinking": ("true", "false"),
}
_LETTERS = {"temp": "T", "top-p": "P"}  # what the heads set
_MEANS = {  # what a number does that does not say it by itself
    ("temp", 0): "greedy",
    ("min-p", 0): "off", ("top-k", 0): "off", ("repeat-penalty", 1): "off", ("frequency-penalty", 0): "off",
    ("presence-penalty", 0): "off", ("repeat-last-n", -1): "the whole reply", ("max-tokens", -1): "until the model ends",
    ("ctx-size", 0): "the model's own, at most 4096",
}  # fmt: skip


def nearest(name: str, names: Sequence[str]) -> str:
    """ "did you mean temp?", or nothing."""
    near = get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else ""


def option_name(word: str, commands: Sequence[str] = ()) -> str:
    """Of SETTABLE, also where somebody spells it in capitals, with _, or as another program. Raises UsageError."""
    name = word.lower().replace("_", "-")
    name = NAMES.get(name, name)
    if name in SETTABLE:
        return name
    hint = f"did you mean /{name}?" if f"/{name}" in commands else nearest(name, SETTABLE) or ", ".join(SETTABLE)
    raise UsageError(f"/set {word}: no such option; {hint}")


def changed_option(options: RunOptions, name: str, value: str) -> RunOptions:
    """The options with one more, converted as the parser would; "-" is its default. Raises UsageError."""
    parameter, ctx = _parameter(name)
    if value == "-":
        return replace(options, **{parameter.name: getattr(RunOptions(), parameter.name)})
    changes = {parameter.name: convert(ctx, parameter, value, f"/set {name}")}
    if name in GRAMMARS:  # the last one counts
        changes = dict.fromkeys(other.replace("-", "_") for other in GRAMMARS) | changes
    return replace(options, **changes)


def is_changed(name: str, options: RunOptions) -> bool:
    return bool(getattr(options, _field(name)) != getattr(RunOptions(), _field(name)))


def shown(name: str, session: Session) -> str:
    """The value in force as one would type it, and in brackets what it does or who said so."""
    value = getattr(session.in_force, _field(name))
    if value is None:
        return "random" if name == "seed" else "none"
    if isinstance(value, list):
        return ", ".join(map(repr, value))
    note = _note(name, value, session)
    text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text} ({note})" if note else text


def _note(name: str, value: Any, session: Session) -> str:
    means = _MEANS.get((name, value), "")
    if session.plain and _field(name) in NEUTRAL:
        by = whose(_field(name), session.options, session.plain)
        return ", ".join(word for word in (means, by.replace("yours", "")) if word)
    if name in _LETTERS and not means:
        return "no head applied" if name in session.fixed else f"times the heads' {_LETTERS[name]}"
    return means


def _field(name: str) -> str:
    return str(_parameter(name)[0].name)


@cache
def _parameter(name: str) -> tuple[Any, Any]:
    """The parser's own idea of an option of `run`, and a context to convert values in."""
    command = run_command()
    return parameters(command)[name], command.context_class(command, info_name="run")

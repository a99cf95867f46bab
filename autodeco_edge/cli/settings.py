"""Where an option's value comes from: flag, environment, preset, file or default, in this order.

Owns the joint between the configuration file and the parser: the file's values become the parser's
default map, which ranks below flags and environment variables. The precedence is therefore the parser's
own, for every option at once. Owns also the door that every value of every command passes, wherever it came from: ``~``
in a path, text that is none, numbers that no option means.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import UsageError
from ..io.reading import check_text, user_path
from .config_file import Config, read_config
from .refusals import expected, is_parsers, refusal

T = TypeVar("T")
_SOURCES = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file", "DEFAULT": "default"}


PATHS = frozenset(
    (
        "api_key_file",
        "base",
        "calibration",
        "chat_template",
        "data",
        "draft",
        "file",
        "grammar",
        "heads",
        "init",
        "json_schema",
        "model",
        "output",
    )
    + ("problems", "prompts", "task", "template_from", "tokenizer", "trace", "traces", "word")
)  # parameters, of whichever command, that hold a path, or may hold one

WORDS = frozenset(("accept", "color_by", "context_full", "draft", "heads_mode", "outtype", "split"))
# parameters that take one of a few words; a file that may stand in its place has a dot


class _Checked:
    """A command whose values have passed the door when it is called."""

    def get_short_help_str(self, limit: int = 45) -> str:
        """The first paragraph, whole: click would cut it."""
        return " ".join((self.short_help or self.help or "").split("\n\n")[0].split())

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        try:
            rest = super().parse_args(ctx, list(args))
        except Exception as error:
            if not is_parsers(error):
                raise
            raise refusal(error, *self._given(ctx, args, getattr(error, "param", None))) from None
        if not ctx.resilient_parsing:
            _check_environment()
            flags = {p.name: max(p.opts, key=len) if p.opts[0].startswith("-") else p.name for p in self.params}
            ctx.params = {name: checked(name, value, flags.get(name, name)) for name, value in ctx.params.items()}
        return rest

    def _given(self, ctx: typer.Context, args: list[str], parameter: Any) -> tuple[Any, str]:
        """(value, variable that it came from) of a parameter whose value was not taken; (None, "") of none."""
        if parameter is None:
            return None, ""
        options, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        value, source = parameter.consume_value(ctx, options)
        return value, parameter.envvar if source.name == "ENVIRONMENT" else ""


def _check_environment() -> None:
    """Raises UsageError for a variable that an import must not fail on, and that a command does not pass over."""
    from ..engine import waiting

    waiting.choose(os.environ.get(waiting.VARIABLE, ""), "", {})


class Command(_Checked, TyperCommand):
    """Of every command. Where its options class has ``groups`` (title: names of fields), --help shows them so."""

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        groups: dict[str, str] = getattr(self.callback, "groups", {})
        if not groups:
            super().format_options(ctx, formatter)
            return
        lines = {p.name: record for p in self.get_params(ctx) if (record := p.get_help_record(ctx))}
        for title, names in groups.items():
            with formatter.section(title):
                formatter.write_dl([lines.pop(name) for name in names.split() if name in lines])
        with formatter.section("Other"):
            formatter.write_dl(list(lines.values()))


class Group(_Checked, TyperGroup):
    """Of a command that has others under it."""


def checked(name: str, value: Any, where: str) -> Any:
    """A parameter's value as it may go in. Raises UsageError."""
    if isinstance(value, list | tuple):
        return type(value)(checked(name, each, where) for each in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where}: expected a finite number; got {value}")
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise UsageError(f"{where}: expected an integer of at most 64 bits; got one of {value.bit_length()}")
    if isinstance(value, Path):
        return user_path(value)
    if isinstance(value, str):
        if name in WORDS and "." not in value:
            value = value.lower()
        return str(user_path(value)) if name in PATHS and value.startswith("~") else check_text(value, where)
    return value


def option(*flags: str, help: str, **more: Any) -> Any:
    """A typer option whose environment variable is AUTODECO_ and its long flag."""
    return typer.Option(*flags, help=help, envvar=env_name(flags), show_envvar=False, **more)


def env_name(flags: tuple[str, ...]) -> str:
    return "AUTODECO_" + long_name(flags).upper().replace("-", "_")


def long_name(flags: tuple[str, ...]) -> str:
    """ctx-size of ("-c", "--ctx-size"); --history of "--history/--no-history"."""
    return max((f.split("/")[0] for f in flags), key=len).lstrip("-")


def takes(options: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the fields of a dataclass as its options: one declaration for parser and program."""
    hints = get_type_hints(options, include_extras=True)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for f in fields(options):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            default = inspect.Parameter.empty if default is MISSING else default
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(f.name, kind, default=default, annotation=hints[f.name]))
        command.groups = getattr(options, "groups", {})
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def shared(options: Any, config: type[T], **own: Any) -> T:
    """A config from the fields that it has in common with a command's options; ``own`` are those it has not, or not
    alike."""
    names = {f.name for f in fields(config)} & {f.name for f in fields(options)} - own.keys()
    return config(**{name: getattr(options, name) for name in names}, **own)


def read_settings(ctx: typer.Context, preset: str | None) -> str | None:
    """Callback of --preset, which is parsed first: puts the file and the preset under the other options."""
    if ctx.resilient_parsing:  # shell completion must not fail on a file
        return preset
    preset = check_text(preset, "--preset") if preset else preset
    config = read_config()
    preset = preset or config.values.get("preset")
    ctx.default_map = _checked(ctx, config.values, str(config.path))
    if preset:
        table = config.preset(str(preset))
        ctx.default_map = {**ctx.default_map, **_checked(ctx, table, f"{config.path}, preset {preset}")}
    return preset


def parameters(command: Any) -> dict[str, Any]:
    """The options of a command by long name, without --help."""
    return {
        long_name(tuple(p.opts)): p
        for p in command.params
        if p.param_type_name == "option" and p.name != "help" and not p.hidden
    }


def _checked(ctx: typer.Context, table: dict[str, Any], where: str) -> dict[str, Any]:
    """The table by parameter name. Raises UsageError for a name or a value that no option takes."""
    known = parameters(ctx.command)
    values = {}
    for name, value in table.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise UsageError(f"{where}: '{name}' is no option of run{f'; did you mean {near[0]}?' if near else ''}")
        values[known[name].name] = convert(ctx, known[name], value, f"{where}: {name}")
    return values


def convert(ctx: typer.Context, parameter: Any, value: Any, where: str) -> Any:
    """A value as the parser would have taken it from a flag. Raises UsageError."""
    if parameter.multiple and not isinstance(value, list):
        value = [value]
    if parameter.callback is not None:  # --preset, which is what reads the file
        return check_text(str(value), where)
    try:
        found = parameter.process_value(ctx, _as_typed(parameter, value, where))
    except Exception as error:
        if not is_parsers(error):
            raise
        raise UsageError(f"{where}: expected {expected(ctx.command, parameter.name)}; got {value!r}") from None
    return checked(parameter.name, found, where)


def _as_typed(parameter: Any, value: Any, where: str) -> Any:
    """A value of the file as somebody would have typed it: the parser itself would make 1 of true and of 1.5."""
    if isinstance(value, list) and parameter.multiple:
        return [_one_typed(parameter, each, where) for each in value]
    return _one_typed(parameter, value, where)


def _one_typed(parameter: Any, value: Any, where: str) -> Any:
    is_flag = getattr(parameter, "is_flag", False)
    if not isinstance(value, str | int | float) or (isinstance(value, bool) and not is_flag):
        raise UsageError(f"{where}: expected {'true or false' if is_flag else 'text or a number'}; got {value!r}")
    return value if is_flag else str(value)


def sources(ctx: typer.Context, config: Config) -> dict[str, str]:
    """Option (long name) to where its value came from."""
    preset = ctx.params.get("preset")
    in_preset = config.preset(preset) if preset else {}
    found = {}
    for name, parameter in parameters(ctx.command).items():
        source = _SOURCES[ctx.get_parameter_source(parameter.name).name]
        if source == "file" and name in in_preset:
            source = f"preset {preset}"
        elif source == "environment":
            source = parameter.envvar
        found[name] = source
    return found

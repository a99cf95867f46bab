"""Where an option's value comes from: flag, environment, preset, file or default, in this order.

Owns the joint between the configuration file and the parser: the file's values become the parser's
default map, which ranks below flags and environment variables. The precedence is therefore the parser's
own, for every option at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, get_type_hints

import typer

from ..errors import UsageError
from .config_file import Config, read_config

_SOURCES = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file", "DEFAULT": "default"}


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
            kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(f.name, kind, default=default, annotation=hints[f.name]))
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def read_settings(ctx: typer.Context, preset: str | None) -> str | None:
    """Callback of --preset, which is parsed first: puts the file and the preset under the other options."""
    if ctx.resilient_parsing:  # shell completion must not fail on a file
        return preset
    config = read_config()
    preset = preset or config.values.get("preset")
    ctx.default_map = _checked(ctx, config.values, str(config.path))
    if preset:
        table = config.preset(str(preset))
        ctx.default_map = {**ctx.default_map, **_checked(ctx, table, f"{config.path}, preset {preset}")}
    return preset


def run_command() -> Any:
    """`run` as the parser knows it."""
    from . import app

    return typer.main.get_command(app).commands["run"]


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
        return str(value)
    try:
        return parameter.process_value(ctx, value)
    except Exception as error:
        if not hasattr(error, "format_message"):  # the parser's own, whose class lies in a private module
            raise
        raise UsageError(f"{where}: {error.message}; got {value!r}") from None


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

"""`autodeco-edge config`: every option of `run`, its value and where that comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OutputError
from ..io.printing import put, put_path
from .config_file import config_path, example_path, read_config
from .options import run_command
from .settings import env_name, parameters, sources


def config(
    preset: Annotated[str | None, typer.Option("--preset", help="As with `run --preset`.", show_default=False)] = None,
    variables: Annotated[bool, typer.Option("--env", help="Show the environment variables, too.")] = False,
    path: Annotated[bool, typer.Option("--path", help="Print where the file belongs.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print an example of the file.")] = False,
) -> None:
    """Show the options of `run` with their sources: flag, environment, preset, file, default, in this order.

    Example: autodeco-edge config --example > "$(autodeco-edge config --path)"
    """
    if path:
        _make_folder(config_path().parent)
        put_path(config_path())
    elif example:
        print(example_path().read_text(encoding="utf-8"), end="")
    else:
        for row in _rows(preset, variables):
            put(row.replace("\n", "\\n"))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be created ({error.strerror}); AUTODECO_CONFIG moves it") from None


def _rows(preset: str | None, variables: bool) -> list[str]:
    command = run_command()
    ctx = command.make_context("run", ["--preset", preset] if preset else [])
    found = read_config()
    where = sources(ctx, found)
    there = "" if Path(found.path).exists() else " (not there)"
    rows = [f"# {found.path}{there}"]
    for name, parameter in parameters(command).items():
        value = _shown(ctx.params[parameter.name])
        more = f"  {env_name((name,))}" if variables else ""
        rows.append(f"{name:<20} {value:<24} {where[name]}{more}")
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)

"""``autodeco-edge pull``, ``list``, ``rm`` and ``show``: models by name.

Owns the option names, their help and the tables. The work is in autodeco_edge.hub, imported inside each
command so that ``--help`` stays quick. Results go to stdout, progress and questions to stderr.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ..errors import UsageError
from ..io.printing import put, put_path, safe_line, say

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name from `list`, or user/repo; :QUANT chooses one.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def pull(
    model: ModelArgument,
    heads: Annotated[
        str | None,
        typer.Option("--heads", help="Heads: user/repo, a file, or none. Default: those of NAME.", show_default=False),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Look on this disk alone.")] = False,
) -> None:
    """Download a model and its heads, or what is newer of them; prints their paths.

    Example: autodeco-edge pull r1-distill-qwen-7b:Q8_0
    """
    from ..hub import resolve
    from ..hub.resolve import is_here

    if is_here(model):
        say(f"note: {model} is here already; nothing to download")
    found = resolve(model, heads, progress=not quiet, refresh=True, offline=offline)
    if found.note:
        say(f"note: {found.note}")
    put_path(found.model)
    if found.heads and found.heads != found.model:
        put_path(found.heads)


def list_models(as_json: JsonOption = False) -> None:
    """Names of models, and what of them is on this disk.

    Example: autodeco-edge list
    """
    from ..hub.inventory import inventory

    items = inventory()
    put(json.dumps([item.as_dict() for item in items], indent=2) if as_json else _table(items))


def rm(
    model: ModelArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a downloaded model and its heads; with :QUANT that quantisation alone.

    Example: autodeco-edge rm r1-distill-qwen-7b
    """
    from ..hub.download import size_text
    from ..hub.inventory import plan_removal

    plan = plan_removal(model)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(f"rm {model}: nobody to ask on stdin; give --yes")
        typer.confirm(f"Delete {safe_line(model)} from this disk?", abort=True, err=True)
    n_bytes = plan.run()
    put(f"removed {model}: {n_bytes} bytes freed ({size_text(n_bytes)})")


def show(
    file: Annotated[
        str, typer.Argument(metavar="NAME|FILE.gguf", help="A GGUF file, or a downloaded model.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Say what is in a GGUF file, and whether the heads inside or beside it belong to it.

    Example: autodeco-edge show autodeco-R1-Distill-Qwen-7B-v1.0.gguf
    """
    from ..convert.describe import describe_file, format_rows
    from ..hub import inspect
    from ..hub.resolve import find_file

    path, heads = find_file(file)
    facts = inspect.inspect(path, heads)
    if as_json:
        put(json.dumps(facts, indent=2))
    else:
        put(format_rows(describe_file(path) + inspect.extra_rows(facts)))


def _table(items: list) -> str:
    """A name that is not downloaded has dashes."""
    from ..hub.download import size_text

    rows = [("NAME", "QUANT", "SIZE", "HEADS", "LAST USED", "FROM")]
    for item in items:
        size = "-" if item.bytes is None else size_text(item.bytes)
        heads = "-" if item.heads is None else "ready" if item.heads_ready else "published"
        rows.append((item.name, item.quant or "-", size, heads, (item.last_used or "-")[:10], item.repo))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

"""`autodeco-edge plot`: traces to a picture, or onto the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..io.printing import put, say
from .terminal_plot import draw


def plot(
    traces: Annotated[list[Path], typer.Argument(help="Files of `run --trace` or `run --jsonl`, first reply each.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Figure: .png, .svg or .html. [default: the terminal]", show_default=False),
    ] = None,
) -> None:
    """Draw T and P over the tokens of replies, each point above its token, traces side by side.

    Example: autodeco-edge plot baseline.jsonl diverse.jsonl -o figure.png
    """
    from ..io.atomic import refuse_inputs
    from ..text.plot import check_drawable, read_trace, save_figure

    if output is not None:
        refuse_inputs(output, traces)
    found = [read_trace(path) for path in traces]
    check_drawable(found)
    if output is not None:
        save_figure(found, output)
    for trace in found:
        put(trace.caption())
        if output is None:
            draw(trace.tokens, sys.stdout)
    if output is not None:
        say(f"wrote {output}")

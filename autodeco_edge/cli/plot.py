"""`autodeco-edge plot`: traces to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..io.printing import put


def plot(
    traces: Annotated[list[Path], typer.Argument(help="Files of `run --trace` or `run --jsonl`, first reply each.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Figure: .png, .svg or .html.")],
) -> None:
    """Draw T and P over the tokens of replies, one panel a trace, with the text beneath.

    Example: autodeco-edge plot baseline.jsonl diverse.jsonl -o figure.png
    """
    from ..io.atomic import refuse_inputs
    from ..text.plot import read_trace, save_figure

    refuse_inputs(output, traces)
    found = [read_trace(path) for path in traces]
    save_figure(found, output)
    for trace in found:
        put(trace.caption())

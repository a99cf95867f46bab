"""``autodeco-edge fit``: heads for any GGUF, made and measured.

Owns the option names and their help. The work is in autodeco_edge.fit, imported inside the command so that ``--help``
needs no torch. The verdict goes to stdout, progress to stderr.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..io.printing import put
from .settings import shared, takes
from .train import check_packages

if TYPE_CHECKING:
    from ..fit.settings import FitConfig


@dataclass(frozen=True)
class FitOptions:
    """What can be said to it, once."""

    model: Annotated[str, typer.Option("--model", "-m", help="GGUF file, or the name of a model.", show_default=False)]
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Heads file; OUT.fit beside it has the work. [default: MODEL-autodeco.gguf here]",
            show_default=False,
        ),
    ] = None
    problems: Annotated[
        list[str] | None,
        typer.Option(
            "--problems",
            help="A task (docs/tasks.md) or a file of problems; repeatable. [default: the built-in pool]",
            show_default=False,
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", help="A file with a prompt a line: right is what is well formed.", show_default=False
        ),
    ] = None
    minutes: Annotated[float, typer.Option("--minutes", help="Time for the whole work.")] = 30.0
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", help="Tokens of a reply; longer ones are wrong.")] = (
        200
    )
    parallel: Annotated[int, typer.Option("--parallel", help="Replies drawn side by side.")] = 16
    threads: Annotated[int, typer.Option("--threads", "-t", help="Threads; 0 = one a physical core.")] = 0
    seed: Annotated[int, typer.Option("--seed", help="Seed of all draws and of the training.")] = 0
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False

    def config(self) -> FitConfig:
        """Raises what the hub raises for a model that is not there."""
        from ..fit.settings import FitConfig
        from ..hub import resolve

        model = resolve(self.model, "none").model
        output = self.output or Path(f"{model.stem}-autodeco.gguf")
        return shared(self, FitConfig, model=model, output=output, problems=tuple(self.problems or ()))


@takes(FitOptions)
def fit(ctx: Any, **values: Any) -> None:
    """Make heads for a GGUF: draw replies, keep right ones, train, and compare with the best constant.

    Example: autodeco-edge fit -m model-Q4_K_M.gguf --minutes 60
    """
    check_packages("fit")
    config = FitOptions(**values).config()
    from ..fit.fitting import fit as run_fit
    from ..fit.report import verdict

    report = run_fit(config)
    put(json.dumps(report) if values["as_json"] else verdict(report))

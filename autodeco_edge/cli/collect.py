"""``autodeco-edge collect``: right replies of a frozen model, as training data.

Owns the option names, their help and how a summary is shown. The work is in autodeco_edge.collect, imported inside
the command so that ``--help`` stays quick. The summary goes to stdout, progress to stderr.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FormatError, UsageError
from ..io.printing import put
from ..io.reading import parse_json
from .settings import shared, takes

if TYPE_CHECKING:
    from ..collect.collection import CollectConfig, Endpoint, LocalModel

COLUMNS = ("problems", "unsolved", "drawn", "right", "cut", "empty", "unreadable", "kept", "tokens")


@dataclass(frozen=True)
class CollectOptions:
    """What can be said to it, once."""

    problems: Annotated[
        str,
        typer.Option(
            "--problems", help="A JSONL or JSON file, or the name of a task (docs/tasks.md).", show_default=False
        ),
    ]
    output: Annotated[Path, typer.Option("--output", "-o", help="JSONL file for `train --data`.", show_default=False)]
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Model that draws the replies: GGUF file or name. This or --endpoint.",
            show_default=False,
        ),
    ] = None
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint",
            help="An OpenAI-compatible server that draws them, such as http://127.0.0.1:8080/v1. Its key: OPENAI_API_KEY.",
            show_default=False,
        ),
    ] = None
    samples: Annotated[int, typer.Option("-n", "--samples", help="Replies drawn a problem.")] = 16
    keep: Annotated[
        int | None, typer.Option("--keep", help="Right replies kept a problem. [default: all]", show_default=False)
    ] = None
    stop: Annotated[bool, typer.Option("--per-problem-stop", help="Draw no more of a problem than --keep needs.")] = (
        False
    )
    accept: Annotated[
        str,
        typer.Option(
            "--accept",
            help="What accepts a math answer: official (the string rule), math-verify, or both, which have to agree.",
        ),
    ] = "official"
    split: Annotated[str, typer.Option("--split", help="Of a named task: train or calibration.")] = "train"
    count: Annotated[int, typer.Option("--count", help="Problems of a named task.")] = 200
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first problems.", show_default=False)] = None
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens of a reply; longer ones are not kept.")] = 2048
    temperature: Annotated[float, typer.Option("--temp", help="Temperature.")] = 1.0
    top_p: Annotated[float, typer.Option("--top-p", help="Top-p.")] = 1.0
    seed: Annotated[int, typer.Option("--seed", help="Seed of all draws.")] = 0
    n_parallel: Annotated[int, typer.Option("--parallel", help="Replies drawn, or requests sent, side by side.")] = 16
    with_heads: Annotated[
        bool, typer.Option("--with-heads", help="Draw with the model's heads; --temp and --top-p multiply theirs.")
    ] = False
    heads: Annotated[
        Path | None, typer.Option("--heads", help="Draw with the heads of this file.", show_default=False)
    ] = None
    n_ctx: Annotated[
        int,
        typer.Option("-c", "--ctx-size", help="Context of one reply with its prompt, in tokens; 0 = what they need."),
    ] = 0
    n_threads: Annotated[int, typer.Option("-t", "--threads", help="Threads; 0 = one a physical core.")] = 0
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="Model of the server, by its name there.", show_default=False)
    ] = None
    template_from: Annotated[
        Path | None,
        typer.Option("--template-from", help="GGUF whose chat template writes the prompts.", show_default=False),
    ] = None
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="Hugging Face folder whose chat template writes them.", show_default=False),
    ] = None
    body: Annotated[
        str | None,
        typer.Option(
            "--body",
            help='More fields of a request, as JSON; null takes one away. [default: {"top_k": 0, "min_p": 0}]',
            show_default=False,
        ),
    ] = None
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds the server has for one answer.")] = 600.0
    retries: Annotated[int, typer.Option("--retries", help="Further tries of a request that failed.")] = 5
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False

    # ---- what they mean ---------------------------------------------------------------------

    def config(self) -> CollectConfig:
        """Raises UsageError for options that exclude each other."""
        if (self.model is None) == (self.endpoint is None):
            raise UsageError("collect: give either -m MODEL.gguf or --endpoint URL")
        if self.model is None:
            _refuse(
                {"--with-heads": self.with_heads, "--heads": self.heads, "-c": self.n_ctx, "-t": self.n_threads}, "-m"
            )
        else:
            _refuse(
                {
                    "--model-name": self.model_name,
                    "--template-from": self.template_from,
                    "--tokenizer": self.tokenizer,
                    "--body": self.body,
                },
                "--endpoint",
            )
        from ..collect.collection import CollectConfig
        from ..collect.source import DrawSettings

        source = self._server() if self.model is None else self._local()
        return shared(self, CollectConfig, source=source, draws=shared(self, DrawSettings))

    def _server(self) -> Endpoint:
        from ..collect.collection import Endpoint
        from ..collect.endpoint import PLAIN_BODY

        body = dict(PLAIN_BODY) if self.body is None else _object(self.body)
        key = os.environ.get("OPENAI_API_KEY", "")
        return shared(self, Endpoint, url=self.endpoint, key=key, template_gguf=self.template_from, body=body)

    def _local(self) -> LocalModel:
        from ..collect.collection import LocalModel
        from ..hub.resolve import find_file

        path, published = find_file(self.model)
        heads = self.heads or ((published or "auto") if self.with_heads else None)
        return LocalModel(path, heads, self.n_ctx, self.n_threads)


@takes(CollectOptions)
def collect(ctx: Any, **values: Any) -> None:
    """Collect right replies of a model as training data for heads.

    Example: autodeco-edge collect -m MODEL.gguf --problems math.jsonl -n 8 -o answers.jsonl
    """
    options = CollectOptions(**values)
    config = options.config()
    from ..collect.collection import collect as run_collection

    summary = run_collection(config)
    if options.as_json:
        put(json.dumps(summary))
    elif "kinds" in summary:
        put(_table(summary))


def _refuse(given: dict[str, Any], belongs_to: str) -> None:
    for name, value in given.items():
        if value:
            raise UsageError(f"{name} belongs to {belongs_to}; leave it out, or pass {belongs_to}")


def _object(text: str) -> dict[str, Any]:
    try:
        found = parse_json(text, "--body")
    except FormatError as error:
        raise UsageError(f"{error}; got {text!r}") from None
    if not isinstance(found, dict):
        raise UsageError(f"--body: allowed one JSON object; got {text!r}")
    return found


def _table(summary: dict[str, Any]) -> str:
    rows = [("", *COLUMNS)]
    rows += [(name, *(str(figures[c]) for c in COLUMNS)) for name, figures in summary["kinds"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, f"{summary['kinds']['all']['kept']} replies in {summary['output']}"])

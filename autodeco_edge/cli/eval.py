"""``autodeco-edge eval``: does it decode better?

Owns the option names, their help and how a report is shown. The work is in autodeco_edge.eval, imported
inside each command so that ``--help`` stays quick. Tables or one JSON object go to stdout, progress to stderr.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..io.printing import put, say
from ..io.reading import user_path
from .settings import shared, takes

if TYPE_CHECKING:
    from ..eval.evaluation import EvalConfig

app = typer.Typer(
    name="eval",
    invoke_without_command=True,
)

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="GGUF file, or the name of a model. [default: the bundled demo model]", show_default=False
    ),
]
HeadsOption = Annotated[
    Path | None,
    typer.Option("--heads", help="Heads file. [default: those inside the model, or of its name]", show_default=False),
]
ThreadsOption = Annotated[int, typer.Option("--threads", "-t", help="Threads; 0 = one a physical core.")]
ParallelOption = Annotated[int, typer.Option("--parallel", help="Replies drawn side by side.")]
ContextOption = Annotated[
    int, typer.Option("--ctx-size", "-c", help="Tokens of one reply with its prompt; 0 = what they need.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True)
class EvalOptions:
    """What can be said to it, once."""

    model: ModelOption = None
    heads: HeadsOption = None
    task: Annotated[
        str,
        typer.Option(
            "--task", help="Problems: a JSONL or JSON file, or the name of a task (docs/tasks.md).", show_default=False
        ),
    ] = ""
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the results. [default: eval-TASK]", show_default=False),
    ] = None
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Comma between: greedy, default (T=1 P=1), card (0.6/0.95), mean-shift, min-p, dynatemp, autodeco-t, "
            "autodeco-p, autodeco, expert, turn, and constants, such as 0.7/0.9 (T and P).",
        ),
    ] = "greedy,default,card,mean-shift,autodeco"
    more_heads: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=HEADS.gguf",
            help="More heads, for methods as autodeco@NAME; repeatable.",
            show_default=False,
        ),
    ] = None
    samples: Annotated[int, typer.Option("--samples", help="Replies a problem and seed.")] = 16
    seeds: Annotated[int, typer.Option("--seeds", help="Number of seeds; a problem gets samples x seeds replies.")] = 8
    count: Annotated[int, typer.Option("--count", help="Problems of a named task.")] = 200
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first problems.", show_default=False)] = None
    split: Annotated[str, typer.Option("--split", help="Of a named task: test, calibration or train.")] = "test"
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", help="Task that gives mean-shift its constants; never the test's.", show_default=False
        ),
    ] = None
    expert_samples: Annotated[
        int, typer.Option("--expert-samples", help="Replies for each constant that the method expert tries.")
    ] = 32
    grid_samples: Annotated[
        int, typer.Option("--frontier", help="Replies a problem for each of 40 constants; 0 = no frontier.")
    ] = 0
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens", help="Tokens of a reply.")] = 2048
    n_ctx: ContextOption = 0
    n_parallel: ParallelOption = 16
    n_threads: ThreadsOption = 0
    seed: Annotated[int, typer.Option("--seed", help="Seed of all draws; the same for every method.")] = 0
    no_math_verify: Annotated[bool, typer.Option("--no-math-verify", help="Judge by the string rule alone.")] = False
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the samples in the folder.")] = False
    no_draw: Annotated[
        bool, typer.Option("--no-draw", help="Sum up the samples in the folder (with --resume) and draw none.")
    ] = False
    figures: Annotated[bool, typer.Option("--figures", help="Also draw OUT/figures/*.svg.")] = False
    as_json: JsonOption = False

    def config(self) -> EvalConfig:
        """What they mean. Raises UsageError without a task."""
        if not self.task:
            raise UsageError("eval: give --task FILE.jsonl or the name of a task, such as demo or many (docs/tasks.md)")
        from ..eval.evaluation import EvalConfig
        from ..eval.samples import Limits

        model, heads = _files(self.model, self.heads)
        return shared(
            self,
            EvalConfig,
            model=model,
            heads=heads,
            output=self.output or Path(f"eval-{Path(self.task).stem.replace(':', '-')}"),
            methods=tuple(name.strip() for name in self.methods.split(",") if name.strip()),
            more_heads=dict(_named_heads(text) for text in self.more_heads or []),
            math_verify=not self.no_math_verify,
            draws=not self.no_draw,
            limits=shared(self, Limits),
        )


@app.callback()
@takes(EvalOptions)
def evaluate(ctx: Any, **values: Any) -> None:
    """Compare learned decoding with constants: replies to problems that can be checked, judged, with paired intervals.

    Example: autodeco-edge eval --task demo --methods default,mean-shift,autodeco --samples 4 --seeds 2
    """
    if ctx.invoked_subcommand:
        return
    options = EvalOptions(**values)
    config = options.config()
    from ..eval.evaluation import evaluate as run_evaluation

    report = run_evaluation(config)
    if options.figures:
        from ..eval.figures import save_figures

        save_figures(report, config.output / "figures")
    put(json.dumps(report, indent=1) if options.as_json else _tables(report))
    say(f"wrote {config.output}: report.json (the figures) and samples/ (every reply, judged)")


@app.command()
def drift(
    variant: Annotated[
        list[str],
        typer.Option("--variant", help="NAME=MODEL.gguf[,HEADS.gguf]; the first is the reference.", show_default=False),
    ],
    data: Annotated[Path, typer.Option("--data", help="JSONL of texts, as for train.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", help="Texts read at most.")] = 100,
    max_length: Annotated[int, typer.Option("--max-length", help="Tokens of a text; the first ones are kept.")] = 2048,
    threads: ThreadsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Heads on given texts: their likelihood beside constants, and how models quantised otherwise drift from the first.

    Example: autodeco-edge eval drift --variant f16=f16.gguf,heads.gguf --variant q4=q4.gguf,heads.gguf --data texts.jsonl
    """
    from ..eval.likelihood import compare, parse_variant, read_texts

    variants = [parse_variant(text) for text in variant]
    report = compare(variants, read_texts(data, variants[0], limit, max_length), n_threads=threads)
    put(json.dumps(report, indent=1) if as_json else _drift_tables(report))


@app.command()
def steering(
    task: Annotated[
        str,
        typer.Option(
            "--task", help="Problems: a JSONL or JSON file, or the name of a task (docs/tasks.md).", show_default=False
        ),
    ],
    model: ModelOption = None,
    heads: HeadsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the results. [default: steering-TASK]", show_default=False),
    ] = None,
    commands: Annotated[str, typer.Option("--commands", help="seen in training, or unseen by it.")] = "unseen",
    count: Annotated[int, typer.Option("--count", help="Problems.")] = 100,
    samples: Annotated[int, typer.Option("--samples", help="Replies a problem and condition.")] = 4,
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens", help="Tokens of a reply.")] = 2048,
    n_ctx: ContextOption = 0,
    parallel: ParallelOption = 16,
    threads: ThreadsOption = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all draws; the same for every condition.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the samples in the folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What a request for less or more diversity, at the end of the prompt, does to T and P.

    Example: autodeco-edge eval steering -m model.gguf --heads heads.gguf --task demo --count 100 --samples 4
    """
    from ..eval.samples import Limits
    from ..eval.steering import SteeringConfig, evaluate, table

    path, its_heads = _files(model, heads)
    config = SteeringConfig(
        model=path,
        heads=its_heads,
        task=task,
        output=output or Path(f"steering-{Path(task).stem.replace(':', '-')}"),
        commands=commands,
        count=count,
        samples=samples,
        seed=seed,
        resume=resume,
        limits=Limits(max_tokens=max_tokens, n_ctx=n_ctx, n_parallel=parallel, n_threads=threads),
    )
    report = evaluate(config)
    put(json.dumps(report, indent=1) if as_json else table(report))
    say(f"wrote {config.output}: report.json (the figures) and samples/ (every reply, judged)")


def _files(model: str | None, heads: Path | None) -> tuple[Path, Path | str]:
    """Raises MissingInputError for the name of a model that is not on this disk."""
    from ..engine.pairing import demo_model
    from ..hub.resolve import find_file

    path, its_own = find_file(model) if model else (demo_model(), None)
    return path, heads or its_own or "auto"


def _drift_tables(report: dict) -> str:
    lines = [f"{report['n_texts']} texts, {report['n_tokens']} tokens", ""]
    lines += ["| model | setting | nats a token | heads - it | outside the nucleus % |", "|---" * 5 + "|"]
    for name, found in report["variants"].items():
        for setting, row in found["settings"].items():
            own, difference = row["logprob"], row["heads_minus_it"]
            cells = [name, setting, f"{own['mean']:.4f} [{own['low']:.4f}, {own['high']:.4f}]"]
            gain = f"{difference['mean']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]"
            cells += ["" if setting == "heads" else gain, f"{100 * row['outside']:.2f}"]
            lines.append("| " + " | ".join(cells) + " |")
    if report["drift"]:
        keys = ("mean_abs_dT", "p99_abs_dT", "mean_abs_dP", "p99_abs_dP", "same_likeliest", "same_drawn")
        lines += ["", f"against {report['reference']}:", "", "| model | " + " | ".join(keys) + " |", "|---" * 7 + "|"]
        lines += [
            f"| {name} | " + " | ".join(f"{d[k]:.4f}" for k in keys) + " |" for name, d in report["drift"].items()
        ]
    return "\n".join(lines)


def _named_heads(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UsageError(f"--with: expected NAME=HEADS.gguf; got {text!r}")
    return name, user_path(path)


FEW = 30  # problems below which an interval says little


def _title(name: str, report: dict, group: dict) -> str:
    from ..eval.report import ALL

    n = next(iter(group["methods"].values()))["n_problems"]
    what = f"all {n} problems of {report['config']['task']}" if name == ALL else f"{name}, {n} of the problems"
    return what + (": few, so the intervals say little" if n < FEW else "")


def _tables(report: dict) -> str:
    from ..eval.report import frontier_line, table

    parts = []
    for name, group in report["groups"].items():
        parts += [
            f"{_title(name, report, group)}\n\n{table(group, ours)}\n" for ours in group["differences"] or ["autodeco"]
        ]
        parts += [frontier_line(method, group["frontier"]) for method in group.get("frontier", {}).get("interval", ())]
    return "\n".join(parts)

"""Steering by words: what a command for less or more diversity does to T and P.

Owns the three conditions, the figures over prompts and their table (equations 11; paper Table 4 and Figure 5). Draws
and judges with samples.py; a run that was killed goes on where it stopped.

    OUT/samples/CONDITION.jsonl   judged samples        OUT/report.json   the figures
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.model import Model
from ..engine.pairing import check_heads, open_heads
from ..errors import NoHeadsError, UsageError, check_range
from ..io.digest import identity
from ..io.printing import say
from ..records import RecordFile
from ..tasks import Problem, Verifier, load_task
from ..tasks.commands import SETS, with_command
from .methods import method
from .results import results_folder, write_report
from .samples import Drawer, Limits, Sample, by_problem, header
from .statistics import Floats, bootstrap, paired_bootstrap

NONE, LOW, HIGH = "none", "low", "high"
SIGNS = {LOW: -1, HIGH: 1}
MEANS = {"temperature": "mean_t", "top_p": "mean_p"}  # figure -> field of a Sample
HEADS = method("autodeco")


@dataclass(frozen=True)
class SteeringConfig:
    """
    model, heads     GGUF; heads file, or "auto" (those inside)
    task, count      as load_task takes them; of a file the first ``count`` problems
    output           folder of the results
    commands         seen: those of training; unseen: those it never sees
    samples          replies a problem and condition
    """

    model: Path
    task: str
    output: Path
    heads: str | Path = "auto"
    commands: str = "unseen"
    count: int = 100
    samples: int = 4
    seed: int = 0
    resume: bool = False
    limits: Limits = Limits()

    def check(self) -> None:
        check_range("samples", self.samples, 1, 4096)
        if self.commands not in SETS:
            raise UsageError(f"commands: allowed {', '.join(SETS)}; got {self.commands!r}")


def evaluate(config: SteeringConfig) -> dict[str, Any]:
    """Draw, judge and sum up; returns the report, which is also in OUT/report.json.

    Raises UsageError, NoHeadsError, BusyError, and what load_task, Model, Heads and RecordFile raise.
    """
    config.check()
    with results_folder(config.output, config.resume):
        report = _evaluate(config)
        write_report(config.output, report)
    return report


def _evaluate(config: SteeringConfig) -> dict[str, Any]:
    problems = load_task(config.task, limit=config.count, count=config.count).problems
    model = Model(config.model)
    heads = open_heads(config.heads, model.path)
    if not heads:
        raise NoHeadsError(f"{config.model}: has no heads inside; give --heads FILE")
    check_heads(heads, model.handle, model.path)
    asked = conditions(problems, config)
    names = {"model": identity(config.model), "heads_file": identity(heads.path)}
    with (
        Verifier(math_verify=False) as verifier,
        closing(Drawer(model, heads, config.limits, verifier, config.seed)) as drawer,
    ):
        drawn = {name: _draw(drawer, name, asked[name], config, names) for name in asked}
        report = {"config": _settings(config, model.path, heads.path, len(problems))}
        report |= {"conditions": summarise([p.id for p in problems], drawn), "example": example(drawer, asked)}
    return report


def conditions(problems: Sequence[Problem], config: SteeringConfig) -> dict[str, list[Problem]]:
    """The problems as they are, with a low and with a high command. Ids stay, so that the draws share their seeds."""
    asked: dict[str, list[Problem]] = {NONE: list(problems), LOW: [], HIGH: []}
    for problem in problems:
        low, high = SETS[config.commands].pick(config.seed, problem.id)
        for name, command in ((LOW, low), (HIGH, high)):
            asked[name].append(replace(problem, messages=tuple(with_command(problem.messages, command))))
    return asked


def _draw(
    drawer: Drawer, name: str, problems: Sequence[Problem], config: SteeringConfig, names: Mapping[str, str]
) -> list[Sample]:
    """All samples of a condition: those on disk, then the missing ones."""
    about = {**names, "condition": name, "asked": [p.messages[-1]["content"] for p in problems]}
    head = header(config.task, HEADS, config.seed, about, config.limits)
    with RecordFile(config.output / "samples" / f"{name}.jsonl", head, resume=True) as file:
        n_before = len(file.rows)
        samples = list(drawer.draw(HEADS, problems, config.samples, file))
        say(f"{name}: {len(samples)} samples, {len(file.rows) - n_before} new")
    return samples


def _settings(config: SteeringConfig, model: Path, heads: Path, n_problems: int) -> dict[str, Any]:
    settings = asdict(config) | {"model": model.name, "heads": heads.name, "n_problems": n_problems}
    return {name: value for name, value in settings.items() if name not in ("output", "resume")}


# ---- figures -----------------------------------------------------------------------


def summarise(ids: Sequence[str], drawn: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Figures of each condition. T and P of a prompt are means over the tokens of all its replies."""
    by_prompt = {name: by_problem(samples, ids) for name, samples in drawn.items()}
    return {name: _row(name, by_prompt) for name in by_prompt}


def _row(name: str, by_prompt: Mapping[str, list[list[Sample]]]) -> dict[str, Any]:
    groups = by_prompt[name]
    row: dict[str, Any] = {}
    for figure, field in MEANS.items():
        values = _means(groups, field)
        row[figure] = None if values is None else asdict(bootstrap(values))
        if name in SIGNS and values is not None:
            row[figure] |= _against(values, _means(by_prompt[NONE], field), SIGNS[name])
    row["accuracy"] = asdict(bootstrap([np.mean([s.right for s in group]) for group in groups]))
    row["tokens"] = float(np.mean([s.n_tokens for group in groups for s in group]))
    return row


def _means(groups: Sequence[Sequence[Sample]], field: str) -> Floats | None:
    """[n_prompts], weighted by the replies' tokens; None without that head."""
    values = [[getattr(s, field) for s in group] for group in groups]
    if any(v is None for group in values for v in group):
        return None
    weights = [[s.n_tokens for s in group] for group in groups]
    return np.array([np.average(v, weights=w) for v, w in zip(values, weights, strict=True)])


def _against(values: Floats, base: Floats, sign: int) -> dict[str, Any]:
    """Mean difference with its interval over prompts, and the share of prompts where it goes the way asked for."""
    right_way = sign * (values - base) > 0
    return {"difference": asdict(paired_bootstrap(values, base)), "consistency": float(right_way.mean())}


def example(drawer: Drawer, asked: Mapping[str, Sequence[Problem]]) -> dict[str, Any]:
    """T and P token by token of one reply to the first prompt in each condition (paper Figure 5)."""
    first = {name: problems[0] for name, problems in asked.items()}
    return {"problem": first[NONE].id, "conditions": {name: _tokens(drawer, p) for name, p in first.items()}}


def _tokens(drawer: Drawer, problem: Problem) -> dict[str, Any]:
    ((_, _, reply),) = drawer.replies(HEADS, [(problem, 0)])
    pieces = [drawer.model.detokenize([step.id]).decode("utf-8", "replace") for step in reply.steps]
    return {
        "asked": problem.messages[-1]["content"],
        "tokens": pieces,
        "temperature": [step.temperature for step in reply.steps],
        "top_p": [step.top_p for step in reply.steps],
    }


# ---- for people --------------------------------------------------------------------


def table(report: Mapping[str, Any]) -> str:
    """A Markdown table as the paper's Table 4, with 95 % intervals of the differences and the share of right replies."""
    lines = ["| command | mean T | change of T | consistent T % | mean P | change of P | consistent P % | right % |"]
    lines.append("|---" * 8 + "|")
    for name, row in report["conditions"].items():
        cells = [name, *_cells(row["temperature"]), *_cells(row["top_p"]), f"{100 * row['accuracy']['mean']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(figure: Mapping[str, Any] | None) -> Iterator[str]:
    """Mean, change with its interval, consistency."""
    yield f"{figure['mean']:.3f}" if figure else ""
    change = figure.get("difference") if figure else None
    yield f"{change['mean']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]" if change else ""
    yield f"{100 * figure['consistency']:.0f}" if change else ""

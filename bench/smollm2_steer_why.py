"""Why commands miss: T and P of the same words under three prompts, `python -P bench/smollm2_steer_why.py EVALS HEADS`.

EVALS is a folder of `autodeco-edge eval steering` with the steered heads. There every condition has replies of its own, so a
prompt's T moves for two reasons: the heads answer the command, or the model says something else. Here the replies that were
drawn without a command are read under all three prompts, and the first reason is alone. What is left of a miss is the heads'.

Noise is what four other replies of the same condition would change: its variance is that of a prompt's replies over four.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from autodeco_edge.engine.model import Model  # noqa: E402
from autodeco_edge.eval.statistics import bootstrap  # noqa: E402
from autodeco_edge.eval.steering import HIGH, LOW, MEANS, NONE, SIGNS, SteeringConfig, conditions  # noqa: E402
from autodeco_edge.hub import resolve  # noqa: E402
from autodeco_edge.tasks import load_task  # noqa: E402
from autodeco_edge.text.chat import render  # noqa: E402
from autodeco_edge.train.checkpoint import load_heads  # noqa: E402
from autodeco_edge.train.data import TrainingSample  # noqa: E402
from autodeco_edge.train.gguf_backbone import GgufBackbone  # noqa: E402
from autodeco_edge.train.modules import AutoDecoHeads  # noqa: E402

Values = dict[str, dict[str, np.ndarray]]  # figure -> condition -> [n_prompts, n_replies] means over the reply's tokens


def rows_of(file: Path) -> dict[str, list[dict]]:
    """Rows of each problem, replies in order."""
    found = defaultdict(list)
    for line in file.read_text().splitlines()[1:]:
        row = json.loads(line)
        found[row["problem"]].append(row)
    return {name: sorted(rows, key=lambda row: row["sample"]) for name, rows in found.items()}


def change(values: np.ndarray, before: np.ndarray, weights: tuple[np.ndarray, np.ndarray], sign: int) -> dict:
    """How often the mean of a prompt's replies goes as asked; all [n_prompts, n_replies], weights the replies' tokens."""
    moved, noise = np.zeros(len(values)), np.zeros(len(values))
    for of, weight, way in ((values, weights[0], 1), (before, weights[1], -1)):
        mean = np.average(of, axis=1, weights=weight)
        share = weight / weight.sum(1, keepdims=True)
        n = of.shape[1]
        noise += (share**2 * (of - mean[:, None]) ** 2).sum(1) * n / max(n - 1, 1)
        moved += way * mean
    return {
        "consistency": float((sign * moved > 0).mean()),
        "difference": asdict(bootstrap(moved)),
        "spread": float(moved.std()),  # over prompts
        "noise": float(np.sqrt(noise.mean())),  # of a prompt, root of the mean square
    }


# ---- as they were drawn -----------------------------------------------------------------


def drawn(evals: Path, ids: Sequence[str]) -> dict:
    """The figures of `eval steering`, with their noise."""
    found = {name: rows_of(evals / "samples" / f"{name}.jsonl") for name in (NONE, LOW, HIGH)}

    def column(name: str, field: str) -> np.ndarray:
        return np.array([[row[field] for row in found[name][i]] for i in ids], float)

    return {
        figure: {
            way: change(
                column(way, field), column(NONE, field), (column(way, "n_tokens"), column(NONE, "n_tokens")), sign
            )
            for way, sign in SIGNS.items()
        }
        for figure, field in MEANS.items()
    }


# ---- the same words ---------------------------------------------------------------------


def forced(backbone: GgufBackbone, heads: AutoDecoHeads, asked: dict, replies: list[list[list[int]]]) -> Values:
    """replies: token ids [n_prompts][n_replies], read behind each condition's prompt."""
    found: Values = {figure: {} for figure in MEANS}
    for name, problems in asked.items():
        means = []
        for problem, own in zip(problems, replies, strict=True):
            prompt = list(render(backbone.model, list(problem.messages)))
            read = backbone.positions([TrainingSample([*prompt, *ids], len(prompt)) for ids in own])
            means.append([_means(backbone, heads, hidden) for hidden, _ in read])
        for k, figure in enumerate(MEANS):
            found[figure][name] = np.array(means)[:, :, k]
    return found


@torch.no_grad()
def _means(backbone: GgufBackbone, heads: AutoDecoHeads, hidden: torch.Tensor) -> tuple[float, float]:
    t, p = heads(hidden.float(), backbone.lm_head(hidden.float()))
    return float(t.mean()), float(p.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evals", type=Path)
    parser.add_argument("heads", type=Path)
    parser.add_argument("--replies", type=int, default=4, help="of a prompt, at most those drawn")
    parser.add_argument("--count", type=int, help="prompts, evenly among those of the run [default: all]")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-steering-why.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = json.loads((options.evals / "report.json").read_text())["config"]
    model = resolve("smollm2-135m", "none", offline=True).model
    problems = list(load_task(settings["task"], limit=settings["count"], count=settings["count"]).problems)
    problems = problems[:: max(1, len(problems) // (options.count or len(problems)))]
    config = SteeringConfig(
        model, settings["task"], options.evals, commands=settings["commands"], seed=settings["seed"]
    )
    asked = conditions(problems, config)
    ids = [problem.id for problem in problems]
    own = rows_of(options.evals / "samples" / f"{NONE}.jsonl")
    with closing(Model(model)) as words:
        (end,) = words.tokenize("<|im_end|>", parse_special=True)
        replies = [[words.tokenize(r["text"]) + [end] * r["ended"] for r in own[i][: options.replies]] for i in ids]
    with closing(GgufBackbone(model, 1)) as backbone:
        longest = [
            TrainingSample(list(render(backbone.model, list(p.messages))) + [end] * 80, 1)
            for p in asked[LOW] + asked[HIGH]
        ]
        backbone.load(torch.device("cpu"), longest)
        values = forced(backbone, load_heads(options.heads).heads, asked, replies)
    n_tokens = np.array([[len(ids) for ids in of] for of in replies], float)
    result = {
        "prompts": len(ids),
        "replies": len(replies[0]),
        "drawn": drawn(options.evals, ids),
        "same_words": {
            figure: {
                way: change(of[way], of[NONE], (n_tokens, n_tokens), sign)
                | {"kinds": kinds(of, way, n_tokens, ids, sign)}
                for way, sign in SIGNS.items()
            }
            for figure, of in values.items()
        },
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def kinds(of: dict[str, np.ndarray], way: str, n_tokens: np.ndarray, ids: Sequence[str], sign: int) -> dict[str, float]:
    """Consistency by kind of problem."""
    moved = [np.average(of[name], axis=1, weights=n_tokens) for name in (way, NONE)]
    right = sign * (moved[0] - moved[1]) > 0
    found = defaultdict(list)
    for i, ok in zip(ids, right, strict=True):
        found[i.partition("/")[0]].append(ok)
    return {kind: float(np.mean(values)) for kind, values in found.items()}


if __name__ == "__main__":
    main()

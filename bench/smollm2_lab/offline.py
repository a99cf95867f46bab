"""Heads by reward where there is no card: `offline`, 40 minutes on two cores, all groups at once on what was drawn before.

Owns what is drawn and the steps. replay.py weighs short replies, paths.py says where long ones should end. Draws are files of the
state, so it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autodeco_edge.train import replay

from .lab import Lab
from .paths import Paths, Texts, collect_paths
from .replay import Replies, Weighed, collect, joined
from .sampler import Policy, constant

BEHAVIOURS = [
    (constant(t), 0.0) for t in (0.4, 0.7, 1.0)
]  # what draws the short replies; none cuts, so none is impossible
CHOSEN = Path(__file__).parents[1] / "results" / "smollm2-lab.json"
START = (0.98, 0.915)  # where reward on a card has taken T and P in open writing (calibration problems)


@dataclass(frozen=True)
class Draw:
    """What is drawn at once: of every kind of the group the training problems from ``first`` on, samples of each (and behaviour),
    side by side."""

    group: str
    first: int
    last: int
    samples: int
    batch: int


DRAWS = (
    Draw("many", 0, 60, 24, 512),
    Draw("many", 60, 130, 16, 512),
    Draw("exact", 0, 50, 16, 256),
    Draw("exact", 50, 110, 12, 256),
    Draw("write", 0, 100, 3, 128),
)
DIVERSITY = {"many": 0.5, "exact": 0.0}  # weight of distinct right answers


@dataclass(frozen=True)
class Climb(replay.Climb):
    """With texts of a step, and hold: what leaving the start costs in open writing."""

    steps: int = 100
    hold: float = 0.03
    texts: int = 48


def offline(options: argparse.Namespace) -> None:
    lab = Lab(options)
    if not lab.has("chosen.json"):  # what the rule has chosen, and the constants, are those of `run`
        lab.write("chosen.json", json.loads(CHOSEN.read_text())["chosen"])
    short, texts = draws(lab)
    for seed in range(options.reward_seeds):
        if lab.has(f"replay-{seed}.heads"):
            continue
        heads = lab.new_heads(100 + seed, START)
        record = climb(heads, short, texts, Climb(), seed, lab.say)
        lab.save_heads(
            f"replay-{seed}",
            heads,
            {"climb": vars(Climb()), "draws": [vars(d) for d in DRAWS], "steps": record},
        )


def draws(lab: Lab) -> tuple[list[Weighed], Texts]:
    """What there is, or is drawn now."""
    n_vocab = lab.model.shape.vocab
    found: dict[str, list[Any]] = {}
    for draw in DRAWS:
        found.setdefault(draw.group, []).append(drawn(lab, draw))
    (paths,) = found.pop("write")
    short = [Weighed(joined(parts), BEHAVIOURS, n_vocab, DIVERSITY[group]) for group, parts in found.items()]
    return short, Texts(paths, n_vocab)


def drawn(lab: Lab, draw: Draw) -> Any:
    """Replies or Paths, from the state's file or drawn."""
    rows = [i for kind in lab.groups()[draw.group] for i in lab.of(kind, "train", draw.last)[draw.first :]]
    name = f"{draw.group}-{draw.first}"
    lab.sampler.batch = draw.batch
    if draw.group == "write":
        start = Policy("start", heads=lab.new_heads(100, START))
        return kept(lab, f"paths-{name}.pt", Paths, lambda: collect_paths(lab, name, start, rows, draw.samples))
    return kept(lab, f"replies-{name}.pt", Replies, lambda: collect(lab, name, BEHAVIOURS, rows, draw.samples))


def kept(lab: Lab, name: str, kind: Any, make: Callable[[], Any]) -> Any:
    """The file of the state, or what ``make`` makes of it."""
    if not lab.has(name):
        buffer = io.BytesIO()
        torch.save(make().state(), buffer)
        lab.write(name, buffer.getvalue())
    return kind(**torch.load(lab.state / name))


def climb(
    heads: Any, short: Sequence[Weighed], texts: Texts, of: Climb, seed: int, say: Callable[[str], None]
) -> list[list[float]]:
    """Up the sum of the groups' objectives; [right of each group, every tenth step]."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(heads.parameters(), of.rate, betas=(0.9, 0.98), weight_decay=0.0)
    record = []
    for step in range(of.steps):
        optimizer.param_groups[0]["lr"], sigma = of.at(step)
        told = []
        for part in short:
            chosen = rng.permutation(len(part.problems))[: of.problems].tolist()
            value, about = part.objective(heads, chosen, sigma)
            (-value / len(chosen)).backward()
            told.append(about)
        chosen = rng.permutation(len(texts))[: of.texts].tolist()
        value, left, about = texts.objective(heads, chosen, sigma)
        (of.hold * left - value / len(chosen)).backward()
        told.append(about)
        torch.nn.utils.clip_grad_norm_(heads.parameters(), of.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0 or step == of.steps - 1:
            record.append([step, *(about["right"] for about in told)])
            say(f"step {step} " + " | ".join(" ".join(f"{k} {v:.3f}" for k, v in about.items()) for about in told))
    return record

"""Heads by reward where there is no card: `offline`, half an hour on two cores, all groups at once on what was drawn before.

Owns what is drawn and the steps. replay.py weighs short replies, paths.py says where long ones should end. Draws are files of the
state, so it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .lab import Lab
from .paths import Paths, Texts, collect_paths
from .replay import Replies, Weighed, collect
from .sampler import Policy, constant

BEHAVIOURS = [
    (constant(t), 0.0) for t in (0.4, 0.7, 1.0)
]  # what draws the short replies; none cuts, so none is impossible
START = (0.98, 0.915)  # where reward on a card has taken T and P in open writing (calibration problems)


@dataclass(frozen=True)
class Draw:
    """What is drawn of a group: problems a kind, samples of each (a behaviour), side by side, weight of distinct answers."""

    problems: int
    samples: int
    batch: int
    diversity: float = 0.0


DRAWS = {"many": Draw(60, 24, 512, 0.7), "exact": Draw(50, 16, 256), "write": Draw(100, 3, 128)}


@dataclass(frozen=True)
class Climb:
    """Steps of AdamW. sigma: of the noise that the nucleus is averaged over, first and last: as it falls the nucleus becomes the hard
    one. hold: what leaving the start costs in open writing. problems, texts: of a group in a step."""

    steps: int = 120
    rate: float = 1e-3
    hold: float = 0.03
    sigma: tuple[float, float] = (0.5, 0.2)
    problems: int = 24
    texts: int = 48


def offline(options: argparse.Namespace) -> None:
    lab = Lab(options)
    short, texts = draws(lab)
    for seed in range(options.reward_seeds):
        if lab.has(f"replay-{seed}.heads"):
            continue
        heads = lab.new_heads(100 + seed, START)
        record = climb(heads, short, texts, Climb(), seed, lab.say)
        lab.save_heads(
            f"replay-{seed}",
            heads,
            {"climb": vars(Climb()), "draws": {k: vars(d) for k, d in DRAWS.items()}, "steps": record},
        )


def draws(lab: Lab) -> tuple[list[Weighed], Texts]:
    """What there is, or is drawn now."""
    n_vocab = lab.model.shape.vocab
    of = {
        group: [i for kind in lab.groups()[group] for i in lab.of(kind, "train", d.problems)]
        for group, d in DRAWS.items()
    }
    short = []
    for group in ("many", "exact"):
        d = DRAWS[group]
        lab.sampler.batch = d.batch
        found = kept(
            lab,
            f"replies-{group}.pt",
            Replies,
            lambda g=group, d=d: collect(lab, f"{g}-0", BEHAVIOURS, of[g], d.samples),
        )
        short.append(Weighed(found, BEHAVIOURS, n_vocab, d.diversity))
    lab.sampler.batch = DRAWS["write"].batch
    start = Policy("start", heads=lab.new_heads(100, START))
    paths = kept(
        lab, "paths-write.pt", Paths, lambda: collect_paths(lab, "write-0", start, of["write"], DRAWS["write"].samples)
    )
    return short, Texts(paths, n_vocab)


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
        share = step / max(of.steps - 1, 1)
        sigma = of.sigma[0] * (of.sigma[1] / of.sigma[0]) ** share
        for group in optimizer.param_groups:
            group["lr"] = of.rate * max(0.05, min(1.0, 2 - 2 * share))
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
        torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0 or step == of.steps - 1:
            record.append([step, *(about["right"] for about in told)])
            say(f"step {step} " + " | ".join(" ".join(f"{k} {v:.3f}" for k, v in about.items()) for about in told))
    return record

"""The third stage: heads by policy gradient on verdicts, credit within a group of replies to one problem."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .lab import Lab, parse
from .sampler import Drawn, Job, Policy, Traces
from .verdicts import group_of, limit_of, seed_of


@dataclass
class Recipe:
    """One run of training on reward. groups: whose problems; start: heads to go on from, or "" for the best constant of
    ``start_group``; use_p: False leaves P at 1; diversity: weight of distinct answers."""

    name: str
    groups: tuple[str, ...]
    start: str = ""
    use_p: bool = True
    diversity: float = 1.0
    share: float = 1.0  # of the stage's time


RECIPES = [
    Recipe("reward-many", ("many",)),
    Recipe("reward-write", ("write",), share=1.3),
    Recipe("reward-exact", ("exact",), diversity=0.0),
    Recipe("reward-all", ("exact", "many", "write"), share=1.5),
    Recipe("reward-all-from-likelihood", ("exact", "many", "write"), start="likelihood-0", share=1.2),
]


def reward(lab: Lab, minutes: float) -> None:
    """Every recipe with one seed, then the second and third seed while there is time."""
    end = time.monotonic() + 60 * minutes
    there = lab.groups()
    runs = [(seed, r) for seed in range(lab.options.reward_seeds) for r in RECIPES if set(r.groups) & set(there)]
    runs = [(seed, r) for seed, r in runs if not lab.has(f"{r.name}-{seed}.heads")]
    for i, (seed, recipe) in enumerate(runs):
        left = end - time.monotonic()
        if left < 5 * lab.options.scale_percent / 100:
            break
        share = recipe.share / sum(r.share for _, r in runs[i:])
        try:
            train_reward(lab, recipe, seed, time.monotonic() + left * share)
        except Exception:  # as in `run`
            lab.say(f"{recipe.name}-{seed}: {traceback.format_exc()}")


def train_reward(lab: Lab, recipe: Recipe, seed: int, end: float) -> None:
    """Policy gradient with a group baseline. T: through d ln r / dT of the hard nucleus. P: z_P is drawn around the head's value,
    so its gradient is that of a Gaussian policy, unbiased whatever the nucleus does."""
    options, there = lab.options, lab.groups()
    groups = [g for g in recipe.groups if g in there]
    if recipe.start and lab.has(f"{recipe.start}.heads"):
        heads = lab.load_heads(recipe.start)
    else:
        constants = [parse(lab.read("chosen.json")["best"][g]["utility"]) for g in groups]
        at = (
            tuple(np.mean(constants, axis=0))
            if recipe.use_p
            else (float(np.mean([c[0] for c in constants])) * 0.9, 1.0)
        )
        heads = lab.new_heads(100 + seed, at)
    policy = Policy(recipe.name, heads=heads, use_p=recipe.use_p)
    optimizer = torch.optim.AdamW(heads.parameters(), options.reward_lr, betas=(0.9, 0.98), weight_decay=0.0)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    record: list[list[float]] = []
    while not record or time.monotonic() < end and len(record) < options.reward_steps:
        began = time.monotonic()
        rows = problems_of_step(lab, groups, rng)
        jobs = [
            Job(r, 0, seed_of(recipe.name, seed, len(record), r, k), limit_of(lab.problems[r]["kind"]))
            for r in rows
            for k in range(options.samples)
        ]
        traces = Traces()
        drawn = lab.sampler.draw(jobs, [policy], traces=traces, sigma=options.sigma)
        credit, right, spread = credits_of(lab, jobs, drawn, recipe.diversity)
        step_on_reward(
            heads,
            optimizer,
            traces.joined(),
            torch.from_numpy(credit).float().to(lab.device),
            recipe.use_p,
            options.sigma,
        )
        record.append([right, spread, float(drawn.mean_t.mean()), float(drawn.mean_p.mean()), time.monotonic() - began])
        if len(record) % 10 == 1:
            lab.say(f"{recipe.name}-{seed} step {len(record)}: " + " ".join(f"{x:.3f}" for x in record[-1]))
    lab.save_heads(f"{recipe.name}-{seed}", heads, {"recipe": vars(recipe), "steps": record})
    first, last = (np.mean(part, axis=0) for part in (record[:5], record[-5:]))
    lab.say(
        f"{recipe.name}-{seed}: {len(record)} steps, right {first[0]:.3f} -> {last[0]:.3f}, spread {first[1]:.3f} -> {last[1]:.3f}, T {last[2]:.3f}, P {last[3]:.3f}"
    )


def problems_of_step(lab: Lab, groups: list[str], rng: np.random.Generator) -> list[int]:
    """As many of each group's tokens as of another's: open writing has long replies, so fewer of them."""
    n = max(1, lab.options.rollouts // lab.options.samples // len(groups))
    chosen: list[int] = []
    for group in groups:
        rows = [number for kind in lab.groups()[group] for number in lab.of(kind, "train", 400)]
        few = max(1, n // 4) if group == "write" and len(groups) > 1 else max(1, n // 2) if group == "write" else n
        chosen += [rows[i] for i in rng.permutation(len(rows))[:few]]
    return chosen


def credits_of(lab: Lab, jobs: list[Job], drawn: Drawn, diversity: float) -> tuple[np.ndarray, float, float]:
    """(credit of each reply, share that is right, what is gained by differing, both over the groups of samples).

    Credits are divided by the root of their mean square, so that the rate means the same for all tasks.
    """
    from autodeco_edge.train.advantages import advantages, n_distinct

    n = lab.options.samples
    keys = lab.pool.keys([(job.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, job in enumerate(jobs)])
    credit, spread = np.zeros(len(jobs)), []
    for start in range(0, len(jobs), n):
        group = keys[start : start + n]
        if group_of(lab.problems[jobs[start].prompt]["kind"]) == "write":
            new = novelty(drawn.tokens[start : start + n])
            gain = np.array([key is not None for key in group]) * (1 + 2 * diversity * new)
            credit[start : start + n] = (gain - gain.mean()) * n / (n - 1)
            spread.append(float(new.mean()))
        else:
            credit[start : start + n] = advantages(group, diversity)
            spread.append(n_distinct(group) / n)
    scale = float(np.sqrt(np.mean(credit**2)))
    return credit / max(scale, 1e-6), float(np.mean([k is not None for k in keys])), float(np.mean(spread))


def novelty(replies: list[np.ndarray]) -> np.ndarray:
    """Of each reply the share of its pairs of neighbouring tokens that no other reply has. It depends on the others too; that
    part of the gradient is left out."""
    pairs = [np.unique(r[:-1].astype(np.uint32) * 65536 + r[1:]) for r in replies]
    values, counts = np.unique(np.concatenate(pairs), return_counts=True)
    alone = values[counts == 1]
    return np.array([np.isin(p, alone).mean() if len(p) else 0.0 for p in pairs])


def step_on_reward(
    heads: Any, optimizer: Any, data: dict[str, Tensor], credit: Tensor, use_p: bool, sigma: float
) -> None:
    """One step up the gradient of the mean over replies of A ln r(reply). credit [jobs], data of every token."""
    weight = credit[data["row"]] / len(credit)  # [M]
    t = heads.temp_head(data["hidden"])
    loss = -(weight * data["slope_t"] * t).sum()
    if use_p:
        p = heads.top_p_head(data["hidden"], data["features"])
        z = torch.logit(p.clamp(1e-6, 1 - 1e-6))
        loss = loss - (weight * data["noise_p"] / sigma * z).sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

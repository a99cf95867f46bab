"""The second stage: heads by the official loss, on the model's own right replies."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .drawing import statistics
from .lab import Lab
from .sampler import Job, Traces, constant
from .verdicts import limit_of, seed_of


def collect(lab: Lab, minutes: float) -> dict[str, Tensor]:
    """Hidden states and tokens of right replies drawn at T = 1, P = 1 to training problems; a third of the tokens a group."""
    end, parts = time.monotonic() + 60 * minutes, []
    per_group = lab.options.tokens
    for group, kinds in lab.groups().items():
        n_tokens, turn = 0, 0
        while n_tokens < per_group and time.monotonic() < end and turn < 6:
            rows = [number for kind in kinds for number in lab.of(kind, "train", 400 if group != "write" else 60)]
            rows = [rows[i] for i in np.random.default_rng(turn).permutation(len(rows))[: lab.options.batch // 8]]
            jobs = [
                Job(r, 0, seed_of("collect", group, turn, r, k), limit_of(lab.problems[r]["kind"]))
                for r in rows
                for k in range(8)
            ]
            traces = Traces()
            drawn = lab.sampler.draw(jobs, [constant(1.0)], traces=traces)
            keys = lab.pool.keys([(j.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, j in enumerate(jobs)])
            right = torch.tensor([key is not None for key in keys], device=lab.device)
            joined = traces.joined()
            keep = right[joined["row"]]
            parts.append({"hidden": joined["hidden"][keep], "token": joined["token"][keep]})
            n_tokens += int(keep.sum())
            turn += 1
        lab.say(f"collected {n_tokens} tokens of right replies, {group}")
    return {name: torch.cat([part[name] for part in parts]) for name in ("hidden", "token")}


def likelihood(lab: Lab, minutes: float) -> None:
    """The official loss (equations 7, 8) on right replies, three seeds."""
    names = [f"likelihood-{seed}" for seed in range(lab.options.seeds)]
    if all(lab.has(f"{n}.heads") for n in names):
        return
    end = time.monotonic() + 60 * minutes
    data = collect(lab, minutes / 2)
    for seed, name in enumerate(names):
        if not lab.has(f"{name}.heads"):
            heads = lab.new_heads(seed)
            left = (end - time.monotonic()) / (len(names) - seed)
            record = train_likelihood(lab, heads, data, seed, time.monotonic() + left)
            lab.save_heads(name, heads, record)
            lab.say(f"{name}: {record}")


def train_likelihood(lab: Lab, heads: Any, data: dict[str, Tensor], seed: int, end: float) -> dict[str, Any]:
    from autodeco_edge.train.fast_losses import token_losses
    from autodeco_edge.train.losses import DROP_PROBABILITY

    rng = torch.Generator().manual_seed(seed)
    steps, size = lab.options.likelihood_steps, lab.options.step_tokens
    optimizer = torch.optim.AdamW(heads.parameters(), lab.options.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: max(0.02, 1 - s / steps))
    seen: list[tuple[float, float, float]] = []
    for _ in range(steps):
        if seen and time.monotonic() > end:
            break
        rows = torch.randint(len(data["token"]), (size,), generator=rng).to(lab.device)
        dropped = (torch.rand(size, generator=rng) < DROP_PROBABILITY).to(lab.device)
        total = torch.zeros(4, device=lab.device)
        for part, drop in zip(rows.split(lab.options.chunk), dropped.split(lab.options.chunk), strict=True):
            hidden, labels = data["hidden"][part], data["token"][part]
            with torch.no_grad():
                logits = lab.model.logits(hidden)
                keep = ~((logits.argmax(-1) == labels) & drop)
            t, p, _ = with_detached_features(heads, hidden, logits)
            temp, nucleus = token_losses(logits, t, p, labels, "hf")
            share = size * (1 - 0.6 * 0.7)  # kept, about: the mean's divisor has to be known before the last chunk
            ((temp * keep).sum() / share + nucleus.sum() / size).backward()
            total += torch.stack([(temp * keep).sum(), nucleus.sum(), t.sum(), p.sum()]).detach()
        torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        seen.append((float((total[0] + total[1]) / size), float(total[2] / size), float(total[3] / size)))
    last = np.mean(seen[-10:], axis=0)
    return {
        "steps": len(seen),
        "loss": float(last[0]),
        "mean_t": float(last[1]),
        "mean_p": float(last[2]),
        "n_tokens": len(data["token"]),
    }


def with_detached_features(heads: Any, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As heads_values with gradient: T and the statistics enter the top-p head as constants (equations 3)."""
    t = heads.temp_head(hidden)
    with torch.no_grad():
        features = torch.cat([t.detach()[:, None], statistics(logits, t.detach())], -1)
    return t, heads.top_p_head(hidden, features), features

"""Heads by reward on replies drawn once: each reply is weighed by how likely the heads make it.

Owns the drawn replies and the objective. Replies come from constants that leave no token out, and from earlier heads; their mixture
is what a reply's probability under the heads is divided by (multiple importance sampling, Veach and Guibas 1995). The weights
are not normalised: then what was never drawn counts as wrong, and heads gain nothing by making all that was drawn unlikely. A step costs no forward pass of the model, so there can be hundreds on two cores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .lab import Lab
from .pressed import Pressed
from .sampler import Job, Policy, Traces
from .verdicts import limit_of, seed_of

ROWS = 256  # positions whose logits exist at once
AMONG = 16  # distinct right answers are counted among so many, as in the tables
MOST_WEIGHT = 10.0  # of a reply, where it counts as 1 if it is as likely as when it was drawn


@dataclass
class Replies:
    """Replies [N] to problems, in order; their tokens [M] in order.

    problem [N], key [N] (0: wrong, else the number of a right answer of that problem), by [N] (behaviour that drew it)
    reply [M], hidden [M, H] half, and the pressed distribution
    """

    problem: Tensor
    key: Tensor
    by: Tensor
    reply: Tensor
    hidden: Tensor
    values: Tensor
    log_n: Tensor
    rank: Tensor
    token: Tensor

    def pressed(self, rows: Tensor | slice) -> Pressed:
        return Pressed(
            *(
                x[rows].float() if x.is_floating_point() else x[rows]
                for x in (self.values, self.log_n, self.rank, self.token)
            )
        )

    def state(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def collect(
    lab: Lab, name: str, policies: Sequence[tuple[Policy, float]], rows: Sequence[int], samples: int
) -> Replies:
    """Of each policy (and the noise on its z_P) so many replies to every problem."""
    parts = [_drawn(lab, name, number, *of, rows, samples) for number, of in enumerate(policies)]
    offset = np.cumsum([0, *(len(p["problem"]) for p in parts)])
    for part, start in zip(parts, offset, strict=False):
        part["reply"] = part["reply"] + int(start)
    whole = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
    keys: dict[int, dict[str, int]] = {}
    texts = [t for p in parts for t in _keys.pop(id(p))]
    whole["key"] = torch.tensor(
        [
            0 if k is None else keys.setdefault(p, {}).setdefault(k, len(keys[p]) + 1)
            for p, k in zip(whole["problem"].tolist(), texts, strict=True)
        ]
    )
    return by_problem(Replies(**whole))


def by_problem(replies: Replies) -> Replies:
    """The same in the order of the problems, so that what belongs to one lies together."""
    order = torch.argsort(replies.problem, stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    reply = place[replies.reply]
    rows = torch.argsort(reply, stable=True)
    found = {
        k: v[order] if len(v) == len(order) and k in ("problem", "key", "by") else v[rows]
        for k, v in replies.state().items()
    }
    return Replies(**(found | {"reply": reply[rows]}))


def joined(parts: Sequence[Replies]) -> Replies:
    """Of one group, other problems each."""
    states = [part.state() for part in parts]
    starts = np.cumsum([0, *(len(s["problem"]) for s in states)])
    whole = {k: torch.cat([s[k] for s in states]) for k in states[0]}
    return by_problem(
        Replies(**(whole | {"reply": torch.cat([s["reply"] + int(n) for s, n in zip(states, starts, strict=False)])}))
    )


_keys: dict[int, list[str | None]] = {}


def _drawn(
    lab: Lab, name: str, number: int, policy: Policy, sigma: float, rows: Sequence[int], samples: int
) -> dict[str, Tensor]:
    jobs = [
        Job(r, 0, seed_of(name, number, r, k), limit_of(lab.problems[r]["kind"])) for r in rows for k in range(samples)
    ]
    traces = Traces()
    drawn = lab.sampler.draw(jobs, [policy], traces=traces, sigma=sigma)
    found = traces.joined()
    order = torch.argsort(found["row"], stable=True)
    hidden, token, reply = (found[k][order] for k in ("hidden", "token", "row"))
    pressed = [Pressed.of(lab.model.logits(h), t) for h, t in zip(hidden.split(ROWS), token.split(ROWS), strict=True)]
    keys = lab.pool.keys([(job.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, job in enumerate(jobs)])
    part = {
        "problem": torch.tensor([job.prompt for job in jobs]),
        "by": torch.full((len(jobs),), number),
        "reply": reply,
        "hidden": hidden.half(),
        **{f.name: torch.cat([getattr(p, f.name) for p in pressed]) for f in fields(Pressed)},
    }
    part["values"], part["log_n"] = part["values"].half(), part["log_n"].half()
    _keys[id(part)] = keys
    right = float(np.mean([k is not None for k in keys]))
    lab.say(f"{name} {policy.name}: {len(jobs)} replies, {len(token)} tokens, right {right:.3f}")
    return part


# ---- probabilities ---------------------------------------------------------------------


def log_probability(
    heads: Any, hidden: Tensor, pressed: Pressed, sigma: float, n_vocab: int
) -> tuple[Tensor, Tensor, Tensor]:
    """ln of the chance of each token [M] under heads with noise on z_P; T and P [M]. T enters the top-p head as a constant."""
    t = heads.temp_head(hidden)
    with torch.no_grad():
        features = torch.cat([t.detach()[:, None], pressed.statistics(t.detach(), n_vocab)], -1)
    p = heads.top_p_head(hidden, features)
    return pressed.log_probability(t, torch.logit(p.clamp(1e-6, 1 - 1e-6)), sigma), t, p


@torch.no_grad()
def log_behaviour(replies: Replies, policy: Policy, sigma: float, n_vocab: int) -> Tensor:
    """ln of the chance of each reply [N] under what drew some of them."""
    parts = []
    for rows in torch.arange(len(replies.reply)).split(8192):
        pressed = replies.pressed(rows)
        if policy.heads is None:
            t = torch.full((len(rows),), policy.temperature)
            parts.append(pressed.token / t - torch.logsumexp(pressed.log_mass(t), -1))
        else:
            parts.append(log_probability(policy.heads, replies.hidden[rows].float(), pressed, sigma, n_vocab)[0])
    return torch.zeros(len(replies.problem)).index_add_(0, replies.reply, torch.cat(parts))


def log_mixture(replies: Replies, policies: Sequence[tuple[Policy, float]], n_vocab: int) -> Tensor:
    """ln of the mean over the policies, each of which drew as many, of the chance of a reply [N]."""
    each = torch.stack([log_behaviour(replies, p, s, n_vocab) for p, s in policies])
    return torch.logsumexp(each, 0) - math.log(len(policies))


# ---- the objective ---------------------------------------------------------------------


def objective(log_w: Tensor, key: Tensor, diversity: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """(J, share right, distinct right of 16 / 16, effective number of replies) of one problem from its weighed replies [n].

    J = share right + diversity * distinct, what the utility of calibrate.py is of a constant.
    """
    w = log_w.clamp(max=math.log(MOST_WEIGHT)).exp() / len(log_w)
    mass = torch.zeros(int(key.max()) + 1).index_add(0, key, w)[1:]
    distinct = (1 - (1 - mass.clamp(max=1 - 1e-6)) ** AMONG).sum() / AMONG
    return (
        mass.sum() + diversity * distinct,
        mass.sum(),
        distinct,
        float(w.detach().sum() ** 2 / w.detach().square().sum()),
    )


class Weighed:
    """Replies of one group and what they were drawn with. starts: the first reply and the first token of every problem."""

    def __init__(
        self, replies: Replies, policies: Sequence[tuple[Policy, float]], n_vocab: int, diversity: float
    ) -> None:
        self.replies, self.n_vocab, self.diversity = replies, n_vocab, diversity
        self.log_mixture = log_mixture(replies, policies, n_vocab)
        self.problems, counts = torch.unique_consecutive(replies.problem, return_counts=True)
        self.starts = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
        self.tokens = torch.searchsorted(replies.reply, self.starts)

    def objective(self, heads: Any, chosen: Sequence[int], sigma: float) -> tuple[Tensor, dict[str, float]]:
        """Sum of J over problems (places in ``problems``), and what it is made of."""
        rows = torch.cat([torch.arange(int(self.tokens[i]), int(self.tokens[i + 1])) for i in chosen])
        replies = self.replies
        log_r, t, p = log_probability(heads, replies.hidden[rows].float(), replies.pressed(rows), sigma, self.n_vocab)
        log_p = torch.zeros(len(replies.problem)).index_add(0, replies.reply[rows], log_r)
        parts = [
            objective(log_p[a:b] - self.log_mixture[a:b], replies.key[a:b], self.diversity)
            for a, b in ((int(self.starts[i]), int(self.starts[i + 1])) for i in chosen)
        ]
        about = {
            "right": float(torch.stack([x[1] for x in parts]).detach().mean()),
            "distinct": float(torch.stack([x[2] for x in parts]).detach().mean()),
            "effective": float(np.mean([x[3] for x in parts])),
            "t": float(t.detach().mean()),
            "p": float(p.detach().mean()),
        }
        return torch.stack([x[0] for x in parts]).sum(), about

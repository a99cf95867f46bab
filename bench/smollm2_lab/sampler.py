"""Replies in large batches: policies, jobs, and the loop that draws.

Owns what a reply is drawn with (constants, rules, heads) and the traces that training on rewards needs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .drawing import GREEDY_BELOW, draw, pick, statistics, threshold, uniform
from .model import Cache, Llama

EOS = 2
BUNDLE = 4  # batches drawn before anything is judged
COMPACT = 0.8  # of the working set alive: finished sequences are dropped below it


@dataclass
class Policy:
    """How T and P of a token come about. Constants, llama.cpp's dynamic temperature, or heads.

    heads      AutoDecoHeads, or None
    use_t, use_p   which of them act; a head that does not counts as 1
    """

    name: str
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    dynatemp: tuple[float, float] | None = None
    heads: Any = None
    use_t: bool = True
    use_p: bool = True

    @torch.no_grad()
    def __call__(self, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """T, P [b] of some rows."""
        one = torch.ones(len(hidden), device=hidden.device)
        if self.dynatemp:
            low, high = self.dynatemp
            q = torch.softmax(logits, -1)
            share = torch.special.entr(q).sum(-1) / math.log(logits.shape[1])
            return low + (high - low) * share, one
        if self.heads is None:
            return one * self.temperature, one * self.top_p
        t, p, _ = heads_values(self.heads, hidden, logits)
        return (t if self.use_t else one), (p if self.use_p else one)


def heads_values(heads: Any, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """T, P [b] and the features [b, 5] that P was made from."""
    t = heads.temp_head(hidden)
    features = torch.cat([t[:, None], statistics(logits, t)], -1)
    return t, heads.top_p_head(hidden, features), features


def constant(t: float, p: float = 1.0, name: str = "") -> Policy:
    return Policy(name or f"{t:g}/{p:g}", t, p)


@dataclass
class Job:
    """One reply to draw: prompt (number in the list of prompts), policy (number), seed, most tokens."""

    prompt: int
    policy: int
    seed: int
    limit: int


@dataclass
class Drawn:
    """tokens of each job in order, the end token included if it came; means of T, P and ln p (T = 1) over its tokens."""

    tokens: list[np.ndarray]
    ended: np.ndarray
    mean_t: np.ndarray
    mean_p: np.ndarray
    log_p: np.ndarray
    n_steps: int = 0

    def only(self, rows: list[int]) -> Drawn:
        return Drawn(
            [self.tokens[i] for i in rows], *(x[rows] for x in (self.ended, self.mean_t, self.mean_p, self.log_p))
        )


@dataclass
class Traces:
    """What training needs of every token drawn, [M] each, on the device. row: the job it belongs to."""

    row: list[Tensor] = field(default_factory=list)
    token: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    slope_t: list[Tensor] = field(default_factory=list)  # d ln r(token) / dT, r the hard nucleus
    noise_p: list[Tensor] = field(default_factory=list)  # standard normal, added to z_P

    def joined(self) -> dict[str, Tensor]:
        return {name: torch.cat(values) for name, values in vars(self).items() if values}


class Sampler:
    """Draws many replies at once. prompts: token ids. batch: most sequences side by side."""

    def __init__(self, model: Llama, prompts: list[list[int]], batch: int) -> None:
        self.model, self.prompts, self.batch = model, prompts, batch
        self.cut_is_end = False  # for a dry run
        self.endless = False  # replies never end, and their traces are the places (paths.py)

    @torch.no_grad()
    def draw(
        self,
        jobs: list[Job],
        policies: list[Policy],
        deadline: float = math.inf,
        *,
        traces: Traces | None = None,
        sigma: float = 0.0,
    ) -> Drawn:
        """Replies to jobs. Jobs not begun at the deadline are given back empty.

        traces   filled with what training needs; then all jobs have one policy, of heads or constant
        sigma    of the noise on z_P (traces only)
        """
        n = len(jobs)
        out = Drawn([np.zeros(0, np.uint16)] * n, np.zeros(n, bool), *(np.zeros(n, np.float32) for _ in range(3)))
        # side by side what ends alike; then a prompt is read once for all its samples and policies
        order = sorted(range(n), key=lambda i: (jobs[i].limit, len(self.prompts[jobs[i].prompt]) // 8, jobs[i].prompt))
        for start in range(0, n, self.batch):
            if time.monotonic() > deadline:
                break
            self._batch(
                [order[i] for i in range(start, min(n, start + self.batch))], jobs, policies, out, traces, sigma
            )
        return out

    def _batch(
        self,
        chosen: list[int],
        jobs: list[Job],
        policies: list[Policy],
        out: Drawn,
        traces: Traces | None,
        sigma: float,
    ) -> None:
        dev = self.model.device
        limit = max(jobs[i].limit for i in chosen)
        chosen = sorted(chosen, key=lambda i: jobs[i].policy)
        column = lambda name: torch.tensor([getattr(jobs[i], name) for i in chosen], device=dev)  # noqa: E731
        n, policy = len(chosen), np.array([jobs[i].policy for i in chosen])
        ids, seed, limits, slot = (
            torch.tensor(chosen, device=dev),
            column("seed"),
            column("limit"),
            torch.arange(n, device=dev),
        )
        tokens = torch.full((n, limit), EOS, dtype=torch.long, device=dev)
        sums, count = torch.zeros(n, 3, device=dev), torch.zeros(n, dtype=torch.long, device=dev)
        ended, alive = torch.zeros(n, dtype=torch.bool, device=dev), torch.ones(n, dtype=torch.bool, device=dev)
        cache, hidden = self._prompted([jobs[i].prompt for i in chosen], limit)
        for t in range(limit):
            logits = self.model.logits(hidden)
            if traces is None or self.endless:
                if traces is not None:
                    note(traces, alive, row=ids, hidden=hidden)
                    logits = logits.index_fill(1, torch.tensor([EOS], device=dev), -math.inf)
                temp, top_p, min_p = self._values(policies, policy, hidden, logits)
                token = draw(logits, temp, top_p, min_p, seed, t)
            else:
                token, temp, top_p = traced(
                    policies[policy[0]], hidden, logits, uniform(seed, 8 * t), ids, alive, traces, sigma
                )
            log_p = logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(-1)
            tokens[slot, t] = torch.where(alive, token, EOS)
            sums[slot] += torch.stack([temp, top_p, log_p], -1) * alive[:, None]
            count[slot] += alive
            ended[slot] |= alive & ((token == EOS) | self.cut_is_end)
            out.n_steps += len(token)
            alive = alive & (token != EOS) & (t + 1 < limits)
            n_alive = int(alive.sum())
            if not n_alive:
                break
            if n_alive < COMPACT * len(token):
                keep = alive.nonzero().squeeze(1)
                cache = cache.rows(keep, cache.k.shape[3])
                slot, seed, ids, limits, token, alive = (x[keep] for x in (slot, seed, ids, limits, token, alive))
                policy = policy[keep.cpu().numpy()]
            hidden = self.model.step(token, cache)
        self._store(out, chosen, tokens, sums, count, ended)

    def _store(self, out: Drawn, chosen: list[int], tokens: Tensor, sums: Tensor, count: Tensor, ended: Tensor) -> None:
        means = (sums / count[:, None]).cpu().numpy()
        tokens_, count_, ended_ = (
            tokens.to(torch.int32).cpu().numpy().astype(np.uint16),
            count.cpu().numpy(),
            ended.cpu().numpy(),
        )
        for row, i in enumerate(chosen):
            out.tokens[i] = tokens_[row, : count_[row]]
            out.ended[i] = ended_[row]
            out.mean_t[i], out.mean_p[i], out.log_p[i] = means[row]

    def _prompted(self, prompts: list[int], limit: int) -> tuple[Cache, Tensor]:
        """A cache with each job's prompt in it, and the hidden state behind it; a prompt is read once for all its samples."""
        dev, shape = self.model.device, self.model.shape
        unique = sorted(set(prompts))
        longest = max(len(self.prompts[p]) for p in unique)
        parts, states = [], []
        whole = Cache(shape, len(unique), longest, self.model.cache_dtype, dev)
        for start in range(0, len(unique), 128):
            some = [self.prompts[p] for p in unique[start : start + 128]]
            pad = torch.tensor([longest - len(p) for p in some], device=dev)
            ids = torch.tensor([[EOS] * (longest - len(p)) + list(p) for p in some], device=dev)
            cache = Cache(shape, len(some), longest, self.model.cache_dtype, dev)
            states.append(self.model.prefill(ids, pad, cache))
            whole.k[:, start : start + len(some)], whole.v[:, start : start + len(some)] = cache.k, cache.v
            parts.append(pad)
        whole.pad, whole.length = torch.cat(parts), longest
        place = {p: i for i, p in enumerate(unique)}
        index = torch.tensor([place[p] for p in prompts], device=dev)
        return whole.rows(index, longest + limit), torch.cat(states)[index]

    @staticmethod
    def _values(
        policies: list[Policy], policy: np.ndarray, hidden: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """T, P and min-p of every row; rows of one policy lie together."""
        edges = [0, *(np.flatnonzero(np.diff(policy)) + 1).tolist(), len(policy)]
        columns = []
        for a, b in zip(edges, edges[1:], strict=False):
            of = policies[policy[a]]
            t, p = of(hidden[a:b], logits[a:b])
            columns.append((t, p, torch.full_like(t, of.min_p)))
        return tuple(torch.cat(c) for c in zip(*columns, strict=True))


@torch.no_grad()
def traced(
    of: Policy,
    hidden: Tensor,
    logits: Tensor,
    u: Tensor,
    ids: Tensor,
    alive: Tensor,
    traces: Traces,
    sigma: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """A draw that keeps what its gradient needs: (token, T, P) [B]. z_P has noise; the nucleus is the hard one.

    d ln r(y) / dT = (E_r[l] - l_y) / T^2 with the nucleus held fast, which is exact wherever no token crosses its border.
    """
    features = slope = noise = None
    if of.heads is None:
        temp, top_p = of(hidden, logits)
    else:
        temp, top_p, features = heads_values(of.heads, hidden, logits)
        temp = temp if of.use_t else torch.ones_like(temp)
        noise = torch.randn_like(top_p) if of.use_p else torch.zeros_like(top_p)
        top_p = (
            torch.sigmoid(torch.logit(top_p.clamp(1e-6, 1 - 1e-6)) + sigma * noise)
            if of.use_p
            else torch.ones_like(top_p)
        )
    temp = temp.clamp(min=GREEDY_BELOW)
    weights = (logits - logits.amax(-1, keepdim=True)).div_(temp[:, None]).exp_()
    kept = torch.where(weights >= threshold(weights, top_p, 24), weights, 0) if bool((top_p < 1).any()) else weights
    token = pick(kept, u)
    if of.heads is not None:
        mean = (kept * logits).sum(-1) / kept.sum(-1)
        slope = (mean - logits.gather(1, token[:, None]).squeeze(1)) / temp.square()
    note(traces, alive, row=ids, token=token, hidden=hidden, features=features, slope_t=slope, noise_p=noise)
    return token, temp, top_p


def note(traces: Traces, alive: Tensor, **columns: Tensor | None) -> None:
    """Adds to traces the rows that are alive."""
    for name, value in columns.items():
        if value is not None:
            getattr(traces, name).append(value[alive])


def fresh(width: int, hidden: int, device: torch.device) -> Any:
    from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
    from autodeco_edge.train.modules import AutoDecoHeads

    return AutoDecoHeads(HeadSpec(width, hidden, FEATURES_ENHANCED, True, True)).to(device)

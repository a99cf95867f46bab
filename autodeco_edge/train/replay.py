"""Replies drawn once, weighed by how likely other heads make them: the expected reward of heads without a forward pass.

Owns the drawn replies, their weights, the objective and the steps up it. Replies come from constants that leave no token out;
their mixture is what a reply's probability under the heads is divided by (the balance heuristic of multiple importance
sampling, Veach and Guibas 1995). Knows neither files nor models.

Of one problem with n replies i that the heads make r_i times as likely as the mixture does:

    w_i = min(r_i, MOST_WEIGHT) / n, divided by their sum where that is above 1
    J = sum of w_i over right ones + diversity * E[distinct right ones among m replies] / m
    E[...] = sum over right answers k of 1 - (1 - sum of w_i over replies that say k)^m

which is what `fit` measures (docs/decisions/0040-what-fit-compares.md) and a policy gradient climbs (advantages.py). The
weights are not normalised: what was never drawn counts as wrong. Divided by their sum they could be raised by
going where nothing was drawn (docs/decisions/0049-replies-are-drawn-once.md).

    N replies, M tokens of all of them, H hidden width, V logits width, n replies of one problem
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from .modules import AutoDecoHeads
from .pressed import EDGE, Pressed

AMONG = 16  # m
MOST_WEIGHT = 10.0  # a reply counts as so many draws at most
CHUNK = 8192  # positions weighed at once where no gradient is wanted
TOKENS = ("reply", "hidden", *(f.name for f in fields(Pressed)))  # what has an entry a token


@dataclass
class Replies:
    """Replies to problems; the tokens of each lie together and in order.

    problem [N] int64, those of one problem together
    key [N] int64: 0: wrong, else the number of a right answer of that problem
    by [N] int64: which constant drew it
    reply [M] int64, ascending; hidden [M, H] float16; values, log_n (float16), rank and token: Pressed
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

    @classmethod
    def of(cls, problem: Tensor, key: Tensor, by: Tensor, reply: Tensor, hidden: Tensor, pressed: Pressed) -> Replies:
        """With what is large in half precision: hidden [M, H] and the pressed logits."""
        half = torch.finfo(torch.float16)
        values, log_n = pressed.values.half(), pressed.log_n.half()
        hidden = hidden.clamp(half.min, half.max).half()
        return cls(problem, key, by, reply, hidden, values, log_n, pressed.rank, pressed.token)

    @classmethod
    def joined(cls, parts: Iterable[Replies]) -> Replies:
        """One after another."""
        parts, start = list(parts), 0
        columns: dict[str, list[Tensor]] = {f.name: [] for f in fields(cls)}
        for part in parts:
            for name, value in part.state().items():
                columns[name].append(value + start if name == "reply" else value)
            start += len(part.problem)
        return cls(**{name: torch.cat(values) for name, values in columns.items()})

    def by_problem(self) -> Replies:
        """The same in the order of the problems, so that what belongs to one lies together."""
        order = torch.argsort(self.problem, stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        reply = place[self.reply]
        rows = torch.argsort(reply, stable=True)
        found = {name: x[rows] if name in TOKENS else x[order] for name, x in self.state().items()}
        return Replies(**(found | {"reply": reply[rows]}))

    def pressed(self, rows: Tensor | slice) -> Pressed:
        """In float32."""
        columns = self.values, self.log_n, self.rank, self.token
        return Pressed(*(x[rows].float() if x.is_floating_point() else x[rows] for x in columns))

    def is_whole(self, width: int) -> bool:
        """Whether the columns belong together, and to hidden states [M, width]."""
        n, m = len(self.problem), len(self.reply)
        fits = all(len(x) == (m if name in TOKENS else n) for name, x in self.state().items())
        return fits and self.hidden.shape == (m, width) and (m == 0 or int(self.reply.max()) < n)

    def state(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def numbered(problem: Sequence[int], keys: Sequence[str | None]) -> Tensor:
    """Keys as numbers [N] int64 of each problem's own: 0 for None (wrong), else from 1."""
    known: dict[int, dict[str, int]] = {}
    found = []
    for number, key in zip(problem, keys, strict=True):
        of = known.setdefault(number, {})
        found.append(0 if key is None else of.setdefault(key, len(of) + 1))
    return torch.tensor(found)


# ---- probabilities ---------------------------------------------------------------------


def log_probability(
    heads: AutoDecoHeads, hidden: Tensor, pressed: Pressed, sigma: float, n_vocab: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(ln of the chance of each token [M] under heads with noise on z_P, T [M], P [M]); an absent head gives 1.

    hidden [M, H] float32. T enters the top-p head as a constant.
    """
    neutral = hidden.new_ones(len(hidden))
    t = heads.temp_head(hidden) if heads.spec.has_temp else neutral
    if not heads.spec.has_top_p:
        return pressed.log_softmax(t), t, neutral
    with torch.no_grad():
        features = t.detach()[:, None]
        if heads.use_enhanced_features:
            features = torch.cat([features, pressed.statistics(t.detach(), n_vocab)], -1)
    p = heads.top_p_head(hidden, features)
    return pressed.log_probability(t, torch.logit(p.clamp(EDGE, 1 - EDGE)), sigma), t, p


@torch.no_grad()
def log_chances(replies: Replies, of: Callable[[Tensor, Pressed], Tensor]) -> Tensor:
    """ln of the chance of each reply [N]; of: (hidden [m, H] float32, Pressed) -> that of each token [m]."""
    parts = [
        of(replies.hidden[rows].float(), replies.pressed(rows))
        for rows in torch.arange(len(replies.reply)).split(CHUNK)
    ]
    return torch.zeros(len(replies.problem)).index_add_(0, replies.reply, torch.cat(parts))


def log_mean(log_chances: Sequence[Tensor]) -> Tensor:
    """ln of the mean chance [N] under behaviours [N] each, all of which drew as many replies."""
    return torch.logsumexp(torch.stack(list(log_chances)), 0) - math.log(len(log_chances))


def log_mixture(replies: Replies, temperatures: Sequence[float]) -> Tensor:
    """ln of the chance of each reply [N] under constants at P = 1, all of which drew as many."""

    def at(temperature: float) -> Tensor:
        return log_chances(replies, lambda _, pressed: pressed.log_softmax(torch.full_like(pressed.token, temperature)))

    return log_mean([at(t) for t in temperatures])


# ---- the objective ---------------------------------------------------------------------


def weights(log_r: Tensor, at_most_one: bool = False) -> Tensor:
    """w [n] of one problem's replies, from ln r [n]. Their expectation sums to 1 where none is cut off at MOST_WEIGHT.

    at_most_one  divide what sums to more than 1: else heads gain by piling up on the few replies that happened to be drawn
    """
    w = log_r.clamp(max=math.log(MOST_WEIGHT)).exp() / len(log_r)
    return w / w.sum().clamp(min=1.0) if at_most_one else w


def objective(w: Tensor, key: Tensor, diversity: float, among: int = AMONG) -> tuple[Tensor, Tensor, Tensor]:
    """(J, share right, share of distinct right ones) of one problem from weights w [n] and key [n] int64, 0: wrong."""
    mass = torch.zeros(int(key.max()) + 1, dtype=w.dtype).index_add(0, key, w)[1:]  # of each right answer
    distinct = (1 - (1 - mass.clamp(max=1 - 1e-6)) ** among).sum() / among
    return mass.sum() + diversity * distinct, mass.sum(), distinct


def _effective(w: Tensor) -> float:
    """How many equal weights tell as much as w [n]."""
    return float(w.sum() ** 2 / w.square().sum().clamp(min=1e-30))


class Weighed:
    """Replies and what they were drawn with.

    replies      those of a problem together
    log_mixture  ln of their chance [N] under what drew them
    problems     [L] int64, in order
    """

    def __init__(
        self,
        replies: Replies,
        log_mixture: Tensor,
        n_vocab: int,
        diversity: float,
        among: int = AMONG,
        at_most_one: bool = True,
    ) -> None:
        self.replies, self.log_mixture, self.n_vocab = replies, log_mixture, n_vocab
        self.at_most_one = at_most_one
        self.diversity, self.among = diversity, among
        self.problems, counts = torch.unique_consecutive(replies.problem, return_counts=True)
        self.starts = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])  # first reply of each problem
        self.tokens = torch.searchsorted(replies.reply, self.starts)  # and its first token

    def objective(self, heads: AutoDecoHeads, chosen: Sequence[int], sigma: float) -> tuple[Tensor, dict[str, float]]:
        """(sum of J over problems, means of what it is made of). chosen: places in ``problems``.

        weight: sum of the weights; well below 1, the heads go where nothing was drawn.
        """
        rows = torch.cat([torch.arange(int(self.tokens[i]), int(self.tokens[i + 1])) for i in chosen])
        replies = self.replies
        log_r, t, p = log_probability(heads, replies.hidden[rows].float(), replies.pressed(rows), sigma, self.n_vocab)
        log_p = torch.zeros(len(replies.problem)).index_add(0, replies.reply[rows], log_r)
        ends = [(int(self.starts[i]), int(self.starts[i + 1])) for i in chosen]
        each = [weights(log_p[a:b] - self.log_mixture[a:b], self.at_most_one) for a, b in ends]
        parts = [
            objective(w, replies.key[a:b], self.diversity, self.among) for w, (a, b) in zip(each, ends, strict=True)
        ]
        values, right, distinct = zip(*parts, strict=True)
        about = {
            "right": float(torch.stack(right).detach().mean()),
            "distinct": float(torch.stack(distinct).detach().mean()),
            "weight": float(np.mean([float(w.detach().sum()) for w in each])),
            "effective": float(np.mean([_effective(w.detach()) for w in each])),
            "t": float(t.detach().mean()),
            "p": float(p.detach().mean()),
        }
        return torch.stack(values).sum(), about


# ---- the steps ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Climb:
    """Steps of AdamW: problems in one, the rate (falling to a twentieth from half the way on), and sigma of the noise that
    the nucleus is averaged over, first and last: as it falls the nucleus becomes the hard one."""

    steps: int = 120
    problems: int = 24
    rate: float = 1e-3
    sigma: tuple[float, float] = (0.5, 0.2)
    clip_norm: float = 1.0

    def at(self, step: int) -> tuple[float, float]:
        """(rate, sigma) of a step from 0."""
        share = step / max(self.steps - 1, 1)
        first, last = self.sigma
        return self.rate * max(0.05, min(1.0, 2 - 2 * share)), first * (last / first) ** share


def climb(heads: AutoDecoHeads, weighed: Weighed, of: Climb, seed: int) -> Iterator[dict[str, float]]:
    """Up the mean of J over problems; after each step what it was made of. A problem's graph is gone before the next one's."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(heads.parameters(), of.rate, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(of.steps):
        optimizer.param_groups[0]["lr"], sigma = of.at(step)
        chosen = rng.permutation(len(weighed.problems))[: of.problems].tolist()
        told = []
        for i in chosen:
            value, about = weighed.objective(heads, [i], sigma)
            (-value / len(chosen)).backward()
            told.append(about)
        torch.nn.utils.clip_grad_norm_(heads.parameters(), of.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield {name: float(np.mean([about[name] for about in told])) for name in told[0]}

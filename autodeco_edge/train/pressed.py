"""The distribution of a token pressed: the largest logits one by one, the rest in bins.

Owns the pressing, and from it what heads need: the statistics of equations 3 and the probability of a token in the
nucleus. A position takes half a kilobyte instead of a vocabulary, so replies drawn once can be weighed under other heads as
often as wanted, without the model.

    M positions, V logits width, K entries: min(V, N_LARGEST) logits, then N_BINS bins
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .modules import N_TOP, TEMP_EPSILON

N_LARGEST, N_BINS, BIN_WIDTH = 128, 64, 0.4  # of what is not among the largest, bins in nats below the maximum
EMPTY = -80.0  # value of a bin without tokens; its mass is zero all the same
EDGE = 1e-6  # a mass closer to 0 or 1 has no logit of its own
NEVER = 1e-30  # chance of a token that no nucleus holds


@dataclass
class Pressed:
    """[M] positions. Entries are in falling order: the largest logits, then the bins.

    values [M, K]      logits less the largest; of a bin the one that gives its mass at T = 1
    log_n [M, N_BINS]  logarithm of how many tokens a bin holds (-inf: none)
    rank [M] int64     the entry that holds the token drawn
    token [M]          logit of the token drawn, less the largest
    """

    values: Tensor
    log_n: Tensor
    rank: Tensor
    token: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Pressed:
        return Pressed(self.values[rows], self.log_n[rows], self.rank[rows], self.token[rows])

    @classmethod
    def of(cls, logits: Tensor, token: Tensor) -> Pressed:
        """logits [M, V], token [M] int64; in the dtype of the logits."""
        n_largest = min(N_LARGEST, logits.shape[1])
        low = logits - logits.amax(-1, keepdim=True)  # [M, V]
        largest, places = low.topk(n_largest, -1)
        drawn = low.gather(1, token[:, None]).squeeze(1)
        bins = (low / -BIN_WIDTH).long().clamp(0, N_BINS - 1)
        rest = torch.ones_like(low).scatter_(1, places, 0)
        count, mass = (
            torch.zeros(len(low), N_BINS, dtype=low.dtype, device=low.device).scatter_add_(1, bins, w)
            for w in (rest, rest * low.exp())
        )
        values = torch.where(count > 0, (mass.clamp(min=1e-38) / count.clamp(min=1)).log(), EMPTY)
        first = (largest > drawn[:, None]).sum(-1)  # equal ones stand behind the drawn one
        rank = torch.where(first < n_largest, first, n_largest + bins.gather(1, token[:, None]).squeeze(1))
        return cls(torch.cat([largest, values], -1), count.log(), rank, drawn)

    @classmethod
    def joined(cls, parts: Iterable[Pressed]) -> Pressed:
        columns = zip(*((p.values, p.log_n, p.rank, p.token) for p in parts), strict=True)
        return cls(*(torch.cat(column) for column in columns))

    @property
    def n_largest(self) -> int:
        return self.values.shape[1] - N_BINS

    def log_mass(self, temperature: Tensor) -> Tensor:
        """[M, K] logarithm of what each entry weighs at T [M], not normalised."""
        scaled = self.values / temperature.clamp(min=TEMP_EPSILON)[:, None]
        return torch.cat([scaled[:, : self.n_largest], scaled[:, self.n_largest :] + self.log_n], -1)

    def statistics(self, temperature: Tensor, n_vocab: int) -> Tensor:
        """equations 3 at T [M]: [M, 4]. What is in a bin counts as equally likely."""
        log_q = torch.log_softmax(self.log_mass(temperature), -1)
        q = log_q.exp()
        n = self.n_largest
        each = torch.cat([log_q[:, :n], log_q[:, n:] - self.log_n.clamp(min=0)], -1)  # of one token of an entry
        entropy = -torch.where(q > 0, q * each, 0).sum(-1)
        squares = torch.where(q > 0, (log_q + each).exp(), 0).sum(-1)
        variance = (squares - 1 / n_vocab) / max(n_vocab - 1, 1)
        return torch.stack([q[:, 0], entropy, variance, q[:, :N_TOP].sum(-1)], -1)

    def log_softmax(self, temperature: Tensor) -> Tensor:
        """ln of the chance [M] that the token is drawn at T [M], P = 1."""
        return self.token / temperature.clamp(min=TEMP_EPSILON) - torch.logsumexp(self.log_mass(temperature), -1)

    def log_probability(self, temperature: Tensor, z: Tensor, sigma: float) -> Tensor:
        """ln of the chance [M] that the token is drawn at T [M] from a hard nucleus whose P = sigmoid(z + sigma noise), z [M].

        The nucleus of n entries is the one for P between the mass of n - 1 and theirs, so the mean over the noise is a sum
        over n and has a slope in z, without a soft nucleus. A bin is in or out as a whole.
        """
        log_q = torch.log_softmax(self.log_mass(temperature), -1)
        mass = log_q.exp().cumsum(-1)  # [M, K]
        below = _normal((torch.logit(mass.clamp(EDGE, 1 - EDGE)) - z[:, None]) / sigma)  # chance that P is below it
        below = torch.cat([below[:, :-1], torch.ones_like(below[:, :1])], -1)
        share = torch.diff(below, dim=-1, prepend=torch.zeros_like(below[:, :1])) / mass
        place = torch.arange(mass.shape[1], device=mass.device)
        inside = torch.where(place >= self.rank[:, None], share, 0).sum(-1)
        return self.log_softmax(temperature) + inside.clamp(min=NEVER).log()


def _normal(x: Tensor) -> Tensor:
    """Phi: [...] -> [...]."""
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))

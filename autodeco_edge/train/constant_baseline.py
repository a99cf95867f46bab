"""What constants reach on the tokens that the heads are measured on: the least that heads must beat.

Owns the grid of T and P and their losses, the same as the heads' own (losses.py, equations 7 to 10) with
two numbers in place of two heads. Knows no heads.

Logits are sorted once a token. With q = softmax(l / T) in descending order, c its inclusive cumulative sum and k the
first place where c > P, the soft nucleus' normaliser for every P at one T comes from one suffix sum:

    sum q m = c_{k-1} + exp(30 P) * sum_{i >= k} q_i exp(-30 c_i)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from ..spec.soft_nucleus import EPSILON, STEEPNESS
from .metrics import sum_over_processes
from .objective import CHUNK_ELEMENTS, Terms

TEMPERATURES = tuple(round(0.1 * i, 1) for i in range(1, 16))  # 0.1 to 1.5
TOP_PS = (*(round(0.1 * i, 1) for i in range(1, 10)), 0.95, 0.98, 1.0)


@dataclass(frozen=True)
class Constant:
    """loss: the run's objective at this T and P for every token."""

    temperature: float
    top_p: float
    loss: float


class ConstantLosses:
    """Sums over tokens for every T and P of the grid; terms: the run's objective."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._sums = torch.zeros(len(TEMPERATURES), len(TOP_PS), dtype=torch.float64)
        self._n = torch.zeros(1, dtype=torch.float64)

    @torch.no_grad()
    def add(self, hidden: Tensor, labels: Tensor, lm_head: Callable[[Tensor], Tensor]) -> None:
        """hidden [M, H], labels [M]."""
        n_rows = max(1, CHUNK_ELEMENTS // 4 // lm_head(hidden[:1]).shape[-1])
        for h, y in zip(hidden.split(n_rows), labels.split(n_rows), strict=True):
            self._sums += grid_losses(lm_head(h), y, self._terms).sum(-1).cpu().double()
        self._n += len(labels)

    def gather(self, accelerator: Accelerator) -> None:
        """Add up those of all processes."""
        self._sums, self._n = (sum_over_processes(x, accelerator) for x in (self._sums, self._n))

    def best(self) -> Constant:
        """The pair of the lowest mean loss."""
        at = int(self._sums.argmin())
        t, p = divmod(at, len(TOP_PS))
        return Constant(TEMPERATURES[t], TOP_PS[p], self._sums[t, p].item() / max(self._n.item(), 1.0))


def grid_losses(logits: Tensor, labels: Tensor, terms: Terms) -> Tensor:
    """Loss of each token at each constant. logits [m, V], labels [m] -> [n_T, n_P, m], float64 where there is one."""
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    ordered, order = torch.sort(logits.to(dtype), dim=-1, descending=True, stable=True)  # [m, V]
    rank = (order == labels[:, None]).long().argmax(-1, keepdim=True)  # [m, 1]
    weight = torch.softmax(ordered, -1).gather(-1, rank)[:, 0]  # pi of the label
    if terms.variant == "plain":
        weight = torch.ones_like(weight)
    return torch.stack([_at(ordered, rank, t, weight, terms) for t in TEMPERATURES])


def _at(ordered: Tensor, rank: Tensor, temperature: float, weight: Tensor, terms: Terms) -> Tensor:
    """[n_P, m] at one T; weight [m]: pi of the label, or 1."""
    log_q = torch.log_softmax(ordered / temperature, -1)  # [m, V]; the grid is above every clamp of T
    log_own = log_q.gather(-1, rank)  # [m, 1]
    total = torch.zeros_like(weight)
    if terms.temp:
        total = -log_own[:, 0] * (log_own[:, 0].exp() if terms.variant == "nemo" else weight)
    if not terms.top_p:
        return total.expand(len(TOP_PS), -1)
    q = log_q.exp()
    mass = q.cumsum(-1)  # [m, V]
    beyond = (q * torch.exp(-STEEPNESS * mass)).flip(-1).cumsum(-1).flip(-1)  # [m, V]
    own_mass = mass.gather(-1, rank)[:, 0]
    rows = [total + weight * _top_p_loss(mass, beyond, log_own[:, 0], own_mass, p) for p in TOP_PS]
    return torch.stack(rows)


def _top_p_loss(mass: Tensor, beyond: Tensor, log_own: Tensor, own_mass: Tensor, p: float) -> Tensor:
    """-ln(r_y + 1e-9) [m]."""
    k = torch.searchsorted(mass, torch.full_like(mass[:, :1], p), right=True)  # [m, 1]
    inside = torch.where(k > 0, mass.gather(-1, (k - 1).clamp(min=0)), 0.0)[:, 0]
    last = mass.shape[-1] - 1
    outside = torch.where(k <= last, beyond.gather(-1, k.clamp(max=last)), 0.0)[:, 0]
    normaliser = inside + torch.exp(torch.tensor(STEEPNESS * p, dtype=mass.dtype)) * outside
    own = torch.exp(log_own - STEEPNESS * torch.relu(own_mass - p))
    return -torch.log(own / (normaliser + EPSILON) + EPSILON)

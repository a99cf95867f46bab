"""Sums over batches and processes, and the means they give.

Owns what "mean" means here: over tokens, whatever batch or process they came in. A mean of the batches'
means would weigh a token by how many others happened to share its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from .objective import ObjectiveOutput
from .steer import Ranking


@dataclass
class Metrics:
    """Means over completion tokens: the objective and its two terms, T and P of the heads.

    rank_loss: the ranking term, a weighted mean over prompts; 0 without --steer. loss is the sum of all three.
    """

    loss: float
    temp_loss: float
    top_p_loss: float
    mean_temperature: float
    mean_top_p: float
    n_tokens: int
    rank_loss: float = 0.0


class Totals:
    """Sums of a step's or an evaluation's batches, in float64."""

    def __init__(self) -> None:
        self.sums = torch.zeros(9, dtype=torch.float64)

    def add(self, out: ObjectiveOutput, ranking: Ranking | None = None) -> None:
        row = [out.temp_sum, out.n_temp, out.top_p_sum, out.n_top_p, out.temperature.sum(), out.top_p.sum()]
        ranked = [ranking.loss_sum.item(), ranking.n] if ranking else [0.0, 0]
        self.sums += torch.tensor([*(x.item() for x in row), len(out.temperature), *ranked], dtype=torch.float64)

    def gather(self, accelerator: Accelerator) -> None:
        """Add up those of all processes."""
        self.sums = sum_over_processes(self.sums, accelerator)

    @property
    def finite(self) -> bool:
        return bool(self.sums.isfinite().all())

    @property
    def n_terms(self) -> tuple[float, float, float]:
        """Tokens in the temperature term, in the top-p term, prompts in the ranking term; at least 1, so that a mean
        over none is 0."""
        return max(self.sums[1].item(), 1.0), max(self.sums[3].item(), 1.0), max(self.sums[8].item(), 1.0)

    def metrics(self) -> Metrics:
        temp, top_p, rank = (self.sums[i].item() / n for i, n in zip((0, 2, 7), self.n_terms, strict=True))
        n = max(self.sums[6].item(), 1.0)
        mean_t, mean_p = self.sums[4].item() / n, self.sums[5].item() / n
        return Metrics(temp + top_p + rank, temp, top_p, mean_t, mean_p, int(self.sums[6]), rank)


def sum_over_processes(tensor: Tensor, accelerator: Accelerator) -> Tensor:
    """The sum on every process, on the tensor's own device. One process: the tensor itself."""
    if accelerator.num_processes == 1:
        return tensor
    return accelerator.reduce(tensor.to(accelerator.device), "sum").to(tensor.device)

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


@dataclass
class Metrics:
    """Means over completion tokens: the objective and its two terms, T and P of the heads."""

    loss: float
    temp_loss: float
    top_p_loss: float
    mean_temperature: float
    mean_top_p: float
    n_tokens: int


class Totals:
    """Sums of a step's or an evaluation's batches, in float64."""

    def __init__(self) -> None:
        self.sums = torch.zeros(7, dtype=torch.float64)

    def add(self, out: ObjectiveOutput) -> None:
        row = [out.temp_sum, out.n_temp, out.top_p_sum, out.n_top_p, out.temperature.sum(), out.top_p.sum()]
        self.sums += torch.tensor([*(x.item() for x in row), len(out.temperature)], dtype=torch.float64)

    def gather(self, accelerator: Accelerator) -> None:
        """Add up those of all processes."""
        self.sums = sum_over_processes(self.sums, accelerator)

    @property
    def finite(self) -> bool:
        return bool(self.sums.isfinite().all())

    @property
    def n_terms(self) -> tuple[float, float]:
        """Tokens in the temperature term and in the top-p term; at least 1, so that a mean over none is 0."""
        return max(self.sums[1].item(), 1.0), max(self.sums[3].item(), 1.0)

    def metrics(self) -> Metrics:
        temp, top_p = self.sums[0].item() / self.n_terms[0], self.sums[2].item() / self.n_terms[1]
        n = max(self.sums[6].item(), 1.0)
        return Metrics(temp + top_p, temp, top_p, self.sums[4].item() / n, self.sums[5].item() / n, int(self.sums[6]))


def sum_over_processes(tensor: Tensor, accelerator: Accelerator) -> Tensor:
    """The sum on every process, on the tensor's own device. One process: the tensor itself."""
    if accelerator.num_processes == 1:
        return tensor
    return accelerator.reduce(tensor.to(accelerator.device), "sum").to(tensor.device)

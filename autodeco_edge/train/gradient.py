"""The gradient of one optimiser step: batches one after another, processes side by side.

Owns the average over a step. Each term is a mean over the tokens kept in the whole step (equations 7, 8; the
ranking term of 4.8: over its prompts), and how many those are is known only when the last batch of the last process is
through: the terms' gradients are summed apart and divided at the end. Knows nothing of data or optimisers.

    grad = (sum of d temp_sum) / n_temp + (sum of d top_p_sum) / n_top_p + (sum of d rank_sum) / n_prompts

The heads are two small MLPs, so the further backward passes cost little beside the LM head, and one
reduction of three vectors a step stands in for a distributed wrapper of the module: it works with any number of
batches a process, none included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .metrics import Totals, sum_over_processes
from .objective import ObjectiveOutput
from .steer import Ranking


class StepGradient:
    """Of ``parameters``, in float32: [3, n] sums, of the temperature, the top-p and the ranking term."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.totals = Totals()
        like = self.parameters[0]
        self._sums = like.new_zeros((3, sum(p.numel() for p in self.parameters)))

    def add(self, out: ObjectiveOutput, ranking: Ranking | None = None) -> None:
        """One batch's share; its graph is freed when ``out`` and ``ranking`` are."""
        self.totals.add(out, ranking)
        terms = (out.temp_sum, out.top_p_sum, *([ranking.loss_sum] if ranking else ()))
        for row, term in zip(self._sums, terms, strict=False):  # the last row stays 0 without a ranking
            if term.requires_grad:
                row += self._flat(term)

    def _flat(self, term: Tensor) -> Tensor:
        grads = torch.autograd.grad(term, self.parameters, retain_graph=True, allow_unused=True)
        pairs = zip(self.parameters, grads, strict=True)
        return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs])

    def finish(self, accelerator: Accelerator) -> None:
        """Write the step's gradient over all processes into the parameters' ``grad``; the totals are theirs too."""
        self.totals.gather(accelerator)
        sums = sum_over_processes(self._sums, accelerator)
        n_temp, n_top_p, n_prompts = self.totals.n_terms
        flat = sums[0] / n_temp + sums[1] / n_top_p + sums[2] / n_prompts
        for parameter, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

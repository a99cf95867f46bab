"""The gradient of one optimiser step: batches one after another, processes side by side.

Owns the average over a step. Each term is a mean over the tokens kept in the whole step (semantics 4.3, 4.4),
and how many those are is known only when the last batch of the last process is through: the two terms'
gradients are summed apart and divided at the end. Knows nothing of data or optimisers.

    grad = (sum of d temp_sum) / n_temp + (sum of d top_p_sum) / n_top_p

The heads are two small MLPs, so the second backward pass costs little beside the LM head, and one
reduction of two vectors a step stands in for a distributed wrapper of the module: it works with any number of
batches a process, none included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from .objective import ObjectiveOutput
from .totals import Totals, sum_over_processes


class StepGradient:
    """Of ``parameters``, in float32: [2, n] sums, the temperature term's and the top-p term's."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.totals = Totals()
        like = self.parameters[0]
        self._sums = like.new_zeros((2, sum(p.numel() for p in self.parameters)))

    def add(self, out: ObjectiveOutput) -> None:
        """One batch's share; its graph is freed when ``out`` is."""
        self.totals.add(out)
        for row, term in zip(self._sums, (out.temp_sum, out.top_p_sum), strict=True):
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
        n_temp, n_top_p = self.totals.n_terms
        flat = sums[0] / n_temp + sums[1] / n_top_p
        for parameter, part in zip(self.parameters, flat.split([p.numel() for p in self.parameters]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

"""The training objective of a batch of positions, with memory bounded by a row chunk.

Owns the evaluation order (LM head, heads, losses; chunk by chunk) and the sum of the
terms (semantics 4.5, 4.6). The equations are in losses.py, fast.py and modules.py. Knows nothing
of optimisers or data.

The backbone is frozen, so the loss of a position reaches the parameters only through its
own T and P, two numbers. fast.py takes their derivatives while the chunk's logits exist:
no [M, V] tensor outlives its chunk, and the LM head is evaluated once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from .fast import token_losses
from .losses import easy_tokens, mean_of_kept
from .modules import AutoDecoHeads

VARIANTS = ("hf", "nemo")
CHUNK_ELEMENTS = 1 << 22  # logits in one chunk: 16 MiB in float32


@dataclass
class ObjectiveOutput:
    """loss [] with gradient; temp_loss [], top_p_loss [] for the log; temperature [M], top_p [M] detached."""

    loss: Tensor
    temp_loss: Tensor
    top_p_loss: Tensor
    temperature: Tensor
    top_p: Tensor


class Objective(nn.Module):
    """Losses of gathered completion positions.

    heads       AutoDecoHeads, the only parameters
    lm_head     hidden [m, H] -> raw logits [m, V]; called without gradient, not registered
    variant     "hf" (semantics 4.3 + 4.4) or "nemo" (4.6)
    train_temp, train_top_p   which terms are summed ("nemo" always sums both)
    """

    def __init__(
        self,
        heads: AutoDecoHeads,
        lm_head: Callable[[Tensor], Tensor],
        variant: str = "hf",
        train_temp: bool = True,
        train_top_p: bool = True,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UsageError(f"loss: expected one of {', '.join(VARIANTS)}; got {variant!r}")
        self.heads = heads
        self.variant = variant
        self.with_temp = train_temp or variant == "nemo"
        self.with_top_p = train_top_p or variant == "nemo"
        self._lm_head = (lm_head,)  # a tuple hides the frozen module from parameters()

    def forward(self, hidden: Tensor, labels: Tensor, drop: Tensor | None = None) -> ObjectiveOutput:
        """hidden [M, H], labels [M] int64, drop [M] bool (drop this one if easy) or None."""
        drop = torch.zeros_like(labels, dtype=torch.bool) if drop is None else drop
        n_rows = max(1, CHUNK_ELEMENTS // self._n_vocab(hidden))
        chunks = zip(hidden.split(n_rows), labels.split(n_rows), drop.split(n_rows), strict=True)
        columns = zip(*[self._chunk(*chunk) for chunk in chunks], strict=True)
        temp_loss, top_p_loss, keep, temperature, top_p = (torch.cat(column) for column in columns)  # [M] each
        return self._sum(temp_loss, top_p_loss, keep, temperature.detach(), top_p.detach())

    def _chunk(self, hidden: Tensor, labels: Tensor, drop: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            logits = self._lm_head[0](hidden)  # [m, V]
            keep = ~(easy_tokens(logits, labels) & drop)  # [m]
        temperature, top_p = self.heads(hidden, logits)  # [m], [m]
        temp_loss, top_p_loss = token_losses(logits, temperature, top_p, labels, nemo=self.variant == "nemo")  # [m]
        nothing = torch.zeros_like(temperature)
        temp_loss = temp_loss if self.with_temp else nothing
        top_p_loss = top_p_loss if self.with_top_p else nothing
        return temp_loss, top_p_loss, keep, temperature, top_p

    def _sum(self, temp_loss, top_p_loss, keep, temperature, top_p) -> ObjectiveOutput:
        # hf: dropping holds for the temperature term only; nemo: for both (semantics 4.6)
        keep_top_p = keep if self.variant == "nemo" else torch.ones_like(keep)
        temp, nucleus = mean_of_kept(temp_loss, keep), mean_of_kept(top_p_loss, keep_top_p)
        return ObjectiveOutput(temp + nucleus, temp.detach(), nucleus.detach(), temperature, top_p)

    @torch.no_grad()
    def _n_vocab(self, hidden: Tensor) -> int:
        return self._lm_head[0](hidden[:1]).shape[-1]

"""The training objective of a batch of positions, with memory bounded by a row chunk.

Owns the evaluation order (LM head, heads, losses; chunk by chunk), which terms an objective
sums (equations 9, 10), and their sums. The equations are in losses.py, fast_losses.py and modules.py.
Knows nothing of optimisers, data or other processes.

The backbone is frozen, so the loss of a position reaches the parameters only through its
own T and P, two numbers. fast_losses.py takes their derivatives while the chunk's logits exist:
no [M, V] tensor outlives its chunk, and the LM head is evaluated once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .fast_losses import token_losses
from .losses import DROP_PROBABILITY, easy_tokens
from .modules import AutoDecoHeads

CHUNK_ELEMENTS = 1 << 22  # logits in one chunk: 16 MiB in float32


@dataclass(frozen=True)
class Terms:
    """What an objective adds up.

    variant      whose equations (losses.VARIANTS)
    temp, top_p  which of the two terms; the top-p term alone trains both heads, because its q keeps T's gradient
    drop_top_p   an easy token that is dropped is left out of the top-p term too
    drop         share of easy tokens dropped unless the user says otherwise
    """

    variant: str
    temp: bool = True
    top_p: bool = True
    drop_top_p: bool = False
    drop: float = 0.0


OBJECTIVES = {
    "official": Terms("hf", drop=DROP_PROBABILITY),  # equations 7 + 8
    "likelihood": Terms("plain"),  # both terms, no weight, nothing dropped: plain cross-entropy
    "joint": Terms("plain", temp=False, drop_top_p=True),  # paper section 3: -ln(r_y + 1e-9)
}
NEMO = Terms("nemo", drop_top_p=True, drop=DROP_PROBABILITY)  # equations 10: "official" in its second form
LOSSES = ("hf", "nemo")


def terms_of(objective: str, loss: str = "hf", heads: str = "both") -> Terms:
    """Of checked settings. A head that is not trained has no term of its own, except where one term serves both."""
    if loss == "nemo":
        return NEMO
    terms = OBJECTIVES[objective]
    if objective == "joint":
        return terms
    return Terms(terms.variant, heads != "top-p", heads != "temp", terms.drop_top_p, terms.drop)


@dataclass
class ObjectiveOutput:
    """Sums over the M positions of a batch, and T and P of each.

    temp_sum, top_p_sum    [] with gradient: sums of the token losses kept
    n_temp, n_top_p        [] how many were kept
    temperature, top_p     [M] detached
    """

    temp_sum: Tensor
    top_p_sum: Tensor
    n_temp: Tensor
    n_top_p: Tensor
    temperature: Tensor
    top_p: Tensor

    @property
    def loss(self) -> Tensor:
        """Sum of the two means, with gradient; a mean over nothing is 0."""
        return self.temp_sum / self.n_temp.clamp(min=1) + self.top_p_sum / self.n_top_p.clamp(min=1)


class Objective(nn.Module):
    """Losses of gathered completion positions.

    heads       AutoDecoHeads, the only parameters
    lm_head     hidden [m, H] -> raw logits [m, V]; called without gradient, not registered
    terms       what is summed
    """

    def __init__(self, heads: AutoDecoHeads, lm_head: Callable[[Tensor], Tensor], terms: Terms) -> None:
        super().__init__()
        self.heads = heads
        self.terms = terms
        self._lm_head = (lm_head,)  # a tuple hides the frozen module from parameters()

    def forward(
        self, hidden: Tensor, labels: Tensor, drop: Tensor | None = None, weight: Tensor | None = None
    ) -> ObjectiveOutput:
        """hidden [M, H], labels [M] int64, drop [M] bool: leave it out if it is easy.

        weight [M], signed: multiplies each token's losses; the means still divide by the number of tokens.
        """
        drop = torch.zeros_like(labels, dtype=torch.bool) if drop is None else drop
        n_rows = max(1, CHUNK_ELEMENTS // self._n_vocab(hidden))
        chunks = zip(hidden.split(n_rows), labels.split(n_rows), drop.split(n_rows), strict=True)
        columns = zip(*[self._chunk(*chunk) for chunk in chunks], strict=True)
        temp, top_p, keep, *values = (torch.cat(column) for column in columns)  # [M] each
        if weight is not None:
            temp, top_p = temp * weight, top_p * weight
        keep_top_p = keep if self.terms.drop_top_p else torch.ones_like(keep)
        kept = [_kept(temp, keep & self.terms.temp), _kept(top_p, keep_top_p & self.terms.top_p)]
        return ObjectiveOutput(*(s for s, _ in kept), *(n for _, n in kept), *(x.detach() for x in values))

    def _chunk(self, hidden: Tensor, labels: Tensor, drop: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            logits = self._lm_head[0](hidden)  # [m, V]
            keep = ~(easy_tokens(logits, labels) & drop)  # [m]
        temperature, top_p = self.heads(hidden, logits)  # [m], [m]
        return *token_losses(logits, temperature, top_p, labels, self.terms.variant), keep, temperature, top_p

    @torch.no_grad()
    def _n_vocab(self, hidden: Tensor) -> int:
        return self._lm_head[0](hidden[:1]).shape[-1]


def _kept(token_loss: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    return token_loss[keep].sum(), keep.sum()

"""The official losses of whole sequences, as the official codes write them: what the golden values are of.

labels are not shifted: position s predicts labels[:, s + 1]; the last position is unused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autodeco_edge.train.losses import IGNORE, easy_tokens, temperature_token_loss, top_p_token_loss


def mean_of_kept(token_loss: Tensor, keep: Tensor) -> Tensor:
    """Mean over kept positions; 0 (not NaN, gradient 0) when none is kept. [M], [M] bool -> []."""
    return token_loss[keep].sum() / keep.sum().clamp(min=1)


def temperature_loss(
    logits: Tensor,
    temperature: Tensor,
    labels: Tensor,
    drop_mask: Tensor | None = None,
) -> Tensor:
    """Temperature loss of the Hugging Face code: mean over the tokens kept. Equations 7.

    logits [B, S, V], temperature [B, S], labels [B, S] int64 with -100 where there is no loss
    drop_mask [B, S] bool: drop position s if it is easy; None: nothing is dropped. Returns a scalar.
    """
    rows, positions = valid_rows(labels)
    flat = logits[rows, positions], temperature[rows, positions], labels[rows, positions + 1]
    keep = _keep(flat[0], flat[2], None if drop_mask is None else drop_mask[rows, positions])
    return mean_of_kept(temperature_token_loss(*flat), keep)


def top_p_loss(logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor) -> Tensor:
    """Soft top-p loss of the Hugging Face code: mean over all valid tokens. Equations 8.

    logits [B, S, V], temperature [B, S], top_p [B, S], labels [B, S] int64 -> scalar.
    """
    rows, positions = valid_rows(labels)
    flat = [x[rows, positions] for x in (logits, temperature, top_p)]
    token_loss = top_p_token_loss(*flat, labels[rows, positions + 1])
    return mean_of_kept(token_loss, torch.ones_like(token_loss, dtype=torch.bool))


def nemo_loss(
    logits: Tensor,
    temperature: Tensor,
    top_p: Tensor,
    labels: Tensor,
    drop_mask: Tensor | None = None,
) -> Tensor:
    """Sum of both terms of the NeMo code; dropping holds for both. Equations 10. Arguments as above."""
    rows, positions = valid_rows(labels)
    flat, t, p = (x[rows, positions] for x in (logits, temperature, top_p))
    y = labels[rows, positions + 1]
    keep = _keep(flat, y, None if drop_mask is None else drop_mask[rows, positions])
    token_loss = temperature_token_loss(flat, t, y, "nemo") + top_p_token_loss(flat, t, p, y, "nemo")
    return mean_of_kept(token_loss, keep)


def valid_rows(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(batch index [M], position s [M]) of every s whose next label is not -100. labels [B, S]."""
    return (labels[:, 1:] != IGNORE).nonzero(as_tuple=True)


def _keep(logits: Tensor, labels: Tensor, drop: Tensor | None) -> Tensor:
    if drop is None:
        return torch.ones_like(labels, dtype=torch.bool)
    return ~(easy_tokens(logits, labels) & drop)

"""The soft top-p loss without a vocabulary-wide gather: same values, about three times faster on a CPU.

Owns one reformulation of losses.top_p_token_loss, which stays the oracle. Knows nothing
else.

Dividing by T > 0 keeps the order of the logits, so they are sorted once, as constants:
q_sorted = softmax(l_sorted / T') is differentiable as it stands, nothing has to return to
vocabulary order, and only the rank of the label is needed. Sorting values alone lets a CPU
use numpy's vector sort.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .losses import EPSILON, MIN_TEMPERATURE_TOP_P, STEEPNESS, base_probability
from .modules import working_dtype


def top_p_token_loss_sorted(
    logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, nemo: bool = False
) -> Tensor:
    """losses.top_p_token_loss (semantics 4.4): logits [M, V], temperature, top_p, labels [M] -> [M]."""
    dtype = working_dtype(logits, temperature, top_p)
    logits, temperature, top_p = logits.detach().to(dtype), temperature.to(dtype), top_p.to(dtype)
    scale = temperature if nemo else temperature.clamp(min=MIN_TEMPERATURE_TOP_P)
    q = torch.softmax(sorted_descending(logits) / scale[:, None], dim=-1)  # [M, V], descending
    mass = q.cumsum(dim=-1)  # [M, V], inclusive
    soft = q * torch.exp(-STEEPNESS * torch.relu(mass - top_p[:, None]))  # [M, V]
    kept = soft.gather(1, rank_of(logits, labels)[:, None]).squeeze(-1)  # [M]
    r = kept / (soft.sum(-1) + EPSILON)
    return base_probability(logits, labels) * -torch.log(r + EPSILON)


def sorted_descending(logits: Tensor) -> Tensor:
    """Values of each row in descending order, without gradient. [M, V] -> [M, V]."""
    if logits.device.type != "cpu":
        return torch.sort(logits, dim=-1, descending=True).values
    ascending = np.sort(-logits.numpy(), axis=-1)
    return -torch.from_numpy(ascending)


def rank_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Place of the label in descending order, ties by ascending id. [M, V], [M] -> [M] int64."""
    own = logits.gather(1, labels[:, None])  # [M, 1]
    ids = torch.arange(logits.shape[1], device=logits.device)  # [V]
    return ((logits > own) | ((logits == own) & (ids < labels[:, None]))).sum(-1)

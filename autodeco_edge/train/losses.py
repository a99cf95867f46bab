"""The token losses in their plain form: one row a position, sort and cumulative sum.

Owns equations 7 to 10 (paper section 3.2). This form is the oracle for any
faster one. Knows nothing of heads, models, batching or optimisers.

Of one valid position: l logits [V] (no gradient), y label, pi = softmax(l), T, P. Three variants:
"hf" and "nemo" are the official codes, "plain" is hf with weight 1 for every token.
M positions, V logits width. All sums are float32, or float64 for
float64 input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..spec.soft_nucleus import EPSILON, STEEPNESS
from ..spec.soft_nucleus import MIN_TEMPERATURE as MIN_TEMPERATURE_TOP_P
from .modules import working_dtype

VARIANTS = ("hf", "nemo", "plain")
IGNORE = -100  # label of a position that carries no loss
DROP_PROBABILITY = 0.6  # share of easy tokens left out of the temperature loss
MIN_TEMPERATURE_HF = 0.01  # T' = max(T, 0.01) in the temperature loss


# ---- one row a position ------------------------------------------------------------


def temperature_token_loss(logits: Tensor, temperature: Tensor, labels: Tensor, variant: str = "hf") -> Tensor:
    """w * -ln softmax(l / T')_y, with the weight w detached. Equations 7 (hf), 10 (nemo), 9 (plain).

    hf:   T' = max(T, 0.01), w = pi_y           nemo: T' = T, w = softmax(l / T)_y           plain: hf's T', w = 1
    logits [M, V], temperature [M], labels [M] int64 -> [M]
    """
    logits, temperature = _to_working(logits, temperature)
    scale = temperature if variant == "nemo" else temperature.clamp(min=MIN_TEMPERATURE_HF)
    log_p = _take(F.log_softmax(logits / scale[:, None], dim=-1), labels)  # [M]
    if variant == "plain":
        return -log_p
    weight = log_p.detach().exp() if variant == "nemo" else base_probability(logits, labels)
    return weight * -log_p


def top_p_token_loss(logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, variant: str = "hf") -> Tensor:
    """w * -ln(r_y + 1e-9), r the soft nucleus. Equations 8.

    hf, nemo: w = pi_y, detached. plain: w = 1, the cross-entropy of the final distribution (paper section 3).
    logits [M, V], temperature [M], top_p [M], labels [M] int64 -> [M]
    """
    logits, temperature, top_p = _to_working(logits, temperature, top_p)
    token_loss = -torch.log(_take(soft_nucleus(logits, temperature, top_p, variant), labels) + EPSILON)
    return token_loss if variant == "plain" else base_probability(logits, labels) * token_loss


def soft_nucleus(logits: Tensor, temperature: Tensor, top_p: Tensor, variant: str = "hf") -> Tensor:
    """spec.soft_nucleus of every row, differentiable in T (which keeps its gradient in q) and P. Equations 8.

    hf, plain: T' = max(T, 1e-8), nemo: T' = T.
    logits [M, V], temperature [M], top_p [M] -> [M, V]
    """
    scale = temperature if variant == "nemo" else temperature.clamp(min=MIN_TEMPERATURE_TOP_P)
    q = torch.softmax(logits / scale[:, None], dim=-1)  # [M, V]
    q_sorted, order = torch.sort(q, dim=-1, descending=True, stable=True)  # [M, V]
    mass = q_sorted.cumsum(dim=-1)  # [M, V]
    soft = torch.exp(-STEEPNESS * torch.relu(mass - top_p[:, None]))  # [M, V]
    mask = torch.zeros_like(q).scatter(1, order, soft)  # [M, V], vocabulary order
    return q * mask / ((q * mask).sum(-1, keepdim=True) + EPSILON)


def base_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """pi_y = softmax(l)_y, detached: the DFT weight. [M, V], [M] -> [M]."""
    with torch.no_grad():
        return _take(torch.softmax(logits, dim=-1), labels)


def easy_tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """True where the base model's first choice is the label already. [M, V], [M] -> [M] bool."""
    return logits.argmax(dim=-1) == labels


# ---- helpers -----------------------------------------------------------------------


def _to_working(*tensors: Tensor) -> list[Tensor]:
    dtype = working_dtype(*tensors)
    return [t.to(dtype) for t in tensors]


def _take(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, labels[:, None]).squeeze(-1)  # [M, V], [M] -> [M]

"""The token losses in their plain form: one row a position, sort and cumulative sum.

Owns equations 7 to 10 (paper section 3.2). This form is the oracle for any
faster one. Knows nothing of heads, models, batching or optimisers.

Of one valid position: l logits [V] (no gradient), y label, pi = softmax(l), T, P. Three variants:
"hf" and "nemo" are the official codes, "plain" is hf with weight 1 for every token.
M positions, V logits width, B batch, S sequence. All sums are float32, or float64 for
float64 input. Randomness is an argument: a drop mask, or a generator to draw it with.
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


def draw_drop_mask(shape, generator: torch.Generator, probability: float = DROP_PROBABILITY) -> Tensor:
    """True where an easy token is to be dropped: U < probability. Bool, on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device) < probability


def mean_of_kept(token_loss: Tensor, keep: Tensor) -> Tensor:
    """Mean over kept positions; 0 (not NaN, gradient 0) when none is kept. [M], [M] bool -> []."""
    return token_loss[keep].sum() / keep.sum().clamp(min=1)


# ---- whole sequences ---------------------------------------------------------------
# labels are not shifted: position s predicts labels[:, s + 1]; the last position is unused.


def temperature_loss(
    logits: Tensor,
    temperature: Tensor,
    labels: Tensor,
    drop_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Temperature loss of the Hugging Face code: mean over the tokens kept. Equations 7.

    logits [B, S, V], temperature [B, S], labels [B, S] int64 with -100 where there is no loss
    drop_mask [B, S] bool: drop position s if it is easy; or drawn with ``generator``
    (probability 0.6); with neither, nothing is dropped. Returns a scalar.
    """
    rows, positions = valid_rows(labels)
    flat = logits[rows, positions], temperature[rows, positions], labels[rows, positions + 1]
    keep = _keep(flat[0], flat[2], _drop_rows(labels, rows, positions, drop_mask, generator))
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
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sum of both terms of the NeMo code; dropping holds for both. Equations 10. Arguments as above."""
    rows, positions = valid_rows(labels)
    flat, t, p = (x[rows, positions] for x in (logits, temperature, top_p))
    y = labels[rows, positions + 1]
    keep = _keep(flat, y, _drop_rows(labels, rows, positions, drop_mask, generator))
    token_loss = temperature_token_loss(flat, t, y, "nemo") + top_p_token_loss(flat, t, p, y, "nemo")
    return mean_of_kept(token_loss, keep)


def valid_rows(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(batch index [M], position s [M]) of every s whose next label is not -100. labels [B, S]."""
    return (labels[:, 1:] != IGNORE).nonzero(as_tuple=True)


# ---- helpers -----------------------------------------------------------------------


def _to_working(*tensors: Tensor) -> list[Tensor]:
    dtype = working_dtype(*tensors)
    return [t.to(dtype) for t in tensors]


def _take(values: Tensor, labels: Tensor) -> Tensor:
    return values.gather(-1, labels[:, None]).squeeze(-1)  # [M, V], [M] -> [M]


def _keep(logits: Tensor, labels: Tensor, drop: Tensor | None) -> Tensor:
    if drop is None:
        return torch.ones_like(labels, dtype=torch.bool)
    return ~(easy_tokens(logits, labels) & drop.to(labels.device))


def _drop_rows(labels, rows, positions, drop_mask, generator) -> Tensor | None:
    if drop_mask is None and generator is not None:
        drop_mask = draw_drop_mask(labels.shape, generator).to(labels.device)
    return None if drop_mask is None else drop_mask[rows, positions]

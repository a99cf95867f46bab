"""From logits, T and P to a token, batched, in torch.

Owns the nucleus rule and tiny temperatures (equations 5) and the meaning of the
user's parameters (equations 4). Knows nothing of heads or models. The numpy module
autodeco_edge.spec.sampling is the executable specification; this is its batched form.

    B sequences, V logits width. Probabilities are float64: the cumulative sum over a
    vocabulary then never decides differently from exact arithmetic within 1e-12.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import FormatError, UsageError

GREEDY_BELOW = 1e-5  # T* under this takes the argmax
HEADS_MODES = ("both", "temp", "top-p", "none")


def effective_values(
    temperature: Tensor, top_p: Tensor, user_temperature: float = 1.0, user_top_p: float = 1.0, mode: str = "both"
) -> tuple[Tensor, Tensor]:
    """T* = T x user temperature, P* = clamp(P x user top_p, 0, 1). Equations 4.

    temperature [B], top_p [B]: the heads' values. ``mode`` says which heads act; a head that
    does not act counts as 1, and so does a value that is not finite.
    Returns (T* [B], P* [B]), float64. Raises UsageError for parameters out of range.
    """
    check_user_parameters(user_temperature, user_top_p, mode)
    acting_temp = _finite_or_one(temperature) if mode in ("both", "temp") else torch.ones_like(temperature)
    acting_top_p = _finite_or_one(top_p) if mode in ("both", "top-p") else torch.ones_like(top_p)
    return acting_temp.double() * user_temperature, (acting_top_p.double() * user_top_p).clamp(0.0, 1.0)


def check_user_parameters(temperature: float, top_p: float, mode: str) -> None:
    """Raises UsageError unless temperature >= 0, 0 <= top_p <= 1 and the mode is known."""
    if not 0.0 <= temperature < float("inf"):
        raise UsageError(
            f"temperature: expected a number >= 0, got {temperature}; 0 is greedy, 1 leaves the heads alone"
        )
    if not 0.0 <= top_p <= 1.0:
        raise UsageError(f"top_p: expected a number from 0 to 1, got {top_p}; 1 leaves the heads alone")
    if mode not in HEADS_MODES:
        raise UsageError(f"heads_mode: expected one of {', '.join(HEADS_MODES)}; got {mode!r}")


def nucleus_mask(probs: Tensor, top_p: Tensor) -> Tensor:
    """Tokens that may be drawn. Equations 5.

    In descending order of probability, ties by ascending token id, a token is kept iff it
    is the first, or the mass strictly before it is < P* (the crossing token is kept).
    P* = 1 keeps every token of non-zero probability. probs [B, V], top_p [B] -> [B, V] bool.
    """
    ordered, order = torch.sort(probs, dim=-1, descending=True, stable=True)  # [B, V]
    before = ordered.cumsum(-1).roll(1, dims=-1)  # [B, V], mass strictly before
    before[:, 0] = 0.0
    keep = (before < top_p[:, None]) | (top_p[:, None] >= 1.0)
    keep &= ordered > 0
    keep[:, 0] = True
    return torch.zeros_like(keep).scatter(1, order, keep)


def sampling_probs(logits: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """The exact distribution that a token is drawn from.

    logits [B, V] raw, temperature [B] = T*, top_p [B] = P* -> [B, V] float64, rows sum to 1.
    T* < 1e-5 puts all mass on the argmax. NaN logits are excluded; +inf ones win alone.
    Raises FormatError for a row without any usable logit.
    """
    logits = _sanitised(logits)  # [B, V]
    greedy = temperature < GREEDY_BELOW  # [B]
    tau = torch.where(greedy, 1.0, temperature.double())  # [B]
    probs = torch.softmax(logits / tau[:, None], dim=-1)  # [B, V]
    probs = probs * nucleus_mask(probs, top_p.double())
    one_hot = torch.zeros_like(probs).scatter(1, logits.argmax(-1, keepdim=True), 1.0)
    return torch.where(greedy[:, None], one_hot, probs / probs.sum(-1, keepdim=True))


def draw_token(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One token id a row. probs [B, V] -> [B] int64."""
    return torch.multinomial(probs, 1, generator=generator).squeeze(-1)


def _sanitised(logits: Tensor) -> Tensor:
    inf = float("inf")
    logits = logits.double().nan_to_num(nan=-inf, posinf=inf, neginf=-inf)
    infinite = logits.isposinf()  # [B, V]
    alone = torch.where(infinite, 0.0, -inf)
    logits = torch.where(infinite.any(-1, keepdim=True), alone, logits)
    if logits.isneginf().all(-1).any():
        raise FormatError("logits: no finite value in a row; the model file is damaged or its dtype overflows")
    return logits


def _finite_or_one(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values, torch.ones_like(values))

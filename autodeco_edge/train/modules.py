"""The two heads as PyTorch modules, under the tensor names of the official checkpoints.

Owns the forward maths (equations 2, 3; paper section 3.1) and the initialisation.
Knows nothing of files, losses, base models or sampling.

    H hidden width of the base, V logits width, ... any leading shape
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import MismatchError, UsageError
from ..gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED, TEMP_SCALE, HeadSpec

TEMP_EPSILON = 1e-8  # q = softmax(l / (T + 1e-8))
ENTROPY_EPSILON = 1e-8  # -sum q ln(q + 1e-8)
N_TOP = 5
CHUNK_ELEMENTS = 1 << 22  # logits held at once while the statistics are computed


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any tensor is float64, else float32: never less (equations 3)."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _mlp(n_in: int, n_hidden: int) -> nn.Sequential:
    # The indices 0 and 2 are part of the file format: mlp.0.weight ... mlp.2.bias
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.ReLU(), nn.Linear(n_hidden, 1), nn.Sigmoid())


class TempHead(nn.Module):
    """T = 2 sigmoid(W2 relu(W0 h + b0) + b2), in (0, 2). Paper section 3.1, equations 2."""

    def __init__(self, n_embd: int, n_hidden: int = 256) -> None:
        super().__init__()
        self.mlp = _mlp(n_embd, n_hidden)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., H] -> T [...], dtype of the weights."""
        return TEMP_SCALE * self.mlp(hidden).squeeze(-1)


class TopPHead(nn.Module):
    """P = sigmoid(W2 relu(W0 u + b0) + b2), in (0, 1), u = [h, features]. Equations 3."""

    def __init__(self, n_embd: int, n_features: int, n_hidden: int = 256) -> None:
        super().__init__()
        self.mlp = _mlp(n_embd + n_features, n_hidden)

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        """hidden [..., H], features [..., 1 or 5] -> P [...], dtype of the weights."""
        return self.mlp(torch.cat([hidden, features], dim=-1)).squeeze(-1)


class AutoDecoHeads(nn.Module):
    """Both heads, or either one; ``state_dict`` keys are the official ones.

    spec                which heads, H, hidden width, features (HeadSpec)
    detach_temperature  True: T enters the top-p features without gradient (official
                        Hugging Face code); False: with gradient, also through the four
                        statistics (NeMo code). Inference is the same. Equations 10.
    """

    def __init__(self, spec: HeadSpec, detach_temperature: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.detach_temperature = detach_temperature
        if spec.has_temp:
            self.temp_head = TempHead(spec.n_embd, spec.n_hidden)
        if spec.has_top_p:
            if spec.features not in (FEATURES_ENHANCED, FEATURES_BASIC):
                raise UsageError(f"features: expected {FEATURES_ENHANCED} or {FEATURES_BASIC}, got {spec.features}")
            self.top_p_head = TopPHead(spec.n_embd, len(spec.features), spec.n_hidden)

    @property
    def use_enhanced_features(self) -> bool:
        return self.spec.features == FEATURES_ENHANCED

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def reset_parameters(self, generator: torch.Generator) -> AutoDecoHeads:
        """Weights and biases uniform in +-1/sqrt(fan_in), PyTorch's own default: T near 1, P near 0.5."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                bound = 1.0 / math.sqrt(module.in_features)
                with torch.no_grad():
                    module.weight.uniform_(-bound, bound, generator=generator)
                    module.bias.uniform_(-bound, bound, generator=generator)
        return self

    def forward(self, hidden: Tensor, logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """T and P of every position.

        hidden  [..., H]  the vector that the LM head multiplies (after the final norm)
        logits  [..., V]  raw output of the LM head; needed by enhanced features only
        Returns (T [...], P [...]) in the dtype of the weights; an absent head gives 1.
        Raises MismatchError for another hidden width, UsageError without needed logits.
        """
        if hidden.shape[-1] != self.spec.n_embd:
            raise MismatchError(f"hidden state has {hidden.shape[-1]} values; these heads expect {self.spec.n_embd}")
        hidden = hidden.to(self.dtype)
        neutral = hidden.new_ones(hidden.shape[:-1])  # [...]
        temperature = self.temp_head(hidden) if self.spec.has_temp else neutral
        if not self.spec.has_top_p:
            return temperature, neutral
        return temperature, self.top_p_head(hidden, self._features(temperature, logits))

    def _features(self, temperature: Tensor, logits: Tensor | None) -> Tensor:
        """[..., 1 or 5]: T, then max_prob, entropy, prob_var, top5_sum."""
        if self.detach_temperature:
            temperature = temperature.detach()
        if not self.use_enhanced_features:
            return temperature.unsqueeze(-1)
        if logits is None:
            raise UsageError("logits: needed by the enhanced top-p features, got None; pass the raw logits")
        statistics = distribution_statistics(logits, temperature).to(temperature.dtype)
        return torch.cat([temperature.unsqueeze(-1), statistics], dim=-1)


def distribution_statistics(logits: Tensor, temperature: Tensor) -> Tensor:
    """max_prob, entropy (nats), prob_var and top5_sum of softmax(l / (T + 1e-8)). Equations 3.

    logits [..., V], temperature [...] -> [..., 4], float32 (float64 if an input is float64).
    Differentiable in T by closed forms: no autograd graph over the vocabulary is kept.
    """
    dtype = working_dtype(logits, temperature)
    flat = logits.detach().reshape(-1, logits.shape[-1])  # [M, V]
    result = _Statistics.apply(flat, temperature.reshape(-1).to(dtype))  # [M, 4]
    return result.reshape(*temperature.shape, 4)


class _Statistics(torch.autograd.Function):
    """Values and d/dT of the four statistics, chunk by chunk; saves [M, 4] only."""

    @staticmethod
    def forward(ctx, logits: Tensor, temperature: Tensor) -> Tensor:  # [M, V], [M]
        with_slopes = ctx.needs_input_grad[1]
        n_rows = max(1, CHUNK_ELEMENTS // logits.shape[1])
        values, slopes = [], []
        for rows, t in zip(logits.split(n_rows), temperature.split(n_rows), strict=True):
            value, slope = _statistics_of_rows(rows.to(temperature.dtype), t + TEMP_EPSILON, with_slopes)
            values.append(value)
            slopes.append(slope)
        if with_slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values) if values else temperature.new_zeros((0, 4))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor]:  # [M, 4]
        (slopes,) = ctx.saved_tensors
        return None, (grad * slopes).sum(dim=-1)


def _statistics_of_rows(logits: Tensor, tau: Tensor, with_slopes: bool) -> tuple[Tensor, Tensor | None]:
    # prob_var = (sum q^2 - 1/N) / (N - 1), written as sum (q - 1/N)^2 to keep its digits
    # dq/dtau  = q (sum_j q_j l_j - l) / tau^2
    n_vocab = logits.shape[1]
    q = torch.softmax(logits / tau[:, None], dim=-1)  # [m, V]
    log_q = torch.log(q + ENTROPY_EPSILON)  # [m, V]
    top, top_id = q.topk(min(N_TOP, n_vocab), dim=-1)  # [m, 5]
    centred = q - 1.0 / n_vocab  # [m, V]
    denominator = max(n_vocab - 1, 1)
    variance = centred.square().sum(-1) / denominator
    value = torch.stack([top[:, 0], -(q * log_q).sum(-1), variance, top.sum(-1)], dim=-1)  # [m, 4]
    if not with_slopes:
        return value, None
    centred_logits = (q * logits).sum(-1, keepdim=True) - logits  # [m, V]
    dq = q * centred_logits / tau[:, None].square()  # [m, V]
    d_top = dq.gather(1, top_id)  # [m, 5]
    d_entropy = -(dq * (log_q + q / (q + ENTROPY_EPSILON))).sum(-1)
    d_variance = 2.0 * (centred * dq).sum(-1) / denominator
    return value, torch.stack([d_top[:, 0], d_entropy, d_variance, d_top.sum(-1)], dim=-1)

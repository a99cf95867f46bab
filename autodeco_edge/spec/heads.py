"""The AutoDeco heads in numpy: the executable specification of the forward maths.

Owns the weights as plain arrays and the equations of a step, written to be read, in
float64. Does not know files, GGUF, llama.cpp or torch. Every faster path (C, graph,
PyTorch) is tested against this one.

    T = scale * sigmoid(W2 . relu(W0 . h + b0) + b2)                    equations 2
    u = [h, T, max_prob, entropy, prob_var, top5_sum]                   equations 3
    P =         sigmoid(W2 . relu(W0 . u + b0) + b2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..gguf.keys import FEATURES_ENHANCED, TEMP_SCALE, HeadSpec

NOTHING = np.zeros(0)
EPS = 1e-8  # added to T in the softmax and to q in the entropy (equations 3)


@dataclass(frozen=True)
class Head:
    """One MLP: Linear(n_embd + n_extra -> n_hidden), ReLU, Linear(n_hidden -> 1), Sigmoid.

    fc1_weight  float32 [n_hidden, n_embd]
    fc1_bias    float32 [n_hidden]
    fc1_extra   float32 [n_hidden, n_extra], the columns beyond the hidden state; None for temperature
    fc2_weight  float32 [n_hidden]
    fc2_bias    float
    """

    fc1_weight: np.ndarray
    fc1_bias: np.ndarray
    fc1_extra: np.ndarray | None
    fc2_weight: np.ndarray
    fc2_bias: float

    def logit(self, hidden: np.ndarray, extra: np.ndarray = NOTHING) -> float:
        """z = W2 . relu(W0 . [hidden, extra] + b0) + b2; hidden [n_embd], extra [n_extra]."""
        a = self.fc1_weight.astype(np.float64) @ hidden.astype(np.float64) + self.fc1_bias
        if self.fc1_extra is not None:
            a = a + self.fc1_extra.astype(np.float64) @ extra
        return float(self.fc2_weight.astype(np.float64) @ np.maximum(a, 0.0) + self.fc2_bias)


@dataclass(frozen=True)
class HeadWeights:
    """A pair of heads; ``temp`` or ``top_p`` is None where that head is missing."""

    spec: HeadSpec
    temp: Head | None
    top_p: Head | None


@dataclass(frozen=True)
class Stats:
    """Statistics of q = softmax(l / (T + 1e-8)) over the full logits width N (equations 3).

    ``entropy`` is in nats and carries the reference's 1e-8 inside the logarithm;
    ``prob_var`` is unbiased.
    """

    max_prob: float
    entropy: float
    prob_var: float
    top5_sum: float


def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)) without overflow for either sign."""
    if z >= 0:
        return float(1.0 / (1.0 + np.exp(-z)))
    e = np.exp(z)
    return float(e / (1.0 + e))


def sanitize(logits: np.ndarray) -> np.ndarray:
    """NaN is excluded (-inf); one or more +inf win alone. logits [n_vocab] -> float64 [n_vocab].

    Raises ValueError when no finite logit is left: that is an error, never a token.
    """
    clean = np.where(np.isnan(logits), -np.inf, logits.astype(np.float64))
    if np.isposinf(clean).any():
        clean = np.where(np.isposinf(clean), 0.0, -np.inf)
    if not np.isfinite(clean).any():
        raise ValueError("no finite logit: every token is masked or NaN")
    return clean


def softmax(logits: np.ndarray) -> np.ndarray:
    """softmax of [n_vocab] logits in float64; -inf gives exactly 0."""
    e = np.exp(logits - logits.max())
    return e / e.sum()


def stats(logits: np.ndarray, temp: float) -> Stats:
    """Statistics of the temperature-scaled distribution; logits [n_vocab] raw, temp > 0."""
    q = softmax(sanitize(logits) / (temp + EPS))
    n = q.size
    top5 = np.sort(q)[::-1][: min(5, n)]
    return Stats(
        max_prob=float(q.max()),
        entropy=float(-(q * np.log(q + EPS)).sum()),
        prob_var=float(((q - 1.0 / n) ** 2).sum() / (n - 1)),
        top5_sum=float(top5.sum()),
    )


def forward(heads: HeadWeights, hidden: np.ndarray, logits: np.ndarray) -> tuple[float | None, float | None, Stats]:
    """T, P and the statistics for one position.

    hidden  float [n_embd], the state that enters the output matrix
    logits  float [n_vocab], raw: before penalties, bias and masks

    A missing head gives None; the features then use T = 1 (equations 3). A head
    whose output is not finite falls back to T = 1, P = 1.
    """
    temp = None
    if heads.temp is not None:
        temp = _finite_or_one(TEMP_SCALE * sigmoid(heads.temp.logit(hidden)))
    feature_temp = 1.0 if temp is None else temp
    s = stats(logits, feature_temp)
    top_p = None
    if heads.top_p is not None:
        extra = np.array([feature_temp, s.max_prob, s.entropy, s.prob_var, s.top5_sum])
        n_extra = len(heads.spec.features)
        assert heads.spec.features == FEATURES_ENHANCED[:n_extra]
        top_p = _finite_or_one(sigmoid(heads.top_p.logit(hidden, extra[:n_extra])))
    return temp, top_p, s


def _finite_or_one(x: float) -> float:
    return x if np.isfinite(x) else 1.0

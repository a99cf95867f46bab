"""Both token losses and their slopes at laptop cost: one sort of values, no autograd graph over the vocabulary.

Owns the CPU form of losses.temperature_token_loss and losses.top_p_token_loss (equations 7 to 10;
paper section 3.2), which stay the oracle and serve small vocabularies and other devices. Knows nothing of heads, models or
batching.

The logits are given, so a token's losses are functions of two numbers, T and P, and their derivatives have closed
forms. Dividing by T > 0 keeps the order of the logits: depths d = max l - l are sorted once, ascending, as values
(ids matter only for the rank of the label). With w = exp(-d / T'), Z = sum w, q = w / Z, D = sum q d, x = d - D and
prefix sums c_k = sum_{i<=k} q_i, g_k = sum_{i<=k} q_i x_i:

    d q / dT = q x / T'^2                    d c / dT = g / T'^2
    m = exp(-30 relu(c - P)),  b = [c > P]   S = sum q m,  n = q_y m_y of the label,  r = n / (S + 1e-9)
    d S / dT = sum q m (x - 30 b g) / T'^2   d S / dP = 30 sum q m b
    d n likewise, the label's term alone     d r = (d n - r d S) / (S + 1e-9)

The sorted row is taken in blocks. Up to the crossing c = P the mask is 1, so S and its slopes need only the sums that
gave Z and D. Past it, what is left adds at most (1 - c) exp(-30 (c - P)) to S: the scan ends where that is below TAIL
of S + 1e-9. Depths beyond NEGLIGIBLE T' weigh nothing. All is float64 but the blocks past the crossing, which have
the dtype of the logits. The extra memory is the sorted row and its weights, whatever the number of rows: they go one
by one, on one thread (two were no faster: the operations are too short).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..spec.soft_nucleus import EPSILON, STEEPNESS
from . import losses
from .losses import MIN_TEMPERATURE_HF, MIN_TEMPERATURE_TOP_P
from .modules import working_dtype

N_COLUMNS = 1 << 14  # of a block: fits a level-2 cache, and too few for torch to start threads of its own
N_ROWWISE = 1024  # vocabulary from which a row at a time is faster than all at once
NEGLIGIBLE = 50.0  # exp(-50) = 2e-22: 2^24 such tokens weigh 3e-15
TAIL = 1e-12
DEEPEST = 1e30  # stands for the depth of a logit of -inf: weight 0, and no 0 * inf


def token_losses(
    logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, variant: str = "hf"
) -> tuple[Tensor, Tensor]:
    """(temperature loss [M], top-p loss [M]), differentiable in T and P.

    logits [M, V] (no gradient), temperature, top_p [M], labels [M] int64. Results are float64
    if an input is float64, else float32. At c = P the slopes are those from below, as in the
    plain form.
    """
    dtype = working_dtype(logits, temperature, top_p)
    return _TokenLosses.apply(logits.detach(), temperature.to(dtype), top_p.to(dtype), labels, variant)


class _TokenLosses(torch.autograd.Function):
    """A token's losses depend on its own T and P only: backward needs three slopes [M], nothing of width V."""

    @staticmethod
    def forward(ctx, logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, variant: str):
        on_cpu = logits.device.type == "cpu"
        if on_cpu and logits.shape[1] >= N_ROWWISE:
            results = by_rows(logits, temperature, top_p, labels, variant)
        else:
            dtype = torch.float64 if on_cpu else temperature.dtype
            t, p, logits = temperature.to(dtype), top_p.to(dtype), logits.to(dtype).clamp(min=-DEEPEST)
            results = by_autograd(logits, t, p, labels, variant)
        temp, nucleus, *slopes = (x.to(temperature.dtype) for x in results)
        ctx.save_for_backward(*slopes)
        return temp, nucleus

    @staticmethod
    def backward(ctx, grad_temp: Tensor, grad_top_p: Tensor):
        temp_by_t, top_p_by_t, top_p_by_p = ctx.saved_tensors
        return None, grad_temp * temp_by_t + grad_top_p * top_p_by_t, grad_top_p * top_p_by_p, None, None


def by_autograd(logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, variant: str) -> list[Tensor]:
    """The plain form: temperature loss, top-p loss; d temperature loss/dT, d top-p loss/dT, d top-p loss/dP. [M] each."""
    with torch.enable_grad():
        t, p = temperature.detach().requires_grad_(), top_p.detach().requires_grad_()
        temp = losses.temperature_token_loss(logits, t, labels, variant)
        (temp_by_t,) = torch.autograd.grad(temp.sum(), t)
        nucleus = losses.top_p_token_loss(logits, t, p, labels, variant)
        by_t, by_p = torch.autograd.grad(nucleus.sum(), (t, p))
    return [temp.detach(), nucleus.detach(), temp_by_t, by_t, by_p]


def by_rows(logits: Tensor, temperature: Tensor, top_p: Tensor, labels: Tensor, variant: str) -> list[Tensor]:
    """The same in closed form, on the CPU."""
    dtype = working_dtype(logits)
    rows = []
    for values, t, p, label in zip(logits, temperature.tolist(), top_p.tolist(), labels.tolist(), strict=True):
        with np.errstate(all="ignore"):  # NaN in, NaN out, for the loop to refuse
            rows.append(_one_row(values.to(dtype).numpy(), np.float64(t), np.float64(p), label, variant))
    return list(torch.tensor(rows, dtype=temperature.dtype).reshape(-1, 5).T.contiguous())


# ---- one row ---------------------------------------------------------------------------------------


def _one_row(logits: np.ndarray, t: np.float64, p: np.float64, label: int, variant: str) -> tuple:
    """The five numbers of one token; logits [V]."""
    depth, rank = sorted_depth(logits, label)
    own = np.float64(depth[rank])
    nemo, weight = variant == "nemo", np.float64(1.0)
    if variant != "plain":
        weight = np.exp(-own) / sum(float(np.exp(-block).sum()) for block in _blocks(depth))  # pi_y

    scale = t if nemo else np.maximum(t, MIN_TEMPERATURE_TOP_P)
    row = _Row(depth, scale)
    nucleus, nucleus_by_t, nucleus_by_p = _top_p_loss(row, own, rank, p, weight)
    if not nemo and t < MIN_TEMPERATURE_TOP_P:
        nucleus_by_t = 0.0

    scale = t if nemo else np.maximum(t, MIN_TEMPERATURE_HF)
    if scale != row.scale:
        row = _Row(depth, scale)
    log_p = -own / scale - np.log(row.z)
    weight = np.exp(log_p) if nemo else weight
    temp_by_t = weight * (row.mean - own) / scale**2
    if not nemo and t < MIN_TEMPERATURE_HF:
        temp_by_t = 0.0
    return weight * -log_p, nucleus, temp_by_t, nucleus_by_t, nucleus_by_p


def sorted_depth(logits: np.ndarray, label: int) -> tuple[np.ndarray, int]:
    """(max l - l in ascending order, DEEPEST at most, [V]; place of the label there, ties by ascending id)."""
    depth = -logits
    depth.sort()  # values alone: a vector sort, where numpy has one
    own = -logits[label]
    rank = int(np.searchsorted(depth, own))
    if rank + 1 < len(depth) and depth[rank + 1] == own:
        rank += np.count_nonzero(logits[:label] == logits[label])
    rank = min(rank, len(depth) - 1)  # NaN
    depth -= depth[0]
    return np.minimum(depth, DEEPEST, out=depth), rank


def _blocks(row: np.ndarray) -> list[np.ndarray]:
    return [row[i : i + N_COLUMNS] for i in range(0, len(row), N_COLUMNS)]


class _Row:
    """Weights of a sorted row at one T', and their sums.

    blocks            (d, w) of every block that weighs anything
    mass, moment      c and sum of q d before each block; the last is the end of the row
    z, mean           Z, D
    """

    def __init__(self, depth: np.ndarray, scale: np.float64) -> None:  # depth [V]
        self.scale = scale
        self.blocks, mass, moment = [], [0.0], [0.0]
        for block in _blocks(depth):
            if block[0] > NEGLIGIBLE * scale:
                break
            d = block.astype(np.float64)  # thousands of equal depths have one rounding error
            w = d / -scale
            np.exp(w, out=w)
            mass.append(mass[-1] + float(w.sum()))
            moment.append(moment[-1] + _dot(w, d))
            # the head stays in float64: 1 + 1e-9 is not 1 there
            self.blocks.append((block, w.astype(block.dtype)) if self.blocks else (d, w))
        self.z = np.float64(mass[-1])
        self.mass, self.moment = np.array(mass) / self.z, np.array(moment) / self.z
        self.mean = self.moment[-1]

    def prefix(self, rank: int) -> tuple[float, float]:
        """c and g at one place, inclusive."""
        k, i = divmod(rank, N_COLUMNS)
        if k >= len(self.blocks):
            return 1.0, 0.0
        d, w = (x[: i + 1] for x in self.blocks[k])
        c = self.mass[k] + w.sum(dtype=np.float64) / self.z
        return c, self.moment[k] + _dot(w, d) / self.z - c * self.mean


def _top_p_loss(row: _Row, own: np.float64, rank: int, p: np.float64, weight: np.float64) -> tuple:
    """The loss and its slopes in T and P; own, rank: depth and place of the label; weight: pi_y or 1."""
    total, total_by_t, total_by_p = _soft_nucleus(row, p)
    c, g = row.prefix(rank)
    steep = STEEPNESS if c > p else 0.0
    n = np.exp(-own / row.scale - steep * (c - p)) / row.z
    n_by_t = n * (own - row.mean - steep * g) / row.scale**2
    r = n / (total + EPSILON)
    slope = -weight / ((r + EPSILON) * (total + EPSILON))
    return weight * -np.log(r + EPSILON), slope * (n_by_t - r * total_by_t), slope * (n * steep - r * total_by_p)


def _soft_nucleus(row: _Row, p: np.float64) -> tuple:
    """S, dS/dT and dS/dP."""
    g = row.moment - row.mass * row.mean
    before, before_x = row.mass[-1], 0.0  # sums of q and q x up to the crossing,
    past = past_x = past_g = 0.0  # past it, of w m, w m x and w m g
    first = max(0, int(np.searchsorted(row.mass, p, side="right")) - 1)  # the block of the crossing
    for k in range(first, len(row.blocks)):
        d, w = row.blocks[k]
        if k == first:  # in float64: one token's side of the crossing is worth 30 q of dS/dP
            d, w = d.astype(np.float64), w.astype(np.float64)
        gap = p - row.mass[k]
        x = d - float(row.mean)
        wx = w * x
        if k == first:
            c, wg = _cumsum(w) / row.z, _cumsum(wx)
            i = int(np.searchsorted(c, gap, side="right"))
            before, before_x = (row.mass[k] + c[i - 1], g[k] + wg[i - 1] / row.z) if i else (row.mass[k], g[k])
            w, x, wg, over = w[i:], x[i:], wg[i:], (c[i:] - gap) * -STEEPNESS
        else:
            if (1 - row.mass[k]) * np.exp(STEEPNESS * gap) < TAIL * (before + past / row.z + EPSILON):
                break
            over, wg = _cumsum(w), _cumsum(wx)
            over *= float(-STEEPNESS / row.z)
            over += float(STEEPNESS * gap)
        soft = np.exp(over, out=over)
        soft *= w
        here = float(soft.sum())
        past, past_x, past_g = past + here, past_x + _dot(soft, x), past_g + g[k] * here + _dot(soft, wg) / row.z
    by_t = before_x + (past_x - STEEPNESS * past_g) / row.z
    return before + past / row.z, by_t / row.scale**2, STEEPNESS * past / row.z


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.einsum("i,i->", a, b))  # np.dot may start threads


def _cumsum(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(values).cumsum(0).numpy()  # numpy's takes five times as long

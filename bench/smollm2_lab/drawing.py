"""A token of each row from logits, T, P and min-p, in whole batches.

Owns the random numbers, the statistics of equations 3 and the hard nucleus. tests/bench/test_smollm2_lab.py holds them to train/sampling.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5


def uniform(seed: Tensor, index: int) -> Tensor:
    """Numbers in [0, 1), float64, of a sequence's seed [B] int64 and the place: splitmix64."""
    offset = (index + 1) * 0x9E3779B97F4A7C15 % (1 << 64)
    z = seed + (offset - (1 << 64) if offset >> 63 else offset)  # int64 wraps round
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((z >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def top5_sum(weights: Tensor) -> Tensor:
    """Sum of the five largest of each row [B, V] (V a multiple of 256): they lie in the five groups of largest maximum."""
    groups = weights.view(len(weights), -1, 256)
    best = groups.amax(-1).topk(min(5, groups.shape[1]), dim=-1).indices  # [B, 5]
    chosen = groups.gather(1, best[..., None].expand(-1, -1, 256)).flatten(1)
    return chosen.topk(5, dim=-1).values.sum(-1)


def statistics(logits: Tensor, temperature: Tensor) -> Tensor:
    """equations 3, [B, 4]: max_prob, entropy, prob_var, top5_sum of softmax(l / (T + 1e-8))."""
    n = logits.shape[1]
    q = torch.softmax(logits / (temperature[:, None] + 1e-8), -1)
    entropy = -(q * torch.log(q + 1e-8)).sum(-1)
    return torch.stack([q.amax(-1), entropy, (q - 1 / n).square().sum(-1) / (n - 1), top5_sum(q)], -1)


def threshold(weights: Tensor, top_p: Tensor, rounds: int = 40) -> Tensor:
    """[B, 1] the weight from which a row's tokens are in the nucleus (equations 5), by bisection of its logarithm.

    weights [B, V] with largest 1. Tokens closer than 2e-11 in their logarithm are in or out together.
    """
    wanted = top_p[:, None] * weights.sum(-1, keepdim=True)
    low = torch.full_like(wanted, -88.0)  # exp(-88) is the smallest there is: everything
    high = torch.zeros_like(wanted)
    for _ in range(rounds):
        middle = (low + high) / 2
        enough = torch.where(weights >= middle.exp(), weights, 0).sum(-1, keepdim=True) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where(top_p[:, None] >= 1, 0.0, torch.minimum(low.exp(), torch.ones_like(low)))


def pick(weights: Tensor, u: Tensor) -> Tensor:
    """A token of each row in proportion to its weight [B, V], by the number u [B]."""
    running = weights.cumsum(-1)
    target = (u.to(running.dtype)[:, None] * running[:, -1:]).clamp(max=running[:, -1:] * (1 - 1e-7))
    return torch.searchsorted(running, target, right=True).squeeze(1).clamp(max=weights.shape[1] - 1)


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, min_p: Tensor, seed: Tensor, index: int) -> Tensor:
    """Tokens [B] of the hard nucleus. By rejection: a token of the whole distribution is kept if the mass before it is below P.

    What four rounds leave over is drawn from the nucleus found by bisection. min_p cuts before top-p, as llama.cpp has it.
    """
    greedy = temperature < GREEDY_BELOW
    tau = torch.where(greedy, 1.0, temperature)
    weights = (logits - logits.amax(-1, keepdim=True)).div_(tau[:, None]).exp_()
    if bool((min_p > 0).any()):
        weights = torch.where(weights >= min_p[:, None], weights, 0)
    tokens = pick(weights, uniform(seed, 8 * index))
    if bool((top_p < 1).any()):
        rows = (top_p < 1).nonzero().squeeze(1)
        part = weights if len(rows) == len(weights) else weights[rows]
        for attempt in range(1, 5):
            chosen = part.gather(1, tokens[rows][:, None])
            before = torch.where(part > chosen, part, 0).sum(-1)
            refused = before >= top_p[rows] * part.sum(-1)
            if not bool(refused.any()):
                rows = rows[:0]
                break
            rows, part = rows[refused], part[refused]
            if attempt < 4:
                tokens[rows] = pick(part, uniform(seed[rows], 8 * index + attempt))
        if len(rows):
            kept = torch.where(part >= threshold(part, top_p[rows]), part, 0)
            tokens[rows] = pick(kept, uniform(seed[rows], 8 * index + 7))
    return torch.where(greedy, logits.argmax(-1), tokens)

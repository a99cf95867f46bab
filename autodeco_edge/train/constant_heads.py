"""Heads that say the same T and P at every token: a constant in the form of heads.

Owns their making. The last layer's weights are zero, so its bias alone decides. They are where training on a reward
begins, and what is written where learned heads are no better (docs/decisions/0039-a-constant-is-heads.md). Knows no
file format and no data.
"""

from __future__ import annotations

import math

import torch

from ..errors import UsageError
from ..gguf.keys import FEATURES_BASIC, TEMP_SCALE, HeadSpec
from .base import fresh_heads
from .modules import AutoDecoHeads

FLAT = 40.0  # a sigmoid of it is 1 in every float
MOST_P = 0.96  # of heads that are to learn: behind it the sigmoid is too flat for a gradient


def learning(n_embd: int, features: tuple[str, ...], temperature: float, top_p: float, seed: int) -> AutoDecoHeads:
    """256 hidden units with random first layers; P at most MOST_P. Raises UsageError as ``constant`` does."""
    heads = fresh_heads(HeadSpec(n_embd, 256, features, True, True), seed)
    return _fixed(heads, temperature, min(top_p, MOST_P))


def constant(n_embd: int, temperature: float, top_p: float) -> AutoDecoHeads:
    """The smallest heads, with nothing but zeros and two biases. Raises UsageError unless 0 < T < 2 and 0 < P <= 1."""
    heads = AutoDecoHeads(HeadSpec(n_embd, 1, FEATURES_BASIC, True, True))
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
    return _fixed(heads, temperature, top_p)


@torch.no_grad()
def _fixed(heads: AutoDecoHeads, temperature: float, top_p: float) -> AutoDecoHeads:
    if not (0 < temperature < TEMP_SCALE and 0 < top_p <= 1):
        raise UsageError(
            f"constant heads: allowed T above 0, below {TEMP_SCALE:g}, P above 0, up to 1; got {temperature:g}, {top_p:g}"
        )
    for head, share in ((heads.temp_head, temperature / TEMP_SCALE), (heads.top_p_head, top_p)):
        head.mlp[2].weight.zero_()
        head.mlp[2].bias.fill_(math.log(share / (1 - share)) if share < 1 else FLAT)
    return heads

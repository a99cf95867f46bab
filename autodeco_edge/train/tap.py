"""What the LM head of a transformers causal LM receives and returns, whatever the architecture.

Owns the tap: the hidden state is taken where the LM head receives it, so it is the post-norm
vector everywhere, and the logits are the bare output matrix: no soft-cap, no scale
(equations 1). Knows nothing of heads, losses or data.

    B sequences, S positions, H hidden width, V logits width
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FormatError


def raw_logits(base: nn.Module, hidden: Tensor) -> Tensor:
    """Raw logits of the bare output matrix. [..., H] -> [..., V]."""
    return apply_head(base.get_output_embeddings(), hidden)


def apply_head(head: nn.Module, hidden: Tensor) -> Tensor:
    """The same, of the matrix alone."""
    return head(hidden if torch.is_autocast_enabled(hidden.device.type) else hidden.to(head.weight.dtype))


@torch.no_grad()
def hidden_states(base: nn.Module, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    """Post-norm hidden states [B, S, H] of ids [B, S]; the LM head sees one position only."""
    with tap(base, only_first=True) as seen:
        base(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **kwargs)
    return seen["hidden"]


@contextmanager
def tap(base: nn.Module, only_first: bool = False) -> Iterator[dict[str, Tensor]]:
    """Record what the LM head receives ("hidden") and returns ("logits") while the block runs."""
    seen: dict[str, Tensor] = {}

    def before(module: nn.Module, args: tuple) -> tuple | None:
        seen["hidden"] = args[0]
        return (args[0][:, :1],) if only_first else None

    def after(module: nn.Module, args: tuple, result: Tensor) -> None:
        seen["logits"] = result

    head = base.get_output_embeddings()
    handles = [head.register_forward_pre_hook(before), head.register_forward_hook(after)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
    if "hidden" not in seen:
        raise FormatError("this base never calls its output embedding: its hidden state cannot be read")

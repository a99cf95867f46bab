"""Heads out of a checkpoint or a GGUF as the arrays that the numpy specification computes with."""

from __future__ import annotations

from autodeco_edge.convert.checkpoint import Checkpoint
from autodeco_edge.convert.layout import split_heads
from autodeco_edge.convert.tensors import RawTensor
from autodeco_edge.convert.verify import GgufHeads
from autodeco_edge.gguf.keys import FC1_EXTRA
from autodeco_edge.spec.heads import Head, HeadWeights


def weights_of(heads: Checkpoint | GgufHeads) -> HeadWeights:
    """Float32, dequantised."""
    tensors = split_heads(heads) if isinstance(heads, Checkpoint) else heads.tensors
    return HeadWeights(heads.spec, _head(tensors, "temp"), _head(tensors, "top_p"))


def _head(tensors: dict[str, RawTensor], short: str) -> Head | None:
    if f"{short}.fc1.weight" not in tensors:
        return None
    extra = tensors.get(f"{short}.{FC1_EXTRA}")
    return Head(
        fc1_weight=tensors[f"{short}.fc1.weight"].f32(),
        fc1_bias=tensors[f"{short}.fc1.bias"].f32(),
        fc1_extra=None if extra is None else extra.f32(),
        fc2_weight=tensors[f"{short}.fc2.weight"].f32(),
        fc2_bias=float(tensors[f"{short}.fc2.bias"].f32()[0]),
    )

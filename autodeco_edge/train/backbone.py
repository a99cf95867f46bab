"""The frozen model beneath the heads: what the training loop asks of it, and the Hugging Face one.

Owns the interface ``Backbone`` and the backbone that runs on transformers; the one that runs on
llama.cpp is in gguf_backbone.py. Knows nothing of losses or optimisers.

A backbone is opened in two steps, so that bad data are found before gigabytes are read: made,
it can tokenise; after ``load`` it can compute.

    m completion positions of a sample, H hidden width, V logits width
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import base_config_of, check_base, hidden_size_of, load_base, load_tokenizer
from .checkpoint import HeadsCheckpoint
from .data import Sample, Tokenizer, collate
from .losses import IGNORE
from .tap import hidden_states, raw_logits

Positions = tuple[Tensor, Tensor]  # hidden [m, H], labels [m] int64 of the completion positions of one sample


class Backbone(ABC):
    """A frozen language model.

    name       what the checkpoint's config calls the base
    tokenizer  its tokenizer
    n_ctx      longest sample in tokens; None: no limit of its own
    """

    name: str
    tokenizer: Tokenizer
    n_ctx: int | None = None

    @abstractmethod
    def load(self, device: torch.device, samples: Sequence[Sample]) -> None:
        """Make ready to compute on ``device``; ``samples`` are what will be asked for."""

    @property
    @abstractmethod
    def n_embd(self) -> int:
        """H."""

    @abstractmethod
    def positions(self, batch: Sequence[Sample]) -> list[Positions]:
        """Post-norm hidden states and labels of each sample's completion positions, in order."""

    @abstractmethod
    def lm_head(self, hidden: Tensor) -> Tensor:
        """Raw logits. [m, H] -> [m, V]."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The base's part of the checkpoint's config.json."""

    @abstractmethod
    def check_heads(self, checkpoint: HeadsCheckpoint) -> None:
        """Raises MismatchError for heads whose config names another base."""

    def close(self) -> None:  # noqa: B027  nothing to free unless a backbone says so
        """Free what the garbage collector cannot; nothing can be computed any longer."""


class HuggingFaceBackbone(Backbone):
    """Any transformers causal LM.

    base       folder or hub id
    dtype      auto | float32 | bfloat16: how the weights are loaded
    precision  fp32 | bf16: autocast of the forward pass
    Raises MissingInputError, FormatError.
    """

    def __init__(self, base: str | Path, dtype: str = "float32", precision: str = "fp32") -> None:
        self.name = str(base)
        self.tokenizer = load_tokenizer(base)
        self._dtype, self._precision = dtype, precision

    def load(self, device: torch.device, samples: Sequence[Sample]) -> None:
        self.base = load_base(self.name, self._dtype).to(device).requires_grad_(False).eval()

    @property
    def n_embd(self) -> int:
        return hidden_size_of(self.base)

    def positions(self, batch: Sequence[Sample]) -> list[Positions]:
        """One padded pass."""
        device = next(self.base.parameters()).device
        tensors = {k: v.to(device) for k, v in collate(batch, self._pad_id()).items()}
        labels = tensors.pop("labels")  # [B, S]
        with self._autocast(device):
            hidden = hidden_states(self.base, **tensors)  # [B, S, H]
        valid = labels[:, 1:] != IGNORE  # [B, S - 1]: position s predicts label s + 1
        return [(h[:-1][v], y[1:][v]) for h, y, v in zip(hidden, labels, valid, strict=True)]

    def lm_head(self, hidden: Tensor) -> Tensor:
        return raw_logits(self.base, hidden)

    def config(self) -> dict[str, Any]:
        return base_config_of(self.name, self.base)

    def check_heads(self, checkpoint: HeadsCheckpoint) -> None:
        check_base(checkpoint, self.base)

    def _pad_id(self) -> int:
        pad_id = self.tokenizer.pad_token_id
        return pad_id if pad_id is not None else self.tokenizer.eos_token_id or 0

    def _autocast(self, device: torch.device):
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

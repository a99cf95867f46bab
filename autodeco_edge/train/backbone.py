"""The frozen model beneath the heads: what the training loop asks of it, and the Hugging Face one.

Owns the interface ``Backbone`` and the backbone that runs on transformers; the one that runs on
llama.cpp is in gguf_backbone.py. Knows nothing of losses or optimisers.

A backbone is opened in two steps, so that bad data are found before gigabytes are read: made,
it can tokenise; after ``load`` it can compute.

    m completion positions of a sample, H hidden width, V logits width
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..convert.checkpoint_config import CheckpointConfig
from .base import base_config_of, check_base, hidden_size_of, load_base, load_tokenizer
from .batches import collate
from .data import TokenizerLike, TrainingSample
from .losses import IGNORE
from .tap import apply_head, hidden_states

Shard = Callable[[nn.Module], nn.Module]  # gives a module back that holds a part of its weights on each process
Positions = tuple[Tensor, Tensor]  # hidden [m, H], labels [m] int64 of the completion positions of one sample


class Backbone(ABC):
    """A frozen language model.

    name       what the checkpoint's config calls the base
    tokenizer  its tokenizer
    n_ctx      longest sample in tokens; None: no limit of its own
    """

    name: str
    tokenizer: TokenizerLike
    n_ctx: int | None = None

    @abstractmethod
    def load(self, device: torch.device, samples: Sequence[TrainingSample], shard: Shard | None = None) -> None:
        """Make ready to compute on ``device``; ``samples`` are what will be asked for.

        shard: spread the weights over the processes with it (FSDP, ZeRO-3). ``positions`` is then a
        collective: every process calls it equally often. Raises UsageError where that cannot be.
        """

    @property
    @abstractmethod
    def n_embd(self) -> int:
        """H."""

    @abstractmethod
    def positions(self, batch: Sequence[TrainingSample]) -> list[Positions]:
        """Post-norm hidden states and labels of each sample's completion positions, in order."""

    @abstractmethod
    def lm_head(self, hidden: Tensor) -> Tensor:
        """Raw logits. [m, H] -> [m, V]."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The base's part of the checkpoint's config.json."""

    @abstractmethod
    def check_heads(self, claims: CheckpointConfig) -> None:
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

    def load(self, device: torch.device, samples: Sequence[TrainingSample], shard: Shard | None = None) -> None:
        self._device = device
        self.base = load_base(self.name, self._dtype).requires_grad_(False).eval()
        if shard is None:
            self._runs = self.base.to(device)
            self._head = self.base.get_output_embeddings()
        else:  # the head is applied outside the forward pass, where nothing gathers its weights: it stays whole
            self._head = copy.deepcopy(self.base.get_output_embeddings()).to(device)
            self._runs = shard(self.base)

    @property
    def n_embd(self) -> int:
        return hidden_size_of(self.base)

    def positions(self, batch: Sequence[TrainingSample]) -> list[Positions]:
        """One padded pass."""
        pad_id = self.tokenizer.pad_token_id
        if pad_id is None:
            pad_id = self.tokenizer.eos_token_id or 0
        tensors = {k: v.to(self._device) for k, v in collate(batch, pad_id).items()}
        labels = tensors.pop("labels")  # [B, S]
        exact = self._precision == "fp32"
        with nullcontext() if exact else torch.autocast(self._device.type, torch.bfloat16):
            hidden = hidden_states(self._runs, **tensors)  # [B, S, H]
        valid = labels[:, 1:] != IGNORE  # [B, S - 1]: position s predicts label s + 1
        return [(h[:-1][v], y[1:][v]) for h, y, v in zip(hidden, labels, valid, strict=True)]

    def lm_head(self, hidden: Tensor) -> Tensor:
        return apply_head(self._head, hidden)

    def config(self) -> dict[str, Any]:
        return base_config_of(self.name, self.base)

    def check_heads(self, claims: CheckpointConfig) -> None:
        check_base(claims, self.base)

"""The llama.cpp backbone: heads for a GGUF as the user runs it, F16 or quantised, without PyTorch weights.

Owns how the parts are put together: llama.cpp's tokenizer and chat template for the data,
gguf_states.py for hidden states, lm_head.py for logits, the metadata for the checkpoint's config.
Knows nothing of losses or optimisers.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..convert.base import open_base
from ..convert.checkpoint_config import CheckpointConfig
from ..engine import native as _native  # noqa: F401  installs the log before any model is opened
from ..engine.model import Model
from ..errors import FormatError, UsageError
from .backbone import Backbone, Positions, Shard
from .base import check_claims
from .checkpoint import gguf_config
from .data import TrainingSample
from .gguf_states import GraphStop, HiddenStates
from .gguf_tokenizer import GgufTokenizer
from .lm_head import LmHead

N_CHECKED = 16  # positions whose logits are compared with llama.cpp's at the start


class GgufBackbone(Backbone):
    """
    path       GGUF file
    n_threads  0 = one a physical core

    Raises MissingInputError and FormatError; from ``load``, MismatchError for an architecture whose logits
    cannot be had from its output matrix, OutOfMemoryError.
    """

    def __init__(self, path: str | os.PathLike[str], n_threads: int = 0) -> None:
        self._file, self._info = open_base(path)
        self._head = LmHead(self._file, self._info.arch)
        self._model = Model(path)
        if (self._head.n_embd, self._head.n_vocab) != (self._model.n_embd, self._model.n_vocab):
            raise FormatError(
                f"{path}: the output matrix is {self._head.n_vocab} x {self._head.n_embd}, the model has a vocabulary "
                f"of {self._model.n_vocab} and {self._model.n_embd} wide hidden states; this file cannot be trained on"
            )
        self._n_threads = n_threads
        self._states: HiddenStates | None = None
        self.tokenizer = GgufTokenizer(self._model)
        self.n_ctx = self._model.n_ctx_train
        self.name = self._info.name or self._model.path.stem

    def load(self, device: torch.device, samples: Sequence[TrainingSample], shard: Shard | None = None) -> None:
        if shard is not None:
            raise UsageError(
                "a GGUF is never spread over processes: launch with configs/ddp.yaml or configs/cpu-2.yaml"
            )
        self._head.load(device)
        self._states = HiddenStates(self._model, max(len(s.ids) for s in samples), self._n_threads)
        self._check(samples[0].ids[:N_CHECKED], device)

    def _check(self, tokens: list[int], device: torch.device) -> None:
        """The hidden state is what the matrix multiplies, and the logits are llama.cpp's."""
        (early,) = self._states.of([tokens])  # first: the buffers hold no values of a whole graph yet
        ((hidden, logits),) = self._states.with_logits(tokens)
        self._states.stop.enabled = np.array_equal(early, hidden)
        _check_finite(hidden, self._model)
        self._head.fit(torch.from_numpy(hidden).to(device), torch.from_numpy(logits).to(device))

    @property
    def model(self) -> Model:
        """For a context of the caller's own; the backbone keeps it."""
        return self._model

    @property
    def graph_stop(self) -> GraphStop:
        """Of a loaded backbone: the callback for a context in embeddings mode that needs no logits."""
        return self._states.stop

    @property
    def n_embd(self) -> int:
        return self._model.n_embd

    def positions(self, batch: Sequence[TrainingSample]) -> list[Positions]:
        """The last token of a sample is a label only: nothing is predicted from it."""
        found = []
        states = self._states.of([sample.ids[:-1] for sample in batch])
        for sample, hidden in zip(batch, states, strict=True):
            kept = hidden[sample.first - 1 :]  # position s predicts label s + 1
            _check_finite(kept, self._model)
            found.append((torch.from_numpy(kept), torch.tensor(sample.ids[sample.first :])))
        return found

    @torch.no_grad()
    def lm_head(self, hidden: Tensor) -> Tensor:
        return self._head(hidden)

    def config(self) -> dict[str, Any]:
        """No more than the metadata says. An architecture without a Hugging Face name keeps its own."""
        return gguf_config(self._info.arch, self.n_embd, self._model.n_vocab)

    def check_heads(self, claims: CheckpointConfig) -> None:
        arch = claims.arch or claims.model_type
        check_claims(replace(claims, model_type=arch), self._model.n_vocab, self._info.arch)

    def close(self) -> None:
        if self._states:
            self._states.close()  # before the model it was made from
        self._model.close()
        self._file.close()


def _check_finite(hidden: np.ndarray, model: Model) -> None:
    if not np.isfinite(hidden).all():
        raise FormatError(
            f"{model.path}: llama.cpp gives hidden states that are not finite; the file is damaged or its "
            "quantisation failed; run it once (autodeco-edge run -m) or take another file"
        )

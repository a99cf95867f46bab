"""Post-norm hidden states of token sequences, by llama.cpp in embeddings mode.

Owns how sequences are packed into batches. Pooling is off, so every token is an output and its embedding is
``result_norm``, the vector that enters the LM head and that the heads see when they run. Knows
nothing of text, labels or training.

In embeddings mode llama.cpp also computes a row of logits for every token: on a small model with a
large vocabulary, most of the work. A callback ends each graph behind the state unless logits are
asked for.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp
import numpy as np

from ..engine.context import Context, ContextParams, Row
from ..engine.cpu import physical_cores
from ..engine.model import Model

MAX_BATCH = 512
MAX_LOGITS = 1 << 25  # floats that llama.cpp reserves for one batch's logits, used or not: 128 MiB
MAX_SEQUENCES = 16  # short ones share a batch; each costs a recurrent model a state
LAST_NODE = b"result_embd_pooled"  # the name that result_norm itself bears in embeddings mode

_llama = Path(llama_cpp.llama_cpp._lib._name)  # a look-up there finds what it depends on, except on Windows
_ggml = ctypes.CDLL(str(_llama.with_name("ggml-base.dll") if sys.platform == "win32" else _llama))
_ggml.ggml_get_name.argtypes = [ctypes.c_void_p]
_ggml.ggml_get_name.restype = ctypes.c_char_p


class GraphStop:
    """llama.cpp's callback before and after a node: ends each graph where the hidden states are ready.

    enabled  False for an architecture whose states come later. An object apart, because a callback that held
             its HiddenStates would be a cycle, and a cycle is freed in any order: the model before its context.
    """

    def __init__(self) -> None:
        self.enabled = True

    def __call__(self, tensor: int, ask: bool, _data) -> bool:
        """ask: whether to look at this node. Not ask: its value is there, and False ends the graph."""
        return ask and self.enabled and _ggml.ggml_get_name(tensor) == LAST_NODE


class HiddenStates:
    """
    model      stays the caller's
    n_ctx      longest sequence in tokens
    n_threads  0 = one a physical core

    Raises OutOfMemoryError.
    """

    def __init__(self, model: Model, n_ctx: int, n_threads: int = 0) -> None:
        self.model = model
        self.n_batch = max(32, min(MAX_BATCH, MAX_LOGITS // model.n_vocab))
        self.n_ctx = max(n_ctx, self.n_batch)
        self.stop = GraphStop()
        params = ContextParams(
            n_ctx=self.n_ctx,  # cells for all sequences together
            n_sequences=MAX_SEQUENCES,
            n_batch=self.n_batch,
            n_threads=n_threads or physical_cores(),
            samplers={},
            states=True,
            on_node=self.stop,
        )
        self._context = Context(model, params, f"a context of {self.n_ctx} tokens", "pass a smaller --max-length")

    def of(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Hidden states [n, H] float32 of each sequence of n tokens; n at most ``n_ctx``."""
        return [hidden for pack in self._packs(sequences) for hidden in self._run(pack)]

    def with_logits(self, tokens: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(hidden [m, H], llama.cpp's logits [m, V]) of one sequence, a batch of m tokens at a time."""
        self._context.clear()
        rows = [Row(token, at, 0, True) for at, token in enumerate(tokens)]
        for start in range(0, len(rows), self.n_batch):
            chunk = rows[start : start + self.n_batch]
            with self._whole_graph():
                self._context.decode(chunk)
            outputs = range(len(chunk))
            yield self._context.states(outputs), self._context.logits(outputs)

    @contextmanager
    def _whole_graph(self) -> Iterator[None]:
        before, self.stop.enabled = self.stop.enabled, False
        try:
            yield
        finally:
            self.stop.enabled = before

    def _packs(self, sequences: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        """Neighbours that fit into the context together."""
        pack: list[Sequence[int]] = []
        for tokens in sequences:
            if pack and (len(pack) == MAX_SEQUENCES or sum(map(len, pack)) + len(tokens) > self.n_ctx):
                yield pack
                pack = []
            pack.append(tokens)
        if pack:
            yield pack

    def _run(self, pack: Sequence[Sequence[int]]) -> list[np.ndarray]:
        self._context.clear()
        rows = [Row(token, at, seq, True) for seq, tokens in enumerate(pack) for at, token in enumerate(tokens)]
        hidden = np.empty((len(rows), self.model.n_embd), np.float32)
        for start in range(0, len(rows), self.n_batch):
            chunk = rows[start : start + self.n_batch]
            self._context.decode(chunk)
            hidden[start : start + len(chunk)] = self._context.states(range(len(chunk)))
        return np.split(hidden, np.cumsum([len(tokens) for tokens in pack])[:-1])

    def close(self) -> None:
        """Free the context."""
        self._context.close()

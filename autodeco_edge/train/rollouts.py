"""Replies drawn from the very distribution that is trained: the soft nucleus of heads in PyTorch.

Owns the draw, and the hidden states that the gradient needs. The base runs in llama.cpp as in batch.py. A hard
nucleus has no slope in P and never shows what lies beyond it; the soft one (semantics 4.4, paper section 3.2)
does both, and a reply drawn from it has an exact policy gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import llama_cpp
import numpy as np
import torch

from ..engine.batch import BatchEngine, Reply, Request, Slot, StockChain
from ..engine.sampler import Step
from ..spec.sampling import uniform
from .gguf_backbone import GgufBackbone
from .losses import soft_nucleus
from .modules import AutoDecoHeads


@dataclass(frozen=True)
class Rollout:
    """reply, and the hidden states float32 [m, H] that each of its m tokens was drawn from."""

    reply: Reply
    hidden: np.ndarray


class SoftEngine(BatchEngine):
    """Draws from r = soft nucleus of ``heads`` as they are now; of a request's settings only the seed counts.

    backbone  loaded: it gives the model, the LM head, and whether a graph may end behind the hidden states
    """

    def __init__(
        self, backbone: GgufBackbone, heads: AutoDecoHeads, *, n_parallel: int, n_ctx: int, n_threads: int
    ) -> None:
        self._backbone, self._module = backbone, heads
        self._on_node = llama_cpp.ggml_backend_sched_eval_callback(backbone.graph_stop)  # borrowed by the context
        super().__init__(backbone.model, None, n_parallel=n_parallel, n_ctx=n_ctx, n_threads=n_threads)

    def rollouts(self, requests: Iterable[Request]) -> Iterator[tuple[int, Rollout]]:
        """(number of the request, Rollout), as they end."""
        self._hidden: dict[int, list[np.ndarray]] = defaultdict(list)  # by the identity of the reply
        for number, reply in self.run(requests):
            yield number, Rollout(reply, np.stack(self._hidden.pop(id(reply))))

    def _make_slot(self, sequence: int, stock: StockChain | None) -> Slot:
        return Slot(sequence)

    def _configure(self, params) -> None:
        params.embeddings = True
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
        params.attention_type = llama_cpp.LLAMA_ATTENTION_TYPE_CAUSAL
        params.cb_eval = self._on_node

    @torch.no_grad()
    def _draw(self, active: Sequence[Slot]) -> list[Step]:
        width = (self.model.n_embd,)
        rows = [
            np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_ith(self._ctx, i), width) for i in range(len(active))
        ]
        hidden = np.stack(rows)  # a copy [n, H]
        for slot, row in zip(active, hidden, strict=True):
            self._hidden[id(slot.reply)].append(row)
        state = torch.from_numpy(hidden)
        logits = self._backbone.lm_head(state)  # [n, V]
        temperature, top_p = self._module(state, logits)  # [n], [n]
        cumulative = soft_nucleus(logits, temperature, top_p).double().cumsum(-1)  # [n, V]
        u = [uniform(slot.reply.request.params.seed, len(slot.reply.steps)) for slot in active]
        target = torch.tensor(u, dtype=torch.float64)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
        return [
            _step(len(slot.reply.steps), *values)
            for slot, *values in zip(active, tokens.tolist(), temperature.tolist(), top_p.tolist(), strict=True)
        ]


def _step(index: int, token: int, temperature: float, top_p: float) -> Step:
    nan = float("nan")
    return Step(index, token, temperature, top_p, temperature, top_p, 0, nan, nan, None)

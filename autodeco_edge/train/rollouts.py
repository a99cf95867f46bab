"""Replies drawn from the very distribution that is trained: the soft nucleus of heads in PyTorch.

Owns the draw, and the hidden states that the gradient needs. The base runs in llama.cpp, in the engine. A hard
nucleus has no slope in P and never shows what lies beyond it; the soft one (equations 8, paper section 3.2)
does both, and a reply drawn from it has an exact policy gradient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..engine.context import Context
from ..engine.engine import Engine
from ..engine.generation import Reply, Request
from ..engine.sampler import Step
from ..engine.strategies import Needs, Output, Strategy
from ..spec.sampling import uniform
from .gguf_backbone import GgufBackbone
from .losses import soft_nucleus
from .modules import AutoDecoHeads


@dataclass(frozen=True)
class Rollout:
    """reply, and the hidden states float32 [m, H] that each of its m tokens was drawn from."""

    reply: Reply
    hidden: np.ndarray


class SoftNucleus(Strategy):
    """Draws from r = soft nucleus of ``heads`` as they are now; of a request's settings only the seed counts.

    backbone  loaded: it gives the LM head, and whether a graph may end behind the hidden states
    hidden    of every token drawn, by the identity of its request
    """

    def __init__(self, backbone: GgufBackbone, heads: AutoDecoHeads) -> None:
        self._backbone, self._module = backbone, heads
        self.hidden: dict[int, list[np.ndarray]] = defaultdict(list)

    def needs(self, n_slots: int) -> Needs:
        return Needs(states=True, on_node=self._backbone.graph_stop)

    def begin(self, context: Context, sequence: int, request: Request) -> None:
        self.hidden.pop(id(request), None)

    @torch.no_grad()
    def draw(self, context: Context, outputs: Sequence[Output]) -> list[Step]:
        hidden = context.states([output.row for output in outputs])  # [n, H]
        for output, row in zip(outputs, hidden, strict=True):
            self.hidden[id(output.request)].append(row)
        state = torch.from_numpy(hidden)
        logits = self._backbone.lm_head(state)  # [n, V]
        temperature, top_p = self._module(state, logits)  # [n], [n]
        cumulative = soft_nucleus(logits, temperature, top_p).double().cumsum(-1)  # [n, V]
        u = [uniform(output.request.params.seed, output.n_drawn) for output in outputs]
        target = torch.tensor(u, dtype=torch.float64)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
        return [
            _step(output.n_drawn, *values)
            for output, *values in zip(outputs, tokens.tolist(), temperature.tolist(), top_p.tolist(), strict=True)
        ]


class Roller:
    """Draws rollouts with a backbone's model and the heads that train on it."""

    def __init__(
        self, backbone: GgufBackbone, heads: AutoDecoHeads, *, n_slots: int, n_ctx: int, n_threads: int
    ) -> None:
        self._nucleus = SoftNucleus(backbone, heads)
        self._engine = Engine(
            backbone.model,
            n_slots=n_slots,
            n_ctx=n_ctx,
            n_threads=n_threads,
            strategy=self._nucleus,
            share_prompts=True,
        )

    @property
    def n_ctx(self) -> int:
        return self._engine.n_ctx

    def rollouts(self, requests: Iterable[Request]) -> Iterator[tuple[int, Rollout]]:
        """(number of the request, Rollout), as they end."""
        for number, reply in self._engine.run(requests):
            yield number, Rollout(reply, np.stack(self._nucleus.hidden.pop(id(reply.request))))

    def close(self) -> None:
        self._engine.close()


def _step(index: int, token: int, temperature: float, top_p: float) -> Step:
    nan = float("nan")
    return Step(index, token, temperature, top_p, temperature, top_p, 0, nan, nan, None)

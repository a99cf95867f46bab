"""Replies drawn in PyTorch, with the hidden states that a gradient needs.

Owns the draw. The base runs in llama.cpp, in the engine. Two distributions: the soft nucleus of the heads that train,
and a constant. A hard nucleus has no slope in P and never shows what lies beyond it; the soft one (equations 8, paper section
3.2) does both, and a reply drawn from it has an exact policy gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

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


class FromStates(Strategy):
    """Draws a token in proportion to ``weigh``; of a request's settings the seed counts.

    backbone  loaded: it gives the LM head, and whether a graph may end behind the hidden states
    hidden    of every token drawn, by the identity of its request
    """

    def __init__(self, backbone: GgufBackbone) -> None:
        self._backbone = backbone
        self.hidden: dict[int, list[np.ndarray]] = defaultdict(list)

    def needs(self, n_slots: int) -> Needs:
        return Needs(states=True, on_node=self._backbone.graph_stop)

    def begin(self, context: Context, sequence: int, request: Request) -> None:
        self.hidden.pop(id(request), None)

    @abstractmethod
    def weigh(self, state: Tensor, logits: Tensor, outputs: Sequence[Output]) -> tuple[Tensor, Tensor, Tensor]:
        """state [n, H], logits [n, V] -> (weights of the tokens [n, V], T [n], P [n])."""

    @torch.no_grad()
    def draw(self, context: Context, outputs: Sequence[Output]) -> list[Step]:
        hidden = context.states([output.row for output in outputs])  # [n, H]
        for output, row in zip(outputs, hidden, strict=True):
            self.hidden[id(output.request)].append(row)
        state = torch.from_numpy(hidden)
        logits = self._backbone.lm_head(state)  # [n, V]
        weights, temperature, top_p = self.weigh(state, logits, outputs)
        cumulative = weights.double().cumsum(-1)  # [n, V]
        u = [uniform(output.request.params.seed, output.n_drawn) for output in outputs]
        target = torch.tensor(u, dtype=torch.float64)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)
        return [
            _step(output.n_drawn, *values)
            for output, *values in zip(outputs, tokens.tolist(), temperature.tolist(), top_p.tolist(), strict=True)
        ]


class SoftNucleus(FromStates):
    """r = soft nucleus of ``heads`` as they are now."""

    def __init__(self, backbone: GgufBackbone, heads: AutoDecoHeads) -> None:
        super().__init__(backbone)
        self._module = heads

    def weigh(self, state: Tensor, logits: Tensor, outputs: Sequence[Output]) -> tuple[Tensor, Tensor, Tensor]:
        temperature, top_p = self._module(state, logits)  # [n], [n]
        return soft_nucleus(logits, temperature, top_p), temperature, top_p


class Uncut(FromStates):
    """softmax(l / T) with the T > 0 of each request: no token is left out."""

    def weigh(self, state: Tensor, logits: Tensor, outputs: Sequence[Output]) -> tuple[Tensor, Tensor, Tensor]:
        temperature = torch.tensor([output.request.params.temperature for output in outputs])  # [n]
        return torch.softmax(logits / temperature[:, None], -1), temperature, torch.ones_like(temperature)


class Roller:
    """Draws rollouts with a backbone's model by ``draws``, which is for this backbone."""

    def __init__(self, backbone: GgufBackbone, draws: FromStates, *, n_slots: int, n_ctx: int, n_threads: int) -> None:
        self._draws = draws
        self._engine = Engine(
            backbone.model,
            n_slots=n_slots,
            n_ctx=n_ctx,
            n_threads=n_threads,
            strategy=draws,
            share_prompts=True,
        )

    @property
    def n_ctx(self) -> int:
        return self._engine.n_ctx

    def rollouts(self, requests: Iterable[Request]) -> Iterator[tuple[int, Rollout]]:
        """(number of the request, Rollout), as they end."""
        for number, reply in self._engine.run(requests):
            yield number, Rollout(reply, np.stack(self._draws.hidden.pop(id(reply.request))))

    def close(self) -> None:
        self._engine.close()


def _step(index: int, token: int, temperature: float, top_p: float) -> Step:
    nan = float("nan")
    return Step(index, token, temperature, top_p, temperature, top_p, 0, nan, nan, None)

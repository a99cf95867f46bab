"""How the slots of an engine draw their tokens.

A strategy owns what draws (sampler chains, or nothing) and says what the context needs for it. ``HeadsStrategy`` runs
the heads in llama.cpp's graph, filters behind them on the CPU; ``StockStrategy`` is llama.cpp's own samplers, for
comparison. The soft nucleus of reward training is a third (train/rollouts.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import llama_cpp
import numpy as np

from ..errors import AutodecoError
from ..spec import sampling, speculative
from .context import Context
from .generation import Request
from .handle import Handle
from .sampler import Heads, Sampler, SamplingParams, Step, logprob_of, row_logits


class Guess(NamedTuple):
    """A drafted token and the distribution float64 [V] that it was drawn from, with numbers that draw nothing else."""

    token: int
    probs: np.ndarray


class Output(NamedTuple):
    """One output of a batch: the slot's sequence, its request, how many tokens that has drawn, and the batch's row.

    guess  at the token, if one was drawn: a strategy may prefer it as far as its own distribution allows. One that does not
           look at it is right as well.
    """

    sequence: int
    request: Request
    n_drawn: int
    row: int
    guess: Guess | None = None


@dataclass(frozen=True)
class Needs:
    """What a strategy wants of the context (see ContextParams)."""

    samplers: dict[int, Handle] = field(default_factory=dict)
    states: bool = False
    on_node: Callable[[int, bool, int], bool] | None = None


class Strategy(ABC):
    """For slots of sequences 0 to n - 1. ``close`` after the context is freed."""

    @abstractmethod
    def needs(self, n_slots: int) -> Needs:
        """Called once, before the context is made."""

    def check(self) -> None:  # noqa: B027  not every strategy has something to check
        """Called once the context is there. Raises MismatchError for an architecture that it cannot run on."""

    @abstractmethod
    def begin(self, context: Context, sequence: int, request: Request) -> None:
        """A slot takes a request. Raises what a request that cannot be served is refused with."""

    @abstractmethod
    def draw(self, context: Context, outputs: Sequence[Output]) -> list[Step | AutodecoError]:
        """The next token of each output of the batch just decoded, or why there is none."""

    def close(self) -> None:  # noqa: B027
        """Free what it owns."""


class HeadsStrategy(Strategy):
    """T and P from the heads in the graph, cut and draw there too; behind filters, or with cpu_draw, on the CPU."""

    def __init__(
        self, heads: Heads | None, *, cpu_draw: bool = False, more_heads: Mapping[str, Heads] | None = None
    ) -> None:
        self._heads, self._cpu_draw = heads, cpu_draw
        self._more_heads = more_heads or {}
        self.samplers: list[Sampler] = []

    def needs(self, n_slots: int) -> Needs:
        self.samplers = [Sampler(self._heads, SamplingParams(), cpu_draw=self._cpu_draw) for _ in range(n_slots)]
        return Needs({sequence: sampler.native for sequence, sampler in enumerate(self.samplers)})

    def check(self) -> None:
        for sampler in self.samplers:
            sampler.check()

    @property
    def n_fallbacks(self) -> int:
        """Head outputs that were not finite and fell back to 1, of all slots."""
        return sum(sampler.n_fallbacks for sampler in self.samplers)

    def begin(self, context: Context, sequence: int, request: Request) -> None:
        heads = self._heads if request.heads is None else self._more_heads[request.heads]
        sampler = self._sampler(context, sequence, heads, self._on_cpu(request))
        sampler.set_filters(request.filters)
        sampler.set_params(request.params)
        sampler.reset()

    def _on_cpu(self, request: Request) -> bool:
        """In the graph there is nowhere for a filter, and nobody else sees the logits."""
        return self._cpu_draw or bool(request.filters) or request.params.top_logprobs > 0

    def _sampler(self, context: Context, sequence: int, heads: Heads | None, cpu_draw: bool) -> Sampler:
        """The slot's own, or another where it draws in the wrong place, or by other heads: that is another graph."""
        before = self.samplers[sequence]
        if before.cpu_draw == cpu_draw and before.heads is heads:
            return before
        sampler = Sampler(heads, SamplingParams(), cpu_draw=cpu_draw)
        context.attach(sequence, sampler.native)
        self.samplers[sequence] = sampler
        before.close()
        sampler.check()
        return sampler

    def draw(self, context: Context, outputs: Sequence[Output]) -> list[Step | AutodecoError]:
        with context.native.call() as ctx:
            return [self._one(ctx, output) for output in outputs]

    def _one(self, ctx: int, output: Output) -> Step | AutodecoError:
        try:
            step = self.samplers[output.sequence].sample(ctx, output.n_drawn, output.row)
        except AutodecoError as error:
            return error
        return _judged(row_logits(ctx, output.row), output, step) if self._judges(output) else step

    def _judges(self, output: Output) -> bool:
        """The law of what filters and min-p leave is not known here: such a token is drawn without a look at the guess."""
        request = output.request
        return bool(output.guess and self._cpu_draw and not request.filters and not request.params.min_p)

    def close(self) -> None:
        for sampler in self.samplers:
            sampler.close()


def _judged(logits: np.ndarray, output: Output, step: Step) -> Step:
    """Rejection sampling: the guess, kept as often as the law of the step allows, or what the law has beyond the guesses'."""
    assert output.guess is not None
    token, q = output.guess
    p = sampling.draw(logits.astype(np.float64), step.temperature_eff, step.top_p_eff, 0.0).probs
    seed = output.request.params.seed
    u_accept, u = (np.array(sampling.uniform(seed, output.n_drawn, s)) for s in (speculative.ACCEPT, speculative.DRAW))
    if u_accept >= speculative.acceptance(p[token], q[token]):
        token = int(speculative.draw(speculative.residual(p, q), u))
    logprob = None if step.logprob is None else logprob_of(logits, token)
    return replace(step, id=token, logprob=logprob)


StockChain = Callable[[int], list[int]]  # seed -> llama_sampler pointers, ending in one that draws


class StockStrategy(Strategy):
    """llama.cpp's own samplers, made anew for each request's seed; Steps carry the token and nothing else."""

    def __init__(self, make: StockChain) -> None:
        self._make = make
        self._chains: dict[int, object] = {}

    def needs(self, n_slots: int) -> Needs:
        return Needs()

    def begin(self, context: Context, sequence: int, request: Request) -> None:
        self._free(sequence)
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in self._make(request.params.seed):
            llama_cpp.llama_sampler_chain_add(chain, sampler)
        self._chains[sequence] = chain

    def draw(self, context: Context, outputs: Sequence[Output]) -> list[Step | AutodecoError]:
        nan = float("nan")
        with context.native.call() as ctx:
            return [Step(o.n_drawn, self._token(ctx, o), None, None, nan, nan, 0, nan, nan, None) for o in outputs]

    def _token(self, ctx: int, output: Output) -> int:
        return llama_cpp.llama_sampler_sample(self._chains[output.sequence], ctx, output.row)

    def _free(self, sequence: int) -> None:
        if chain := self._chains.pop(sequence, None):
            llama_cpp.llama_sampler_free(chain)

    def close(self) -> None:
        for sequence in list(self._chains):
            self._free(sequence)

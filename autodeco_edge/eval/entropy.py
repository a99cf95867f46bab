"""A constant temperature chosen by entropy alone, in the manner of TURN (Du et al., arXiv 2502.05234).

Owns the draws at every temperature of a grid and the choice among them. No answer is judged, so it needs no right
answers: only problems, and those of another split than the test's.

    H(T)   mean over the tokens of replies drawn at T, top-p 1, of the entropy of softmax(l / T), in nats
    T*     where ln H bends from falling short of a straight line to running ahead of it: below it more temperature
           makes a reply somewhat freer, above it the tail of the vocabulary comes in
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np

from ..engine.context import Context
from ..engine.engine import Engine
from ..engine.generation import Request
from ..engine.model import Model
from ..engine.sampler import SamplingParams, Step
from ..engine.strategies import Needs, Output, Strategy
from ..io.digest import seed_of
from ..spec import sampling
from ..spec.heads import softmax
from .samples import Limits

GRID = tuple(round(0.1 * i, 1) for i in range(1, 16))


def turning_point(temperatures: Sequence[float], entropies: Sequence[float]) -> float | None:
    """The temperature of the grid nearest to where the cubic nearest to ln H turns from concave to convex.

    None where it turns the other way, or outside the grid, or where fewer than four entropies are above 0: then entropy
    alone names no temperature. A cubic, because second differences of a noisy curve change their sign many times.
    """
    known = np.asarray(entropies, np.float64) > 0
    t = np.asarray(temperatures, np.float64)[known]
    if len(t) < 4:
        return None
    cubic, square, *_ = np.polyfit(t, np.log(np.asarray(entropies, np.float64)[known]), 3)
    if cubic <= 0:
        return None
    turn = -square / (3 * cubic)
    if not t.min() <= turn <= t.max():
        return None
    return float(t[np.abs(t - turn).argmin()])


class Tempered(Strategy):
    """Draws at the request's temperature and tells the entropy of what it drew from (the heads' path tells that of T = 1)."""

    def needs(self, n_slots: int) -> Needs:
        return Needs()

    def begin(self, context: Context, sequence: int, request: Request) -> None:
        pass

    def draw(self, context: Context, outputs: Sequence[Output]) -> list[Step]:
        logits = context.logits([output.row for output in outputs])  # [n, V]
        return [_step(row, output) for row, output in zip(logits, outputs, strict=True)]


def _step(logits: np.ndarray, output: Output) -> Step:
    """The draw of spec/sampling.py at top-p 1, without the order that only a cut needs."""
    params = output.request.params
    p = softmax(logits.astype(np.float64) / params.temperature)
    mass = np.cumsum(p)
    token = int(np.searchsorted(mass, sampling.uniform(params.seed, output.n_drawn) * mass[-1], side="right"))
    some = p[p > 0]
    entropy = max(float(-(some * np.log(some)).sum()), 0.0)
    return Step(output.n_drawn, token, None, None, params.temperature, 1.0, len(some), entropy, float(p.max()), None)


def entropies(model: Model, prompts: Sequence[Sequence[int]], limits: Limits, seed: int) -> list[tuple[float, float]]:
    """(T, H(T)) for each T of GRID: a reply a prompt, the same random numbers at every T."""
    n_ctx = limits.n_ctx or min(model.n_ctx_train, max(map(len, prompts)) + limits.max_tokens)
    engine = Engine(
        model,
        None,
        n_slots=limits.n_parallel,
        n_ctx=n_ctx,
        n_threads=limits.n_threads,
        strategy=Tempered(),
        share_prompts=True,
    )
    found: dict[float, list[float]] = {t: [] for t in GRID}
    with closing(engine):
        for _, reply in engine.run(_requests(prompts, limits.max_tokens, seed)):
            found[reply.request.params.temperature] += [step.entropy for step in reply.steps]
    return [(t, math.fsum(values) / len(values)) for t, values in found.items()]


def _requests(prompts: Sequence[Sequence[int]], max_tokens: int, seed: int) -> Iterator[Request]:
    for i, prompt in enumerate(prompts):
        for t in GRID:
            params = SamplingParams(seed=seed_of(seed, "entropy", i), temperature=t, heads_mode="none")
            yield Request(tuple(prompt), params, max_tokens, share_prompt=True)

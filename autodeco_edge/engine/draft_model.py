"""Drafts by a smaller model of the same vocabulary.

Owns its weights, its context with a sequence a slot, and what is in the cells of each. The draft of a slot is drawn with the
random numbers that the reply will be drawn with: where the two models agree on a distribution they agree on the token.
T and P come from the heads of the draft model; without any, they are those of the reply's last token.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import llama_cpp

from ..errors import AutodecoError, MismatchError
from .context import Context, ContextParams, Row
from .drafts import DraftParams, Drafts, Length, Odds, check_cache, nucleus_class
from .generation import Request
from .model import Model
from .pairing import open_heads
from .sampler import Sampler, SamplingParams, Step

# How often a drafted token is right: by what it was drawn from (certainty, some choice, more), and by the probability of the
# likeliest token there.
_PROBABLE = (0.5, 0.9)
_ODDS = ((0.80, 0.90, 0.95), (0.45, 0.65, 0.85), (0.25, 0.45, 0.75))


@dataclass
class _Memory:
    """Of one slot.

    request  whose reply it is
    cells    tokens in the draft model's cells
    last     Step that the reply went on with
    odds     by nucleus and likeliest token
    asked    these two of each token of the last draft
    """

    request: Request = Request(())
    cells: list[int] = field(default_factory=list)
    last: Step | None = None
    odds: Odds = field(default_factory=lambda: Odds(_ODDS))
    asked: list[tuple[int, int]] = field(default_factory=list)


class DraftModel(Drafts):
    """
    path     GGUF of the draft model; its heads inside it, if any
    target   the model that the drafts are for
    cost     what a token of the draft model takes, as a share of the target's time; None = as the files are in size

    Raises what Model raises, MismatchError for another vocabulary or a recurrent draft model, OutOfMemoryError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: Model,
        params: DraftParams,
        *,
        n_slots: int,
        n_ctx: int,
        n_threads: int,
        cost: float | None = None,
    ) -> None:
        self.model = Model(path)
        check_cache(self.model)
        check_vocabulary(self.model, target)
        self._heads = open_heads("auto", self.model.path)
        self._samplers = [Sampler(self._heads, SamplingParams()) for _ in range(n_slots)]
        self._context = self._make_context(n_slots, n_ctx, n_threads)
        for sampler in self._samplers:
            sampler.check()
        cost = os.path.getsize(self.model.path) / os.path.getsize(target.path) if cost is None else cost
        self._row_cost = params.row_cost + cost  # a row of the target, and a token of the draft model
        self._n_vocab = min(self.model.n_vocab, target.n_vocab)
        self._memories = [_Memory() for _ in range(n_slots)]

    def _make_context(self, n_slots: int, n_ctx: int, n_threads: int) -> Context:
        samplers = {sequence: sampler.native for sequence, sampler in enumerate(self._samplers)}
        params = ContextParams(n_ctx * n_slots, n_slots, 512, n_threads, samplers, own_cells=True)
        return Context(self.model, params, f"a draft model with {n_slots} x {n_ctx} tokens", "use --draft ngram")

    def begin(self, sequence: int, request: Request) -> None:
        before = self._memories[sequence]
        keeps = request.reuse_prefix and before.request.owner == request.owner
        self._memories[sequence] = _Memory(request, before.cells if keeps else [])
        sampler = self._samplers[sequence]
        sampler.set_params(_params(request.params, None))
        sampler.reset()

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        memory = self._memories[sequence]
        memory.asked = []
        n_max = min(n_max, self.model.n_ctx_train - len(tokens))
        if self._row_cost >= 1.0 or n_max < 1 or max(tokens) >= self.model.n_vocab:
            return []
        try:
            self._prepare(sequence, memory, len(tokens))
            return self._draw(sequence, memory, list(tokens), n_max)
        except AutodecoError:  # a reply does not depend on its drafts
            return []

    def _prepare(self, sequence: int, memory: _Memory, n_tokens: int) -> None:
        sampler = self._samplers[sequence]
        if self._heads is None and memory.last:
            sampler.set_params(_params(memory.request.params, memory.last))
        sampler.position = n_tokens - len(memory.request.prompt)

    def _draw(self, sequence: int, memory: _Memory, tokens: list[int], n_max: int) -> list[int]:
        """Token by token, as long as another is worth its time."""
        draft: list[int] = []
        length = Length(self._row_cost)
        while len(draft) < n_max:
            step = self._step(sequence, memory, tokens)
            if step.id >= self._n_vocab:
                break
            draft.append(step.id)
            tokens.append(step.id)
            memory.asked.append((nucleus_class(step.n_kept), sum(step.max_prob >= limit for limit in _PROBABLE)))
            if not length.add(memory.odds.of(*memory.asked[-1])):
                break
        return draft[: length.best]

    def _step(self, sequence: int, memory: _Memory, tokens: Sequence[int]) -> Step:
        """The token behind ``tokens``: what of them is not in the cells goes there."""
        n_kept = self._cut(sequence, memory, tokens)
        for start in range(n_kept, len(tokens), self._context.params.n_batch):
            piece = tokens[start : start + self._context.params.n_batch]
            rows = [Row(token, start + i, sequence, start + i == len(tokens) - 1) for i, token in enumerate(piece)]
            self._context.decode(rows)
        memory.cells = list(tokens)
        with self._context.native.call() as ctx:
            return self._samplers[sequence].sample(ctx, 0, len(rows) - 1)

    def _cut(self, sequence: int, memory: _Memory, tokens: Sequence[int]) -> int:
        """Tokens that stay in the cells. While others are computed it is not known what is in them."""
        n = 0
        for a, b in zip(memory.cells, tokens[:-1], strict=False):
            if a != b:
                break
            n += 1
        memory.cells = []
        return self._context.keep(sequence, n)

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:
        memory = self._memories[sequence]
        memory.last = steps[-1]
        memory.odds.learn(memory.asked, draft, steps)

    def close(self) -> None:
        for owner in (self._context, *self._samplers, self.model):
            owner.native.close()


def _params(params: SamplingParams, last: Step | None) -> SamplingParams:
    """A draft is not reported, and without heads has T and P of the reply's last token."""
    params = replace(params, logprobs=False, top_logprobs=0)
    if last is None:
        return params
    return replace(
        params,
        heads_mode="none",
        temperature=last.temperature_eff,
        top_p=min(last.top_p_eff, 1.0),
        temp_range=(0.0, 0.0),
        top_p_range=(0.0, 0.0),
    )


def check_vocabulary(draft: Model, target: Model) -> None:
    """Raises MismatchError unless all tokens that both have are alike; models of a family may pad theirs differently."""
    for token in range(min(draft.n_vocab, target.n_vocab)):
        one, other = (llama_cpp.llama_vocab_get_text(model.vocab, token) for model in (draft, target))
        if one != other:
            raise MismatchError(
                f"draft: {draft.path.name} has another vocabulary than {target.path.name} (token {token} is "
                f"{one.decode('utf-8', 'replace')!r}, not {other.decode('utf-8', 'replace')!r}); give a draft model of the same family"
            )

"""Drafts by a smaller model of the same vocabulary.

Owns its weights, its context with a sequence a slot, and what is in the cells of each. A draft is the likeliest token after
token, a function of the reply so far; or, ``drawn``, drawn at the T and P of the reply's last token, with the distribution
it was drawn from beside it for the strategy to judge by.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import llama_cpp
import numpy as np

from ..errors import AutodecoError, MismatchError
from ..spec import sampling, speculative
from .context import Context, ContextParams, Row
from .draft_cost import Stake
from .drafts import DraftParams, Drafts, Length, Odds, best_length, check_cache, nucleus_class
from .generation import Request
from .model import Model
from .sampler import Step

_PROBABLE = (0.2, 0.4, 0.6, 0.8)  # of the drafted token, to the draft model
# How often the likeliest token is right: by what the reply's last token was drawn from (a certainty, some choice, more), and
# by its probability. Of SmolLM2-135M and two smaller versions of it; docs/speculative.md.
_ODDS = ((0.30, 0.50, 0.75, 0.88, 0.99), (0.20, 0.40, 0.65, 0.83, 0.97), (0.12, 0.35, 0.60, 0.80, 0.95))
_DRAWN_ODDS = ((0.90,), (0.70,), (0.60,))  # of a token that is drawn, whatever it is


@dataclass
class _Memory:
    """Of one slot.

    request  whose reply it is
    cells    tokens in the draft model's cells
    last     Step that the reply went on with
    odds     by the nucleus of that, and by probability where it is not drawn
    asked    these two of each token of the last draft
    drawn    what each was drawn from, float64 [V] of the target's vocabulary
    stake    what drafts may still lose
    """

    request: Request = Request(())
    cells: list[int] = field(default_factory=list)
    last: Step | None = None
    odds: Odds = field(default_factory=lambda: Odds(_ODDS))
    asked: list[tuple[int, int]] = field(default_factory=list)
    drawn: list[np.ndarray] = field(default_factory=list)
    stake: Stake = field(default_factory=Stake)


class DraftModel(Drafts):
    """
    path     GGUF of the draft model
    target   the model that the drafts are for
    cost     what a token of the draft model takes, as a share of the target's time; None = as the files are in size
    drawn    draw, for rejection sampling: more guesses are right, and replies have the law of plain decoding, not its tokens

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
        n_gpu_layers: int = 0,
        cost: float | None = None,
        drawn: bool = False,
    ) -> None:
        self.model = Model(path, n_gpu_layers=n_gpu_layers)
        check_cache(self.model)
        check_vocabulary(self.model, target)
        wanted = ContextParams(n_ctx * n_slots, n_slots, min(512, n_ctx), n_threads, {}, own_cells=True)
        what = f"a draft model with {n_slots} x {n_ctx} tokens"
        self._context = Context(self.model, wanted, what, "use --draft ngram")
        cost = _size(self.model) / _size(target) if cost is None else cost
        self.costs, self.to_measure = params.costs, params.row_cost is None
        self._token_cost = cost
        self._n_vocab = target.n_vocab
        self._n_ctx = min(n_ctx, self.model.n_ctx_train)
        self.is_drawn = drawn
        self._memories = [_Memory() for _ in range(n_slots)]

    def begin(self, sequence: int, request: Request) -> None:
        before = self._memories[sequence]
        keeps = request.reuse_prefix and before.request.owner == request.owner
        odds = Odds(_DRAWN_ODDS if self.is_drawn else _ODDS)
        self._memories[sequence] = _Memory(request, before.cells if keeps else [], odds=odds)

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        memory = self._memories[sequence]
        memory.asked, memory.drawn = [], []
        n_max = min(n_max, self._n_ctx - len(tokens))
        if self._token_cost >= 1.0 or n_max < 1 or max(tokens) >= self.model.n_vocab:
            return []
        try:
            return self._guess(sequence, memory, list(tokens), n_max)
        except AutodecoError:  # a reply does not depend on its drafts
            memory.asked, memory.drawn = [], []
            return []

    def drawn_from(self, sequence: int) -> Sequence[np.ndarray]:
        return self._memories[sequence].drawn

    def _guess(self, sequence: int, memory: _Memory, tokens: list[int], n_max: int) -> list[int]:
        """Token by token, as long as another is worth its time."""
        length = Length(self.costs, n_beside=self.n_beside, stake=memory.stake.left, token_cost=self._token_cost)
        certainty = nucleus_class(memory.last.n_kept if memory.last else 0)
        if self.is_drawn and memory.last:
            return self._drawn(sequence, memory, tokens, certainty, n_max, length)
        n_before = len(tokens)
        while len(tokens) < n_before + n_max and length.goes_on:
            logits = self._logits(sequence, memory, tokens)
            token = int(np.argmax(logits))
            if token >= self._n_vocab:
                break
            tokens.append(token)
            probability = 1.0 / np.exp(logits - logits[token]).sum()
            memory.asked.append((certainty, sum(probability >= limit for limit in _PROBABLE)))
            length.add(memory.odds.of(*memory.asked[-1]))
        return tokens[n_before : n_before + length.best]

    def _drawn(
        self, sequence: int, memory: _Memory, tokens: list[int], certainty: int, n_max: int, length: Length
    ) -> list[int]:
        """As many as was decided before the first was drawn: leaving out a token for what it is would change the law of what
        comes in its place."""
        asked = [(certainty, 0)] * n_max
        n = best_length((memory.odds.of(*each) for each in asked), length)
        for _ in range(n):
            tokens.append(self._draw(memory, self._logits(sequence, memory, tokens)[: self._n_vocab], len(tokens)))
        memory.asked = asked[:n]
        return tokens[len(tokens) - n :]

    def _draw(self, memory: _Memory, logits: np.ndarray, n_tokens: int) -> int:
        """From logits float32 [V] at the T and P of the reply's last token."""
        assert memory.last is not None
        index = n_tokens - len(memory.request.prompt)
        u = sampling.uniform(memory.request.params.seed, index, speculative.DRAFT)
        found = sampling.draw(logits.astype(np.float64), memory.last.temperature_eff, memory.last.top_p_eff, u)
        probs = np.zeros(self._n_vocab)
        probs[: len(found.probs)] = found.probs
        memory.drawn.append(probs)
        return found.token

    def _logits(self, sequence: int, memory: _Memory, tokens: Sequence[int]) -> np.ndarray:
        """Behind ``tokens``: what of them is not in the cells goes there."""
        n_batch = self._context.params.n_batch
        n = self._cut(sequence, memory, tokens)
        for start in range(n, len(tokens), n_batch):
            piece = tokens[start : start + n_batch]
            self._context.decode(
                [Row(token, start + i, sequence, start + i == len(tokens) - 1) for i, token in enumerate(piece)]
            )
        memory.cells = list(tokens)
        logits = self._context.logits([(len(tokens) - n - 1) % n_batch])[0]
        if not np.isfinite(logits.max()):
            raise AutodecoError(f"{self.model.path.name}: the draft model's logits are not finite")
        return logits

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
        paid = self.costs.of_draft(len(draft), self.n_beside) + self._token_cost * len(memory.asked)
        memory.stake.settle(paid, len(steps))

    def close(self) -> None:
        self._context.native.close()
        self.model.native.close()


def check_vocabulary(draft: Model, target: Model) -> None:
    """Raises MismatchError unless all tokens that both have are alike; models of a family may pad theirs differently."""
    for model in (draft, target):
        if not model.has_text:  # llama.cpp ends the process that asks for a token of it
            raise MismatchError(
                f"draft: {model.path.name} has no vocabulary to compare; give two models that have theirs, or --draft ngram"
            )
    for token in range(min(draft.n_vocab, target.n_vocab)):
        one, other = (llama_cpp.llama_vocab_get_text(model.vocab, token) for model in (draft, target))
        if one != other:
            raise MismatchError(
                f"draft: {draft.path.name} has another vocabulary than {target.path.name} (token {token} is "
                f"{one.decode('utf-8', 'replace')!r}, not {other.decode('utf-8', 'replace')!r}); give a draft model of the same family"
            )


def _size(model: Model) -> int:
    """Bytes of the weights, whatever number of files they are in."""
    return llama_cpp.llama_model_size(model.handle)

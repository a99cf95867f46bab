"""Steering by words: heads learn what a command for less or more diversity asks for.

Owns the ranking loss (equations 11; paper section 4.4, which gives no equation), its margins, and the commanded
variants of a record. The objective's two terms are for the prompt without a command alone. Knows neither files nor
optimisers; the sentences are in tasks/commands.py.

For a prompt x with completion y, the same y follows x, x with a low command and x with a high one. Over its tokens,
with T_0 and P_0 the means of the heads that the run started from on x alone:

    L_rank = relu(m_T - (T_high - T_0)) + relu(m_T - (T_0 - T_low)) + |T - T_0|       m_T = 0.10
           + relu(m_P - (P_high - P_0)) + relu(m_P - (P_0 - P_low)) + |P - P_0|       m_P = 0.05

Ranked against the present T and P, detached, the default would not stay where it was: the heads are shared, so what
pulls T_low down pulls T after it, and the target with it (docs/steering.md). A fixed target and the two last terms keep
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import FormatError
from ..tasks.commands import SEEN, with_command
from .data import TrainingSample, Variants
from .modules import AutoDecoHeads
from .objective import CHUNK_ELEMENTS

MARGIN_T, MARGIN_P = 0.10, 0.05  # effect sizes of the paper's Table 4


def ranking_loss(start: Tensor, base: Tensor, low: Tensor, high: Tensor, margin: float) -> Tensor:
    """relu(m - (high - start)) + relu(m - (start - low)) + |base - start| of each prompt. All [n] -> [n]."""
    return torch.relu(margin - (high - start)) + torch.relu(margin - (start - low)) + (base - start).abs()


def commanded(seed: int) -> Variants:
    """Variants of a record: (with a low command, with a high one), both drawn by the seed.

    They raise FormatError for a record that is not in messages form or has no user message.
    """

    def variants(record: dict[str, Any], where: str, number: int) -> list[dict[str, Any]]:
        if not isinstance(record.get("messages"), list):
            raise FormatError(
                f'{where}: --steer appends a command to the last user message, so it needs {{"messages"}}, '
                "not prompt and completion; write the record so, or leave --steer out"
            )
        try:
            return [{"messages": with_command(record["messages"], command)} for command in SEEN.pick(seed, number)]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise FormatError(
                f'{where}: --steer needs a message with role "user" and a text as content; add one, or leave --steer out'
            ) from None

    return variants


@dataclass
class Ranking:
    """loss_sum [] with gradient: weighted L_rank, summed over n prompts."""

    loss_sum: Tensor
    n: int


class Steering:
    """The ranking term of a batch.

    heads       the heads that learn; as they are now, they are also the start
    lm_head     hidden [m, H] -> raw logits [m, V]; called without gradient
    variants    sample index -> (low, high)
    weight      lambda
    temp, top_p which head is ranked
    """

    def __init__(
        self,
        heads: AutoDecoHeads,
        lm_head: Callable[[Tensor], Tensor],
        variants: Mapping[int, tuple[TrainingSample, ...]],
        weight: float,
        temp: bool = True,
        top_p: bool = True,
    ) -> None:
        self._heads, self._lm_head, self._variants, self._weight = heads, lm_head, variants, weight
        self._start = deepcopy(heads).requires_grad_(False)
        self._margins = [m for m, ranked in ((MARGIN_T, temp), (MARGIN_P, top_p)) if ranked]
        self._ranked = [i for i, ranked in enumerate((temp, top_p)) if ranked]

    def with_variants(self, batch: Sequence[TrainingSample]) -> list[TrainingSample]:
        """The batch, then its low variants, then its high ones."""
        low, high = zip(*(self._variants[sample.index] for sample in batch), strict=True)
        return [*batch, *low, *high]

    def __call__(self, hidden: Tensor, batch: Sequence[TrainingSample]) -> Ranking:
        """hidden [M, H]: completion positions of the batch with its variants."""
        sizes = [len(sample.ids) - sample.first for sample in self.with_variants(batch)]
        n = len(batch)
        now = self._predict(self._heads, hidden)
        start = self._predict(self._start, hidden[: sum(sizes[:n])])
        total = hidden.new_zeros((), dtype=torch.float32)
        for i, margin in zip(self._ranked, self._margins, strict=True):
            means, before = _means(now[i], sizes), _means(start[i], sizes[:n])  # [3 n], [n]
            total = total + ranking_loss(before, *means.split(n), margin).sum()
        return Ranking(self._weight * total, n)

    def _predict(self, heads: AutoDecoHeads, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """T [M] and P [M], chunk by chunk: no [M, V] tensor lives long."""
        with torch.no_grad():
            n_vocab = self._lm_head(hidden[:1]).shape[-1]
        chunks = [self._chunk(heads, part) for part in hidden.split(max(1, CHUNK_ELEMENTS // n_vocab))]
        temperature, top_p = zip(*chunks, strict=True)
        return torch.cat(temperature), torch.cat(top_p)

    def _chunk(self, heads: AutoDecoHeads, hidden: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = self._lm_head(hidden)  # [m, V]
        return heads(hidden, logits)


def _means(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Of each prompt's tokens. [M] -> [n]."""
    return torch.stack([tokens.mean() for tokens in values.split(list(sizes))])

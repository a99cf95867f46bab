"""Hidden states of samples already seen: the backbone is frozen, so one pass a sample is enough.

Owns the memory budget. Knows nothing of models: the caller says how to compute what is missing.

A sample's states differ in their last bits with the batch they are computed in (padding changes the order of
sums). A resumed run has lost them but must go on with the same bits, so the cache remembers which
samples were computed together, and brings one back by computing that very batch again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .backbone import Positions
from .data import TrainingSample

Compute = Callable[[Sequence[TrainingSample]], list[Positions]]


class HiddenCache:
    """sample -> Positions in main memory, first come first kept, at most ``budget`` bytes of hidden states."""

    def __init__(self, budget: int) -> None:
        self._free = budget
        self._kept: dict[int, Positions] = {}  # by the sample's index
        self._passes: list[tuple[list[int], list[int]]] = []  # (computed together, kept of them)
        self._lost: dict[int, tuple[list[TrainingSample], list[int]]] = {}  # kept before a restart: by which pass

    def positions(self, batch: Sequence[TrainingSample], compute: Compute, device: torch.device) -> Positions:
        """Positions of all samples, in order; the missing ones come from ``compute``, as one batch."""
        self._recover(batch, compute)
        missing = [sample for sample in batch if sample.index not in self._kept]
        values = compute(missing) if missing else []
        fresh = {sample.index: value for sample, value in zip(missing, values, strict=True)}
        parts = [fresh.get(sample.index) or self._kept[sample.index] for sample in batch]
        kept = [index for index, value in fresh.items() if self._keep(index, value)]
        if kept:
            self._passes.append(([sample.index for sample in missing], kept))
        hidden, labels = (torch.cat([p.to(device) for p in column]) for column in zip(*parts, strict=True))
        return hidden, labels

    def _keep(self, index: int, value: Positions) -> bool:
        size = value[0].numel() * value[0].element_size()
        if fits := size <= self._free:
            self._free -= size
            self._store(index, value)
        return fits

    def _store(self, index: int, value: Positions) -> None:
        self._kept[index] = value[0].cpu().clone(), value[1].cpu().clone()

    # ---- over a restart ------------------------------------------------------------

    def _recover(self, batch: Sequence[TrainingSample], compute: Compute) -> None:
        for index in [sample.index for sample in batch if sample.index in self._lost]:
            if index in self._lost:  # not brought back with one before
                together, kept = self._lost[index]
                for sample, value in zip(together, compute(together), strict=True):
                    if sample.index in kept:
                        self._store(sample.index, value)
                        del self._lost[sample.index]

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs: indices, no numbers."""
        return {"free": self._free, "passes": self._passes}

    def restore(self, state: dict[str, Any], samples: Sequence[TrainingSample]) -> None:
        """Take up where another cache was, with ``samples`` the whole data set."""
        by_index = {sample.index: sample for sample in samples}
        self._free = state["free"]
        self._passes = [(list(together), list(kept)) for together, kept in state["passes"]]
        for together, kept in self._passes:
            entry = [by_index[i] for i in together], kept
            self._lost |= dict.fromkeys(kept, entry)

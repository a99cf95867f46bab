"""Hidden states of samples already seen: the backbone is frozen, so one pass a sample is enough.

Owns the memory budget. Knows nothing of models: the caller says how to compute what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .backbone import Positions
from .data import Sample


class HiddenCache:
    """sample -> Positions in main memory, first come first kept, at most ``budget`` bytes of hidden states."""

    def __init__(self, budget: int) -> None:
        self._free = budget
        self._kept: dict[int, Positions] = {}

    def positions(
        self, batch: Sequence[Sample], compute: Callable[[Sequence[Sample]], list[Positions]], device: torch.device
    ) -> Positions:
        """Positions of all samples, in order; the missing ones come from ``compute``, as one batch."""
        missing = [sample for sample in batch if id(sample) not in self._kept]
        fresh = dict(zip(map(id, missing), compute(missing) if missing else [], strict=True))
        parts = [fresh.get(id(sample)) or self._kept[id(sample)] for sample in batch]
        for key, value in fresh.items():
            self._keep(key, value)
        hidden, labels = (torch.cat([p.to(device) for p in column]) for column in zip(*parts, strict=True))
        return hidden, labels

    def _keep(self, key: int, value: Positions) -> None:
        size = value[0].numel() * value[0].element_size()
        if size <= self._free:
            self._free -= size
            self._kept[key] = value[0].cpu().clone(), value[1].cpu().clone()

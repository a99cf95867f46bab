"""Samples in batches: their order, their padding, and which are held out.

Owns chance only as a generator that is given. Knows nothing of files or models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .data import TrainingSample
from .losses import IGNORE

MEGABATCH = 16  # batches sorted by length together


def collate(samples: Sequence[TrainingSample], pad_id: int = 0) -> dict[str, Tensor]:
    """Right padding. input_ids, attention_mask, labels [B, S] int64; labels -100 on prompt and padding."""
    shape = len(samples), max(len(s.ids) for s in samples)
    ids, mask = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORE)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        ids[row, :n], mask[row, :n] = torch.tensor(sample.ids), 1
        labels[row, sample.n_prompt : n] = ids[row, sample.n_prompt : n]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def batches_of(
    samples: list[TrainingSample], batch_size: int, generator: torch.Generator | None
) -> list[list[TrainingSample]]:
    """Shuffle, sort by length within 16 batches, cut, shuffle the batches. None: by length only."""
    order = list(range(len(samples)))
    if generator is not None:
        order = torch.randperm(len(samples), generator=generator).tolist()
    span = batch_size * MEGABATCH if generator is not None else max(len(order), 1)
    batches = []
    for start in range(0, len(order), span):
        group = sorted(order[start : start + span], key=lambda i: len(samples[i].ids))
        batches += [[samples[i] for i in group[j : j + batch_size]] for j in range(0, len(group), batch_size)]
    if generator is None:
        return batches
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def split_validation(
    samples: list[TrainingSample], fraction: float, generator: torch.Generator
) -> tuple[list[TrainingSample], list[TrainingSample]]:
    """(training, validation): a random ``fraction`` is held out, at least one sample unless fraction is 0."""
    n_held = min(max(1, round(len(samples) * fraction)), len(samples) - 1) if fraction > 0 else 0
    order = torch.randperm(len(samples), generator=generator).tolist()
    return [samples[i] for i in order[n_held:]], [samples[i] for i in order[:n_held]]

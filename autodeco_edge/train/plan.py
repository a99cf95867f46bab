"""Which samples make which step, and which easy tokens are dropped: functions of the seed alone.

Owns order and chance. Nothing is drawn from a running generator: step 700 is the same whether the run came
there in one go or was resumed at 690, and the batches of a step are the same for one process or eight.
Knows nothing of models or losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .batches import batches_of
from .data import TrainingSample
from .hyperparameters import TrainConfig

Batch = list[TrainingSample]
SPLIT, ORDER, DROPS = 1, 2, 3  # streams of one seed


def generator(seed: int, stream: int, epoch: int = 0) -> torch.Generator:
    """For permutations: a stream and an epoch have their own."""
    return torch.Generator().manual_seed(seed * 1_000_003 + stream + 1009 * epoch)


def drop_mask(sample: TrainingSample, epoch: int, seed: int, probability: float) -> Tensor:
    """[m] bool, True: leave this completion token out if it is easy. U < probability (equations 7).

    A counter-based generator gives every sample of every epoch numbers of its own, wherever it is computed.
    """
    key = np.array([seed % 2**64, DROPS], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, epoch, sample.index]))
    return torch.from_numpy(rng.random(len(sample.ids) - sample.first) < probability)


class Plan:
    """
    samples        the training samples
    n_processes    each takes ``accumulation`` batches a step

    A step is up to ``accumulation * n_processes`` batches; the last one of an epoch may have fewer.
    """

    def __init__(self, samples: list[TrainingSample], config: TrainConfig, n_processes: int) -> None:
        self._samples, self._config = samples, config
        self._n_batches = config.accumulation * n_processes  # of a step
        per_epoch = math.ceil(math.ceil(len(samples) / config.batch_size) / self._n_batches)
        self.steps_per_epoch = per_epoch
        self.n_steps = config.n_steps(per_epoch)
        self._epoch = lru_cache(maxsize=1)(self._shuffled)

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def batches(self, step: int) -> list[Batch]:
        """All batches of a step (from 0), for all processes."""
        start = step % self.steps_per_epoch * self._n_batches
        return self._epoch(self.epoch(step))[start : start + self._n_batches]

    def _shuffled(self, epoch: int) -> list[Batch]:
        return batches_of(self._samples, self._config.batch_size, generator(self._config.seed, ORDER, epoch))


def share(batches: Sequence[Batch], index: int, n_processes: int) -> list[Batch]:
    """What one process computes: every n-th batch. Empty lists fill up, so that all have equally many turns."""
    own = list(batches[index::n_processes])
    return own + [[]] * (math.ceil(len(batches) / n_processes) - len(own))

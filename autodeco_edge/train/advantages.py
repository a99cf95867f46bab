"""What each sample of a group earned: the advantages of REINFORCE with a group baseline.

Owns the advantages. Knows neither models nor verifiers.

Of n samples of one problem, D is the number of distinct right solutions. The objective of a problem is

    J = E[right of a sample] + diversity * E[D] / n

and its gradient is E[sum_i A_i grad ln p(sample i)] / n for

    A_i = right_i - mean of the others' right  +  diversity * (D - D without i  -  the same, averaged over the others in
          the group without i)

D without i does not depend on sample i, and neither do the two means: what is subtracted leaves the expectation as it
is and takes variance away (Williams 1992; the leave-one-out baseline of Kool et al. 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np


def n_distinct(keys: Sequence[str | None]) -> int:
    """D. keys: the solution of each sample, None where it is wrong."""
    return len(set(keys) - {None})


def advantages(keys: Sequence[str | None], diversity: float) -> np.ndarray:
    """A [n] float64, n >= 2 samples of one problem; diversity >= 0 weighs distinct solutions against right ones."""
    n = len(keys)
    right = np.array([key is not None for key in keys], np.float64)
    counts = Counter(key for key in keys if key is not None)
    alone = sum(count == 1 for count in counts.values())  # samples that nobody else repeats
    credit = right - (right.sum() - right) / (n - 1)
    for i, key in enumerate(keys):
        marginal = int(key is not None and counts[key] == 1)  # D - D without this sample
        credit[i] += diversity * (marginal - _others(counts, alone, key) / (n - 1))
    return credit


def _others(counts: Counter, alone: int, key: str | None) -> int:
    """Samples that nobody repeats, in the group without one sample of ``key``: a pair leaves one that is alone."""
    if key is None:
        return alone
    return alone + {1: -1, 2: 1}.get(counts[key], 0)

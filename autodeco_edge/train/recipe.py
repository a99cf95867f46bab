"""Settings that belong together, by name: what a run does where the user says nothing.

Owns the numbers and why they are so. Knows neither model nor data; what depends on them is asked with their sizes.

    auto      for a base of any width and data of any amount: a rate by the size of the hidden states, steps enough to
              move the heads, and the heads of the lowest held-out loss
    official  the scripts of the released heads (equations 13): made for bases of billions of parameters and about
              30,000 samples; a small base is left with the heads it started from
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """
    learning_rate  at its peak; None: ``reach`` over the size of the hidden states
    epochs         passes over the data; None: as many as give ``least_steps``
    warmup         share of the steps
    checks         validations during a run, 0: none; the heads of the best one are kept
    patience       so many in a row without a better one end the run
    """

    learning_rate: float | None
    schedule: str
    accumulation: int
    validation: float
    epochs: int | None
    warmup: float
    checks: int
    patience: int
    least_steps: int = 0
    most_epochs: int = 0
    reach: float = 0.0

    def rate(self, hidden_size: float) -> float:
        """Peak learning rate for hidden states whose absolute entries sum up to ``hidden_size`` on average.

        A step of Adam moves a weight by about the rate, so it moves what a unit of the first layer sees, W0 h, by at
        most rate * |h|_1: this product is the same for every base, ``reach``.
        """
        return min(1.0, self.reach / hidden_size) if hidden_size > 0 else self.reach

    def n_epochs(self, steps_per_epoch: int) -> int:
        """Where neither epochs nor steps are given."""
        return self.epochs or min(self.most_epochs, max(1, math.ceil(self.least_steps / steps_per_epoch)))


RECIPES = {
    "auto": Recipe(
        None,
        "cosine",
        accumulation=1,
        validation=0.1,
        epochs=None,
        warmup=0.05,
        checks=10,
        patience=4,
        least_steps=300,
        most_epochs=30,
        reach=0.15,
    ),
    "official": Recipe(5e-6, "linear", accumulation=4, validation=0.05, epochs=1, warmup=0.0, checks=0, patience=0),
}


def recipe_of(name: str) -> Recipe:
    """Raises UsageError for another name."""
    if name not in RECIPES:
        raise UsageError(f"recipe: expected one of {', '.join(RECIPES)}; got {name!r}")
    return RECIPES[name]

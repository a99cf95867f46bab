"""What a run has come to, said to the user: the heads beside the best constant, and signs that they learnt nothing.

Owns the thresholds and the words. Heads are saved whatever it says: they may be what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

from .constant_baseline import Constant
from .hyperparameters import TrainConfig
from .metrics import Metrics

ALL = 0.99  # a mean P above it cuts nothing off
HARDLY = 0.02  # less of a change of the mean T is none; fresh heads begin near 1


def beside(metrics: Metrics, constant: Constant) -> str:
    """The heads' held-out loss and the constant's."""
    return (
        f"held out: heads {metrics.loss:.4f}, best constant {constant.loss:.4f} "
        f"(T {constant.temperature:g}, P {constant.top_p:g})"
    )


def warnings(config: TrainConfig, before: Metrics, after: Metrics, constant: Constant | None) -> Iterator[str]:
    """One line each. before, after: the heads at the start and those saved; constant: None where nothing is held out."""
    if constant and after.loss >= constant.loss:
        yield (
            f"warning: the heads are no better than T {constant.temperature:g}, P {constant.top_p:g} for every token; "
            f"{_longer(config)}, collect more data, or use the constant"
        )
    if config.terms.top_p and config.heads != "temp" and after.mean_top_p > ALL:
        yield (
            f"warning: P has run to {after.mean_top_p:.3f} and cuts nothing off; were the data drawn at a top-p below 1? "
            "collect them at T = 1, P = 1, or train --heads temp"
        )
    moved = abs(after.mean_temperature - before.mean_temperature)
    if config.heads != "top-p" and not config.init and moved < HARDLY:
        yield (
            f"warning: T has hardly moved ({before.mean_temperature:.3f} to {after.mean_temperature:.3f}); "
            f"{_longer(config)} or with a higher learning rate, unless the data are replies of T = 1 that nobody sorted"
        )


def _longer(config: TrainConfig) -> str:
    """By the option that its command has: a run of so many minutes is one of `fit`."""
    return f"train longer ({'--minutes' if config.minutes else '--epochs'})"

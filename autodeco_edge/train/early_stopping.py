"""The heads of the lowest held-out loss.

Owns their copy, and the count of validations that did not better it. What is said of them in numbers is in the record,
where a resumed run finds it again.
"""

from __future__ import annotations

from dataclasses import asdict

from torch import Tensor, nn

from .metrics import Metrics
from .record import Record


class EarlyStopping:
    """
    heads     whose values are kept
    patience  validations without a better one, in a row, after which ``is_over``; 0: never, and nothing is kept
    """

    def __init__(self, heads: nn.Module, patience: int) -> None:
        self._heads, self._patience = heads, patience
        self.tensors: dict[str, Tensor] = {}

    def offer(self, step: int, metrics: Metrics, record: Record) -> None:
        """The heads as they are after ``step`` steps."""
        if not self._patience:
            return
        if record.best and metrics.loss >= record.best["loss"]:
            record.n_worse += 1
            return
        record.best, record.n_worse = {"step": step, **asdict(metrics)}, 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in self._heads.state_dict().items()}

    def is_over(self, record: Record) -> bool:
        return bool(self._patience) and record.n_worse >= self._patience

    def take(self, record: Record, last: Metrics) -> Metrics:
        """Put the kept values into the heads; their metrics. Those of the last step where nothing is kept."""
        if not self.tensors:
            return last
        self._heads.load_state_dict(self.tensors)
        values = {name: value for name, value in record.best.items() if name != "step"}
        return Metrics(**values)

"""What a run has measured: means before, during and after, and a row of numbers for every step.

Owns training.json, the file that keeps it beside the heads. Knows nothing of how it was measured.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..io.atomic import atomic_write
from .hyperparameters import TrainConfig
from .metrics import Metrics

FILE = "training.json"
COLUMNS = ("loss", "temp_loss", "top_p_loss", "rank_loss", "mean_temperature", "mean_top_p")


@dataclass
class Record:
    """
    data          counts: samples, held_out, truncated, dropped, parameters, processes
    before, after validation (or training) metrics; validation: those between, with their step
    steps         one list a column, one entry an optimiser step
    best          step and metrics of the lowest held-out loss, where the recipe keeps its heads; n_worse: validations since
    constant      T, P and loss of the best constant on the held-out tokens
    seconds       of computing, those before an interruption included
    n_tokens      that went through the steps, prompts included
    """

    data: dict[str, int] = field(default_factory=dict)
    before: Metrics | None = None
    after: Metrics | None = None
    validation: list[dict[str, float]] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in (*COLUMNS, "learning_rate")})
    best: dict[str, float] | None = None
    n_worse: int = 0
    constant: dict[str, float] | None = None
    seconds: float = 0.0
    n_tokens: int = 0

    def add_step(self, metrics: Metrics, learning_rate: float) -> None:
        for name in COLUMNS:
            self.steps[name].append(getattr(metrics, name))
        self.steps["learning_rate"].append(learning_rate)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Record:
        """The inverse of dataclasses.asdict."""
        metrics = {name: Metrics(**values[name]) if values[name] else None for name in ("before", "after")}
        return cls(**{**values, **metrics})

    @classmethod
    def load(cls, folder: str | Path) -> tuple[dict[str, Any], Record] | None:
        """(settings, record) of a run that has ended; None without a training.json that can be read."""
        try:
            values = json.loads((Path(folder) / FILE).read_text(encoding="utf-8"))
            del values["tokens_per_second"]
            return values.pop("settings"), cls.from_dict(values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def save(self, folder: str | Path, config: TrainConfig) -> None:
        """Write training.json. Raises OutputError, StorageError."""
        speed = self.n_tokens / self.seconds if self.seconds else 0.0
        values = {"settings": asdict(config), **asdict(self), "tokens_per_second": round(speed, 1)}
        with atomic_write(Path(folder) / FILE) as out:
            out.write((json.dumps(values, indent=1) + "\n").encode())

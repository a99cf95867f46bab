"""What the user sees of a run: a bar on a terminal, lines elsewhere, and a tracker if asked for.

Owns stderr during a run. Knows nothing of training.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UsageError
from ..io.printing import safe_line, say
from .metrics import Metrics


class RunProgress:
    """
    accelerator  the main process speaks; its tracker gets every step
    every        steps between two lines; 0: silent
    A context: the bar is taken down and the tracker closed whatever happens.
    """

    def __init__(self, accelerator: Accelerator, every: int) -> None:
        self._accelerator, self._every = accelerator, every
        self._speaks = bool(every) and accelerator.is_main_process
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self._bar = Progress(*columns, console=console) if self._speaks and sys.stderr.isatty() else None
        self._clock, self._n_tokens = time.monotonic(), 0

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        self._accelerator.end_training()

    def say(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(safe_line(line), markup=False)
        elif self._speaks:
            say(line)

    def warn(self, line: str) -> None:
        """Said even where progress is silent."""
        if self._speaks:
            self.say(line)
        elif self._accelerator.is_main_process:
            say(line)

    def start(self, step: int, n_steps: int) -> None:
        """The steps begin, with ``step`` of them done before."""
        self._clock, self._n_tokens = time.monotonic(), 0
        if self._bar:
            self._task = self._bar.add_task("", total=n_steps, completed=step)
            self._bar.start()

    def step(self, step: int, n_steps: int, metrics: Metrics, rate: float, n_tokens: int) -> None:
        """``step`` are done; n_tokens: those of this one."""
        self._accelerator.log({**_numbers("train", metrics), "train/learning_rate": rate}, step=step)
        self._n_tokens += n_tokens
        if not self._speaks:
            return
        if self._bar:
            self._bar.update(self._task, completed=step, description=self._words(metrics, rate))
        elif step % self._every == 0 or step == n_steps:
            self.say(f"step {step}/{n_steps}  {self._words(metrics, rate)}")
            self._clock, self._n_tokens = time.monotonic(), 0

    def measured(self, name: str, kind: str, metrics: Metrics, step: int) -> None:
        """An evaluation after ``step`` steps."""
        self._accelerator.log(_numbers("validation", metrics), step=step)
        self.say(
            f"{name} ({kind}, {metrics.n_tokens} tokens): loss {metrics.loss:.4f}  temp {metrics.temp_loss:.4f}  "
            f"top-p {metrics.top_p_loss:.4f}{_rank(metrics)}  mean T {metrics.mean_temperature:.3f}  mean P {metrics.mean_top_p:.3f}"
        )

    def _words(self, m: Metrics, rate: float) -> str:
        speed = self._n_tokens / max(time.monotonic() - self._clock, 1e-9)
        return (
            f"loss {m.loss:.4f}  temp {m.temp_loss:.4f}  top-p {m.top_p_loss:.4f}{_rank(m)}  "
            f"T {m.mean_temperature:.3f}  P {m.mean_top_p:.3f}  lr {rate:.2e}  {speed:.0f} tok/s"
        )


def _rank(m: Metrics) -> str:
    return f"  rank {m.rank_loss:.4f}" if m.rank_loss else ""


def _numbers(prefix: str, metrics: Metrics) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in asdict(metrics).items() if name != "n_tokens"}


def check_tracker(name: str) -> None:
    """Raises UsageError for a tracker that accelerate does not know, or whose package is missing."""
    known = [str(x.value) for x in LoggerType if x is not LoggerType.ALL]
    if name not in known:
        raise UsageError(f"tracker: expected one of {', '.join(known)}; got {name!r}")
    if name not in [str(getattr(x, "value", x)) for x in get_available_trackers()]:
        raise UsageError(f"tracker: the package of {name} is not installed: run  pip install {name.replace('_', '-')}")


def start_tracker(accelerator: Accelerator, config: dict[str, Any]) -> None:
    """``config``: the settings; what a tracker cannot store is passed as text."""
    values = {k: v if isinstance(v, (int, float, str, bool)) else str(v) for k, v in config.items()}
    accelerator.init_trackers("autodeco-edge", config=values)

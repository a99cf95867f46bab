"""What is asked of a fit.

Owns the settings and their ranges. Knows neither models nor problems.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, UsageError, check_range
from ..io.digest import fingerprint, identity


@dataclass(frozen=True)
class FitConfig:
    """
    model       GGUF file
    output      heads file to write; the work lies beside it, in ``work``
    problems    names of tasks, or files of problems; (): the built-in pool
    prompts     a file of prompts, a line each, whose replies have to be well formed
    minutes     of the whole work; a part that has begun something ends it
    max_tokens  of a reply; a longer one is wrong
    parallel    replies drawn side by side
    threads     of llama.cpp; 0: one a physical core
    """

    model: Path
    output: Path
    problems: tuple[str, ...] = ()
    prompts: Path | None = None
    minutes: float = 30.0
    max_tokens: int = 200
    parallel: int = 16
    threads: int = 0
    seed: int = 0
    resume: bool = False

    @property
    def work(self) -> Path:
        return self.output.with_name(self.output.name + ".fit")

    def check(self) -> None:
        """Raises UsageError for the first setting out of its range, OutputError for an output that is a folder."""
        check_range("minutes", self.minutes, 0.01, 60 * 24 * 30)
        check_range("max tokens", self.max_tokens, 1, 2**20)
        check_range("parallel", self.parallel, 1, 255)
        check_range("threads", self.threads, 0, 512, "0 = one a physical core")
        check_range("seed", self.seed, 0, 2**63 - 1)
        if os.path.isdir(self.output):
            raise OutputError(f"{self.output}: is a folder; give the name of a file with -o")
        if os.path.exists(self.output) and not self.resume:
            raise UsageError(f"{self.output}: exists; choose another -o, or remove it")

    def identity(self) -> dict[str, Any]:
        """What two parts of one run must have in common: all but the time, which may be longer the second time."""
        files = [path for path in (*map(Path, self.problems), self.prompts) if path and os.path.isfile(path)]
        return {
            "model": identity(self.model),
            "problems": list(self.problems),
            "prompts": self.prompts and str(self.prompts),
            "files": [fingerprint(path.read_bytes()) for path in files],
            "max_tokens": self.max_tokens,
            "parallel": self.parallel,
            "seed": self.seed,
        }

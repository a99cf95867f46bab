"""What is in force, and what a reply came to, each in a few words.

Owns the wording alone: who says it, and when, is the session's and the commands'.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .options import NEUTRAL

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.plain import PlainSampling
    from ..text.trace import Trace
    from .options import RunOptions

MEANS = (("T", "temperature"), ("P", "top_p"))


def mean_words(trace: Trace, letter: str, name: str) -> str:
    """ "mean T 0.52", or "mean T 0.52, applied 0.41" where factors and ranges make a difference; "" without a prediction."""
    predicted, applied = trace.mean(name), trace.mean(f"{name}_eff")
    if predicted is None:
        return ""
    same = applied is None or f"{predicted:.2f}" == f"{applied:.2f}"
    return f"mean {letter} {predicted:.2f}" + ("" if same else f", applied {applied:.2f}")


def model_line(engine: Engine, asked: str | None) -> str:
    """The name that the user gave it, or else its own; its size, weights and file."""
    model = engine.model
    own = model.metadata("general.name") or model.path.stem
    name = own if asked is None or os.path.exists(asked) else asked
    return f"{name} ({model.description}, {model.path.name})"


def heads_line(engine: Engine) -> str:
    """What the heads do."""
    heads = engine.heads
    if heads is None:
        return "no heads"
    what = [word for word, there in (("temperature", heads.has_temp), ("top-p", heads.has_top_p)) if there]
    where = "" if heads.path == engine.model.path else f" ({heads.path.name})"
    return f"heads that set {' and '.join(what)} at every token{where}"


def device_line(options: RunOptions) -> str:
    from ..engine.devices import device_of

    return device_of(options.gpu_layers, options.rpc.split(",") if options.rpc else ())


def plain_words(in_force: RunOptions, asked: RunOptions, plain: PlainSampling) -> str:
    """ "temp 0.5 (yours), top-k 40, top-p 0.95 (llama.cpp's defaults)": what does something, and who said so."""
    by = {"yours": [], "the model's own": [], "llama.cpp's defaults": []}
    for name, value in plain.values.items():
        value = getattr(in_force, name)
        if name == "temp" or (value != NEUTRAL[name] and in_force.temp > 0 and name != "repeat_last_n"):
            by[whose(name, asked, plain)].append(f"{name.replace('_', '-')} {value:.4g}")
    return ", ".join(f"{', '.join(words)} ({who})" for who, words in by.items() if words)


def whose(name: str, asked: RunOptions, plain: PlainSampling) -> str:
    """Who said one of the values that a model without heads is sampled with."""
    return "yours" if asked.given(name) else "the model's own" if name in plain.own else "llama.cpp's defaults"


def threads_words(n_threads: int) -> str:
    return f"{n_threads} thread{'s' * (n_threads != 1)}"

"""How a model without heads is sampled: by its own word, else as llama.cpp samples.

Owns the keys ``general.sampling.*`` of a GGUF that are followed here, and llama.cpp's defaults. Knows nothing of
options or of what a user asked for. T = 1, P = 1 is where learned heads start from; nobody samples a plain model so.

Values are llama.cpp's, the order is this project's: top-k, then the temperature, then min-p and top-p on what the
temperature made of the logits (llama.cpp cuts first and applies the temperature last).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Model

# What changes nothing of what heads say, under the names of DEFAULTS.
NEUTRAL = {"temp": 1.0, "top_p": 1.0, "min_p": 0.0, "top_k": 0, "repeat_penalty": 1.0, "repeat_last_n": 64}
PREFIX = "general.sampling."
# llama.cpp's own (common/common.h), and the range that is followed; beyond it llama.cpp means the nearest end.
DEFAULTS = {"temp": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "repeat_last_n": 64}
_RANGES = {
    "temp": (0.0, 100.0), "top_k": (0, 2**31 - 1), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0),
    "repeat_penalty": (0.01, 10.0), "repeat_last_n": (-1, 2**20),
}  # fmt: skip
_KEYS = {"repeat_penalty": "penalty_repeat", "repeat_last_n": "penalty_last_n"}  # elsewhere the name is the key
_NOT_FOLLOWED = {"xtc_probability": "xtc", "mirostat": "mirostat"}
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)")


@dataclass(frozen=True)
class PlainSampling:
    """
    values        one for each name of DEFAULTS
    own           names whose value is the model's own
    not_followed  samplers that the model asks for and that are not applied here
    """

    values: dict[str, float]
    own: frozenset[str] = frozenset()
    not_followed: tuple[str, ...] = field(default=())


def recommended(model: Model) -> PlainSampling:
    """What a user who asks for nothing should get from ``model`` without heads."""
    own = {name: number for name in DEFAULTS if (number := _number(model, _KEYS.get(name, name))) is not None}
    values = {name: _within(name, own.get(name, default)) for name, default in DEFAULTS.items()}
    more = tuple(word for key, word in _NOT_FOLLOWED.items() if _number(model, key))
    return PlainSampling(values, frozenset(own), more)


def _number(model: Model, key: str) -> float | None:
    """The number a value begins with, as llama.cpp reads it; None where there is none."""
    found = _NUMBER.match(model.metadata(PREFIX + key) or "")
    number = float(found.group()) if found else math.nan
    return number if math.isfinite(number) else None


def _within(name: str, value: float) -> float:
    low, high = _RANGES[name]
    return type(DEFAULTS[name])(min(max(value, low), high))

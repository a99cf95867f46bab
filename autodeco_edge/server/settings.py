"""What a request says about sampling, as the engine's settings.

Owns what is taken where a request is silent: nothing that would change what heads say, and without heads what the model
or llama.cpp recommends. Knows no text.
"""

from __future__ import annotations

import secrets
from typing import Any

from ..engine.filters import FilterParams
from ..engine.grammar import Grammar
from ..engine.model import Model
from ..engine.plain import NEUTRAL, recommended
from ..engine.sampler import SamplingParams
from .wire import Sampling

HEADS_MODES = {"both": "both", "temperature": "temp", "top_p": "top-p", "none": "none"}
_WHOLE_REPLY = -1  # the window of OpenAI's penalties


def sampling(body: Sampling, model: Model, has_heads: bool, logprobs: bool, n_top: int = 0) -> SamplingParams:
    """Of the first choice. Raises UsageError for a range that is none."""
    heads = body.heads
    value = _Values(body, model, has_heads)
    return SamplingParams(
        seed=secrets.randbits(32) if body.seed is None else body.seed % 2**64,
        temperature=_first(heads.temperature_factor, value("temperature", "temp")),
        top_p=_first(heads.top_p_factor, value("top_p")),
        min_p=value("min_p"),
        heads_mode=HEADS_MODES[heads.heads],
        logprobs=logprobs or heads.trace,
        temp_range=_limits(heads.temperature_range),
        top_p_range=_limits(heads.top_p_range),
        top_logprobs=n_top,
    )


def filters(body: Sampling, model: Model, has_heads: bool, grammar: Grammar | None, n_ctx: int) -> FilterParams:
    """n_ctx: of a slot, and so the longest window of penalties: llama.cpp lays out as much as is asked for, 4 MB for 2^20."""
    value = _Values(body, model, has_heads)
    penalised = body.frequency_penalty or body.presence_penalty
    window = _WHOLE_REPLY if penalised and body.repeat_last_n is None else value("repeat_last_n")
    return FilterParams(
        grammar=grammar,
        logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
        repeat_penalty=value("repeat_penalty"),
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        repeat_last_n=n_ctx if window == _WHOLE_REPLY else min(window, n_ctx),
        top_k=value("top_k"),
    )


class _Values:
    """A field of the request, or what stands in its place."""

    def __init__(self, body: Sampling, model: Model, has_heads: bool) -> None:
        self._body = body
        self._others = NEUTRAL if has_heads and body.heads.heads != "none" else recommended(model).values

    def __call__(self, field: str, name: str | None = None) -> Any:
        return _first(getattr(self._body, field), self._others[name or field])


def _first(*values: Any) -> Any:
    return next(v for v in values if v is not None)


def _limits(pair: list[float] | None) -> tuple[float, float]:
    return (pair[0], pair[1]) if pair else (0.0, 0.0)

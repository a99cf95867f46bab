"""Arguments of ``Llama``: what llama.cpp would end the process for, and what heads cannot do, refused before it sees them."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import llama_cpp

from ..engine.context import MAX_CONTEXT, MAX_THREADS
from ..errors import MissingInputError, UsageError, check_range

SURROGATE = re.compile("[\ud800-\udfff]")
_CACHE_TYPES = (0, 1, 2, 3, 6, 7, 8, 20, 30)  # f32 f16 q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl bf16: llama.cpp's own list


def check_options(kwargs: dict[str, Any]) -> None:
    """Raises UsageError for what llama.cpp would abort on."""
    for name in ("n_batch", "n_ubatch"):
        check_range(name, kwargs.get(name, 512), 0, 2**31 - 1, "tokens")
    for name in ("n_threads", "n_threads_batch"):
        check_range(name, kwargs.get(name) or 0, 0, MAX_THREADS, "0 = chosen by llama-cpp-python")
    check_range("n_ctx", kwargs.get("n_ctx", 512), 0, MAX_CONTEXT, "0 = the model's own")
    check_range("pooling_type", kwargs.get("pooling_type", -1), -1, 4, "-1 = the model's own")
    for name in ("type_k", "type_v"):
        if kwargs.get(name) not in (None, *_CACHE_TYPES):
            raise UsageError(f"{name}: allowed {', '.join(map(str, _CACHE_TYPES))}; got {kwargs[name]}")
    lora = kwargs.get("lora_path")
    if lora and not os.path.isfile(lora):
        raise MissingInputError(f"{lora}: no such LoRA file; check lora_path")


def refuse_unknown(kwargs: Mapping[str, Any]) -> None:
    """Raises UsageError for an argument that nobody would read."""
    known = inspect.signature(llama_cpp.Llama.__init__).parameters.keys() - {"self", "kwargs"}
    for name in kwargs.keys() - known:
        near = get_close_matches(name, known, 1)
        raise UsageError(f"Llama: there is no argument '{name}'{f'; did you mean {near[0]}?' if near else ''}")


def refuse_unsupported(kwargs: dict[str, Any]) -> None:
    for name, why in {
        "logits_all": "per-token log-probabilities are in Llama.steps",
        "draft_model": "the loop of llama-cpp-python knows no T and P of a guessed token; Engine(draft=...) does",
        "embedding": "make a second Llama for embeddings",
    }.items():
        if kwargs.get(name):
            raise UsageError(f"{name} cannot be combined with heads: {why}; leave it out, or pass heads=None")


def check_texts(arguments: Mapping[Any, Any]) -> None:
    """Raises UsageError for half a surrogate pair in any text, however deep in lists and objects; keys are texts, too."""
    for name, value in arguments.items():
        for text in _texts(value):
            if found := SURROGATE.search(text):
                raise UsageError(f"{name}: character {found.start()} is half a surrogate pair; give valid Unicode")


def _texts(value: Any) -> Iterator[str]:
    waiting, seen = [value], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += [*one.keys(), *one.values()] if isinstance(one, Mapping) else one

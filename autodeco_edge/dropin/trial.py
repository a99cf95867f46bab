"""``kv_overrides`` tried in a process that may end.

llama.cpp aborts on values that no file would hold (no layers, a negative epsilon), some when it loads and some at the
first token. check_model reads the file, not what overrides it; so with overrides the model is loaded, reads a text and
decodes a token in a child first (trial_child.py). Owns the start of the child, and what an override may look like.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError
from ..io.interpreter import interpreter

MAX_TEXT = 127  # bytes of a key and of a text, in llama.cpp's struct
_SIMPLE = (bool, int, float, str)
under_trial = False  # set in the child
_CHILD = "autodeco_edge.dropin.trial_child"
_LAST_WORDS = re.compile(r"(?:GGML_ASSERT|GGML_ABORT|what\(\):|fatal error).*")


def check_overrides(path: str, options: Mapping[str, Any]) -> None:
    """Raises UsageError for overrides that llama.cpp cannot hold, or does not survive with this model."""
    overrides = options.get("kv_overrides")
    if overrides is None:
        return
    if not isinstance(overrides, Mapping):
        raise UsageError(f"kv_overrides: allowed a dict of metadata keys; got {type(overrides).__name__}")
    for key, value in overrides.items():
        _check_key(key)
        _check_value(f"kv_overrides[{key!r}]", value)
    if overrides and not under_trial:
        _try(path, options)


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not _fits(key) or not key:
        raise UsageError(f"kv_overrides: a key is 1 to {MAX_TEXT} bytes of text; got {str(key)[:80]!r}")


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, _SIMPLE):
        raise UsageError(f"{name}: allowed bool, int, float and str; got {type(value).__name__}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UsageError(f"{name}: allowed 64 bits; got {str(value)[:80]}")
    if isinstance(value, str) and not _fits(value):
        raise UsageError(f"{name}: allowed {MAX_TEXT} bytes of text; got {value[:80]!r}")


def _fits(text: str) -> bool:
    return "\0" not in text and len(text.encode()) <= MAX_TEXT


def _try(path: str, options: Mapping[str, Any]) -> None:
    """Raises UsageError where the child is killed; an error that llama.cpp reports comes up again in this process."""
    request = json.dumps([path, {name: value for name, value in options.items() if _is_plain(value)}])
    try:
        child = subprocess.run(interpreter("-m", _CHILD), input=request.encode(), capture_output=True)
    except OSError:  # no interpreter can be started here
        return
    if child.returncode:
        words = _LAST_WORDS.findall(child.stderr.decode("utf-8", "replace"))
        raise UsageError(
            f"kv_overrides: llama.cpp does not survive them with this model ({words[-1] if words else 'no reason given'}); "
            "leave out those that its tensors do not bear"
        )


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(v, _SIMPLE) for v in value.values())
    if isinstance(value, list | tuple):
        return all(isinstance(v, _SIMPLE) for v in value)
    return value is None or isinstance(value, _SIMPLE)

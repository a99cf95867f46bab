"""What is sent, as strict JSON: at once, or as it grows.

Owns the one encoder and what becomes of numbers that JSON does not know. Knows no objects of the API.
"""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encoded(value: Any) -> str:
    """Strict JSON; a number that is none (a logprob of minus infinity) becomes null."""
    try:
        return _JSON.encode(value)
    except ValueError:
        return _JSON.encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def event(value: dict[str, Any]) -> bytes:
    """Of a stream."""
    return f"data: {encoded(value)}\n\n".encode()


def json_response(value: dict[str, Any] | str, status: int = 200) -> Response:
    """Of a value, or of JSON text."""
    text = value if isinstance(value, str) else encoded(value)
    return Response(text.encode(), status, media_type="application/json")


def completed(value: dict[str, Any], **written: str) -> str:
    """The object with further members, which are JSON text already."""
    members = [f"{encoded(key)}:{encoded(each)}" for key, each in value.items()]
    return f"{{{','.join([*members, *(f'{encoded(key)}:{text}' for key, text in written.items())])}}}"


class GrowingObject:
    """An object whose lists grow, written as they do: its text takes a fraction of the values' room, and at the end, when
    thousands of tokens have come, nothing is left that would hold the event loop up."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}
        self._lists: dict[str, list[str]] = {}

    def add(self, more: dict[str, Any]) -> None:
        """Lists go on; what else there is stays as it was said last."""
        for key, value in more.items():
            if not isinstance(value, list):
                self._members[key] = value
                continue
            parts = self._lists.setdefault(key, [])
            if value:
                parts.append(encoded(value)[1:-1])

    def text(self, more: dict[str, Any] | None = None) -> str:
        """JSON, with ``more`` members before these."""
        return completed(
            {**(more or {}), **self._members}, **{key: f"[{','.join(parts)}]" for key, parts in self._lists.items()}
        )

"""What the check of a JSON value says, in our words: what is expected there, and what was got.

Owns the wording of jsonschema's errors, of a reply against its schema and of a schema against its metaschema. A keyword
that has no row here keeps the library's words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

_TYPES = {
    "array": "an array", "boolean": "true or false", "integer": "a whole number", "null": "null", "number": "a number",
    "object": "an object", "string": "a text",
}  # fmt: skip


def words_of(error: Any) -> str:
    """Of a jsonschema.ValidationError, without the place."""
    row = _ROWS.get(error.validator)
    return row(error.validator_value, error.instance) if row else str(error.message)


def of_metaschema(error: Any) -> str:
    """A "type" that is none breaks an anyOf of the metaschema, which says nothing to a reader."""
    if error.validator == "anyOf" and list(error.absolute_path)[-1:] == ["type"]:
        return f"allowed {', '.join(_TYPES)}, or several of them in an array; got {_shown(error.instance)}"
    return words_of(error)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:60] + "..."


def _type(kinds: Any, value: Any) -> str:
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return f"expected {' or '.join(_TYPES.get(kind, str(kind)) for kind in kinds)}; got {_shown(value)}"


def _required(names: Any, value: Any) -> str:
    return f"{', '.join(_shown(name) for name in names if name not in value)} is missing"


def _bound(words: str, size: Callable[[Any], Any] = _shown) -> Callable[[Any, Any], str]:
    return lambda limit, value: f"expected {words.format(limit)}; got {size(value)}"


_ROWS: dict[str | None, Callable[[Any, Any], str]] = {
    None: lambda _, value: f"nothing may stand there; got {_shown(value)}",  # the schema false
    "type": _type,
    "required": _required,
    "enum": lambda allowed, value: f"allowed {_shown(allowed)}; got {_shown(value)}",
    "const": lambda allowed, value: f"allowed {_shown(allowed)} alone; got {_shown(value)}",
    "minimum": _bound("at least {}"),
    "maximum": _bound("at most {}"),
    "exclusiveMinimum": _bound("more than {}"),
    "exclusiveMaximum": _bound("less than {}"),
    "multipleOf": _bound("a multiple of {}"),
    "minLength": _bound("a text of at least {} characters", len),
    "maxLength": _bound("a text of at most {} characters", len),
    "minItems": _bound("at least {} items", len),
    "maxItems": _bound("at most {} items", len),
    "minProperties": _bound("at least {} properties", len),
    "maxProperties": _bound("at most {} properties", len),
    "pattern": _bound("a text that {} matches"),
    "format": _bound("a text of the format {}"),
    "uniqueItems": lambda _, value: f"two items are alike in {_shown(value)}",
    "anyOf": lambda parts, value: f"none of the {len(parts)} alternatives of anyOf holds for {_shown(value)}",
    "oneOf": lambda parts, value: f"not one alone of the {len(parts)} alternatives of oneOf holds for {_shown(value)}",
    "not": lambda _, value: f"{_shown(value)} is what not excludes",
}

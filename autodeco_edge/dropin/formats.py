"""``response_format`` and the parameters of a tool, as grammars of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ..engine.grammar import Grammar
from ..errors import FormatError, UsageError


def grammar_of_format(form: Any) -> Grammar | None:
    """The grammar of a ``response_format``; None for text. Raises UsageError for another form, FormatError for its schema."""
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return Grammar.from_schema(_schema(form, "schema", {"type": "object"}))
    inner = form.get("json_schema") if kind == "json_schema" else None
    if isinstance(inner, dict) and "schema" in inner:
        return Grammar.from_schema(_schema(inner, "schema", None))
    raise UsageError(
        'response_format: allowed {"type": "text"}, {"type": "json_object", "schema": ...} and '
        f'{{"type": "json_schema", "json_schema": {{"schema": ...}}}}; got {str(form)[:80]!r}'
    )


def _schema(form: dict[str, Any], key: str, default: Any) -> Any:
    schema = form.get(key)
    schema = default if schema is None else schema
    if isinstance(schema, dict | bool):
        return schema
    raise UsageError(f"response_format: the schema is an object; got {str(schema)[:80]!r}")


def grammar_of_tool(function: dict[str, Any], follow: Callable[[Grammar], object]) -> Grammar:
    """Of a call's arguments; ``follow`` raises FormatError for a grammar that the vocabulary cannot follow.

    A schema that cannot be held to is refused where the function is "strict", as in the OpenAI API; else the arguments
    are some JSON object, with a warning, where llama-cpp-python says nothing."""
    try:
        grammar = Grammar.from_schema(function.get("parameters") or {"type": "object"})
        follow(grammar)
        return grammar
    except FormatError as error:
        if function.get("strict"):
            raise
        warnings.warn(f"the arguments of {function['name']} are held to a JSON object alone: {error}", stacklevel=2)
        return Grammar.from_schema({"type": "object"})

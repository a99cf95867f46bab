"""Where the `$ref`s of a JSON schema lead: bounds for what follows them with a stack or writes them out.

llguidance follows references by recursion and writes out those that stand beside others (allOf, siblings), without
a limit of its own: a chain of 1,500 ends the process, 40 doublings do not end. Owns those two limits and the refusal of
references that lead back to themselves; what a reference means is llguidance's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from itertools import count
from typing import Any
from urllib.parse import unquote

MAX_CHAIN = 400  # schemas within one another, references followed once each
MAX_WRITTEN_OUT = 5000  # schemas that apply to one value at once
_MAX_UNKNOWN = 20  # references by another document's name, which are not followed here

MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
SINGLE = (
    "items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_FRAGMENT = re.compile(r"#[A-Za-z_][-A-Za-z0-9._]*")
_IN_PLACE = ("allOf", "anyOf", "oneOf")


def subschemas(schema: Any) -> Iterator[Any]:
    """The schemas that stand directly in one, where the standard has them; what is malformed has none."""
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in MAPS:
            yield from value.values() if isinstance(value, dict) else ()
        elif key in LISTS or key in SINGLE:
            yield from value if isinstance(value, list) else [value]


def deepest(roots: Iterable[Any], inside: Callable[[Any], Sequence[Any]], key: Callable[[Any], Any]) -> int:
    """How many nodes lie within one another, as far as a walk gets that goes into each once: by recursion, in either order."""
    depths = [0]
    for order in (list, lambda nodes: list(nodes)[::-1]):
        seen, stack = set(), [(root, 1) for root in order(roots)]
        while stack:
            node, depth = stack.pop()
            if key(node) not in seen:
                seen.add(key(node))
                depths.append(depth)
                stack += [(one, depth + 1) for one in order(inside(node))]
    return max(depths)


def check_references(document: Any) -> str | None:
    """What is wrong with the references of a schema that its metaschema accepts; None where nothing is."""
    references = _References(document)
    if references.doubled:
        return f"$ref {references.doubled[0]}: two schemas have that name"
    if references.n_unknown > _MAX_UNKNOWN:
        return f"more than {_MAX_UNKNOWN} $ref by other names than # and a path in the schema"
    if references.chain() > MAX_CHAIN:
        return f"$ref leads more than {MAX_CHAIN} schemas deep"
    return references.written_out()


class _References:
    def __init__(self, document: Any) -> None:
        self._document = document
        self.all = list(walk(document))
        named = [(name, s) for s in self.all for name in _names(s)]
        self._anchors = dict(named)
        wanted = {s.get("$ref") for s in self.all if isinstance(s.get("$ref"), str)}
        is_one = not any(
            isinstance(s.get("$id"), str) and s["$id"][:1] != "#" for s in self.all[1:]
        )  # else names may recur
        self.doubled = [name for name, s in named if is_one and name in wanted and self._anchors[name] is not s]
        self.n_unknown = sum("$ref" in s and self.target(s) is None for s in self.all)

    def target(self, schema: Any) -> Any:
        """What `$ref` points to; None for what cannot be followed here."""
        ref = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(ref, str):
            return None
        if ref in self._anchors:
            return self._anchors[ref]
        if ref != "#" and not ref.startswith("#/"):
            return None
        node = self._document
        for part in unquote(ref[1:]).split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, dict) and part in node:
                node = node[part]
            else:
                return None
        return node

    def chain(self) -> int:
        """The deepest that a walk gets which goes into each reference once."""

        def inside(schema: Any) -> list[Any]:
            return [one for one in (*subschemas(schema), self.target(schema)) if isinstance(one, dict)]

        return deepest([self._document], inside, id)

    def written_out(self) -> str | None:
        sizes: dict[int, int] = {}

        def size(schema: Any, above: tuple[int, ...]) -> int:
            if not isinstance(schema, dict):
                return 1
            if id(schema) in above:
                raise _Loop
            if id(schema) not in sizes:
                parts = [*(one for key in _IN_PLACE for one in schema.get(key, ())), self.target(schema)]
                sizes[id(schema)] = 1 + sum(size(part, (*above, id(schema))) for part in parts if part is not None)
            return sizes[id(schema)]

        try:
            largest = max((size(schema, ()) for schema in self.all), default=1)
        except _Loop:
            return "$ref leads back to itself"
        return (
            None
            if largest <= MAX_WRITTEN_OUT
            else f"$ref, allOf, anyOf and oneOf put {largest:.6g} schemas on one value; allowed {MAX_WRITTEN_OUT}"
        )


def _names(schema: dict[str, Any]) -> list[str]:
    """By which a `$ref` within the document may call it: `$anchor`, and `$id` up to draft 7, `id` in draft 4."""
    anchor, ids = schema.get("$anchor"), [schema.get("$id"), schema.get("id")]
    found = [f"#{anchor}"] if isinstance(anchor, str) else []
    return found + [one for one in ids if isinstance(one, str) and one.startswith("#") and len(one) > 1]


def with_anchors(document: Any) -> Any:
    """A schema that names no dialect, with the names that draft 7 gives by `$id` as anchors of 2020-12."""
    if not isinstance(document, dict) or "$schema" in document:
        return document
    document = deepcopy(document)
    for schema in walk(document):
        name = schema.get("$id")
        if isinstance(name, str) and _FRAGMENT.fullmatch(name) and "$anchor" not in schema:
            schema["$anchor"] = schema.pop("$id")[1:]
    return document


def gathered(document: Any) -> Any:
    """What a `$ref` finds where the standard has no schemas (`#/components/schemas/a`) stands in `$defs`, as others do."""
    document = deepcopy(document)
    while True:
        references = _References(document)
        inside = {id(schema) for schema in references.all}
        stray = next(
            (s for s in references.all if isinstance(t := references.target(s), dict) and id(t) not in inside), None
        )
        if stray is None:
            return document
        known = document.setdefault("$defs", {})
        name = next(name for n in count() if (name := f"stray{n}") not in known)
        found = stray["$ref"]
        known[name] = references.target(stray)
        for schema in references.all:
            if schema.get("$ref") == found:
                schema["$ref"] = f"#/$defs/{name}"


class _Loop(Exception):
    pass


def walk(document: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a schema that is an object, itself first."""
    stack = [document]
    while stack:
        schema = stack.pop()
        if isinstance(schema, dict):
            yield schema
            stack += subschemas(schema)

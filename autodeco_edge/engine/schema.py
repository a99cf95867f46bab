"""JSON schema to a GBNF grammar whose every sentence is valid.

Owns the translation, and the refusal of what a grammar cannot hold to: a schema is enforced as a whole or
refused with the keyword's name. llama-cpp-python has a converter too, which passes over what it does not
know (limits of numbers, combinations) and lets control characters into strings.

Properties come in the order of the schema, and no others than those named, unless none is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import FormatError
from .pattern import pattern_rule

ANNOTATIONS = frozenset(
    [
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$schema",
        "$id",
        "$comment",
        "$defs",
        "definitions",
    ]
)
MAX_ENUMERATED = 2000  # integers between two limits

_LIMITS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": _LIMITS,
    "number": _LIMITS,
}
_STRING = r'"\"" char* "\""'
_PRIMITIVES = {
    "ws": '" "?',
    "char": r'[^"\\\x7F\x00-\x1F\uD800-\uDFFF\U00110000-\UFFFFFFFF] | "\\" (["\\/bfnrt] | "u" unit)',
    "unit": "[0-9abcefABCEF] hex{3} | [dD] [0-7] hex{2}",  # no halves of a pair: a pair would count as two
    "hex": "[0-9a-fA-F]",
    "digits": '"0" | [1-9] [0-9]{0,15}',
    "integer": '"-"? digits',
    "number": '"-"? digits ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "string": _STRING,
    "value": 'object | array | string | number | "true" | "false" | "null"',
    "object": '"{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
}
_D4, _MONTH, _DAY = "[0-9]{4}", '("0" [1-9] | "1" [0-2])', '("0" [1-9] | "1" [0-9] | "2" [0-8])'  # a day of any month
_TIME = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
_FORMATS = {
    "date": f'{_D4} "-" {_MONTH} "-" {_DAY}',
    "time": _TIME,
    "date-time": f'{_D4} "-" {_MONTH} "-" {_DAY} "T" {_TIME}',
    "uuid": ' "-" '.join(f"hex{{{n}}}" for n in (8, 4, 4, 4, 12)),
}


def schema_grammar(text: str) -> str:
    """GBNF with the rule root. Raises FormatError for what is no schema, or one that cannot be enforced."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise FormatError(f"the JSON schema is not JSON ({error})") from None
    converter = _Converter(schema)
    rules = {"root": converter.rule(schema), **converter.rules, **_PRIMITIVES}
    return "".join(f"{name} ::= {rule}\n" for name, rule in rules.items())


def literal(text: str) -> str:
    """A GBNF literal."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _constant(value: Any) -> str:
    return literal(json.dumps(value, ensure_ascii=False))


def _refuse(what: str) -> FormatError:
    return FormatError(f"the JSON schema cannot be enforced: {what}")


class _Converter:
    """One schema; ``rules`` gathers the named rules of its properties and references."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._refs: dict[str, str] = {}
        self.rules: dict[str, str] = {}

    def rule(self, schema: Any) -> str:
        """An expression for a schema."""
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise _refuse(f"a schema is an object or true; got {json.dumps(schema)}")
        keys = schema.keys() - ANNOTATIONS
        for key, convert in (
            ("$ref", self._ref), ("allOf", self._all_of), ("anyOf", self._any_of), ("const", self._const), ("enum", self._enum),
        ):  # fmt: skip
            if key in keys:
                return convert(schema, keys - {key})
        kind = schema.get("type") or _implied(keys)
        if isinstance(kind, list):
            return _alternatives(self.rule(_of_type(schema, one)) for one in kind)
        convert = getattr(self, f"_{kind}", None) if isinstance(kind, str) else None
        if kind is None and not keys:
            return "value"
        if convert is None:
            raise _refuse(f"type {json.dumps(kind)} with {', '.join(sorted(keys)) or 'nothing'}")
        return convert(schema, keys - {"type"})

    # ---- combinations ------------------------------------------------------------------------

    def _ref(self, schema: dict, others: set[str]) -> str:
        _only(others, set(), "$ref")
        target = schema["$ref"]
        if target not in self._refs:
            self._refs[target] = name = f"ref-{len(self._refs)}"
            self.rules[name] = self.rule(self._find(target))
        return self._refs[target]

    def _find(self, target: str) -> Any:
        node = self._root
        if not target.startswith("#"):
            raise _refuse(f"$ref {target}: only references into the schema itself")
        try:
            for part in target[1:].split("/")[1:]:
                node = node[part.replace("~1", "/").replace("~0", "~")]
        except (KeyError, TypeError):
            raise _refuse(f"$ref {target} points nowhere") from None
        if isinstance(node, dict) and node.get("$ref") == target:
            raise _refuse(f"$ref {target} points at itself")
        return node

    def _all_of(self, schema: dict, others: set[str]) -> str:
        _only(others, set(), "allOf")
        if len(schema["allOf"]) != 1:
            raise _refuse("allOf of more than one schema; merge them into one")
        return self.rule(schema["allOf"][0])

    def _any_of(self, schema: dict, others: set[str]) -> str:
        _only(others, set(), "anyOf")
        return _alternatives(self.rule(one) for one in schema["anyOf"])

    def _const(self, schema: dict, others: set[str]) -> str:
        return self._enum({**schema, "enum": [schema["const"]]}, others)

    def _enum(self, schema: dict, others: set[str]) -> str:
        _only(others, {"type"}, "enum")
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        values = [v for v in schema["enum"] if kinds is None or any(_is(v, kind) for kind in kinds)]
        return _alternatives(_constant(v) for v in values)

    # ---- types -------------------------------------------------------------------------------

    def _object(self, schema: dict, others: set[str]) -> str:
        _only(others, _KEYWORDS["object"], "object")
        properties, required = schema.get("properties", {}), set(schema.get("required", ()))
        if required - properties.keys():
            raise _refuse(
                f"required names a property without a schema: {', '.join(sorted(required - properties.keys()))}"
            )
        more = schema.get("additionalProperties", True)
        if not properties:
            if more is False:
                return '"{" ws "}"'
            value = self._named("more", 'string ws ":" ws ' + self.rule(more) + " ws")
            return f'"{{" ws ({value} ("," ws {value})*)? "}}"'
        pairs = []
        for name, one in properties.items():
            pair = f'{_constant(name)} ws ":" ws {self.rule(one)} ws'
            pairs.append((self._named("pair", pair), name in required))
        return f'"{{" ws {_first(pairs)} "}}"'

    def _named(self, kind: str, rule: str) -> str:
        name = f"{kind}-{len(self.rules)}"
        self.rules[name] = rule
        return name

    def _array(self, schema: dict, others: set[str]) -> str:
        _only(others, _KEYWORDS["array"], "array")
        if "prefixItems" in schema:
            _only(others, {"prefixItems"}, "prefixItems")
            return '"[" ws ' + ' "," ws '.join(f"{self.rule(one)} ws" for one in schema["prefixItems"]) + ' "]"'
        item = self._named("item", f"{self.rule(schema.get('items', True))} ws")
        low, high = _count(schema, "minItems", 0), _count(schema, "maxItems", None)
        if high == 0:
            return '"[" ws "]"'
        more = f'("," ws {item}){_times(max(low - 1, 0), None if high is None else high - 1)}'
        return f'"[" ws ({item} {more}){"" if low else "?"} "]"'

    def _string(self, schema: dict, others: set[str]) -> str:
        if "pattern" in others:
            _only(others, {"pattern"}, "pattern")
            return f'"\\"" {pattern_rule(schema["pattern"])} "\\""'
        form = schema.get("format")
        if form in _FORMATS:
            _only(others, {"format"}, "format")
            return f'"\\"" {_FORMATS[form]} "\\""'
        _only(others, {"minLength", "maxLength", "format"}, "string")  # other formats are only a remark
        if others & {"minLength", "maxLength"}:
            times = _times(_count(schema, "minLength", 0), _count(schema, "maxLength", None))
            return f'"\\"" char{times} "\\""'
        return "string"

    def _integer(self, schema: dict, others: set[str]) -> str:
        _only(others, _LIMITS - {"multipleOf"}, "integer")
        low, high = _bound(schema, "inimum", 1), _bound(schema, "aximum", -1)
        if low is None and high is None:
            return "integer"
        if high is None and low in (0, 1):
            return "digits" if low == 0 else "[1-9] [0-9]{0,15}"
        if low is not None and high is not None and 0 <= high - low < MAX_ENUMERATED:
            return _alternatives(_constant(i) for i in range(low, high + 1))
        raise _refuse(
            f"an integer from {low} to {high}; give both limits, at most {MAX_ENUMERATED} numbers apart, or minimum 0 or 1"
        )

    def _number(self, schema: dict, others: set[str]) -> str:
        _only(others, set(), "number")
        return "number"

    def _boolean(self, schema: dict, others: set[str]) -> str:
        _only(others, set(), "boolean")
        return '("true" | "false")'

    def _null(self, schema: dict, others: set[str]) -> str:
        _only(others, set(), "null")
        return '"null"'


def _implied(keys: Iterable[str]) -> str | None:
    """The type of a schema that names none but has the type's keywords. Another type would pass it too."""
    for kind, words in {"object": {"properties"}, "array": {"items", "prefixItems"}, "string": {"pattern"}}.items():
        if words & set(keys):
            return kind
    return None


def _of_type(schema: dict, kind: str) -> dict:
    """The schema for one of its types: keywords of another type say nothing about this one."""
    foreign = set().union(*(words for other, words in _KEYWORDS.items() if other != kind)) - _KEYWORDS.get(kind, set())
    return {**{k: v for k, v in schema.items() if k not in foreign}, "type": kind}


def _only(found: set[str], allowed: set[str], what: str) -> None:
    if found - allowed:
        raise _refuse(f"{', '.join(sorted(found - allowed))} beside {what}")


def _alternatives(rules: Iterable[str]) -> str:
    rules = list(rules)
    if not rules:
        raise _refuse("no value is left to choose from")
    return f"({' | '.join(rules)})"


def _first(pairs: list[tuple[str, bool]]) -> str:
    """(rule, required) in order, nothing written yet: whichever comes first has no comma before it."""
    if not pairs:
        return ""
    (rule, required), rest = pairs[0], pairs[1:]
    here = " ".join([rule, *(f'"," ws {r}' if needed else f'("," ws {r})?' for r, needed in rest)])
    return here if required else f"({here} | {_first(rest)})" if rest else f"({here})?"


def _times(low: int, high: int | None) -> str:
    if high is not None and high < low:
        raise _refuse(f"at least {low} and at most {high}")
    return f"{{{low},{'' if high is None else high}}}"


def _count(schema: dict, key: str, default: int | None) -> int | None:
    value = schema.get(key, default)
    if value is not None and (not isinstance(value, int) or value < 0):
        raise _refuse(f"{key} {value!r}")
    return value


def _bound(schema: dict, name: str, step: int) -> int | None:
    """The tighter of minimum and exclusiveMinimum (or maximum), as an integer."""
    values = []
    for key, shift in (("m" + name, 0), (f"exclusiveM{name}", step)):
        if key in schema:
            if not isinstance(schema[key], int):
                raise _refuse(f"{key} {schema[key]!r} of an integer")
            values.append(schema[key] + shift)
    return (max if step > 0 else min)(values, default=None)


def _is(value: Any, kind: str) -> bool:
    python = {"string": str, "boolean": bool, "null": type(None), "object": dict, "array": list}
    if kind in python:
        return isinstance(value, python[kind])
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and (kind == "number" or float(value).is_integer())

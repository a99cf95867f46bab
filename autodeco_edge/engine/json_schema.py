"""A JSON schema that a user gives: read, checked, and made ready for llguidance.

Owns the door in (size, depth, double keys, what is no schema), the refusals that llguidance would not make, and the
check of a finished reply. llguidance refuses most of what it cannot enforce by its own words; here stands the rest:
remarks and keywords that hold already are taken out, formats of dates are given as patterns that know the calendar,
and what llguidance takes more loosely than the standard does is refused. Knows no vocabulary (grammar.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ..errors import FormatError
from ..io.reading import without_doubles
from .ecma import PatternError, read_pattern
from .expressions import TooLarge, matches, regex
from .json_references import LISTS, MAPS, SINGLE, check_references, gathered, walk, with_anchors
from .schema_words import of_metaschema, words_of

MAX_TEXT = 2**20  # characters
MAX_DEPTH = 64
MAX_VALUES = 20000  # objects, arrays and plain values in a schema
MAX_OPTIONAL = 2000  # properties of one object that may be left out: llguidance's work grows with their square

DIALECTS = {
    "http://json-schema.org/draft-04/schema", "http://json-schema.org/draft-06/schema", "http://json-schema.org/draft-07/schema",
    "https://json-schema.org/draft/2019-09/schema", "https://json-schema.org/draft/2020-12/schema",
}  # fmt: skip

# Keywords that say nothing about a value, and look like one that does.
_REMARKS = {"example", "examples", "deprecated", "$vocabulary", "x-guidance", "contentSchema"}

_COUNTS = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
)
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_MAX_BOUNDED = 100
_EXACT, _SMALL = 2**53, 1e-20  # llguidance computes in doubles and writes decimals
_APPLICATORS = (
    "$ref",
    "$dynamicRef",
    "$recursiveRef",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "dependentSchemas",
    "contains",
)

_IN_PLACE = ("$ref", "allOf", "anyOf", "oneOf")
_OPEN = {"additionalProperties", "patternProperties", "unevaluatedProperties", "minProperties"}
_ASSERTIONS = {"properties", "required", "additionalProperties", "patternProperties", *_IN_PLACE}
KEYWORDS = {
    *MAPS, *LISTS, *SINGLE, *_COUNTS, *_BOUNDS, *_APPLICATORS, "type", "const", "enum", "required", "pattern", "format", "uniqueItems",
    "dependentRequired", "dependencies", "title", "description", "default", "readOnly", "writeOnly", "$schema", "$id", "id", "$anchor",
    "$comment", "$dynamicAnchor", "$recursiveAnchor", "contentEncoding", "contentMediaType",
}  # fmt: skip

_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP}-02-29)"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
# llguidance's own let 30 February and a leap second at noon through.
_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
_ENFORCED = {*_PATTERNS, "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"}
_STANDARD = {
    *_ENFORCED, "idn-email", "idn-hostname", "uri-reference", "iri", "iri-reference", "uri-template", "json-pointer",
    "relative-json-pointer", "regex",
}  # fmt: skip


class Unchecked(Exception):
    """Whether a reply is valid was not found out; says why."""


class Schema:
    """A schema that is one. ``document``: as given, read as 2020-12 if it names no dialect; ``prepared``: for llguidance, equal in what it allows.

    source: JSON text, or the value itself. Raises FormatError, naming the keyword, for what is no schema, too large,
    or not enforced.
    """

    def __init__(self, source: str | Mapping[str, Any] | bool) -> None:
        self.document = _parse(source if isinstance(source, str) else _dump(source))
        _check_size(self.document)
        self.document = with_anchors(self.document)
        _check_dialect(self.document)
        _check_optional(self.document)
        if problem := check_references(self.document):
            raise refuse(problem)
        whole = gathered(self.document)
        self.prepared = _prepare(whole, closes=_closes(whole))
        _bound_integers(self.prepared)
        self._validators = [_validator(self.document), _validator(self.prepared)]  # the second knows the formats

    def complaint(self, reply: str) -> str | None:
        """Why a reply is not what the schema asks for; None where it is. Raises Unchecked where that takes too long."""
        try:
            value = json.loads(reply)
        except (ValueError, RecursionError):
            return "it is not JSON, or not all of it"
        from jsonschema.exceptions import best_match

        try:
            error = next((e for v in self._validators if (e := best_match(v.iter_errors(value)))), None)
        except TooLarge:
            raise Unchecked("a pattern takes too many steps") from None
        except Exception as problem:  # a nesting too deep
            raise Unchecked(_line(str(problem)) or type(problem).__name__) from None
        return None if error is None else _line(f"{words_of(error)} (at {_pointer(error.absolute_path)})")


def _line(text: str, limit: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "..."


def _pointer(path: Iterable[Any]) -> str:
    return "#" + "".join(f"/{part}" for part in path)


def refuse(what: str) -> FormatError:
    return FormatError(f"the JSON schema cannot be enforced: {_line(what, 400)}")


# ---- reading ----------------------------------------------------------------------------------


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the JSON schema is not JSON ({_line(str(error))})") from None


def _parse(text: str) -> Any:
    if len(text) > MAX_TEXT:
        raise FormatError(f"the JSON schema has {len(text)} characters; allowed {MAX_TEXT}")
    try:
        document = json.loads(text, object_pairs_hook=without_doubles, parse_constant=_no_constant, parse_float=_finite)
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise FormatError("the JSON schema holds half of a surrogate pair, which no text can hold") from None
    except (ValueError, RecursionError) as error:
        reason = "it nests too deep" if isinstance(error, RecursionError) else _line(str(error))
        raise FormatError(f"the JSON schema is not JSON ({reason})") from None
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text} is too large a number")
    return value


def _check_size(document: Any) -> None:
    n, level, depth = 0, [document], 0
    while level:
        n += len(level)
        depth += 1
        if depth > MAX_DEPTH:
            raise FormatError(f"the JSON schema nests deeper than {MAX_DEPTH}")
        if n > MAX_VALUES:
            raise FormatError(f"the JSON schema has more than {MAX_VALUES} values")
        level = [
            child for value in level for child in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]  # fmt: skip


def _check_dialect(document: Any) -> None:
    """Raises FormatError for what the schema's own dialect does not allow, by its metaschema."""
    from jsonschema import FormatChecker
    from jsonschema.exceptions import best_match

    name = document.get("$schema") if isinstance(document, dict) else None
    if name is not None and (not isinstance(name, str) or name.removesuffix("#") not in DIALECTS):
        raise refuse(f"$schema {json.dumps(name)}: not a known dialect; leave it out for 2020-12")
    dialect = _dialect(document)
    formats = FormatChecker()
    formats.checkers = {
        name: one for name, one in dialect.FORMAT_CHECKER.checkers.items() if name != "regex"
    }  # ecma.py's
    error = best_match(dialect(dialect.META_SCHEMA, format_checker=formats).iter_errors(document))
    if error is not None:
        path = list(error.absolute_path)
        keyword = next((part for part in reversed(path) if isinstance(part, str)), "the schema")
        raise FormatError(f"the JSON schema is not one: {keyword}: {_line(of_metaschema(error))} (at {_pointer(path)})")


def _check_optional(document: Any) -> None:
    for schema in walk(document):
        n = len(schema.get("properties", {}).keys() - schema.get("required", ()))
        if n > MAX_OPTIONAL:
            raise refuse(
                f"properties: {n} of one object may be left out, of at most {MAX_OPTIONAL}; name some as required"
            )


def _dialect(document: Any) -> Any:
    from jsonschema.validators import Draft202012Validator, validator_for

    return validator_for(document if isinstance(document, dict) else {}, default=Draft202012Validator)


def _validator(document: Any) -> Any:
    """Checks replies; fetches nothing."""
    from jsonschema.validators import extend
    from referencing import Registry

    dialect = _dialect(document)
    ours = {"multipleOf": _multiple_of, "pattern": _pattern, "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties}  # fmt: skip
    if any("patternProperties" in schema for schema in walk(document)):
        ours["unevaluatedProperties"] = lambda *_: ()  # the prepared schema has it as additionalProperties
    exact = extend(dialect, ours)
    return exact(document, format_checker=dialect.FORMAT_CHECKER, registry=Registry())


def _multiple_of(_validator: Any, factor: Any, value: Any, _schema: Any) -> Iterable[Any]:
    """0.3 is a multiple of 0.1, in decimals as they are written."""
    from jsonschema import ValidationError

    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            yield ValidationError(f"{value} is too large to be a multiple")
        elif abs(value) < _EXACT and Fraction(repr(value)) % Fraction(repr(factor)):
            yield ValidationError(f"{value} is not a multiple of {factor}")


def _found_in(pattern: str, text: str) -> bool:
    return matches(read_pattern(pattern), text)


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterable[Any]:
    """In time linear in the text: Python's re can take for ever, and reads patterns otherwise than the standard."""
    from jsonschema import ValidationError

    if isinstance(value, str) and not _found_in(pattern, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Any], value: Any, _schema: Any) -> Iterable[Any]:
    for pattern, schema in patterns.items() if isinstance(value, dict) else ():
        for name in value:
            if _found_in(pattern, name):
                yield from validator.descend(value[name], schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, additional: Any, value: Any, schema: dict[str, Any]) -> Iterable[Any]:
    from jsonschema import ValidationError

    for name in value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else ():
        if any(_found_in(pattern, name) for pattern in schema.get("patternProperties", ())):
            continue
        if additional is False:
            yield ValidationError(f"{name!r} is no property of it")
        yield from validator.descend(value[name], additional, path=name)


# ---- preparing ----------------------------------------------------------------------------------


def _prepare(schema: Any, closes: bool) -> Any:
    """Equal in what it allows, in fewer words. Only where a schema stands: constants are left alone.

    closes: an object whose properties are named has no others unless the schema says so, by which a model finds an end.
    """
    if not isinstance(schema, dict):
        return schema
    new = {key: value for key, value in schema.items() if key not in _REMARKS}
    _check_spelling(new)
    for change in _CHANGES:
        change(new)
    if (
        closes
        and "properties" in new
        and not new.keys() & {*_APPLICATORS, *_OPEN}
        and {*new.get("required", ())} <= new["properties"].keys()
    ):
        new["additionalProperties"] = False
    for key in new.keys() & set(MAPS):
        new[key] = {name: _prepare(one, closes) for name, one in new[key].items()}
    for key in new.keys() & {*LISTS, *SINGLE}:
        value = new[key]
        new[key] = [_prepare(one, closes) for one in value] if isinstance(value, list) else _prepare(value, closes)
    return new


def _closes(document: Any) -> bool:
    """Not where schemas are laid over one another: each would close out the other's properties. Nor where just one of
    several may hold: closed ones hold alone, but open ones together."""
    return not any(
        "oneOf" in s or len(s.get("allOf", ())) > 1 or (s.keys() & set(_IN_PLACE) and len(s.keys() & _ASSERTIONS) > 1)
        for s in walk(document)
    )


def _check_spelling(schema: dict[str, Any]) -> None:
    """Words that the standard does not know are remarks to it; one that is nearly a keyword was meant as one."""
    for key in schema.keys() - KEYWORDS:
        near = [] if key.startswith("x-") else get_close_matches(key, KEYWORDS, 1, 0.85)
        if near:
            raise refuse(f"{key} is no keyword; did you mean {near[0]}?")


def _counts(schema: dict[str, Any]) -> None:
    for key in schema.keys() & set(_COUNTS):
        schema[key] = int(schema[key])  # 2.0 is a number of items


def _numbers(schema: dict[str, Any]) -> None:
    for key in schema.keys() & set(_BOUNDS):
        if not isinstance(schema[key], bool) and not (schema[key] == 0 or _SMALL <= abs(schema[key]) < _EXACT):
            raise refuse(f"{key} {schema[key]}: allowed are numbers of {_SMALL:g} to 2^53, of either sign, and 0")
    _check_exclusive(schema)
    for key in schema.keys() & {"const", "enum"}:
        numbers = list(_numbers_in(schema[key]))
        if any(abs(n) >= _EXACT and _as_written(n) != n for n in numbers):
            raise refuse(f"{key}: a number beyond 2^53 whose digits a double does not keep")
        if -(2**63) in numbers:  # whose sign llguidance turns round without end
            raise refuse(f"{key}: {-(2**63)} is not supported")


def _check_exclusive(schema: dict[str, Any]) -> None:
    """llguidance lets some bounds through that are meant to be left out: close to another bound, or to 0."""
    exclusive = sorted(
        k for k in schema.keys() & {"exclusiveMinimum", "exclusiveMaximum"} if not isinstance(schema[k], bool)
    )
    if schema.get("type") == "integer":
        return
    parts = [one for one in schema.get("allOf", ()) if isinstance(one, dict)]
    bounded = [one for one in (schema, *parts) if one.keys() & set(_BOUNDS)]
    if len(bounded) > 1 and any(one.keys() & {"exclusiveMinimum", "exclusiveMaximum"} for one in bounded):
        raise refuse("exclusiveMinimum or exclusiveMaximum beside other bounds in allOf; write them in one schema")
    if exclusive and schema.keys() & {"$ref", "$dynamicRef", "anyOf", "oneOf"}:
        raise refuse(f"{exclusive[0]} beside a reference or a choice; write it inside")
    numbers = {"type": "number", **{key: schema[key] for key in schema.keys() & set(_BOUNDS)}}
    for key in exclusive:
        if _allows_bound(json.dumps(numbers), schema[key]):
            raise refuse(f"{key} {schema[key]}: the range is too narrow for the bound itself to be left out")


@lru_cache(maxsize=256)
def _allows_bound(schema: str, bound: float) -> bool:
    """Whether llguidance lets a number through that is ``bound``, in one of its spellings."""
    from llguidance import LLMatcher, LLTokenizer

    spellings = {json.dumps(bound), f"{bound:.1f}", str(int(bound))} if bound == int(bound) else {json.dumps(bound)}
    if bound == 0:
        spellings |= {"-0", "-0.0", "0", "0.0"}
    tokenizer = LLTokenizer("byte")
    for text in spellings:
        matcher = LLMatcher(tokenizer, f"start: %json {schema}\n", log_level=0)
        if not matcher.is_error() and matcher.consume_tokens(list(text.encode())) and matcher.is_accepting():
            return True
    return False


def _bound_integers(prepared: Any) -> None:
    """To what a double holds, where the schema sets no limit: a small model may write digits without end. Each has its
    price in llguidance's lexer, so that many are left as they are."""
    free = [s for s in walk(prepared) if s.get("type") == "integer" and not s.keys() & {"const", "enum"}]
    for schema in free if len(free) <= _MAX_BOUNDED else ():
        if not schema.keys() & {"minimum", "exclusiveMinimum"}:
            schema["minimum"] = 1 - _EXACT
        if not schema.keys() & {"maximum", "exclusiveMaximum"}:
            schema["maximum"] = _EXACT - 1


def _numbers_in(value: Any) -> Iterable[int | float]:
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, int) and abs(value) >= 10**300:
            yield 2**53 + 1
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield value
        stack += value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()


def _as_written(number: int | float) -> int:
    """What llguidance writes for a large one: the shortest decimal of its double, filled up with zeros."""
    return int(Decimal(repr(float(number))))


def _format(schema: dict[str, Any]) -> None:
    form = schema.get("format")
    if form is None:
        return
    if form not in _STANDARD:
        del schema["format"]  # int32, password, binary: remarks
    elif form not in _ENFORCED:
        raise refuse(f"format {form}; enforced are {', '.join(sorted(_ENFORCED))}")
    elif form in _PATTERNS:
        del schema["format"]
        schema["allOf"] = [*schema.get("allOf", []), {"pattern": _PATTERNS[form]}]


def _patterns(schema: dict[str, Any]) -> None:
    """In the sets of characters and the anchors that every reader takes alike."""
    if "pattern" in schema:
        schema["pattern"] = _spelled_out("pattern", schema["pattern"])
    if "patternProperties" in schema:
        given = schema["patternProperties"]
        schema["patternProperties"] = {_spelled_out("patternProperties", one): value for one, value in given.items()}
        if len(schema["patternProperties"]) < len(given):
            raise refuse("patternProperties: two patterns that are one")


def _spelled_out(keyword: str, pattern: str) -> str:
    try:
        return f"^(?:{regex(read_pattern(pattern))})$"
    except PatternError as error:
        raise refuse(f"{keyword} {json.dumps(pattern, ensure_ascii=False)[:100]}: {error}") from None


def _without_effect(schema: dict[str, Any]) -> None:
    for key, holds in _HOLDS.items():
        if key in schema and holds(schema[key], schema):
            del schema[key]
    for key in ("then", "else"):
        if "if" not in schema:
            schema.pop(key, None)
    for key in ("minContains", "maxContains"):
        if "contains" not in schema:
            schema.pop(key, None)


_HOLDS: dict[str, Callable[[Any, dict[str, Any]], bool]] = {
    "uniqueItems": lambda value, schema: value is False or schema.get("maxItems", 2) <= 1,
    "minProperties": lambda value, _: value == 0,
    "propertyNames": lambda value, _: value in (True, {}),
    "dependentRequired": lambda value, _: not any(value.values()),
    "dependentSchemas": lambda value, _: all(one in (True, {}) for one in value.values()),
    "not": lambda value, _: value is False,
    "if": lambda _, schema: not schema.keys() & {"then", "else"},
    "contains": lambda _, schema: schema.get("minContains") == 0 and "maxContains" not in schema,
    "unevaluatedItems": lambda value, _: value in (True, {}),
    "unevaluatedProperties": lambda value, _: value in (True, {}),
}


def _unevaluated(schema: dict[str, Any]) -> None:
    """Beside nothing but plain keywords they are additionalProperties and items by another name."""
    if schema.keys() & set(_APPLICATORS):
        return
    for key, plain in (("unevaluatedProperties", "additionalProperties"), ("unevaluatedItems", "items")):
        if isinstance(schema.get(plain), list):
            continue  # before 2020-12 an array of items says nothing of what follows; llguidance refuses the keyword
        if key in schema:
            value = schema.pop(key)
            schema.setdefault(plain, value)


_CHANGES = (_counts, _numbers, _without_effect, _unevaluated, _format, _patterns)

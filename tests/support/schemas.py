"""600 JSON schemas: random, made by pydantic, malformed and hostile; and replies drawn at random from a grammar.

Owns the generator and the walk; what a reply must be is for the tests to say. As a script it runs the whole campaign:

    python -m tests.support.schemas [N] [WALKS]
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

END = 256  # the end token of the walk's vocabulary: bytes and an end

# ---- random ---------------------------------------------------------------------------------

_NAMES = ["a", "name", "größe", "id", "x y", "tags", 'quo"te', "日本", "", "$ref", "\\", "a/b", "~", "type"]
_VALUES = ["red", "größer", 'quo"te', "\n", "🎉", 7, -0.5, 2.5, 1e20, None, True, False, [], {}, [1, "a"], {"a": 1}]
_PATTERNS = [
    "^[a-f]{2,5}$", "^(yes|no)$", "^[0-9]{3}-[0-9]{4}$", "a", "^.$", "^[^x]*$", "^\\d+$", "^\\w{1,3}$", "^\\s?x", "(ab|cd){2}", "^a|b$",
    "[\"\\\\/]", "^\\u00e9+$", "^$", "", "^a{0,3}b?$", "^[\\w.-]+@[\\w-]+\\.[a-z]{2,}$", "^(?:a|b)$", "^(?=a)$", "^\\bword\\b$", "(a)\\1",
]  # fmt: skip
_FORMATS = [
    "date", "time", "date-time", "duration", "uuid", "email", "ipv4", "ipv6", "hostname", "uri", "int32", "password", "binary",
    "regex", "uri-reference", "json-pointer", "idn-email",
]  # fmt: skip
_RARE = [
    {"not": {"type": "null"}}, {"uniqueItems": True}, {"uniqueItems": False}, {"minProperties": 1}, {"maxProperties": 2},
    {"dependentRequired": {"a": ["name"]}}, {"dependentSchemas": {"a": {"required": ["id"]}}}, {"if": {"type": "string"}, "then": {"minLength": 2}},
    {"contains": {"const": 1}}, {"propertyNames": {"maxLength": 3}}, {"patternProperties": {"^x": {"type": "integer"}}}, {"required": ["zz"]},
    {"unevaluatedProperties": False}, {"unevaluatedItems": False}, {"$comment": "c"}, {"x-note": 1}, {"example": 3}, {"default": 5},
    {"allOf": [{"maxLength": 5}, {"minLength": 1}]}, {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    {"oneOf": [{"type": "number"}, {"type": "integer"}]}, {"multipleOf": 1}, {"minItems": 0}, {"deprecated": True}, {"const": 1},
    {"enum": [1, "a", None]}, {"format": "date"}, {"items": False}, {"prefixItems": [{}]}, {"additionalProperties": False},
    {"minContains": 2}, {"then": False}, {"$dynamicAnchor": "here"}, {"$anchor": "there"}, {"contentEncoding": "base64"}, {"maxLength": 3.0},
]  # fmt: skip


def random_schema(rng: random.Random, depth: int = 0) -> Any:
    """Any shape, most of them satisfiable; now and then with a keyword that few enforce."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern", "format", "any", "types"]
    kinds += ["object", "object", "object", "array", "tuple", "anyOf", "allOf", "oneOf"] if depth < 3 else []
    schema = _MAKERS[rng.choice(kinds)](rng, depth + 1)
    if isinstance(schema, dict) and rng.random() < 0.15:
        schema = {**schema, **rng.choice(_RARE)}
    return schema


def _string(rng: random.Random, _: int) -> dict:
    low = rng.randrange(4)
    limits = {"minLength": low, "maxLength": low + rng.randrange(-1, 9)}
    return {"type": "string", **{k: v for k, v in limits.items() if rng.random() < 0.7 and v >= 0}}


def _limits(rng: random.Random, make: Any) -> dict:
    found = {k: make() for k in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum") if rng.random() < 0.3}
    if rng.random() < 0.2:
        found["multipleOf"] = rng.choice([1, 2, 3, 7, 10, 0.5, 0.1, 0.25, 1.5])
    return found


def _integer(rng: random.Random, _: int) -> dict:
    return {
        "type": "integer",
        **_limits(rng, lambda: rng.choice([rng.randrange(-60, 60), rng.randrange(-(10**15), 10**15), 0.5, -1e3])),
    }


def _number(rng: random.Random, _: int) -> dict:
    return {
        "type": "number",
        **_limits(
            rng, lambda: rng.choice([rng.randrange(-9, 9), rng.uniform(-5, 5), round(rng.uniform(-1, 1), 2), 1e-7])
        ),
    }


def _object(rng: random.Random, depth: int) -> dict:
    names = rng.sample(_NAMES, rng.randrange(5))
    schema: dict[str, Any] = {"type": "object", "properties": {name: random_schema(rng, depth) for name in names}}
    schema["required"] = rng.sample(names, rng.randrange(len(names) + 1))
    if rng.random() < 0.7:
        schema["additionalProperties"] = rng.choice([False, False, True, {"type": "integer"}])
    return schema


def _array(rng: random.Random, depth: int) -> dict:
    low = rng.randrange(3)
    schema = {
        "type": "array",
        "items": random_schema(rng, depth),
        "minItems": low,
        "maxItems": low + rng.randrange(-1, 4),
    }
    return {k: v for k, v in schema.items() if k in ("type", "items") or (v >= 0 and rng.random() < 0.7)}


def _tuple(rng: random.Random, depth: int) -> dict:
    schema = {"type": "array", "prefixItems": [random_schema(rng, depth) for _ in range(rng.randrange(1, 4))]}
    extra = [{}, {"items": False}, {"minItems": 2, "maxItems": 2}, {"items": {"type": "null"}, "maxItems": 4}]
    return {**schema, **rng.choice(extra)}


def _of(key: str) -> Any:
    return lambda rng, depth: {key: [random_schema(rng, depth) for _ in range(rng.randrange(1, 4))]}


_MAKERS = {
    "string": _string, "integer": _integer, "number": _number, "object": _object, "array": _array, "tuple": _tuple,
    "boolean": lambda rng, _: {"type": "boolean"}, "null": lambda rng, _: {"type": "null"},
    "enum": lambda rng, _: {"enum": rng.sample(_VALUES, rng.randrange(1, 5))}, "const": lambda rng, _: {"const": rng.choice(_VALUES)},
    "pattern": lambda rng, _: {"type": "string", "pattern": rng.choice(_PATTERNS), **rng.choice([{}, {"maxLength": 6}, {"minLength": 2}])},
    "format": lambda rng, _: {"type": "string", "format": rng.choice(_FORMATS)}, "any": lambda rng, _: rng.choice([True, {}, {"title": "x"}, False]),
    "types": lambda rng, _: {"type": rng.sample(["string", "null", "boolean", "integer"], 2), "maxLength": 4, "minimum": 3},
    "anyOf": _of("anyOf"), "allOf": _of("allOf"), "oneOf": _of("oneOf"),
}  # fmt: skip

# ---- pydantic -------------------------------------------------------------------------------


def pydantic_schema(rng: random.Random) -> dict:
    """The schema of a model with fields of random types."""
    import datetime as dt
    import decimal
    import enum
    import ipaddress
    import uuid
    from typing import Annotated, Literal, Optional, Union

    from pydantic import AnyUrl, BaseModel, Field, create_model

    class Colour(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Cat(BaseModel):
        kind: Literal["cat"]
        lives: int = 9

    class Dog(BaseModel):
        kind: Literal["dog"]
        name: str

    class Node(BaseModel):
        value: int
        next: Node | None = None

    Node.model_rebuild(_types_namespace={"Node": Node})
    plain = [
        str, int, float, bool, dt.date, dt.time, dt.datetime, dt.timedelta, uuid.UUID, decimal.Decimal, bytes, Colour, AnyUrl, Node,
        ipaddress.IPv4Address, ipaddress.IPv6Address, None, Any, dict, list, Cat, dict[str, int], tuple[int, str], tuple[int, ...], set[int],
        Literal["a", 1, None], Annotated[int, Field(ge=0, le=100)], Annotated[float, Field(gt=0, lt=1)], Annotated[str, Field(max_length=5)],
        Annotated[str, Field(pattern="^[A-Z]{2}$")], Annotated[int, Field(multiple_of=5)], Annotated[list[int], Field(min_length=1, max_length=3)],
        Annotated[Cat | Dog, Field(discriminator="kind")], Annotated[str, Field(examples=["x"], description="d")],
    ]  # fmt: skip

    def annotation(depth: int) -> Any:
        kind = (
            rng.choice(["plain", "plain", "plain", "list", "optional", "union", "dict", "model"])
            if depth < 2
            else "plain"
        )
        if kind == "list":
            return list[annotation(depth + 1)]
        if kind == "optional":
            return Optional[annotation(depth + 1)]  # noqa: UP045  X | None fails for X = None
        if kind == "union":
            return Union[annotation(depth + 1), annotation(depth + 1)]  # noqa: UP007
        if kind == "dict":
            return dict[str, annotation(depth + 1)]
        return model(depth + 1) if kind == "model" else rng.choice(plain)

    def model(depth: int) -> Any:
        fields = {f"f{i}": (annotation(depth), rng.choice([..., None])) for i in range(rng.randrange(1, 5))}
        config = rng.choice([{}, {"extra": "forbid"}, {"extra": "allow"}])
        return create_model(f"M{rng.randrange(10**6)}", __config__=config, **fields)

    return model(0).model_json_schema()


# ---- malformed and hostile --------------------------------------------------------------------

_WRONG = [
    True,
    False,
    None,
    5,
    -1,
    0.5,
    "text",
    [],
    ["a"],
    {},
    {"a": 5},
    [["string"]],
    [1, 1],
    1e300,
    "(",
    "^(a",
    {"type": 5},
]
_KEYWORDS = [
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength",
    "pattern", "format", "enum", "const", "anyOf", "allOf", "oneOf", "not", "$ref", "$defs", "minimum", "maximum", "multipleOf", "exclusiveMinimum",
    "patternProperties", "propertyNames", "minProperties", "uniqueItems", "if", "then", "contains", "dependentRequired", "$schema", "$id", "$anchor",
    "definitions", "x-guidance", "unevaluatedProperties", "dependencies", "additionalItems", "$dynamicRef", "$vocabulary", "default", "title",
]  # fmt: skip
_TEXTS = [
    "", " ", "nonsense", "[]", "3", '"text"', "null", "{", "{} {}", '{"type":"string"', "{'type':'string'}", '{"const":Infinity}', '{"const":NaN}',
    '{"const":1e999}', '{"const":"\\ud83d"}', '{"enum":["\\udc00"]}', '{"title":"\\ud83d"}', '{"type":"string","type":"null"}', '{"a":1,"a":2}',
    '{"properties":{"\\ud800":{}}}', '{"pattern":"\\ud800"}', "{" * 100, "[" * 100000, '{"not":' * 2000 + "{}" + "}" * 2000,
    '{"items":' * 70 + "{}" + "}" * 70, '{"const":' + "9" * 5000 + "}", '{"const":' + "9" * 400 + "}", '{"minimum":1e308}', '{"type":"integer","minimum":1e308}',
    '{"$ref":"#"}', '{"$ref":"#/nowhere"}', '{"$ref":"http://x/y"}', '{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}',
    '{"allOf":[{"$ref":"#"}]}', '{"anyOf":[{"$ref":"#"},{"type":"null"}]}', '{"properties":{"a":{"$ref":"#"}},"required":["a"],"type":"object"}',
    '{"items":{"$ref":"#"},"minItems":1,"type":"array"}', '{"$ref":"#/%24defs/a","$defs":{"a":{"type":"null"}}}', '{"$ref":"#/prefixItems/0","prefixItems":[{"type":"null"}]}',
    '{"type":"array","minItems":1,"maxItems":0}', '{"type":"string","minLength":3,"maxLength":2}', '{"type":"integer","minimum":5,"maximum":4}',
    '{"type":"integer","minimum":0.1,"maximum":0.9}', '{"type":"integer","multipleOf":0.5,"minimum":0.1,"maximum":0.4}', '{"type":"object","required":["a"],"properties":{"a":false}}',
    '{"type":"object","required":["a"],"additionalProperties":false}', '{"type":"string","enum":[3]}', '{"enum":[]}', '{"anyOf":[]}', '{"anyOf":[false]}', '{"allOf":[{"type":"null"},{"type":"string"}]}',
    '{"x-guidance":{"lenient":true},"not":{}}', '{"x-guidance":{"lenient":true},"type":"string","uniqueItems":true}', '{"type":"array","items":{"type":"integer"},"uniqueItems":true,"maxItems":3}',
    '{"minLenght":3,"type":"string"}', '{"type":"string","maxlength":3}', '{"type":"object","minProperties":2}', '{"type":"object","maxProperties":1}', '{"type":"object","minProperties":2,"properties":{"a":{},"b":{}}}',
    '{"type":"object","minProperties":2,"additionalProperties":{"type":"null"}}', '{"type":"object","patternProperties":{"^a":{"type":"null"}},"minProperties":2}', '{"type":"object","patternProperties":{"a":{"type":"null"}},"additionalProperties":false}',
    '{"type":"object","properties":{"a":{"type":"null"}},"patternProperties":{"a":{"type":"string"}}}', '{"type":"object","properties":{"a":{"type":"null"}},"patternProperties":{"^a$":{}},"additionalProperties":false}',
    '{"$schema":"http://json-schema.org/draft-04/schema#","type":"integer","minimum":3,"exclusiveMinimum":true}', '{"$schema":"http://json-schema.org/draft-07/schema#","$ref":"#/definitions/a","type":"string","definitions":{"a":{"type":"null"}}}',
    '{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"null"}],"additionalItems":false,"type":"array"}', '{"$schema":"urn:mine"}', '{"$schema":[]}', '{"$schema":5}',
    '{"$id":"http://x/","$ref":"http://x/#/$defs/a","$defs":{"a":{"type":"null"}}}', '{"$defs":{"a":{"$id":"b","type":"null"}},"$ref":"b"}', '{"$defs":{"flag":{"$anchor":"flag","type":"boolean"}},"type":"object","properties":{"on":{"$ref":"#flag"}},"required":["on"],"additionalProperties":false}',
    '{"enum":["🎉","日本"]}', '{"const":"\\u0000"}', '{"const":"\\u007f"}', '{"const":{"a":[1,{"b":null}]}}', '{"enum":[1,1.0]}', '{"const":1.0}', '{"const":-0.0}', '{"enum":[true,1]}', '{"const":0}', '{"const":1e400}', '{"const":123456789012345678901234567890}',
    '{"type":"integer","minimum":9007199254740993,"maximum":9007199254740993}', '{"type":"integer","maximum":9007199254740993,"minimum":9007199254740990}', '{"type":"number","minimum":0.1,"maximum":0.10000000000000002}', '{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1e-300}',
    '{"type":"integer","exclusiveMinimum":3.5,"exclusiveMaximum":4.5}', '{"type":"integer","multipleOf":3,"minimum":1,"maximum":10}', '{"type":"number","multipleOf":0.01}', '{"type":"number","multipleOf":1e-10}', '{"type":"integer","multipleOf":1e10}',
    '{"const":3,"enum":[3,4]}', '{"const":3,"enum":[4]}', '{"const":"a","type":"string","minLength":2}', '{"enum":["a","abc"],"maxLength":2}', '{"enum":["a","b1"],"pattern":"[0-9]"}', '{"enum":[1,2,"x"],"type":"integer","minimum":2}', '{"const":"2020-02-30","format":"date"}',
    '{"type":"string","pattern":"(a+)+$"}', '{"type":"string","pattern":"' + "(" * 3000 + ")" * 3000 + '"}', '{"type":"string","pattern":"(a{1000}){1000}"}', '{"type":"string","pattern":"' + "a?" * 3000 + '"}', '{"type":"string","minLength":1000000}', '{"type":"string","maxLength":1000000000}',
    '{"type":"array","items":{"type":"null"},"minItems":1000000}', '{"type":"array","items":{"type":"null"},"maxItems":1000000000}', '{"type":"array","items":{"type":"null"},"maxItems":' + "9" * 30 + "}",
    '{"allOf":[' + ",".join(f'{{"anyOf":[{{"minLength":{i}}},{{"maxLength":{i + 30}}}]}}' for i in range(20)) + "]}", '{"oneOf":[' + ",".join(f'{{"required":["k{i}"]}}' for i in range(200)) + "]}",
    '{"type":"object","properties":{' + ",".join(f'"p{i}":{{"type":"integer"}}' for i in range(1500)) + "}}", '{"enum":[' + ",".join(f'"v{i}"' for i in range(15000)) + "]}", '{"anyOf":[' + ",".join(f'{{"const":{i}}}' for i in range(5000)) + "]}",
    '{"$ref":"#/$defs/d0","$defs":{' + ",".join(f'"d{i}":{{"$ref":"#/$defs/d{i + 1}"}}' for i in range(3000)) + ',"d3000":{"type":"null"}}}',
    '{"$ref":"#/$defs/d0","$defs":{' + ",".join(f'"d{i}":{{"allOf":[{{"$ref":"#/$defs/d{i + 1}"}},{{"$ref":"#/$defs/d{i + 1}"}}]}}' for i in range(40)) + ',"d40":{"type":"null"}}}',
    '{"$ref":"#/$defs/d0","$defs":{' + ",".join(f'"d{i}":{{"type":"array","prefixItems":[{{"$ref":"#/$defs/d{i + 1}"}},{{"$ref":"#/$defs/d{i + 1}"}}]}}' for i in range(25)) + ',"d25":{"type":"null"}}}',
]  # fmt: skip


def malformed_text(rng: random.Random) -> str:
    """A keyword with a value of another type, or a hostile text."""
    keyword, wrong = rng.choice(_KEYWORDS), rng.choice(_WRONG)
    schema: Any = {keyword: wrong, **rng.choice([{}, {"type": "object"}, {"type": "string"}, {"type": "array"}])}
    for _ in range(rng.randrange(3)):
        schema = rng.choice([{"properties": {"a": schema}}, {"items": schema}, {"anyOf": [schema, {"type": "null"}]}, {"$defs": {"d": schema}, "$ref": "#/$defs/d"}])  # fmt: skip
    return json.dumps(schema)


def campaign(n: int, seed: int = 11) -> Iterator[tuple[str, str]]:
    """(kind, JSON text) of about n schemas, the same every time: hostile ones in full, the others in equal parts."""
    rng = random.Random(seed)
    yield from (("hostile", text) for text in _TEXTS)
    for i in range(max(n - len(_TEXTS), 0)):
        if i % 3 == 0:
            yield "malformed", malformed_text(rng)
        elif i % 3 == 1:
            yield "random", json.dumps(random_schema(rng))
        else:
            yield "pydantic", json.dumps(pydantic_schema(rng))


# ---- replies ----------------------------------------------------------------------------------


def byte_tokenizer() -> Any:
    """256 bytes and an end: every text is one way through it, so that a grammar meets each of its choices."""
    from llguidance import LLTokenizer, TokenizerWrapper

    class Bytes:
        bos_token_id, eos_token_id, special_token_ids = None, END, [END]
        tokens = [bytes([i]) for i in range(256)] + [b"\xff<end>"]

        def __call__(self, text: bytes) -> list[int]:
            return list(text)

    return LLTokenizer(TokenizerWrapper(Bytes()), eos_token=[END])


_WEIGHTS = np.full(END + 1, 0.3)
_WEIGHTS[list(range(0x20, 0x7F))] = 1.0
_WEIGHTS[[0x20, 0x0A, 0x09]] = 0.2
_WEIGHTS[[0x22, 0x7D, 0x5D]] = 8.0  # quotes and brackets close what is open
_WEIGHTS[END] = 8.0


def walk(matcher: Any, rng: random.Random, n: int = 2000) -> bytes | None:
    """A whole reply, drawn from what the matcher allows; None where n bytes were not enough."""
    mask = np.zeros(9, dtype=np.uint32)
    matcher.reset()
    out = bytearray()
    flat = rng.random() < 0.5
    for i in range(n):
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if matcher.is_error():
            return None
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")[: END + 1])
        weights = np.ones(len(allowed)) if flat and i < 40 else _WEIGHTS[allowed]
        token = rng.choices(allowed.tolist(), weights.tolist())[0]
        if token == END:
            return bytes(out)
        assert matcher.consume_token(token) or matcher.is_error()
        out.append(token)
    return None


def check(text: str, tokenizer: Any, rng: random.Random, walks: int) -> tuple[str, str]:
    """("refused", why), ("enforced", ""), ("endless", "") or ("WRONG", what) of a schema."""
    from autodeco_edge.engine.grammar import Grammar
    from autodeco_edge.errors import AutodecoError

    try:
        grammar = Grammar.from_schema(text)
        matcher = grammar.matcher(tokenizer)
    except AutodecoError as error:
        message = str(error)
        if error.exit_code != 65 or "\n" in message or not names_a_keyword(message, text):
            return "WRONG", f"refused badly: {message}"
        return "refused", message
    ended = 0
    for _ in range(walks):
        reply = walk(matcher, rng)
        if reply is None:
            continue
        ended += 1
        complaint = invalid(reply, grammar.schema.document) or grammar.schema.complaint(reply.decode())
        if complaint:
            return "WRONG", f"{reply!r}: {complaint}"
    return ("enforced", "") if ended else ("endless", "")


def invalid(reply: bytes, document: Any) -> str | None:
    """What the jsonschema package says, as it is."""
    import jsonschema

    try:
        value = json.loads(reply.decode())
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    dialect = jsonschema.validators.validator_for(
        document if isinstance(document, dict) else {}, default=jsonschema.Draft202012Validator
    )
    error = next(iter(dialect(document, format_checker=dialect.FORMAT_CHECKER).iter_errors(value)), None)
    return None if error is None or _is_rounding(error) else error.message


def _is_rounding(error: Any) -> bool:
    """0.3 / 0.1 is no integer in binary; Schema.complaint counts in decimals."""
    return error.validator == "multipleOf" and isinstance(error.validator_value, float)


# Of the text as a whole, where no keyword is at fault.
_WHOLE = re.compile(
    r"the JSON schema (is not JSON|holds half of a surrogate pair|has \d+ characters|nests deeper|has more than \d+ values"
    r"|is not one: the schema:|cannot be enforced: false allows no value)"
)


def names_a_keyword(message: str, text: str) -> bool:
    """A refusal names a keyword of the schema, or says what is wrong with the text as a whole."""
    named = {word for word in re.findall(r"[$\w-]+", message) if word in text}
    return bool(_WHOLE.match(message)) or bool(named & {*_KEYWORDS, *_MORE})


_MORE = [
    "maxProperties", "dependentSchemas", "unevaluatedItems", "exclusiveMaximum", "maxContains", "minContains", "else", "minLenght",
    "maxlength", "$dynamicAnchor",
]  # fmt: skip


def main(n: int = 600, walks: int = 10) -> int:
    tokenizer, rng = byte_tokenizer(), random.Random(3)
    counts: Counter[tuple[str, str]] = Counter()
    slowest = (0.0, "")
    for kind, text in campaign(n):
        start = time.perf_counter()
        try:
            outcome, why = check(text, tokenizer, rng, walks)
        except Exception as error:
            outcome, why = "CRASH", repr(error)
        slowest = max(slowest, (time.perf_counter() - start, text[:150]))
        counts[kind, outcome] += 1
        if outcome in ("WRONG", "CRASH"):
            print(f"{outcome} {kind} {text[:400]}\n    {why[:400]}")
    print(dict(sorted(counts.items())), "slowest:", slowest)
    return int(any(outcome in ("WRONG", "CRASH") for _, outcome in counts))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

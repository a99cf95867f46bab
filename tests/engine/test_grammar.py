"""Schemas, GBNF, Lark and regular expressions before any model: what is refused, and what the rest allows.

The oracle of GBNF is llama.cpp's own grammar sampler, on a vocabulary of letters; that of schemas is the jsonschema
package, over the campaign of tests/support/schemas.py (whole: `python -m tests.support.schemas`).
"""

from __future__ import annotations

import json
import random
import re
import time

import numpy as np
import pytest

from autodeco_edge.engine import guidance_words
from autodeco_edge.engine.gbnf import characters, read_gbnf
from autodeco_edge.engine.grammar import MAX_CHAIN, Grammar
from autodeco_edge.engine.json_references import MAX_CHAIN as MAX_REFERENCES
from autodeco_edge.engine.json_references import deepest
from autodeco_edge.engine.json_schema import MAX_DEPTH, MAX_TEXT, MAX_VALUES
from autodeco_edge.errors import FormatError
from tests.support.letters import make_letters
from tests.support.schemas import END, byte_tokenizer, campaign, check, invalid, names_a_keyword, walk


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def allows(matcher, text: str | bytes) -> bool:
    """Whether a whole reply may be this text."""
    data = text.encode() if isinstance(text, str) else text
    matcher.reset()
    return matcher.try_consume_tokens(list(data)) == len(data) and matcher.is_accepting()


def schema_allows(tokenizer, schema, text: str) -> bool:
    return allows(Grammar.from_schema(schema).matcher(tokenizer), text)


# ---- schemas: the campaign ------------------------------------------------------------------------


def test_campaign_of_schemas(tokenizer):
    """Every reply valid, or a refusal with 65 in one line that names the keyword. A part of the 600, in a known order."""
    rng, outcomes = random.Random(3), {}
    for kind, text in campaign(300, seed=23):
        outcome, why = check(text, tokenizer, rng, walks=2)
        assert outcome != "WRONG", f"{text[:300]}: {why}"
        outcomes.setdefault((kind, outcome), []).append(text)
    for kind in ("random", "pydantic", "hostile"):
        assert len(outcomes[kind, "enforced"]) > 20, "the generator makes what can be enforced"
    assert len(outcomes["malformed", "refused"]) > 30


def test_the_campaign_can_fail():
    """Its judges: a refusal that names nothing, a reply that is not valid."""
    assert names_a_keyword('the JSON schema cannot be enforced: Unimplemented keys: ["not"]', '{"not": {}}')
    assert not names_a_keyword("the JSON schema cannot be enforced: too complex at 3", '{"not": {}}')
    assert not names_a_keyword("the JSON schema cannot be enforced: minLength", '{"not": {}}'), "of another schema"
    assert names_a_keyword("the JSON schema is not JSON (Expecting value)", "")
    assert (
        invalid(b'"a"', {"type": "integer"})
        and invalid(b'"\xed\xa0\x80"', {}) is not None
        and invalid(b"3", {"type": "integer"}) is None
    )


# ---- schemas: the faults seen ---------------------------------------------------------------------

FLAG = {"$defs": {"flag": {"$anchor": "flag", "type": "boolean"}}, "type": "object", "properties": {"on": {"$ref": "#flag"}},
        "required": ["on"], "additionalProperties": False}  # fmt: skip

ENFORCED = [
    # references by name, percent-encoded, into a list, escaped
    (FLAG, ['{"on": true}'], ['{"on": {}}', '{"on": {"on": true}}', "{}"]),
    ({"$defs": {"a b": {"type": "null"}}, "$ref": "#/$defs/a%20b"}, ["null"], ["true"]),
    ({"$defs": {"l": {"anyOf": [{"type": "null"}, {"const": 1}]}}, "$ref": "#/$defs/l/anyOf/1"}, ["1"], ["null"]),
    ({"$defs": {"a/b": {"type": "null"}}, "$ref": "#/$defs/a~1b"}, ["null"], ["1"]),
    ({"$id": "http://x/y", "$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, ["null"], ["1"]),
    # what pydantic and OpenAPI write
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2}, ['[1, "a"]'], ["[1]", '[1,"a",2]']),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": False}, ["[1]", "[]"], ["[1, 2]", '["a"]']),
    ({"const": "cat", "enum": ["cat"], "type": "string"}, ['"cat"'], ['"dog"']),
    ({"const": "cat", "enum": ["cat", "dog"]}, ['"cat"'], ['"dog"']),
    ({"type": "integer", "format": "int32"}, ["7"], ["7.5"]),
    ({"type": "string", "format": "password", "example": "x", "x-order": 1}, ['"a"'], ["1"]),
    ({"type": "array", "items": {"type": "null"}, "uniqueItems": False}, ["[null, null]"], ["[1]"]),
    ({"type": "array", "items": {"type": "null"}, "uniqueItems": True, "maxItems": 1}, ["[null]", "[]"], ["[null,null]"]),
    ({"type": "object", "minProperties": 0, "additionalProperties": {"type": "null"}}, ["{}", '{"a":null}'], ["[]"]),
    ({"type": "integer", "multipleOf": 1}, ["3"], ["3.5"]),
    ({"type": "object", "properties": {"a": {"type": "null"}}, "unevaluatedProperties": False}, ["{}", '{"a":null}'], ['{"b":1}']),
    ({"type": "string", "minLength": 2.0, "maxLength": 3.0}, ['"ab"'], ['"a"', '"abcd"']),
    ({"if": {"type": "string"}, "type": "null"}, ["null"], ['"a"']), ({"then": False, "type": "null"}, ["null"], ["1"]),
    ({"minContains": 2, "type": "array", "maxItems": 0}, ["[]"], ["[1]"]), (True, ["1", "[]"], ["x"]), ({}, ["null"], [""]),
    # calendars
    ({"type": "string", "format": "date"}, ['"2024-02-29"', '"2000-02-29"', '"1999-12-31"'],
     ['"2023-02-29"', '"1900-02-29"', '"2023-02-30"', '"2023-04-31"', '"0000-01-01"', '"2023-13-01"']),
    ({"type": "string", "format": "date-time"}, ['"2024-02-29T23:59:59Z"', '"2024-01-01T00:00:00.5+02:00"'], ['"2023-02-29T00:00:00Z"', '"2024-01-01T23:59:60Z"']),
    ({"type": "string", "format": "time"}, ['"23:59:59Z"'], ['"24:00:00Z"', '"12:00:60Z"', '"12:00:00"']),
    ({"format": "date", "minLength": 1, "allOf": [{"type": "string"}]}, ['"2024-01-01"'], ['"x"', "1"]),
    # bytes
    ({"enum": ["🎉", "日本"]}, ['"🎉"', '"日本"'], [b'"\xf0\x86\x97\xa5"', b'"\xed\xa0\x80"', b'"\xf0\x9f"', '"x"']),
    ({"type": "string", "maxLength": 1}, ['"🎉"', '"é"', '""'], [b'"\xc0\xaf"', b'"\xed\xa0\xbd\xed\xb8\x80"', b'"\xf8\x88\x80\x80\x80"', '"ab"', '"\t"']),
]  # fmt: skip


@pytest.mark.parametrize(
    "schema, right, wrong", ENFORCED, ids=lambda v: json.dumps(v)[:40] if isinstance(v, dict | bool) else ""
)
def test_schema_is_enforced(tokenizer, schema, right, wrong):
    grammar = Grammar.from_schema(schema)
    matcher = grammar.matcher(tokenizer)
    for text in right:
        if schema == {"type": "string", "maxLength": 1} and "ud83d" in text:
            continue  # llguidance writes no escapes of what needs none
        assert allows(matcher, text) and grammar.schema.complaint(text) is None, text
    for text in wrong:
        assert not allows(matcher, text), text
        assert isinstance(text, bytes) or grammar.schema.complaint(text), text


DRAFT7 = "http://json-schema.org/draft-07/schema#"
NAMED = {
    "definitions": {"flag": {"$id": "#flag", "type": "boolean"}},
    "type": "object",
    "properties": {"on": {"$ref": "#flag"}},
    "required": ["on"],
}


@pytest.mark.parametrize("schema", [
    NAMED, {"$schema": DRAFT7, **NAMED}, {"$schema": DRAFT7, "$id": "http://x/root.json", **NAMED}, {"$schema": DRAFT7.replace("7", "6"), **NAMED},
    {"$schema": DRAFT7.replace("7", "4"), **NAMED, "definitions": {"flag": {"id": "#flag", "type": "boolean"}}},
    {"$schema": DRAFT7, "$id": "http://x/r.json", **NAMED, "properties": {"on": {"$ref": "http://x/r.json#flag"}}},
    {**NAMED, "definitions": {"a": {"definitions": {"flag": {"$id": "#flag", "$ref": "#other"}}}, "b": {"$id": "#other", "type": "boolean"}}},
    {**NAMED, "properties": {"on": {"$ref": "#/components/schemas/On"}}, "components": {"schemas": {"On": {"$ref": "#/components/schemas/Flag"}, "Flag": {"type": "boolean"}}}},
], ids=lambda s: json.dumps(s)[:60])  # fmt: skip
def test_names_of_draft_7_and_places_of_openapi(tokenizer, schema):
    grammar = Grammar.from_schema(schema)
    matcher = grammar.matcher(tokenizer)
    assert allows(matcher, '{"on": true}') and grammar.schema.complaint('{"on": true}') is None
    for text in ('{"on": {}}', '{"on": {"on": true}}', "{}", '{"on": 1}'):
        assert not allows(matcher, text) and grammar.schema.complaint(text), text


def test_schema_outside_of_the_standards_places_is_read_like_any_other(tokenizer):
    """Where a `$ref` finds it: its patterns, its calendar, its keywords that are not enforced."""

    def at(schema: dict) -> dict:
        return {"$ref": "#/components/schemas/D", "components": {"schemas": {"D": schema}}}

    assert schema_allows(tokenizer, at({"type": "string", "format": "date"}), '"2024-02-29"')
    assert not schema_allows(tokenizer, at({"type": "string", "format": "date"}), '"2023-02-30"')
    for schema, says in (
        ({"pattern": r"\Z"}, "pattern"),
        ({"minLenght": 3}, "minLength"),
        ({"minimum": 2**60}, "minimum"),
    ):
        with pytest.raises(FormatError, match=says):
            Grammar.from_schema(at(schema))
    loop = at(
        {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/D"}}, "additionalProperties": False}
    )
    assert schema_allows(tokenizer, loop, '{"next": {"next": {}}}') and not schema_allows(
        tokenizer, loop, '{"next": 1}'
    )
    assert "stray0" not in loop.get("$defs", {}), "the document of the user is not changed"


BLANKS = {
    '{"a":[1,2],"b":"x"}': (True, True), '{"a": [1, 2], "b": "x"}': (True, False), '{\n  "a": [\n    1,\n    2\n  ],\n  "b": "x"\n}': (True, False),
    '{\n\t"a":[1,2],"b":"x"}': (True, False), '{"a":  [1,2],"b":"x"}': (False, False), '{\n\n"a":[1,2],"b":"x"}': (False, False),
    '{"a":[1,2],\n' + " " * 17 + '"b":"x"}': (False, False), '{"a":[1,2],"b":"x"} ': (False, False), ' {"a":[1,2],"b":"x"}': (False, False),
}  # fmt: skip


@pytest.mark.parametrize("text, allowed", BLANKS.items())
def test_blanks_between_tokens(tokenizer, text, allowed):
    """A blank, or a line break with its indentation; none where the schema asks for that."""
    schema = {
        "type": "object",
        "properties": {"a": {"items": {"type": "integer"}, "type": "array"}, "b": {"type": "string"}},
        "required": ["a", "b"],
    }
    compact = {**schema, "x-guidance": {"whitespace_flexible": False, "lenient": True}}
    assert (schema_allows(tokenizer, schema, text), schema_allows(tokenizer, compact, text)) == allowed


WRONG_TYPES = {
    "required": [True, "a", [1], {}], "properties": [["a"], 5, {"a": 5}], "enum": [5, "a", {}], "allOf": [5, {}, [5], []], "anyOf": [5, []],
    "$ref": [5, None, ["#"]], "type": [[["string"]], 5, "text", [], None], "pattern": [5, "(", ["a"]], "items": [5, "a"], "minItems": ["1", -1, 0.5],
    "minimum": ["1", None, [1]], "additionalProperties": [5, "no", []], "format": [5, []], "prefixItems": [5, {}], "multipleOf": [0, -1, "2"],
    "$defs": [5, []], "patternProperties": [5, {"(": {}}], "maxLength": [True, "5"], "uniqueItems": ["yes", 1], "$schema": [5, [], "http://x/y"],
}  # fmt: skip


@pytest.mark.parametrize("keyword", WRONG_TYPES)
def test_keyword_of_the_wrong_type_is_named(keyword):
    for value in WRONG_TYPES[keyword]:
        for schema in (
            {keyword: value},
            {"properties": {"a": {keyword: value}}},
            {"anyOf": [{"type": "null"}, {keyword: value}]},
        ):
            if (
                schema.get("$defs") == value
                or "$schema" in json.dumps(schema)
                and keyword not in schema
                and isinstance(value, str)
            ):
                continue
            with pytest.raises(FormatError) as error:
                Grammar.from_schema(json.dumps(schema))
            assert f"{keyword}" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


REFUSED = {
    '{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.01}': "exclusiveMinimum", '{"minimum": 1, "exclusiveMinimum": 1, "maximum": 1.5}': "exclusiveMinimum",
    '{"type": "number", "minimum": -1e-18, "exclusiveMaximum": 0}': "exclusiveMaximum", '{"allOf": [{"minimum": 1, "maximum": 1.5}, {"exclusiveMinimum": 1}]}': "allOf",
    '{"$schema": "https://json-schema.org/draft/2019-09/schema", "items": [{"const": 1}], "unevaluatedItems": false}': "unevaluatedItems",
    '{"type": "array", "minItems": 1, "maxItems": 0}': "minItems", '{"type": "string", "minLength": 3, "maxLength": 2}': "minLength",
    '{"const": Infinity}': "Infinity is no JSON number", '{"enum": [NaN]}': "NaN is no JSON number", '{"const": 1e999}': "too large",
    '{"minimum": -Infinity}': "-Infinity is no JSON number", '{"type": "null", "type": "string"}': "'type' stands twice",
    '{"title": "\\ud83d"}': "surrogate", '{"enum": ["a\\udc00"]}': "surrogate", '{"properties": {"\\ud800": {}}}': "surrogate", "": "not JSON",
    "nonsense": "not JSON", "{} {}": "not JSON", "3": "expected an object or true or false; got 3", "[]": "expected an object or true or false; got []", "false": "allows no value",
    '{"$ref": "#/nowhere"}': "nowhere", '{"$ref": "http://x/y"}': "http://x/y", '{"$ref": "#"}': "$ref leads back to itself",
    '{"anyOf": [{"$ref": "#"}, {"type": "null"}]}': "$ref leads back", '{"$defs": {"a": {"$id": "#a"}, "b": {"$id": "#a"}}, "$ref": "#a"}': "two schemas have that name", '{"$ref": "#a", "here": {"$anchor": "a"}}': "$ref #a: no $anchor has that name",
    '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}': "$ref leads back",
    '{"not": {}}': "not", '{"uniqueItems": true, "type": "array"}': "uniqueItems", '{"if": {}, "then": {"type": "null"}}': "then",
    '{"dependentRequired": {"a": ["b"]}}': "dependentRequired", '{"contains": {"const": 1}}': "contains", '{"propertyNames": {"maxLength": 1}}': "propertyNames",
    '{"type": "string", "format": "uri-reference"}': "uri-reference", '{"type": "string", "pattern": "(?=a)"}': "(?=a)", '{"minLenght": 3}': "minLenght",
    '{"type": "string", "pattern": "(a)\\\\1"}': "pattern", '{"x-guidance": {"lenient": true}, "not": {}}': "not",
    '{"type": "integer", "minimum": 9007199254740993}': "minimum", '{"const": 123456789012345678901234567890}': "const",
    '{"const": 123456789012345678901234567890.12345}': "const", '{"enum": [1, {"a": [1e30]}]}': "enum",
    '{"exclusiveMaximum": 1e-300, "exclusiveMinimum": 0}': "exclusiveMaximum", '{"const": "' + "a" * MAX_TEXT + '"}': "characters",
    '{"enum": [' + ",".join(map(str, range(MAX_VALUES))) + "]}": "values", '{"items":' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH: "deeper than",
    json.dumps({"items": {"properties": {f"p{i}": {} for i in range(2101)}, "required": [f"p{i}" for i in range(100)]}}): "2001 of one object",
    "[" * 100000: "too deep", '{"not":' * 5000 + "{}" + "}" * 5000: "too deep",
}  # fmt: skip


@pytest.mark.parametrize("text, says", REFUSED.items(), ids=lambda s: s[:30])
def test_schema_that_is_refused(tokenizer, text, says):
    with pytest.raises(FormatError, match="^the JSON schema") as error:
        Grammar.from_schema(text).matcher(tokenizer)
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("around", [
    lambda ref: ref, lambda ref: {"type": "object", "properties": {"a": ref}}, lambda ref: {"items": ref}, lambda ref: {"anyOf": [ref, {"type": "null"}]},
    lambda ref: {"allOf": [ref, {"minLength": 1}]}, lambda ref: {**ref, "type": "string"}, lambda ref: {"additionalProperties": ref},
])  # fmt: skip
def test_chains_of_references(tokenizer, around):
    """llguidance overflows the stack at 1,500; what is let through is far from it."""

    def chain(n: int) -> dict:
        return {
            "$ref": "#/$defs/d0",
            "$defs": {f"d{i}": around({"$ref": f"#/$defs/d{i + 1}"}) for i in range(n)} | {f"d{n}": {"type": "string"}},
        }

    Grammar.from_schema(chain(MAX_REFERENCES // 3 - 2)).matcher(tokenizer)
    with pytest.raises(FormatError, match=r"\$ref leads more than"):
        Grammar.from_schema(chain(MAX_REFERENCES))
    shared = {"$defs": {"d": {"type": "string"}}, "properties": {f"p{i}": {"$ref": "#/$defs/d"} for i in range(900)}}
    assert schema_allows(tokenizer, shared, '{"p3": "x"}'), "many references to one place are no chain"


def test_references_that_double(tokenizer):
    def doubled(n: int) -> dict:
        twice = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(n)}
        return {"$ref": "#/$defs/d0", "$defs": twice | {f"d{n}": {"type": "null"}}}

    assert schema_allows(tokenizer, doubled(8), "null")
    with pytest.raises(FormatError, match=r"\$ref, allOf, anyOf and oneOf put"):
        Grammar.from_schema(doubled(40))


def test_complaints():
    schema = Grammar.from_schema(
        {"type": "object", "properties": {"a": {"type": "number", "multipleOf": 0.1}}, "required": ["a"]}
    ).schema
    assert schema.complaint('{"a": 0.3}') is None, "in decimals"
    assert schema.complaint('{"a": 0.35}') == "expected a multiple of 0.1; got 0.35 (at #/a)"
    assert schema.complaint("{}") == '"a" is missing (at #)'
    for text in ('{"a": 0.3', "", "[" * 5000, "9" * 5000 + "x"):
        assert "not JSON" in schema.complaint(text)


def test_documents_are_not_changed():
    document = {"type": "string", "format": "date", "title": "x", "properties": {"a": {"uniqueItems": False}}}
    copy = json.loads(json.dumps(document))
    schema = Grammar.from_schema(document).schema
    assert schema.document == document == copy
    closed = Grammar.from_schema(
        {"properties": {"a": {"properties": {"b": True}}, "c": {"additionalProperties": True, "properties": {"d": {}}}}}
    ).schema
    assert json.dumps(closed.prepared).count('"additionalProperties": false') == 2, (
        "named properties and no others, unless it says so"
    )
    referred = {
        "$defs": {"flag": {"type": "boolean"}},
        "properties": {"on": {"$ref": "#/$defs/flag"}, "n": {"anyOf": [{}]}},
    }
    assert Grammar.from_schema(referred).schema.prepared["additionalProperties"] is False, (
        "a bare reference adds nothing"
    )
    laid_over = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert Grammar.from_schema(laid_over).schema.prepared == laid_over
    constants = {"enum": [{"title": "kept", "format": "int32", "x-a": 1}]}
    assert Grammar.from_schema(constants).schema.prepared == constants, "a constant is no schema"


# ---- GBNF -------------------------------------------------------------------------------------------

GBNF = [
    ('root ::= word "b"\nword ::= [a-z]+', ["ab", "bb", "abb"], ["b", "a"]), ('root ::= "a" "b" "c" | "ab" "d"', ["abc", "abd"], ["ab"]),
    ('root ::= [a-z] "1" | "a" "2"', ["a1", "a2", "b1"], ["b2"]), ('root ::= "\\u00e9" [\\U0001F600-\\U0001F64F]', ["é😀"], ["é"]),
    ("root ::= .", ["x", "\n", "日"], [b"\xed\xa0\x80", "xx"]), ("root ::= [&~a-c^-]", ["&", "~", "b", "^", "-"], ["d"]), ('root ::= [^"\\\\]', ["x", "\n"], ['"', "\\"]),
    ('root ::= start\nstart ::= "x"', ["x"], ["y"]), ('root ::= fooBar foo-bar\nfooBar ::= "x"\nfoo-bar ::= "y"', ["xy"], ["xx"]),
    ('root ::= ("a" | "b"){2,3} # note\n', ["ab", "aba"], ["a", "abab"]), ('root ::= ("a" |)', ["", "a"], ["aa"]), ('root ::= "a"{2}', ["aa"], ["a"]),
    ('root ::= "a/b" [/\\]\\[]', ["a/b/", "a/b]"], ["a/b"]), ('root ::= root "a" | "b"', ["b", "baa"], ["a"]), ('root ::= (\n"a"\n|\n"b"\n)+\n', ["ab"], [""]),
    ('root ::= "\\n\\t\\r\\x41\\"\\\\"', ['\n\t\rA"\\'], ["A"]), ("root ::= r-1 r_x\nr-1 ::= [0-9]", None, None), ('root ::= ("a"*)* "b"', ["aab", "b"], ["a"]),
]  # fmt: skip


@pytest.mark.parametrize(
    "grammar, right, wrong", [g for g in GBNF if g[1]], ids=lambda g: g[:30] if isinstance(g, str) else ""
)
def test_gbnf(tokenizer, grammar, right, wrong):
    matcher = Grammar.from_text(grammar).matcher(tokenizer)
    assert all(allows(matcher, text) for text in right)
    assert not any(allows(matcher, text) for text in wrong)


BAD_GBNF = {
    "": "no rule named root", "root": "expected ::=", 'rot ::= "a"': "no rule named root", "root ::= (": "column 10: the parenthesis is not closed", "root ::= nowhere": "line 1, column 10: no rule is named nowhere",
    'root ::= "a"\n\nb ::= c d': "line 3, column 7: no rule is named c", "root ::= ([a]\n | (": "line 2, column 4: the parenthesis",
    'root ::= "a': "column 10: the quotation mark is not closed", 'root ::= "yes | "no"': "line 1, column 20: the quotation mark is not", "root ::= [a": "the bracket is not closed",
    'a ::= "b"\nroot ::= [a-': "line 2, column 10: the bracket", "root ::= [z-a]": "line 1, column 11: a range must go upwards; got z-a", "root ::= []": "characters between",
    'root ::= "\\q"': "an escape", 'root ::= "\\u12"': "hexadecimal", 'root ::= "\\ud83d"': "hexadecimal", 'root ::= "\ud83d"': "surrogate", "root ::= a{5": "{m}",
    'root ::= "a"{9999}': "repetitions", 'root ::= "a"{3,2}': "repetitions", "root ::= <nothing>": "nothing", 'root ::= "a") "b"': "the end of the rule",
    'root ::= "a" 5 ::= x': "expected", "root ::= !<[3]>": "the end of the rule", "root ::= <[99999999]>": "99999999", "root ::= _x": "the end of the rule",
    "root ::= " + "(" * 20000 + '"a"' + ")" * 20000: "nests parentheses deeper", "root ::= " + " | ".join('"a"' for _ in range(100000)): "characters; allowed",
    "root ::= " + " | ".join("[a]" for _ in range(25000)): "characters, classes", "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(100000)): "characters; allowed",
    "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(4000)) + 'r4000 ::= "a"': "rules that lead more than", "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(4000)) + 'r4000: "a"': "rules that lead",
    "start: " + "(" * 20000 + '"a"' + ")" * 20000: "nests", "start: " + " | ".join('"a"' for _ in range(15000)): "names, literals", "start: (": "line 1, column 9: ", "start: nowhere": "line 1, column 8: no rule is named nowhere",
    'start: "a': "line 1, column 10: no sign of Lark; perhaps a quotation mark", 'start: ("a"': "line 1, column 12: expected ')'; got the end of the line", 'start: A\nA: /x(/': "line 2, column 4: the expression, column 2: ( is not closed",
    'start: "x" %json {\n"type": "string"\n} | b\nb: foo': "line 4, column 4: no rule is named foo", '%llguidance {"a":\n1}\nstart: b': "line 3, column 8", 'START: "a"': "line 1, column 6: expected ::=", '%llguidance {}\nA: "a"': "no rule is named start",
    'start: "a"\nstart: "b"': "line 2, column 8: two rules are named start", 'start: A\nA: "x" A': "line 2, column 4: the token A leads back", 'start: "a"~3..2': "the smaller number of repetitions",
    "start: <[99999999]>": "the model has no token 99999999", "%import common.FOO\nstart: FOO": "line 1, column 1: there is no common.FOO", 'start: "a" )': "line 1, column 12: expected a rule, a token or the end of the line; got )",
    'start: %json {"not": {}}': "not", 'start: %json {"type": 5}': "type", "start: %json {": "no JSON", 'start: A\nA: /(a/': "the expression, column 1: ( is not closed", "start: @other": "other",
    'start: A\nA: /a/ & /b/\n': "no text", "root ::= root": "no text", 'root ::= "a" root': None,
}  # fmt: skip


@pytest.mark.parametrize("text, says", [g for g in BAD_GBNF.items() if g[1]], ids=lambda s: s[:24])
def test_grammar_that_is_refused(tokenizer, text, says):
    start = time.perf_counter()
    with pytest.raises(FormatError, match="^the (grammar|JSON schema)") as error:
        grammar = Grammar.from_text(text)
        matcher = grammar.matcher(tokenizer)
        matcher.compute_bitmask()
        if matcher.is_error():
            raise grammar.refusal(matcher.get_error())
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    assert time.perf_counter() - start < 20


def test_chains_of_rules_that_are_let_through(tokenizer):
    n = MAX_CHAIN - 10
    for text in ("root ::= r0\n" + "".join(f'r{i} ::= "b" ("c" | r{i + 1} "d"?)*\n' for i in range(n)) + f'r{n} ::= "a"',
                 "start: R0\n" + "".join(f'R{i}: "b" ("c" | R{i + 1} "d"?)*\n' for i in range(n)) + f'R{n}: "a"'):  # fmt: skip
        assert allows(Grammar.from_text(text).matcher(tokenizer), "b")
    rules = {"a": ["b", "c"], "b": ["c"], "c": ["a"]}
    assert deepest(rules, rules.get, str) == 3 and deepest({}, list, str) == 0


def random_gbnf(rng: random.Random) -> str:
    """Rules over a, b and c; no left recursion, which llama.cpp refuses, since a rule refers only to later ones or behind a letter."""

    def item(rule: int, depth: int) -> str:
        kinds = (
            ["letter", "letter", "class", "literal"] + (["group"] if depth < 2 else []) + (["rule"] if rule < 3 else [])
        )
        kind = rng.choice(kinds)
        body = {"letter": lambda: f'"{rng.choice("abc")}"', "class": lambda: rng.choice(["[ab]", "[^a]", "[b-c]", "."]),
                "literal": lambda: f'"{"".join(rng.choices("abc", k=rng.randrange(1, 4)))}"',
                "group": lambda: f"({' | '.join(sequence(rule, depth + 1) for _ in range(rng.randrange(1, 3)))})",
                "rule": lambda: f"r{rng.randrange(rule + 1, 4)}"}[kind]()  # fmt: skip
        return body + rng.choice(["", "", "", "?", "*", "+", "{2}", "{0,2}", "{1,}"])

    def sequence(rule: int, depth: int) -> str:
        return " ".join(item(rule, depth) for _ in range(rng.randrange(1, 4)))

    names = ["root", "r1", "r2", "r3"]
    return "\n".join(
        f"{name} ::= {' | '.join(sequence(i, 0) for _ in range(rng.randrange(1, 3)))}" for i, name in enumerate(names)
    )


def test_gbnf_agrees_with_llama_cpp(tmp_path, tokenizer):
    """60 random grammars and 40 texts each: llama.cpp's own sampler, fed letter by letter, says the same of every prefix."""
    import llama_cpp

    from autodeco_edge.engine.model import Model

    model, rng = Model(make_letters(tmp_path).gguf), random.Random(8)
    token_of = {model.token_bytes(t): t for t in range(model.n_vocab)}
    ids = [token_of[c.encode()] for c in "abcd"]
    end = model.eos
    data = (llama_cpp.llama_token_data * 5)()

    def verdicts(sampler, text: str) -> list[list[bool]]:
        llama_cpp.llama_sampler_reset(sampler)
        found = []
        for c in text + " ":
            for entry, token in zip(data, [*ids, end], strict=True):
                entry.id, entry.logit, entry.p = token, 0.0, 0.0
            array = llama_cpp.llama_token_data_array(data=data, size=5, selected=-1, sorted=False)
            llama_cpp.llama_sampler_apply(sampler, array)
            found.append([entry.logit == 0.0 for entry in data])
            if c == " " or not found[-1]["abcd".index(c)]:
                return found
            llama_cpp.llama_sampler_accept(sampler, ids["abcd".index(c)])
        return found

    def ours(matcher, text: str) -> list[list[bool]]:
        matcher.reset()
        found = []
        for c in text + " ":
            mask = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
            found.append([bool(mask[ord(x)]) for x in "abcd"] + [bool(mask[END])])
            if c == " " or not mask[ord(c)]:
                return found
            matcher.consume_token(ord(c))
        return found

    compared = 0
    for _ in range(60):
        grammar = random_gbnf(rng)
        sampler = llama_cpp.llama_sampler_init_grammar(model.vocab, grammar.encode(), b"root")
        matcher = Grammar.from_text(grammar).matcher(tokenizer)
        for _ in range(40):
            text = "".join(rng.choices("abcd", weights=[4, 4, 4, 1], k=rng.randrange(1, 9)))
            theirs = verdicts(sampler, text)
            assert ours(matcher, text) == theirs, (grammar, text)
            compared += len(theirs)
        llama_cpp.llama_sampler_free(sampler)
    assert compared > 4000
    model.close()


def test_grammars_of_llama_cpp_itself(tokenizer):
    from tests.support import llama_source

    source = llama_source.llama_source()
    if source is None:
        pytest.skip("the llama-cpp-python source distribution can be neither found nor fetched")
    files = sorted((source / "grammars").glob("*.gbnf"))
    assert len(files) >= 8
    samples = {
        "arithmetic": "1+2*x=3\n",
        "chess": "1. e4 e5\n2. Nf3 Nc6\n",
        "japanese": "日本",
        "json": '{"a": [1, 2.5e3, "\\u00e9"]}',
        "list": "- one\n- two\n",
    }
    for path in files:
        matcher = Grammar.from_text(path.read_text(encoding="utf-8")).matcher(tokenizer)
        assert not matcher.is_error(), path
        if path.stem in samples:
            assert allows(matcher, samples[path.stem]), path


# ---- regular expressions and Lark -------------------------------------------------------------------


@pytest.mark.parametrize("pattern, right, wrong", [
    ("^[0-9]{3}$", ["123"], ["12", "1234"]), ("a|b", ["a", "b"], ["ab"]), ("a/b\n", ["a/b\n"], ["a/b"]), ("(?i)yes", ["YES"], ["no"]), (r"\d+\.\d", ["12.5"], ["12"]),
    ("", [""], ["a"]), (r"a\$", ["a$"], ["a"]), (r"a\\$", ["a\\"], ["a"]), (r"\p{L}+", ["é日"], ["1"]), (".*", ["a🎉"], [b"\xed\xa0\x80", b"\xc0\xaf"]),
])  # fmt: skip
def test_regex(tokenizer, pattern, right, wrong):
    matcher = Grammar.from_regex(pattern).matcher(tokenizer)
    assert all(allows(matcher, text) for text in right)
    assert not any(allows(matcher, text) for text in wrong)


BAD_REGEX = {
    "(a": "column 1: ( is not closed", "ab[c": "column 3: [ is not closed", "x(?=a)": "column 2: what looks ahead", r"\b": "refused", r"(a)\1": "column 4: a reference",
    "(" * 20000 + ")" * 20000: "characters; allowed", "[" * 5000: "nests", "*": "column 1: nothing stands before it", "\ud83d": "surrogate", "a" * 20000: "characters; allowed",
    "\\": "it ends in a backslash", "[z-a]": "column 2: a range must go upwards; got z-a", "a{2,1}": "the smaller number", r"\p{Foo}": "Unicode has no such property", r"a\q": "column 2: there is no such escape",
    "a/(b": "column 4: ( is", "a)": ") was not opened", "(?z)": "no such flag", r"\u12": "escape is not finished",
}  # fmt: skip


@pytest.mark.parametrize("pattern, says", BAD_REGEX.items(), ids=lambda s: s[:24])
def test_regex_that_is_refused(tokenizer, pattern, says):
    with pytest.raises(FormatError, match="^the regular expression") as error:
        Grammar.from_regex(pattern).matcher(tokenizer)
    assert says in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


LIBRARY_WORDS = re.compile(
    r"Unimplemented|Unsatisfiable|retriev|Pointer|Expected token|expecting|is not of type|is not valid under|non-unique"
    r"|regex parse error|lexer error|at \d+\(\d+\)"
)


@pytest.mark.parametrize("text", [*REFUSED, *[g for g in BAD_GBNF if BAD_GBNF[g]], *BAD_REGEX], ids=lambda s: s[:24])
def test_no_refusal_is_in_the_words_of_a_library(tokenizer, text):
    read = {**dict.fromkeys(BAD_GBNF, Grammar.from_text), **dict.fromkeys(BAD_REGEX, Grammar.from_regex)}
    with pytest.raises(FormatError) as error:
        grammar = read.get(text, Grammar.from_schema)(text)
        matcher = grammar.matcher(tokenizer)
        matcher.compute_bitmask()
        raise grammar.refusal(matcher.get_error())
    assert not LIBRARY_WORDS.search(str(error.value)), str(error.value)


def test_a_message_of_llguidance_that_is_not_known_is_passed_on_as_one(tokenizer):
    said = "at 2(8): something new\n   1 | %llguidance\n   2 | start\n"
    assert guidance_words.of_grammar(said, 2) == "line 1, column 8: llguidance says: something new"
    assert (
        guidance_words.of_grammar(said, None)
        == guidance_words.of_schema("something new")
        == "llguidance says: something new"
    )
    assert guidance_words.of_grammar("", None) == "no reason given"


def test_lark(tokenizer):
    matcher = Grammar.from_text(
        '%llguidance {"no_forcing": false}\nstart: "n=" NUMBER | %json {"enum": ["x"], "title": "t"}\nNUMBER: /[0-9]+/\n'
    ).matcher(tokenizer)
    assert allows(matcher, "n=12") and allows(matcher, '"x"') and not allows(matcher, "n=")


def test_walks_of_a_grammar_stay_in_it(tokenizer):
    """The generator of replies itself: what it draws is allowed, and it finds every sentence of a small grammar."""
    matcher, rng = Grammar.from_text('root ::= ("yes" | "no") "!"?').matcher(tokenizer), random.Random(1)
    assert {walk(matcher, rng) for _ in range(60)} == {b"yes", b"no", b"yes!", b"no!"}


def test_lark_of_gbnf_is_one_character_a_token():
    lark = characters(read_gbnf('root ::= "ab" [0-9]'))
    assert '"a" "b"' in lark and "ab" not in lark.replace('"a" "b"', "")

"""Patterns of a JSON schema: ECMA 262's meaning or a refusal by name, in the grammar and in the check of a reply alike.

The oracle of what both read alike is Python's re, over random patterns.
"""

from __future__ import annotations

import json
import random
import re
import time
import warnings

import pytest

from autodeco_edge.engine.ecma import PatternError, read_pattern
from autodeco_edge.engine.expressions import ANY, TooLarge, matches, repeat, sequence, text
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.json_schema import Unchecked
from autodeco_edge.errors import FormatError
from tests.support.schemas import byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


# pattern, texts in which it is found, texts in which it is not; where Python or Rust differ the comment says how
MEANINGS = [
    (r"^\d$", ["0", "9"], ["٣", "a", "0\n"]), (r"^\D$", ["٣", "a"], ["1"]), (r"^\w$", ["a", "Z", "_", "0"], ["é", "ß", "-"]), (r"^\W$", ["é", "-"], ["a"]),
    (r"^\s$", [" ", "\t", "\v", "\f", "\n", "\r", "\xa0", "\ufeff", "\u2028", "\u3000", "\u1680"], ["\x85", "\x1c", "\u200b", "x"]), (r"^\S$", ["\x85", "x"], ["\ufeff", " "]),
    ("^.$", ["x", "🎉", "\x85", "\x0b"], ["\n", "\r", "\u2028", "\u2029", ""]), ("^[^x]$", ["\n", "y"], ["x"]), ("^[^]$", ["\n", "x"], [""]), ("^a[]?b$", ["ab"], ["axb"]),
    ("a$", ["a", "ba"], ["a\n"]), ("^a", ["ab"], ["\na"]), ("^a|b$", ["ax", "xb"], ["xa", "bx"]), ("(^a|b)c", ["ac", "xbc"], ["xac"]), ("^$", [""], ["a"]), ("", ["", "x"], []),
    (r"(?:^|\s)go(?:$|,)", ["go", "we go, so"], ["ago", "gone"]), ("$", ["", "x"], []), ("^^a$$", ["a"], ["aa"]), (r"^\x41\u0042\u{43}\u{1F389}\uD83C\uDF89$", ["ABC🎉🎉"], ["ABC🎉"]),
    (r"^\cA\0$", ["\x01\x00"], ["A0"]), (r"^[\b]$", ["\b"], ["b"]), (r"^[\w-.]$", ["a", "-", "."], ["+"]), (r"^[+--]$", ["+", ",", "-"], ["*"]), (r"^[\d-z]$", ["5", "-", "z"], ["y"]),
    ("^[a&&b]$", ["a", "&", "b"], ["&&"]), ("^[a~~b]$", ["~"], ["c"]), ("^[a[b]$", ["[", "a"], ["]"]), (r"^[\]\\^-]$", ["]", "\\", "^", "-"], ["a"]), ("^[]a]$", [], ["]", "a]"]),
    ("^a{2}$", ["aa"], ["a"]), ("^a{2,}$", ["aaa"], ["a"]), ("^a{0,1}?b+?$", ["ab", "bb"], ["aab"]), ("^(?<year>a)(?:b)$", ["ab"], ["a"]), ("^{a}$", ["{a}"], ["a"]), ("^a{b}$", ["a{b}"], ["ab"]),
    (r"^\p{L}\p{Lu}\P{L}\p{digit}$", ["éÉ٣٣"], ["ééa1"]), (r"^\p{Letter}\p{General_Category=Punctuation}[\p{Nd}x]$", ["é-1", "é-x"], ["--1"]), (r"^\p{ASCII}$", ["a"], ["é"]),
    (r"^\.\/\-\"\@\$$", ['./-"@$'], ["a/-"]), ("^(a|b(c|d)*)+$", ["abcdd"], ["c"]), (r"^[\t-\r]$", ["\n", "\v"], [" "]), ("^[\u00e0-\u00ff]$", ["é"], ["e"]), ("^(a*)*$", ["", "aa"], ["b"]),
]  # fmt: skip


@pytest.mark.parametrize("pattern, right, wrong", MEANINGS, ids=[m[0][:20] for m in MEANINGS])
def test_meaning_in_grammar_and_check(tokenizer, pattern, right, wrong):
    for keyword, schema in (("pattern", {"type": "string", "pattern": pattern}), ("patternProperties", {
        "type": "object", "patternProperties": {pattern: {"type": "null"}}, "additionalProperties": False})):  # fmt: skip
        if pattern == "^[]a]$" and keyword == "pattern":
            with pytest.raises(FormatError, match="pattern"):
                Grammar.from_schema(schema).matcher(tokenizer)
            continue
        grammar = Grammar.from_schema(schema)
        matcher = grammar.matcher(tokenizer)
        for value, is_right in [(v, True) for v in right] + [(v, False) for v in wrong]:
            reply = json.dumps(value if keyword == "pattern" else {value: None}, ensure_ascii=False)
            matcher.reset()
            data = list(reply.encode())
            allowed = matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting()
            escaped = any(c in reply for c in ("\\u000", "\\u001"))  # llguidance has its own spelling of controls
            assert allowed == is_right or (is_right and escaped), reply
            assert (grammar.schema.complaint(reply) is None) == is_right, reply


REFUSED = {
    r"\Aa": "\\A", r"a\Z": "\\Z", r"a\z": "\\z", "(?i)a": "(?i): flags", "(?i:a)": "(?i", "(?-s)a": "flags", "(?m)^a$": "flags", "(?x)a b": "flags", "a++": "possessive", "a*+": "possessive", "a?+b": "possessive",
    "a{2}+": "possessive", "(?>a)": "atomic", "(?=a)": "look ahead", "a(?!b)": "look ahead", "(?<=a)b": "look behind", "(?<!a)b": "look behind", r"(a)\1": "a reference back", r"(?<n>a)\k<n>": "a reference back",
    "(?P<n>a)": "(?<name>...)", "(?P=n)": "Python", "(?#c)a": "comment", r"\bx": "edge of a word", r"\Bx": "edge of a word", r"\p{Script=Greek}": "general categories", r"\p{Greek}": "general categories", r"\pL": "general categories",
    "[[:alpha:]]": "POSIX", "[^[:space:]x]": "POSIX", "[x[=a=]]": "POSIX", r"\h": "\\h", r"\R": "\\R", r"\Q*\E": "\\Q", r"\a": "\\a", r"\e": "\\e", r"\N": "\\N", r"\U0001F389": "\\U", r"\x4": "\\x", r"\u12": "\\u", r"\ud83d": "no text",
    r"\u{110000}": "no text", "a{,3}": "{0,n}", "a{3,2}": "larger", "a**": "two quantifiers", "a{2}{3}": "nothing to repeat", "*a": "nothing to repeat", "^*": "repeated", "(^a)*": "repeated", "a^b": "stands before", "a$b": "stands before",
    "(a": "without its )", "a)": "unmatched", "[a": "ends within", "\\": "ends within", "[z-a]": "downwards", "(" * 100 + ")" * 100: "nested", r"\01": "\\0", r"\8": "reference back", "(?": "(?", "(?<1>a)": "(?<1",
}  # fmt: skip


@pytest.mark.parametrize("pattern, says", REFUSED.items(), ids=[p[:20] for p in REFUSED])
def test_construct_is_refused_by_name(pattern, says):
    for keyword, schema in (
        ("pattern", {"pattern": pattern}),
        ("patternProperties", {"patternProperties": {pattern: True}}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of Python's re, which must not see it
            with pytest.raises(FormatError, match="^the JSON schema cannot be enforced: ") as error:
                Grammar.from_schema(schema)
        assert keyword in str(error.value) and says in str(error.value) and "\n" not in str(error.value)


def test_random_patterns_against_re():
    """Where Python's re means the same: 3,000 patterns and 12 texts each."""
    rng, compared = random.Random(2), 0
    parts = [
        "a",
        "b",
        ".",
        "(a|b)",
        "[ab]",
        "[^a]",
        "*",
        "+",
        "?",
        "{2}",
        "{1,3}",
        "|",
        "^",
        "$",
        "(?:ab)",
        r"\d",
        r"\n",
        "c*",
        "(b",
        "x)",
        r"[\w]",
        r"\s",
    ]
    for _ in range(3000):
        pattern = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 8)))
        try:
            found = read_pattern(pattern)
        except PatternError:
            continue
        oracle = re.compile(pattern.replace("$", r"\Z").replace(".", r"[^\n\r\u2028\u2029]"), re.ASCII)
        for _ in range(12):
            string = "".join(rng.choice("ab1\nxc") for _ in range(rng.randrange(6)))
            assert matches(found, string) == bool(oracle.search(string)), (pattern, string)
            compared += 1
    assert compared > 8000


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^([a-z]+)*[0-9]$", "(.*)*x", "^(a?){60}a{60}$"]
)
def test_catastrophic_patterns_are_linear(pattern):
    """Each takes Python's re beyond any patience, in the check of a finished reply."""
    schemas = [{"pattern": pattern}, {"patternProperties": {pattern: {"type": "null"}}, "additionalProperties": False},
               {"patternProperties": {pattern: {"type": "null"}}, "unevaluatedProperties": False}, {"additionalProperties": {"pattern": pattern}}]  # fmt: skip
    bad = "a" * 3000 + "!"
    start = time.process_time()
    for schema, reply in zip(schemas, (bad, {bad: 1}, {bad: 1}, {"p": bad}), strict=True):
        assert Grammar.from_schema(schema).schema.complaint(json.dumps(reply))
    assert time.process_time() - start < 10


def test_check_that_takes_too_long_is_given_up():
    slow = sequence(repeat(ANY, 0, None), text("a"), repeat(ANY, 3000, 3000))
    start = time.process_time()
    with pytest.raises(TooLarge):
        matches(slow, "a" * 6000)
    schema = Grammar.from_schema({"pattern": "a.{3000}$"}).schema
    with pytest.raises(Unchecked, match="too many steps"):
        schema.complaint(json.dumps("a" * 6000))
    assert time.process_time() - start < 20

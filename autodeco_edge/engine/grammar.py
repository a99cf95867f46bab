"""What a reply may be: a JSON schema, a regular expression, GBNF or Lark, as one kind of object.

Owns the reading of each kind and their bounds. Knows no model: ``matcher`` takes
a tokenizer (mask.py), and the mask over the tokens is made there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from . import guidance_words
from .gbnf import MAX_DEPTH, MAX_TEXT, characters, read_gbnf
from .json_references import deepest
from .json_schema import KEYWORDS, Schema, refuse
from .lexemes import fold

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_REGEX = 2**14  # characters
MAX_SYMBOLS = 20000  # of Lark
MAX_CHAIN = 300  # rules within one another: 2,000 overflow the stack

# Any tokenisation of what is allowed may come, and the model chooses: a forced stretch of bytes is not tokenised for it.
_OPTIONS = '%llguidance {"no_forcing": true}\n'
_DIRECTIVE = re.compile(r"%(llguidance|json)\s*(?=\{)")
_LITERALS = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])*/')
_SYMBOL, _NAME = re.compile(r"\w+|[^\w\s]"), re.compile(r"[A-Za-z_]\w*")
_RULE = re.compile(r"(?m)^[ \t]*[?!]*([A-Za-z_]\w*)[^:\n|\"]*:")
# A blank, or a line break and its indentation: llama.cpp's schemas allow about that. More is where a small model gets lost.
_WHITESPACE = {"whitespace_pattern": r" |\n {0,16}|\n\t{0,8}"}
_COMPACT = {"whitespace_flexible": False}
_LIMITS: dict[str, Any] = {
    "max_items_in_row": 10_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 500_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 200_000,
}


@dataclass(frozen=True)
class Grammar:
    """lark: for llguidance; kind: as in "the <kind> was refused"; schema: of a JSON schema, for the check of a reply.
    slow: the same sentences in Lark that llguidance needs less memory for, to follow where ``lark`` gets too complex.
    is_lark: whether the lines of ``lark`` are those of the text that was given, behind our options."""

    lark: str
    kind: str = "grammar"
    schema: Schema | None = None
    slow: str | None = None
    is_lark: bool = False
    _compiled: list[tuple[LLTokenizer, LLMatcher]] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def from_text(cls, text: str, root: str = "root") -> Grammar:
        """GBNF with a rule ``root``, or Lark with a rule start (name: ... in place of name ::= ...). Raises FormatError."""
        _check_text(text, "the grammar")
        if is_lark(text):
            return cls.from_lark(text)
        rules = read_gbnf(text, root)
        slow, quick = _bounded(characters(rules)), fold(rules)
        return cls(slow) if quick is None else cls(_OPTIONS + quick, slow=slow)

    @classmethod
    def from_lark(cls, text: str) -> Grammar:
        """Lark of llguidance. A %json in it is read as any other schema."""
        if len(text) > MAX_TEXT:
            raise FormatError(f"the grammar has {len(text)} characters; allowed {MAX_TEXT}")
        _check_text(text, "the grammar")
        return cls(_bounded(_directives(text)), is_lark=True)

    @classmethod
    def from_regex(cls, pattern: str) -> Grammar:
        """A regular expression that the whole reply matches, with or without ^ and $ around it."""
        if len(pattern) > MAX_REGEX:
            raise FormatError(f"the regular expression has {len(pattern)} characters; allowed {MAX_REGEX}")
        _check_text(pattern, "the regular expression")
        _check_nesting(pattern, "the regular expression")
        inner = pattern.removeprefix("^")
        if inner.endswith("$") and (len(inner) - len(inner[:-1].rstrip("\\"))) % 2 == 1:
            inner = inner[:-1]
        return cls(f"{_OPTIONS}start: TEXT\nTEXT: /{_one_line(inner)}/\n", "regular expression")

    @classmethod
    def from_schema(cls, source: str | Mapping[str, Any] | bool) -> Grammar:
        """A JSON schema, as text or as the value itself."""
        schema = Schema(source)
        return cls(f"{_OPTIONS}start: {_json_of(schema)}\n", "JSON schema", schema)

    def matcher(self, tokenizer: LLTokenizer) -> LLMatcher:
        """Follows one reply; compiled once for all that follow this grammar. Raises FormatError."""
        made = next((matcher for other, matcher in self._compiled if other is tokenizer), None)
        if made is None:
            made = self._compile(tokenizer)
            self._compiled[:] = [(tokenizer, made)]
        return made.deep_copy()

    def _compile(self, tokenizer: LLTokenizer) -> LLMatcher:
        from llguidance import LLMatcher

        matcher = LLMatcher(tokenizer, self.lark, log_level=0, limits=_limits())
        if matcher.is_error() and (slower := self.slower()):
            return slower._compile(tokenizer)
        if matcher.is_error():
            raise self.refusal(matcher.get_error())
        return matcher

    def slower(self) -> Grammar | None:
        return replace(self, lark=self.slow, slow=None, _compiled=[]) if self.slow else None

    def refusal(self, words: str) -> FormatError:
        """llguidance's words as ours, in one line; of a schema with the keyword, which llguidance may not name."""
        if self.schema is not None:
            return refuse(_name_keyword(guidance_words.of_schema(words), self.schema.document))
        if guidance_words.is_of_schema(words):
            return refuse(f"{guidance_words.of_schema(words)} (a %json of the grammar)")
        if self.kind == "regular expression":
            return FormatError(f"the regular expression was refused: {guidance_words.of_regex(words)}")
        first_line = _OPTIONS.count("\n") + 1 if self.is_lark else None
        return FormatError(f"the grammar was refused: {guidance_words.of_grammar(words, first_line)}")


def _is_compact(document: Any) -> bool:
    """The one option of llguidance that a schema may set: none of the others keeps what the schema says."""
    options = document.get("x-guidance") if isinstance(document, dict) else None
    return isinstance(options, dict) and options.get("whitespace_flexible") is False


def _bounded(lark: str) -> str:
    """Lark with our options, once it is known that llguidance, which reads it by recursion, will get to its end."""
    bare = _LITERALS.sub(" _ ", lark)
    _check_nesting(bare, "the grammar")
    if (n := len(_SYMBOL.findall(bare))) > MAX_SYMBOLS:
        raise FormatError(f"the grammar has {n} names, literals and signs; allowed {MAX_SYMBOLS}")
    heads = list(_RULE.finditer(bare))
    ends = [head.start() for head in heads[1:]] + [len(bare)]
    rules = {h[1]: _NAME.findall(bare, h.end(), end) for h, end in zip(heads, ends, strict=True)}
    if deepest(rules, lambda name: [n for n in rules[name] if n in rules], str) > MAX_CHAIN:
        raise FormatError(f"the grammar has rules that lead more than {MAX_CHAIN} deep")
    return _OPTIONS + lark


def _json_of(schema: Schema) -> str:
    """In Lark."""
    if schema.prepared is False:
        raise refuse("false allows no value")
    document = {} if schema.prepared is True else schema.prepared
    blanks = _COMPACT if _is_compact(schema.document) else _WHITESPACE
    return f"%json {json.dumps({**document, 'x-guidance': blanks})}"


def _directives(text: str) -> str:
    """Lark with its schemas checked, and without options of its own: forced tokens would need the model's tokenizer."""
    parts, at = [], 0
    for found in _DIRECTIVE.finditer(text):
        if found.start() < at:
            continue
        try:
            value, end = json.JSONDecoder().raw_decode(text, found.end())
        except (ValueError, RecursionError):
            raise FormatError(f"the grammar was refused: no JSON after %{found[1]}") from None
        breaks = "\n" * text.count("\n", found.start(), end)  # the lines keep their numbers
        schema = "" if found[1] == "llguidance" else _json_of(Schema(value))
        parts += [text[at : found.start()], schema.replace("{", "{" + breaks, 1) or breaks]
        at = end
    return "".join([*parts, text[at:]])


def is_lark(text: str) -> bool:
    return re.search(r"(?m)^\s*(%llguidance\b|start\s*:(?!:))", text) is not None


def _one_line(pattern: str) -> str:
    """As it stands between the slashes of Lark."""
    return re.sub(r"\\.|/|\n", lambda m: {"/": r"\/", "\n": r"\n"}.get(m[0], m[0]), pattern, flags=re.DOTALL)


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{what} holds half of a surrogate pair, which no text can hold") from None


def _check_nesting(text: str, what: str) -> None:
    depth = 0
    for c in text:
        depth += (c in "([{") - (c in ")]}")
        if depth > MAX_DEPTH:
            raise FormatError(f"{what} nests parentheses deeper than {MAX_DEPTH}")


@cache
def _limits() -> Any:
    from llguidance import LLParserLimits

    return LLParserLimits(verbose_errors=False, **_LIMITS)


def _name_keyword(reason: str, document: Any) -> str:
    keywords = sorted(_keywords(document))
    if set(re.findall(r"[$\w]+", reason)) & set(keywords):
        return reason
    return f"{reason} [{', '.join(keywords)}]"


def _keywords(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_keywords, value))
    if not isinstance(value, dict):
        return set()
    return (value.keys() & KEYWORDS) | set().union(*map(_keywords, value.values()))

"""llama.cpp's GBNF, read; and written as Lark of llguidance in the obvious way, with the same sentences.

Owns the syntax and its bounds. llguidance comes with a converter too: it makes a token of every rule that is a regular
expression, and since tokens are greedy, `root ::= word "b"`, `word ::= [a-z]+` then has no sentence at all; it loses
`\\u` escapes, and takes `&&` and `~~` in a class for operators. ``characters`` makes every character a token, so that
greed has nothing to choose from: right, and slow (lexemes.py is the quick one). Differences from llama.cpp: left
recursion is allowed, and `!<token>` is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import FormatError
from .expressions import (
    ANY,
    EMPTY,
    Chars,
    Choice,
    Expression,
    Repeat,
    chars,
    choice,
    one,
    parts_of,
    regex,
    repeat,
    sequence,
    text,
    times,
)

MAX_TEXT = 2**18  # characters
MAX_DEPTH = 100  # of parentheses
MAX_RULES = 5000
MAX_SYMBOLS = 20000  # characters, classes, references and groups
MAX_REPEAT = 2000  # llama.cpp's own limit

_SPACE, _SPACES = re.compile(r"(?:[ \t]|#[^\r\n]*)*"), re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_TOKEN = re.compile(r"<\[\d{1,9}\]>|<[^<>\[\]\s]+>")
_TIMES = re.compile(r"\{\s*(\d{1,9})\s*(,?)\s*(\d{1,9})?\s*\}")
_TIMES_OF: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_HEX = {"x": 2, "u": 4, "U": 8}
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", **{c: c for c in '\\"[]-'}}


@dataclass(frozen=True, eq=False)
class Rule(Expression):
    name: str


@dataclass(frozen=True, eq=False)
class Token(Expression):
    """A token by its number or its text, as Lark has it too."""

    written: str


@dataclass(frozen=True)
class Rules:
    """bodies: each rule's; names: each rule's name in Lark."""

    root: str
    bodies: Mapping[str, Expression]
    names: Mapping[str, str]


def read_gbnf(source: str, root: str = "root") -> Rules:
    """Raises FormatError for what is no GBNF, or too large."""
    if len(source) > MAX_TEXT:
        raise FormatError(f"the grammar has {len(source)} characters; allowed {MAX_TEXT}")
    reader = _Reader(source)
    rules = reader.rules()
    if root not in rules:
        raise FormatError(f"the grammar has no rule named {root}; it needs GBNF with one (name ::= ...)")
    reader.check_names(rules)
    return Rules(root, rules, reader.names)


def characters(rules: Rules) -> str:
    """Lark in which every token is one character: the oracle, and what stands in where pieces are too complex."""

    def lark(node: Expression) -> str:
        if isinstance(node, Chars):
            return literal(node)
        if isinstance(node, Rule):
            return rules.names[node.name]
        if isinstance(node, Token):
            return node.written
        if isinstance(node, Choice):
            return f"({' | '.join(map(lark, node.parts))})"
        if isinstance(node, Repeat):
            return f"({lark(node.part)}){times(node.low, node.high)}"
        return f"({' '.join(map(lark, parts_of(node)))})" if node is not EMPTY else '""'

    lines = [
        f"start: {rules.names[rules.root]}",
        *(f"{rules.names[n]}: {lark(body)}" for n, body in rules.bodies.items()),
    ]
    return "\n".join(lines) + "\n"


def literal(node: Chars) -> str:
    """A token of one character, in Lark."""
    low, high = node.ranges[0]
    c = chr(low)
    return json.dumps(c) if node.ranges == ((low, low),) and c.isascii() and c.isprintable() else f"/{regex(node)}/"


class _Reader:
    """One pass over the text. ``names``: every rule named so far, to its name in Lark."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth, self._symbols = text, 0, 0, 0
        self.names: dict[str, str] = {}
        self._first: dict[str, int] = {}  # where each was named first

    def rules(self) -> dict[str, Expression]:
        found: dict[str, Expression] = {}
        self._skip(_SPACES)
        while self._at < len(self._text):
            name = self._match(_NAME, "the name of a rule")[0]
            self._skip(_SPACE)
            self._expect("::=")
            self._skip(_SPACES)
            self._lark_name(name)
            found[name] = self._alternatives()
            if self._peek() not in ("", "\r", "\n"):
                raise self._error("the end of the rule")
            self._skip(_SPACES)
        return found

    def check_names(self, rules: Mapping[str, Expression]) -> None:
        """Raises FormatError for a name that no rule has."""
        missing = next((name for name in self.names if name not in rules), None)
        if missing is not None:
            raise self._refused(f"no rule is named {missing}", self._first[missing])

    def _alternatives(self) -> Expression:
        parts = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            self._skip(_SPACES)
            parts.append(self._sequence())
        return choice(*parts)

    def _sequence(self) -> Expression:
        items: list[Expression] = []
        while (item := self._item()) is not None:
            self._skip(_SPACES if self._depth else _SPACE)
            while found := self._repetition():
                item = repeat(item, *found)
                self._check_depth(item.depth // 4)
                self._skip(_SPACES if self._depth else _SPACE)
            items.append(item)
        return sequence(*items)

    def _item(self) -> Expression | None:
        c = self._peek()
        read = {'"': self._literal, "[": self._class, "(": self._group, ".": self._any, "<": self._token}.get(c)
        if read is None and not _NAME.match(c):
            return None
        self._count(1)
        return read() if read else self._rule(self._match(_NAME, "a name")[0])

    # ---- items -------------------------------------------------------------------------------

    def _literal(self) -> Expression:
        start = self._at
        self._at += 1
        found = []
        while self._peek() != '"':
            found.append(self._char(start, "the quotation mark"))
        self._at += 1
        self._count(len(found))
        return text("".join(found))

    def _class(self) -> Expression:
        start = self._at
        self._at += 1
        negated = self._take("^")
        members = []
        while self._peek() != "]":
            low = high = self._char(start, "the bracket")
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                high = self._char(start, "the bracket")
            if low > high:
                raise self._refused(f"a range must go upwards; got {low}-{high}", self._at - 3)
            members.append((ord(low), ord(high)))
        self._at += 1
        self._count(len(members))
        found = chars(members, negated)
        if not found.ranges:
            raise self._error("characters between [ and ]")
        return found

    def _group(self) -> Expression:
        start = self._at
        self._at += 1
        self._depth += 1
        self._check_depth(self._depth)
        self._skip(_SPACES)
        inside = self._alternatives()
        if not self._peek():
            raise self._refused("the parenthesis is not closed", start)
        self._expect(")")
        self._depth -= 1
        return inside

    def _any(self) -> Expression:
        self._at += 1
        return ANY

    def _token(self) -> Expression:
        return one(Token, self._match(_TOKEN, "a token, <[id]> or <text>")[0])

    def _rule(self, name: str) -> Expression:
        self._lark_name(name)
        return one(Rule, name)

    def _repetition(self) -> tuple[int, int | None] | None:
        c = self._peek()
        if c in _TIMES_OF:
            self._at += 1
            return _TIMES_OF[c]
        if c != "{":
            return None
        low, comma, high = self._match(_TIMES, "{m}, {m,} or {m,n}").groups()
        low, high = int(low), int(high) if high else None if comma else int(low)
        if max(low, high or 0) > MAX_REPEAT or (high is not None and high < low):
            raise self._error(f"a number of repetitions up to {MAX_REPEAT}, the smaller one first, before this")
        return low, high

    def _char(self, start: int, opened: str) -> str:
        """One of a text or a class that began at ``start``."""
        c = self._peek()
        if c != "\\":
            if not c:
                raise self._refused(f"{opened} is not closed", start)
            self._at += 1
            return c
        kind = self._text[self._at + 1 : self._at + 2]
        if kind in _HEX:
            digits = self._text[self._at + 2 : self._at + 2 + _HEX[kind]]
            if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX[kind]}}}", digits) or not _is_character(int(digits, 16)):
                raise self._error(f"\\{kind} and {_HEX[kind]} hexadecimal digits of a character")
            self._at += 2 + _HEX[kind]
            return chr(int(digits, 16))
        if kind not in _ESCAPES:
            raise self._error('an escape, one of \\n \\r \\t \\\\ \\" \\[ \\] \\- \\x \\u \\U')
        self._at += 2
        return _ESCAPES[kind]

    # ---- the text ----------------------------------------------------------------------------

    def _lark_name(self, name: str) -> str:
        """Lark's rules are in lower case; the number keeps two names apart that differ in less."""
        if name not in self.names:
            if len(self.names) >= MAX_RULES:
                raise FormatError(f"the grammar has more than {MAX_RULES} rules")
            self._first[name] = self._at - len(name)
            self.names[name] = f"r{len(self.names)}_{name.lower().replace('-', '_')}"
        return self.names[name]

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise FormatError(f"the grammar nests parentheses deeper than {MAX_DEPTH}")

    def _count(self, n: int) -> None:
        self._symbols += n
        if self._symbols > MAX_SYMBOLS:
            raise FormatError(f"the grammar has more than {MAX_SYMBOLS} characters, classes and names in its rules")

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, c: str) -> bool:
        found = self._peek() == c
        self._at += found
        return found

    def _skip(self, pattern: re.Pattern[str]) -> None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()

    def _match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        if not found:
            raise self._error(what)
        self._at = found.end()
        return found

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            raise self._error(text)
        self._at += len(text)
        self._skip(_SPACES if self._depth > 1 else _SPACE)

    def _error(self, wanted: str) -> FormatError:
        found = self._text[self._at : self._at + 20].split("\n")[0]
        got = json.dumps(found, ensure_ascii=False) if found else "the end"
        return self._refused(f"expected {wanted}; got {got}", self._at)

    def _refused(self, why: str, at: int) -> FormatError:
        line, column = self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)
        return FormatError(f"the grammar was refused: line {line}, column {column}: {why}")


def _is_character(code: int) -> bool:
    return code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF

"""Regular expressions of ECMA 262, in which a JSON schema writes its patterns, as expressions over whole texts.

Owns the syntax: every construct has its meaning there (mode u, and of Annex B what is plain) or is refused by name.
Python's re and Rust's regex, which jsonschema and llguidance use, read some of them otherwise: \\d and \\w over all of
Unicode, \\s, `.`, $ before a last line break, [[:alpha:]], `&&` in a class, (?i), a++. Knows no JSON (json_schema.py).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

from .expressions import ANY, EMPTY, NEVER, Chars, Choice, Expression, Repeat, chars, choice, parts_of, repeat, sequence

MAX_NODES, MAX_DEPTH = 20_000, 60


class PatternError(ValueError):
    """What of a pattern is refused, in a few words."""


class Edge(Expression):
    """^ or $."""


_BEGIN, _END = Edge(), Edge()
_ALL = repeat(ANY, 0, None)

_DIGIT = chars([(0x30, 0x39)])
_WORD = chars([(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)])
_BREAKS = chars([(0xA, 0xA), (0xD, 0xD), (0x2028, 0x2029)])
_SPACE = chars([
    (0x9, 0xD), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F),
    (0x3000, 0x3000), (0xFEFF, 0xFEFF),
])  # fmt: skip
_SETS = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"t": 0x9, "n": 0xA, "v": 0xB, "f": 0xC, "r": 0xD}
_TIMES = re.compile(r"\{(\d{1,9})(,?)(\d{1,9})?\}")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_LOW = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_PROPERTY = re.compile(r"\{(?:(?:General_Category|gc)=)?([A-Za-z_]+)\}")
_POSIX = re.compile(r"\[[:.=][a-zA-Z]+[:.=]\]")
_CATEGORIES = {
    "Letter": "L", "Cased_Letter": "LC", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll", "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm",
    "Other_Letter": "Lo", "Mark": "M", "Combining_Mark": "M", "Nonspacing_Mark": "Mn", "Spacing_Mark": "Mc", "Enclosing_Mark": "Me", "Number": "N",
    "Decimal_Number": "Nd", "digit": "Nd", "Letter_Number": "Nl", "Other_Number": "No", "Punctuation": "P", "punct": "P", "Connector_Punctuation": "Pc",
    "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe", "Initial_Punctuation": "Pi", "Final_Punctuation": "Pf",
    "Other_Punctuation": "Po", "Symbol": "S", "Math_Symbol": "Sm", "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk", "Other_Symbol": "So",
    "Separator": "Z", "Space_Separator": "Zs", "Line_Separator": "Zl", "Paragraph_Separator": "Zp", "Other": "C", "Control": "Cc", "cntrl": "Cc",
    "Format": "Cf", "Private_Use": "Co", "Unassigned": "Cn",
}  # fmt: skip
_GROUPS = {
    "=": "a look ahead", "!": "a look ahead", "<=": "a look behind", "<!": "a look behind", ">": "an atomic group", "#": "a comment",
    "P": "a name of Python's kind; write (?<name>...)", "|": "a group of Perl",
}  # fmt: skip


@lru_cache(maxsize=1024)
def read_pattern(pattern: str) -> Expression:
    """The texts in which it is found, as a whole each. Raises PatternError."""
    reader = _Reader(pattern)
    found = reader.alternatives()
    if not reader.at_end:
        raise PatternError("an unmatched )")
    whole = _open(_open(found, _BEGIN), _END)
    if whole.size > MAX_NODES or whole.depth > MAX_DEPTH:
        raise PatternError(f"more than {MAX_NODES} parts, or nested deeper than {MAX_DEPTH}")
    if _has_edge(whole):
        raise PatternError("^ or $ where a character stands before or behind")
    return whole


def _open(node: Expression, edge: Expression) -> Expression:
    """With any text at one side, except where ^ or $ stands there."""
    parts = parts_of(node)
    first = edge is _BEGIN
    if node is _ALL:
        return node
    if isinstance(node, Choice):
        return choice(*(_open(part, edge) for part in node.parts))
    outer = (parts[0] if first else parts[-1]) if parts else EMPTY
    rest = parts[1:] if first else parts[:-1]
    if outer is edge:
        return _without(node, edge)
    if isinstance(outer, Choice) and _has_edge(outer):
        opened = _open(outer, edge)
        return sequence(opened, *rest) if first else sequence(*rest, opened)
    return sequence(_ALL, node) if first else sequence(node, _ALL)


def _without(node: Expression, edge: Expression) -> Expression:
    parts = parts_of(node)
    at = 0 if edge is _BEGIN else -1
    while parts and parts[at] is edge:
        parts.pop(at)
    return sequence(*parts)


def _has_edge(node: Expression) -> bool:
    if isinstance(node, Choice):
        return any(map(_has_edge, node.parts))
    if isinstance(node, Repeat):
        return _has_edge(node.part)
    parts = parts_of(node)
    return any(map(_has_edge, parts)) if len(parts) > 1 else isinstance(node, Edge)


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth = pattern, 0, 0

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._pattern)

    def alternatives(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise PatternError(f"parentheses nested deeper than {MAX_DEPTH}")
        found = [self._sequence()]
        while self._take("|"):
            found.append(self._sequence())
        self._depth -= 1
        return choice(*found)

    def _sequence(self) -> Expression:
        parts = []
        while not self.at_end and self._peek() not in "|)":
            parts.append(self._term())
        return sequence(*parts)

    def _term(self) -> Expression:
        start = self._at
        atom = self._atom()
        times = self._quantifier()
        if times is None:
            return atom
        if _has_edge(atom):
            raise PatternError(f"{self._pattern[start : self._at]}: ^ or $ repeated")
        if self._take("+"):
            raise PatternError(f"{self._pattern[start : self._at]}: a possessive quantifier")
        self._take("?")  # lazy: the same texts
        if self._peek() in ("*", "+", "?"):
            raise PatternError(f"{self._pattern[start : self._at + 1]}: two quantifiers in a row")
        return repeat(atom, *times)

    def _atom(self) -> Expression:
        c = self._next()
        if c == "^":
            return _BEGIN
        if c == "$":
            return _END
        if c == ".":
            return chars(_BREAKS.ranges, negated=True)
        if c == "(":
            return self._group()
        if c == "[":
            return self._class()
        if c == "\\":
            return self._escape()
        if c in "*+?" or (c == "{" and re.match(r",?\d*,?\d*\}", self._pattern[self._at :])):
            raise PatternError(f"{c} with nothing to repeat")
        return _char(ord(c))

    def _group(self) -> Expression:
        if self._take("?") and not self._take(":"):
            kind = self._pattern[self._at : self._at + 2]
            if name := re.compile(r"<[A-Za-z_$][\w$]*>").match(self._pattern, self._at):
                self._at = name.end()
            else:
                words = _GROUPS.get(kind) or _GROUPS.get(kind[:1], "flags")
                raise PatternError(f"(?{kind}: {words}")
        inside = self.alternatives()
        if not self._take(")"):
            raise PatternError("a ( without its )")
        return inside

    def _quantifier(self) -> tuple[int, int | None] | None:
        c = self._peek()
        plain: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        if c in plain:
            self._at += 1
            return plain[c]
        found = _TIMES.match(self._pattern, self._at)
        if not found:
            if re.compile(r"\{,\d+\}").match(self._pattern, self._at):
                raise PatternError("{,n}; write {0,n}")
            return None
        self._at = found.end()
        low, high = int(found[1]), int(found[3]) if found[3] else None if found[2] else int(found[1])
        if high is not None and high < low:
            raise PatternError(f"{found[0]}: the larger number first")
        return low, high

    # ---- classes and escapes -------------------------------------------------------------------

    def _class(self) -> Expression:
        if posix := _POSIX.match(self._pattern, self._at):
            raise PatternError(f"{posix[0]}: a class of POSIX; write its characters, as [A-Za-z]")
        negated = self._take("^")
        members: list[tuple[int, int]] = []
        while not self._take("]"):
            if posix := _POSIX.match(self._pattern, self._at):
                raise PatternError(f"{posix[0]}: a class of POSIX; write its characters, as [A-Za-z]")
            low = self._member()
            high = low
            if self._peek() == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
            members += _range(low, high)
        return chars(members, negated) if members or negated else NEVER

    def _member(self) -> Chars:
        c = self._next()
        if c != "\\":
            return _char(ord(c))
        if self._take("b"):
            return _char(0x8)
        if self._take("-"):
            return _char(0x2D)
        return self._escape()

    def _escape(self) -> Chars:
        if found := _HEX.match(self._pattern, self._at):
            self._at = found.end()
            return _char(self._joined(int(found[1] or found[2] or found[3], 16)))
        c = self._next()
        if c.lower() in _SETS:
            return chars(_SETS[c.lower()].ranges, negated=c.isupper())
        if c in _CONTROLS:
            return _char(_CONTROLS[c])
        if c in "pP":
            return self._property(negated=c == "P")
        if c == "0" and not self._peek().isdigit():
            return _char(0)
        if c == "c" and self._peek().isascii() and self._peek().isalpha():
            return _char(ord(self._next()) % 32)
        if c.isalnum() or not c.isascii():
            known = {"b": "the edge of a word", "B": "the edge of a word", "k": "a reference back"}
            raise PatternError(f"\\{c}: {known.get(c, 'a reference back' if c.isdigit() else 'no escape of ECMA 262')}")
        return _char(ord(c))

    def _joined(self, code: int) -> int:
        """The second half of a character that is written in two."""
        if 0xD800 <= code <= 0xDBFF and (low := _LOW.match(self._pattern, self._at)):
            self._at = low.end()
            return 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
        if 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
            raise PatternError(f"U+{code:04X}, which no text holds")
        return code

    def _property(self, negated: bool) -> Chars:
        found = _PROPERTY.match(self._pattern, self._at)
        name = found[1] if found else self._pattern[self._at : self._at + 20]
        special = {"Any": ANY, "ASCII": chars([(0, 0x7F)])}
        members = special.get(name) or _category(_CATEGORIES.get(name, name))
        if not found or members is None:
            raise PatternError(f"\\p{name}: allowed are general categories, as \\p{{L}} or \\p{{Lu}}")
        self._at = found.end()
        return chars(members.ranges, negated)

    # ---- the text ------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        if self.at_end:
            raise PatternError("it ends within a class or an escape")
        self._at += 1
        return self._pattern[self._at - 1]

    def _take(self, c: str) -> bool:
        found = self._peek() == c
        self._at += found
        return found


def _char(code: int) -> Chars:
    return chars([(code, code)])


def _range(low: Chars, high: Chars) -> list[tuple[int, int]]:
    """From low to high; a set at one end makes the hyphen a character."""
    if low is high:
        return list(low.ranges)
    if any(len(one_end.ranges) != 1 or one_end.ranges[0][0] != one_end.ranges[0][1] for one_end in (low, high)):
        return [*low.ranges, (0x2D, 0x2D), *high.ranges]
    first, last = low.ranges[0][0], high.ranges[0][0]
    if first > last:
        raise PatternError(f"a range downwards, from U+{first:04X} to U+{last:04X}")
    return [(first, last)]


@cache
def _categories() -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for code in range(0x110000):
        ranges = found.setdefault(unicodedata.category(chr(code)), [])
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1] = (ranges[-1][0], code)
        else:
            ranges.append((code, code))
    return found


def _category(name: str) -> Chars | None:
    wanted = {"Lu", "Ll", "Lt"} if name == "LC" else {c for c in _categories() if name in (c, c[0])}
    return chars(r for category in wanted for r in _categories()[category]) if wanted else None

"""Regular expressions as values: what a lexeme, a pattern and a piece of a grammar have in common.

Owns their construction, the walk through them by character (partial derivatives: counted repetitions stay counted),
a match in bounded time, and the text that Rust's regex takes. Knows no syntax that a user writes (ecma.py, gbnf.py).

Nodes are equal when they are the same object: they are made by the functions below, and never by their classes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

Ranges = tuple[tuple[int, int], ...]  # code points, both ends in, sorted, apart from one another
Step = tuple["Chars", "Expression"]

LAST = 0x10FFFF
MAX_STEPS = 1_000_000  # of a match: a second or two
_HIGH, _LOW = 0xD7FF, 0xE000  # the surrogates between are in no text


class TooLarge(Exception):
    """A match that takes more than MAX_STEPS."""


@dataclass(frozen=True, eq=False)
class Expression:
    """size: nodes, as written out; depth: nodes within one another; nullable: whether the empty text is one of its."""

    size: int = field(init=False, default=1)
    depth: int = field(init=False, default=1)
    nullable: bool = field(init=False, default=False)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """(characters, what may follow one of them), of all that can begin it."""
        return tuple(dict.fromkeys(_steps(self)))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class Chars(Expression):
    ranges: Ranges

    def __contains__(self, char: int) -> bool:
        at = bisect_right(self.ranges, (char, LAST + 1)) - 1
        return at >= 0 and char <= self.ranges[at][1]

    def meets(self, other: Chars) -> bool:
        return any(low <= b and a <= high for low, high in self.ranges for a, b in other.ranges)

    @cached_property
    def first_bytes(self) -> int:
        """Bit b is set where byte b begins one of the characters in UTF-8."""
        return sum({1 << b for low, high in self.ranges for b in range(_first_byte(low), _first_byte(high) + 1)})


@dataclass(frozen=True, eq=False)
class Empty(Expression):
    def __post_init__(self) -> None:
        self._set(nullable=True)


@dataclass(frozen=True, eq=False)
class Sequence(Expression):
    """first is no sequence; rest is one, or the last part."""

    first: Expression
    rest: Expression

    def __post_init__(self) -> None:
        depth = max(self.first.depth + 1, self.rest.depth + (not isinstance(self.rest, Sequence)))
        self._set(
            size=self.first.size + self.rest.size, depth=depth, nullable=self.first.nullable and self.rest.nullable
        )


@dataclass(frozen=True, eq=False)
class Choice(Expression):
    """Of none: no text at all."""

    parts: tuple[Expression, ...]

    def __post_init__(self) -> None:
        self._set(
            size=1 + sum(p.size for p in self.parts),
            depth=1 + max((p.depth for p in self.parts), default=0),
            nullable=any(p.nullable for p in self.parts),
        )


@dataclass(frozen=True, eq=False)
class Repeat(Expression):
    """high: None for no end."""

    part: Expression
    low: int
    high: int | None

    def __post_init__(self) -> None:
        self._set(size=1 + self.part.size, depth=1 + self.part.depth, nullable=self.low == 0 or self.part.nullable)


# ---- making -------------------------------------------------------------------------------------

_nodes: WeakValueDictionary[Any, Any] = WeakValueDictionary()


def one(kind: type, *fields: Any) -> Any:
    """The node of these fields."""
    found = _nodes.get((kind, *fields))
    return _nodes.setdefault((kind, *fields), kind(*fields)) if found is None else found


EMPTY: Expression = one(Empty)
NEVER: Expression = one(Choice, ())


def chars(ranges: Iterable[tuple[int, int]], negated: bool = False) -> Chars:
    """One character of these ranges, or of none of them."""
    joined: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    if negated:
        edges = [-1, *(edge for pair in joined for edge in pair), LAST + 1]
        joined = [(a + 1, b - 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if a + 1 < b]
    apart = [(a, b) for low, high in joined for a, b in ((low, min(high, _HIGH)), (max(low, _LOW), high)) if a <= b]
    return one(Chars, tuple(apart))


ANY = chars([(0, LAST)])


def text(string: str) -> Expression:
    return sequence(*(chars([(ord(c), ord(c))]) for c in string))


def sequence(*parts: Expression) -> Expression:
    result = parts[-1] if parts else EMPTY
    for part in (p for whole in reversed(parts[:-1]) for p in reversed(parts_of(whole))):
        result = NEVER if NEVER in (part, result) else part if result is EMPTY else one(Sequence, part, result)
    return result


def choice(*parts: Expression) -> Expression:
    flat = [p for part in parts for p in (part.parts if isinstance(part, Choice) else (part,))]
    flat = list(dict.fromkeys(flat))
    return flat[0] if len(flat) == 1 else one(Choice, tuple(flat))


def repeat(part: Expression, low: int, high: int | None) -> Expression:
    if high == 0 or part is EMPTY or (part is NEVER and low == 0):
        return EMPTY
    if part is NEVER or (low, high) == (1, 1) or (part.nullable and (low, high) == (0, 1)):
        return part
    if isinstance(part, Repeat) and part.high is None and high is None and max(part.low, low) <= 1:
        return one(Repeat, part.part, part.low * low, None)
    return one(Repeat, part, 0 if part.nullable else low, high)


def parts_of(node: Expression) -> list[Expression]:
    """In a row: the parts of a sequence; the node itself where it is none."""
    found = []
    while isinstance(node, Sequence):
        found.append(node.first)
        node = node.rest
    return found if node is EMPTY else [*found, node]


# ---- following ----------------------------------------------------------------------------------


def _steps(node: Expression) -> Iterator[Step]:
    while isinstance(node, Sequence):
        yield from ((c, sequence(after, node.rest)) for c, after in node.first.steps)
        if not node.first.nullable:
            return
        node = node.rest
    if isinstance(node, Chars) and node.ranges:
        yield node, EMPTY
    elif isinstance(node, Choice):
        yield from _choice_steps(node.parts)
    elif isinstance(node, Repeat):
        more = repeat(node.part, max(node.low - 1, 0), None if node.high is None else node.high - 1)
        yield from ((c, sequence(after, more)) for c, after in node.part.steps)


def _choice_steps(parts: tuple[Expression, ...]) -> Iterator[Step]:
    """Words that begin alike go on as one, as in a trie: a list of thousands is as quick as its letters are few."""
    words: dict[Chars, list[Expression]] = {}
    for part in parts:
        if isinstance(part, Chars):
            words.setdefault(part, []).append(EMPTY)
        elif isinstance(part, Sequence) and isinstance(part.first, Chars):
            words.setdefault(part.first, []).append(part.rest)
        else:
            yield from part.steps
    yield from ((c, choice(*rests)) for c, rests in words.items() if c.ranges)


def matches(node: Expression, string: str) -> bool:
    """Whether the whole text is one of the expression's. Raises TooLarge rather than to take more than MAX_STEPS."""
    states, left = {node}, MAX_STEPS
    for c in map(ord, string):
        reached = set()
        for state in states:
            left -= 1 + len(state.steps)
            if left < 0:
                raise TooLarge
            reached |= {after for found, after in state.steps if c in found}
        states = reached
    return any(state.nullable for state in states)


# ---- writing ------------------------------------------------------------------------------------


_NONE = r"[^\u{0}-\u{10FFFF}]"


def regex(node: Expression) -> str:
    """As Rust's regex takes it, without a / and in one line."""
    if isinstance(node, Chars):
        if len(node.ranges) == 1 and node.ranges[0][0] == node.ranges[0][1]:
            return _point(node.ranges[0][0])
        return (
            f"[{''.join(f'{_point(a)}-{_point(b)}' if a < b else _point(a) for a, b in node.ranges)}]"
            if node.ranges
            else _NONE
        )
    if isinstance(node, Choice):
        return f"(?:{'|'.join(map(regex, node.parts))})" if node.parts else _NONE
    if isinstance(node, Repeat):
        inner = regex(node.part)
        return f"{inner if isinstance(node.part, Chars | Choice) else f'(?:{inner})'}{times(node.low, node.high)}"
    return "".join(map(regex, parts_of(node)))


def times(low: int, high: int | None) -> str:
    plain = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    return plain or f"{{{low},{'' if high is None else high}}}"


def _first_byte(char: int) -> int:
    return chr(char).encode()[0]


def _point(char: int) -> str:
    return chr(char) if chr(char).isascii() and chr(char).isalnum() else f"\\u{{{char:X}}}"

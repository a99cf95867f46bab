"""GBNF as Lark with tokens as long as they can be, and the same sentences as a token a character.

A mask costs by the tokens of the grammar that a vocabulary's token runs through: free text is quick only as one. But
llguidance's tokens are greedy, and never give a character back. Owns the choice of the pieces: what is regular becomes
one token, as long as no character that could prolong it, or another token that may stand there, can follow it too.
Where one can, the piece is cut in two, down to its characters, where greed has no choice. What may stand and follow
is counted too generously (without the stack), so that the pieces are right, and sometimes shorter than they could be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence as Row
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from .expressions import (
    EMPTY,
    NEVER,
    Chars,
    Choice,
    Expression,
    Repeat,
    choice,
    one,
    parts_of,
    regex,
    repeat,
    sequence,
    times,
)
from .gbnf import Rule, Rules, Token, literal

MAX_SIZE, MAX_NESTING = 20_000, 60  # of a piece
MAX_WORK = (
    1_000_000  # places, pairs of them and steps in these; of a grammar that takes more, characters are the tokens
)
MAX_MEETING = 100_000  # steps of two pieces side by side
_EVERY_BYTE = (1 << 256) - 1


def fold(rules: Rules) -> str | None:
    """Lark; None where the search takes more than its bounds."""
    regular = _regular_rules(rules)
    opened: set[Expression] = set()
    work = _Work()
    try:
        while True:
            pieces = _Pieces(rules, regular, opened)
            work.count(pieces.size)
            cut = {leaf.content for leaf in _greedy(pieces, work)}
            if not cut:
                return pieces.lark()
            opened |= cut
    except _TooMuch:
        return None


class _TooMuch(Exception):
    pass


class _Work:
    left = MAX_WORK

    def count(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise _TooMuch


# ---- what is regular ----------------------------------------------------------------------------


def _regular_rules(rules: Rules) -> dict[str, Expression]:
    """The rules whose sentences an expression has: without recursion, or with it at one end only."""
    needs = {name: set(_named(body)) - {name} for name, body in rules.bodies.items()}
    users: dict[str, set[str]] = defaultdict(set)
    for name, needed in needs.items():
        for one_needed in needed:
            users[one_needed].add(name)
    found: dict[str, Expression] = {}
    ready = [name for name, needed in needs.items() if not needed]
    while ready:
        name = ready.pop()
        solution = _solve(name, rules.bodies[name], found)
        if solution is not None:
            found[name] = solution
            for user in users[name]:
                needs[user].discard(name)
                if not needs[user]:
                    ready.append(user)
    return found


def _named(node: Expression) -> Iterator[str]:
    stack = [node]
    while stack:
        node = stack.pop()
        if isinstance(node, Rule):
            yield node.name
        elif isinstance(node, Choice):
            stack += node.parts
        elif isinstance(node, Repeat):
            stack.append(node.part)
        elif len(parts := parts_of(node)) > 1:
            stack += parts


def _solve(name: str, body: Expression, regular: dict[str, Expression]) -> Expression | None:
    """X ::= a X | b is a* b, and X ::= X a | b is b a*."""
    pure = _pure(body, regular)
    if pure is not None:
        return pure
    for right in (True, False):
        around, end = _linear(body, name, regular, right) or (NEVER, NEVER)
        if end is not NEVER:
            loop = repeat(around, 0, None)
            return _small(sequence(loop, end) if right else sequence(end, loop))
    return None


def _linear(
    node: Expression, name: str, regular: dict[str, Expression], right: bool
) -> tuple[Expression, Expression] | None:
    """(a, b) of a body that is a X | b, or X a | b; None of another."""
    if node is one(Rule, name):
        return EMPTY, NEVER
    if (pure := _pure(node, regular)) is not None:
        return NEVER, pure
    if isinstance(node, Choice):
        parts = [_linear(part, name, regular, right) for part in node.parts]
        known = [part for part in parts if part]
        return (choice(*(a for a, _ in known)), choice(*(b for _, b in known))) if len(known) == len(parts) else None
    if isinstance(node, Repeat) and (node.low, node.high) == (0, 1):
        inner = _linear(node.part, name, regular, right)
        return inner and (inner[0], choice(EMPTY, inner[1]))
    parts_in_row = parts_of(node)
    if len(parts_in_row) < 2:
        return None
    edge = parts_in_row.pop(-1 if right else 0)
    beside, inner = _pure(sequence(*parts_in_row), regular), _linear(edge, name, regular, right)
    if beside is None or inner is None:
        return None
    return tuple(sequence(beside, x) if right else sequence(x, beside) for x in inner)  # type: ignore[return-value]


def _pure(node: Expression, regular: dict[str, Expression]) -> Expression | None:
    """The node without names of rules; None where it is not regular, or too large for a piece."""
    if isinstance(node, Rule):
        return regular.get(node.name)
    if isinstance(node, Token):
        return None
    if isinstance(node, Chars) or node is EMPTY:
        return node
    if isinstance(node, Repeat):
        inner = _pure(node.part, regular)
        return inner and _small(repeat(inner, node.low, node.high))
    found = []
    for part in node.parts if isinstance(node, Choice) else parts_of(node):
        pure = _pure(part, regular)
        if pure is None:
            return None
        found.append(pure)
    return _small(choice(*found) if isinstance(node, Choice) else sequence(*found))


def _small(node: Expression) -> Expression | None:
    return node if node.size <= MAX_SIZE and node.depth <= MAX_NESTING else None


# ---- the pieces ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaf(Expression):
    """A place in the grammar. content: an expression, which is one token there; a Rule, or a Token."""

    number: int
    content: Expression

    @property
    def is_piece(self) -> bool:
        return not isinstance(self.content, Rule | Token)


class _Pieces:
    """The rules with a Leaf for each token. opened: expressions that are none as a whole."""

    def __init__(self, rules: Rules, regular: dict[str, Expression], opened: set[Expression]) -> None:
        self._regular, self._opened, self._n, self._size = regular, opened, 0, 0
        self._sources, self._names = dict(rules.bodies), dict(rules.names)
        self.bodies: dict[str, Expression] = {}
        self._wanted = [rules.root]
        while self._wanted:
            name = self._wanted.pop()
            if name not in self.bodies:
                self.bodies[name] = self._build(one(Rule, name), name)

    @property
    def size(self) -> int:
        """Of all tokens, as written out: what making them costs."""
        return self._size

    def _build(self, node: Expression, rule: str | None = None) -> Expression:
        pure = _pure(node, self._regular)
        if pure is not None and pure not in self._opened:
            return self._leaf(pure)
        if isinstance(node, Rule):
            if node.name == rule:
                return self._build(self._sources[rule])
            self._wanted.append(node.name)
            return self._leaf(node)
        if isinstance(node, Token):
            return self._leaf(node)
        if isinstance(node, Choice):
            return self._alternatives(node.parts)
        if isinstance(node, Repeat):
            return self._repeated(node)
        return self._row(parts_of(node))

    def _leaf(self, content: Expression) -> Expression:
        self._n += 1
        self._size += content.size
        return content if content is EMPTY else one(Leaf, self._n, content)

    def _row(self, parts: list[Expression]) -> Expression:
        """Neighbours that are regular are one piece."""
        built: list[Expression] = []
        run: list[Expression] = []
        size = 0
        for part in parts:
            pure = _pure(part, self._regular)
            if run and (pure is None or size + pure.size > MAX_SIZE):
                built.append(self._run(run))
                run, size = [], 0
            if pure is None:
                built.append(self._build(part))
            else:
                run.append(part)
                size += pure.size
        return sequence(*built, self._run(run) if run else EMPTY)

    def _run(self, parts: list[Expression]) -> Expression:
        """All regular. Where the whole is opened, its last part stands alone: that is most often the greedy one."""
        tail: list[Expression] = []
        while len(parts) > 1:
            whole = sequence(*(_pure(part, self._regular) or NEVER for part in parts))
            if whole not in self._opened:
                return sequence(self._leaf(whole), *tail)
            tail.insert(0, self._build(parts[-1]))
            parts = parts[:-1]
        return sequence(self._build(parts[0]), *tail)

    def _alternatives(self, parts: Row[Expression]) -> Expression:
        pure = {part: found for part in parts if (found := _pure(part, self._regular)) is not None}
        whole = choice(*pure.values())
        if len(pure) < 2 or whole in self._opened or not _small(whole):
            return choice(*map(self._build, parts))
        return choice(self._leaf(whole), *(self._build(part) for part in parts if part not in pure))

    def _repeated(self, node: Repeat) -> Expression:
        """(r | y)* is r* (y r*)*, by which a stretch of what is regular is one piece."""
        regular, others = self._parted(node.part)
        if NEVER in (regular, others) or node.high is not None or node.low > 1:
            return repeat(self._build(node.part), node.low, node.high)

        def turns(low: int) -> Expression:
            return repeat(sequence(self._build(others), self._build(repeat(regular, 0, None))), low, None)

        if node.low == 0:
            return sequence(self._build(repeat(regular, 0, None)), turns(0))
        return choice(sequence(self._build(repeat(regular, 1, None)), turns(0)), turns(1))

    def _parted(self, node: Expression) -> tuple[Expression, Expression]:
        """What of a choice is regular, and the rest; a rule's rest is a rule of its own."""
        body = self._sources[node.name] if isinstance(node, Rule) else node
        parts = body.parts if isinstance(body, Choice) else ()
        regular = choice(*(p for p in parts if _pure(p, self._regular) is not None))
        others = choice(*(p for p in parts if _pure(p, self._regular) is None))
        if isinstance(node, Rule) and others is not NEVER:
            rest = f"{node.name}/"
            self._sources[rest], self._names[rest] = others, f"{self._names[node.name]}_rest"
            others = one(Rule, rest)
        return regular, others

    def lark(self) -> str:
        names: dict[Expression, str] = {}

        def write(node: Expression) -> str:
            if isinstance(node, Leaf):
                content = node.content
                if isinstance(content, Rule):
                    return self._names[content.name]
                if isinstance(content, Token):
                    return content.written
                return literal(content) if isinstance(content, Chars) else names.setdefault(content, f"L{len(names)}")
            if isinstance(node, Choice):
                return f"({' | '.join(map(write, node.parts))})"
            if isinstance(node, Repeat):
                return f"({write(node.part)}){times(node.low, node.high)}"
            return f"({' '.join(map(write, parts_of(node)))})" if node is not EMPTY else '""'

        bodies = [f"{self._names[name]}: {write(body)}" for name, body in self.bodies.items()]
        pieces = [f"{name}: /{regex(piece)}/" for piece, name in names.items()]
        return "\n".join([f"start: {self._names[next(iter(self.bodies))]}", *bodies, *pieces]) + "\n"


# ---- where greed would have a choice ------------------------------------------------------------


def _greedy(pieces: _Pieces, work: _Work) -> set[Leaf]:
    """The leaves that would swallow a character which could also begin what follows them, or what stands in their place."""
    start, after = _places(pieces, work)
    follows = {some: _join(_first_bytes(b.content) for b in some if b.is_piece) for some in {*after.values()}}
    found: set[Leaf] = set()
    seen: set[tuple[Leaf, Leaf]] = set()
    rows, expanded = [(start, start)], {(start, start)}  # tokens that may be asked for at one place
    while rows:
        left, right = rows.pop()
        work.count(len(left) * len(right))
        for pair in product(left, right):
            if pair in seen:
                continue
            seen.add(pair)
            a, b = pair
            next_a, next_b = after.get(a, _NOTHING), after.get(b, _NOTHING)
            if a.is_piece and b.is_piece:
                goes_on, both_end, taken = _meet(a.content, b.content)
                work.count(taken)
                if goes_on & follows.get(next_a, 0):
                    found.add(b)
            else:
                both_end = a is b or not (a.is_piece or b.is_piece)
            if both_end and (next_a, next_b) not in expanded:
                expanded.add((next_a, next_b))
                rows.append((next_a, next_b))
    return found


_NOTHING: frozenset[Leaf] = frozenset()


@lru_cache(maxsize=10_000)
def _meet(a: Expression, b: Expression) -> tuple[int, bool, int]:
    """(first bytes by which b may go on where a text of a has ended, whether they have a text in common, steps taken)."""
    goes_on, both_end, taken = 0, False, 0
    seen: set[tuple[Expression, Expression]] = set()
    stack = [(a, b)]
    while stack:
        x, y = stack.pop()
        taken += len(x.steps) + len(y.steps)  # a row of parts that may all be empty has as many as parts
        for pair in _together(x, y):
            taken += 1
            if taken > MAX_MEETING:
                return _EVERY_BYTE, True, taken
            if pair in seen:
                continue
            seen.add(pair)
            stack.append(pair)
            if pair[0].nullable:
                taken += len(pair[1].steps)
                goes_on |= _first_bytes(pair[1])
                both_end |= pair[1].nullable
    return goes_on, both_end, taken


def _together(x: Expression, y: Expression) -> Iterator[tuple[Expression, Expression]]:
    """Where a character leads that both take."""
    left, right = _by_chars(x), _by_chars(y)
    for c, afters in left.items():
        for d, others in right.items():
            if c.meets(d):
                yield from ((after, other) for after in afters for other in others)


def _by_chars(node: Expression) -> dict[Chars, list[Expression]]:
    found: dict[Chars, list[Expression]] = defaultdict(list)
    for c, after in node.steps:
        found[c].append(after)
    return found


def _first_bytes(node: Expression) -> int:
    return _join(c.first_bytes for c, _ in node.steps)


def _join(bits: Iterator[int]) -> int:
    found = 0
    for some in bits:
        found |= some
    return found


def _places(pieces: _Pieces, work: _Work) -> tuple[frozenset[Leaf], dict[Leaf, frozenset[Leaf]]]:
    """(the tokens that may come first, those that may follow each), as if every rule could return to any of its callers."""
    graph = _Graph(pieces.bodies, work)
    after: dict[Leaf, set[Leaf]] = defaultdict(set)
    for left, rights in graph.after.items():
        starts: set[Leaf] = set().union(*(graph.tokens(right, 0) for right in rights))
        ends = graph.tokens(left, 1)
        work.count(len(ends) * len(starts))
        for end in ends:
            after[end] |= starts
    start = graph.tokens(one(Leaf, 0, one(Rule, next(iter(pieces.bodies)))), 0)
    return frozenset(start), {leaf: frozenset(some) for leaf, some in after.items()}


class _Graph:
    """Which leaf may come after which, in each rule. edges: a rule's first leaves, and its last."""

    def __init__(self, bodies: dict[str, Expression], work: _Work) -> None:
        self.after: dict[Leaf, set[Leaf]] = defaultdict(set)
        self._nullable: set[str] = set()
        self._work = work
        n = -1
        while n < len(self._nullable):
            n = len(self._nullable)
            self._nullable |= {name for name, body in bodies.items() if self._is_nullable(body)}
        self._edges = {name: self._enter(body) for name, body in bodies.items()}

    def tokens(self, leaf: Leaf, side: int) -> set[Leaf]:
        """The tokens at the start (0) or the end (1) of what a leaf stands for."""
        found, stack = {leaf}, [leaf]
        while stack:
            content = stack.pop().content
            new = self._edges[content.name][side] - found if isinstance(content, Rule) else ()
            self._work.count(1 + len(new))
            found |= set(new)
            stack += new
        return {one_found for one_found in found if not isinstance(one_found.content, Rule)}

    def _is_nullable(self, node: Expression) -> bool:
        if isinstance(node, Leaf):
            return node.content.name in self._nullable if isinstance(node.content, Rule) else node.content.nullable
        if isinstance(node, Choice):
            return any(map(self._is_nullable, node.parts))
        if isinstance(node, Repeat):
            return node.low == 0 or self._is_nullable(node.part)
        return all(map(self._is_nullable, parts_of(node)))

    def _enter(self, node: Expression) -> tuple[set[Leaf], set[Leaf]]:
        if isinstance(node, Leaf):
            return {node}, {node}
        if isinstance(node, Choice):
            sides = [self._enter(part) for part in node.parts]
            return set().union(*(first for first, _ in sides)), set().union(*(last for _, last in sides))
        if isinstance(node, Repeat):
            first, last = self._enter(node.part)
            if node.high != 1:
                self._link(last, first)
            return first, last
        return self._enter_row(parts_of(node))

    def _enter_row(self, parts: list[Expression]) -> tuple[set[Leaf], set[Leaf]]:
        first: set[Leaf] = set()
        last: set[Leaf] = set()
        so_far = True
        for part in parts:
            begins, ends = self._enter(part)
            self._link(last, begins)
            nullable = self._is_nullable(part)
            first |= begins if so_far else set()
            last = last | ends if nullable else ends
            so_far = so_far and nullable
        return first, last

    def _link(self, left: set[Leaf], right: set[Leaf]) -> None:
        self._work.count(len(left) * len(right))
        for leaf in left:
            self.after[leaf] |= right

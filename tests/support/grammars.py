"""Random GBNF with recursion on both sides, and the two readings of it held against one another, byte by byte.

As a script it runs the whole campaign:

    python -m tests.support.grammars [N] [SEED]
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import Any

import numpy as np

from .schemas import END, byte_tokenizer

# Grammars that people write: half of one is regular, the other nests.
JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array  ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= "-"? ([0-9] | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
NODES = 'root ::= (text | node)+\nnode ::= "<" (text | node)* ">"\ntext ::= [^<>]+'
LETTERS = "abcé"  # é and è begin with the same byte
_PREFERRED = b"abc\xc3\xa9\xa8"


def random_gbnf(rng: random.Random) -> str:
    """Four rules that may name each other anywhere."""

    def item(depth: int) -> str:
        kind = rng.choice(["letter", "letter", "class", "literal", "rule", "rule"] + ["group", "group"] * (depth < 2))
        body = {
            "letter": lambda: f'"{rng.choice(LETTERS)}"', "class": lambda: rng.choice(["[ab]", "[^a]", "[b-c]", ".", "[éè]", "[^c]"]),
            "literal": lambda: f'"{"".join(rng.choices(LETTERS, k=rng.randrange(1, 4)))}"', "rule": lambda: f"r{rng.randrange(4)}",
            "group": lambda: f"({alternatives(depth + 1, 4)})",
        }[kind]()  # fmt: skip
        return body + rng.choice(["", "", "", "", "?", "*", "+", "{2}", "{0,2}", "{1,}"])

    def sequence(depth: int) -> str:
        return " ".join(item(depth) for _ in range(rng.randrange(1, 4)))

    def alternatives(depth: int, most: int) -> str:
        return " | ".join(sequence(depth) for _ in range(rng.randrange(1, most)))

    return "\n".join([f"root ::= {alternatives(0, 3)}", *(f"r{i} ::= {alternatives(0, 4)}" for i in range(4))])


def mask_of(matcher: Any) -> np.ndarray | None:
    """bool [257]: what may come next; None where the matcher gave up."""
    words = np.zeros(9, dtype=np.uint32)
    matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
    return None if matcher.is_error() else np.unpackbits(words.view(np.uint8), bitorder="little")[: END + 1]


def difference(fast: Any, slow: Any, rng: random.Random, walks: int, length: int = 14) -> tuple[str | None, int]:
    """(a text after which the two matchers allow different bytes, how many masks were compared)."""
    compared = 0
    for _ in range(walks):
        fast.reset(), slow.reset()
        text = b""
        for _ in range(length):
            left, right = mask_of(fast), mask_of(slow)
            if left is None or right is None:
                break
            if (left != right).any():
                return repr(text), compared
            compared += 1
            allowed = [b for b in np.flatnonzero(right).tolist() if b != END]
            choices = [b for b in allowed if b in _PREFERRED] or allowed
            if not choices:
                break
            text += bytes([byte := rng.choice(choices)])
            fast.consume_token(byte), slow.consume_token(byte)
    return None, compared


def check(grammar: str, tokenizer: Any, rng: random.Random, walks: int = 6) -> tuple[str, int]:
    """("same", n), ("WRONG: ...", n), ("refused", 0), or ("characters", 0) where there is only one reading."""
    from autodeco_edge.engine.grammar import Grammar
    from autodeco_edge.errors import FormatError

    try:
        quick = Grammar.from_text(grammar)
        slow = quick.slower()
        if slow is None:
            return "characters", 0
        matchers = quick.matcher(tokenizer), slow.matcher(tokenizer)
    except FormatError:
        return "refused", 0
    text, n = difference(*matchers, rng, walks)
    return (f"WRONG: after {text}", n) if text else ("same", n)


def main(n: int = 400, seed: int = 1) -> int:
    rng, tokenizer, counts = random.Random(seed), byte_tokenizer(), Counter()
    for _ in range(n):
        grammar = random_gbnf(rng)
        outcome, compared = check(grammar, tokenizer, rng)
        counts[outcome.split(":")[0]] += 1
        counts["masks"] += compared
        if outcome.startswith("WRONG"):
            print(outcome, grammar, sep="\n")
    print(dict(counts))
    return int(counts["WRONG"] > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

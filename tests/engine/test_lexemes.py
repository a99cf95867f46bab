"""GBNF in long tokens: the same sentences as a token a character, which is the oracle, and as llama.cpp (test_grammar.py)."""

from __future__ import annotations

import random
import time

import pytest

from autodeco_edge.engine import lexemes
from autodeco_edge.engine.gbnf import characters, read_gbnf
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.lexemes import fold
from tests.support.grammars import JSON, NODES, check, difference, random_gbnf
from tests.support.schemas import byte_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def pieces(grammar: str) -> int:
    """How many tokens of more than a character; 0 where characters are the tokens."""
    lark = fold(read_gbnf(grammar))
    return 0 if lark is None else lark.count("\nL")


@pytest.mark.parametrize("grammar", [
    'root ::= "{" [^}]* ("}" [^}]*)*', 'root ::= word ("b" word)*\nword ::= [a-z]+', "root ::= ws\nws ::= ([ \\t] ws)?", 'root ::= root "a" | "b"',
    'root ::= "a" root | "b" x\nx ::= "c"?', 'root ::= "1. " (a | b)+\na ::= "x"\nb ::= "y" a', 'root ::= "a"{3,2000} .', 'root ::= ("a" |)',
])  # fmt: skip
def test_regular_grammar_is_one_token(grammar, tokenizer):
    lark = fold(read_gbnf(grammar))
    assert lark.splitlines()[:2] == ["start: r0_root", "r0_root: L0"] and lark.count("\n") == 3
    assert check(grammar, tokenizer, random.Random(1), walks=20)[0] == "same"


# Where a token that is too long would take a character that belongs to the next.
TRAPS = [
    'root ::= "(" word "b" root? ")"\nword ::= [a-z]+', 'root ::= "(" [é]+ "è" root? ")"', 'root ::= x x\nx ::= "a"+ | "(" x ")"',
    'root ::= a | b\na ::= "(" a ")" "x" "yz" | "xy" "z"\nb ::= "(" b ")" "x" [y]+ | "x"', 'root ::= "(" ([0-9]+ "0")? root ")" | [0-9]',
    'root ::= (w | n)* "ab"\nw ::= [ab]+\nn ::= "(" root ")"', 'root ::= "a" root "a" | "a"', 'root ::= "ab" root "a" | "a" | "aba"',
    'root ::= l\nl ::= "(" i ("," i)* ","? ")"\ni ::= [a-z]* | l', 'root ::= "(" s root s ")" | "x" s\ns ::= " "*', "root ::= r+\nr ::= [a-b] | [b-c] r [c]",
    'root ::= "if" s root | id s | "(" root ")"\nid ::= [a-z]+\ns ::= " "+', JSON, NODES, 'root ::= x\nx ::= [^a]* "a" | "b" x "é" | ("c" x)* "a"',
    'root ::= (a | "x"){2,3} "y"\na ::= "(" a? ")" | "x"', 'root ::= "a"? "a"? root2\nroot2 ::= "(" root ")" | "a"?',
]  # fmt: skip


@pytest.mark.parametrize("grammar", TRAPS)
def test_tokens_are_no_longer_than_they_may_be(grammar, tokenizer):
    outcome, n = check(grammar, tokenizer, random.Random(5), walks=60)
    assert outcome == "same" and n > 60


def test_random_grammars(tokenizer):
    """A part of `python -m tests.support.grammars`, in a known order."""
    rng, found, masks = random.Random(7), [], 0
    for _ in range(40):
        grammar = random_gbnf(rng)
        outcome, n = check(grammar, tokenizer, rng, walks=2)
        assert not outcome.startswith("WRONG"), (outcome, grammar)
        found.append(outcome)
        masks += n
    assert found.count("same") > 20 and masks > 400


def test_the_comparison_can_fail(tokenizer, monkeypatch):
    """Without the search for greed the traps are fallen into."""
    monkeypatch.setattr(lexemes, "_greedy", lambda *_: set())
    outcomes = [check(grammar, tokenizer, random.Random(5), walks=60)[0] for grammar in TRAPS]
    assert sum(outcome.startswith("WRONG") for outcome in outcomes) >= 6


def test_free_text_is_long_tokens():
    """What the search finds in grammars with recursion: no text is read by its characters."""
    for grammar in (JSON, NODES):
        lark = fold(read_gbnf(grammar))
        assert pieces(grammar) >= 2 and "/[" not in lark.split("\nL0")[0]
    assert pieces('root ::= "(" [^()]* (root [^()]*)* ")"') >= 2


def doubled(n: int) -> str:
    """A grammar of n rules whose text may be empty in 2^n ways."""
    return "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1} r{i + 1}\n" for i in range(n)) + f'r{n} ::= "a"?'


def test_bounds():
    """Grammars at the limits of the reader: an answer in seconds, or characters."""
    many = "root ::= " + " | ".join(f'"k{i}" root' for i in range(3000)) + ' | "x"'
    words = "root ::= " + " | ".join(f'"w{i}"' for i in range(3000)) + ' | "(" root ")"'
    chain = "root ::= r0\n" + "".join(f'r{i} ::= "b" ("c" | r{i + 1} "d"?)*\n' for i in range(280)) + 'r280 ::= "a"'
    tangled = (
        "".join(f"r{i} ::= {' | '.join(f'r{j} [a-c]+' for j in range(60))} | [a-z]\n" for i in range(60))
        + "root ::= r0"
    )
    counted = 'root ::= "(" root ")" | (([ab]{0,2000} "a"){0,2000} "b"){0,2000}'
    for grammar in (many, words, chain, tangled, counted, doubled(18), doubled(60), 'root ::= "a" ' + "?" * 300):
        start = time.process_time()
        fold(read_gbnf(grammar))
        assert time.process_time() - start < 20


def test_grammar_that_gets_too_complex_is_followed_more_slowly(tokenizer):
    """By the oracle, where llguidance takes that and not the long tokens."""
    grammar = Grammar(lark="start: /a/ /(/", slow=characters(read_gbnf('root ::= "ab"')))
    matcher = grammar.matcher(tokenizer)
    assert difference(matcher, Grammar.from_text('root ::= "ab"').matcher(tokenizer), random.Random(1), 3)[0] is None

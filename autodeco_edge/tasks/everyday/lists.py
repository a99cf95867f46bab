"""The word lists of data/ as Python values, read once.

Owns the formats of the three files. Knows no question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("data")


@dataclass(frozen=True)
class Country:
    """names: the usual one first. capitals: spellings of the one capital, () where there is not one alone."""

    names: tuple[str, ...]
    continents: tuple[str, ...]
    capitals: tuple[str, ...]
    neighbours: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


@cache
def countries() -> dict[str, Country]:
    """By usual name."""
    found = {}
    for line in _lines("countries.txt"):
        names, continents, capital, neighbours = (part.strip() for part in line.split("|"))
        capitals = () if capital == "-" else _spellings(capital)
        country = Country(_spellings(names), _parts(continents), capitals, _parts(neighbours))
        found[country.name] = country
    return found


@cache
def things() -> dict[str, tuple[str, ...]]:
    """ "an animal" -> its members, in lower case."""
    return {category: _parts(members) for category, members in _pairs("things.txt")}


@cache
def rhymes() -> tuple[tuple[str, ...], ...]:
    """Sets of words that rhyme, the word to ask about first."""
    return tuple((word, *_parts(others)) for word, others in _pairs("rhymes.txt"))


def _pairs(name: str) -> list[tuple[str, str]]:
    pairs = [line.partition(":") for line in _lines(name)]
    return [(left.strip(), right) for left, _, right in pairs]


def _lines(name: str) -> list[str]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _parts(text: str) -> tuple[str, ...]:
    """What stands between commas, once each."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _spellings(text: str) -> tuple[str, ...]:
    """`Myanmar (Burma)` -> both."""
    name, others = re.fullmatch(r"([^()]+?)(?: \((.*)\))?", text).groups()
    return (name, *_parts(others or ""))

"""Whether a text is well formed: a rule that looks at its shape, never at its sense.

Owns the rule. It catches what a decoder does wrong: texts that break off, loops, stray symbols, other scripts, replies
that are far too short or long. Knows no prompt.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

MAX_CHARACTERS = 20_000
ENDS = ".!?…"
CLOSING = "\"'”’)*_`] \n\t"
LOOP_OF, LOOP_TIMES = 4, 3  # so many words, so often: a loop
DISTINCT_SHARE = 0.85  # of all runs of LOOP_OF words
LONG_WORD = 30  # letters
LATIN_SHARE = 0.98  # of the letters
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_ITEM = re.compile(r"^\s*(?:\d{1,3}[.)]|[-*•])\s+\S", re.MULTILINE)
_RUN = re.compile(r"([^\s.\-=_*\d])\1{4}|(.)\2{19}", re.DOTALL)
_SIGN_OFF = re.compile(r"\n[^\n]{1,60}\Z")  # a letter ends with a name


@dataclass(frozen=True)
class Bounds:
    """Words of a text, and the fewest list items (0: need be no list)."""

    fewest: int
    most: int
    items: int = 0


def faults(text: str, bounds: Bounds) -> list[str]:
    """What is wrong with a text, in words; [] for one that is well formed."""
    if len(text) > MAX_CHARACTERS:
        return ["too long"]
    words = _WORD.findall(text)
    found = {
        "too short": len(words) < bounds.fewest,
        "too long": len(words) > bounds.most,
        "breaks off": not _ends_well(text, bounds),
        "repeats itself": _loops([word.lower() for word in words]) or _same_lines(text),
        "stray symbols": _strays(text),
        "a run of one character": _RUN.search(text) is not None,
        "a word that is none": any(len(word) > LONG_WORD for word in words),
        "another script": not _latin(text),
        "too few points": len(_ITEM.findall(text)) < bounds.items,
    }
    return [fault for fault, there in found.items() if there]


def _ends_well(text: str, bounds: Bounds) -> bool:
    """At a sentence's end; a list may end with its last point, a letter with a name behind a comma or a sentence."""
    text = text.rstrip(CLOSING)
    if text.endswith(tuple(ENDS)):
        return True
    if bounds.items:
        return bool(text) and text[-1].isalnum()
    before = _SIGN_OFF.sub("", text).rstrip(CLOSING)
    return before != text and before.endswith(tuple(ENDS + ",")) and text[-1:].isalpha()


def _loops(words: list[str]) -> bool:
    runs = Counter(zip(*(words[i:] for i in range(LOOP_OF)), strict=False))
    if not runs:
        return False
    return max(runs.values()) >= LOOP_TIMES or len(runs) < DISTINCT_SHARE * sum(runs.values())


def _same_lines(text: str) -> bool:
    lines = [line.strip().lower() for line in text.splitlines() if len(line.strip()) > 3]
    bare = Counter(re.sub(r"^(?:\d+[.)]|[-*•])\s*", "", line) for line in lines)
    return max(bare.values(), default=0) > 1


def _strays(text: str) -> bool:
    """Control characters, characters of no meaning, and template marks."""
    odd = any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs", "Cn") and c not in "\n\t" for c in text)
    return odd or "�" in text or "<|" in text or "|>" in text


def _latin(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    latin = sum(c.isascii() or "LATIN" in unicodedata.name(c, "") for c in letters)
    return latin >= LATIN_SHARE * len(letters)

"""What a reply says: the names, the numbers and the word in it.

Owns the rules by which one answer is taken from free text. The first sentence that holds an answer counts, so that neither a
list of everything that comes to mind nor a second thought is right by chance. Knows no question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

MAX_LENGTH = 4096  # characters looked at: an answer stands near the front

_SENTENCE = re.compile(r"[.!?]+(?=\s|$|[\"*”])|\n")
_DIGITS = re.compile(r"(?<![\w.,])-?\d{1,9}(?:,\d{3})*(?![\w]|[.,]\d)", re.ASCII)
_QUOTED = re.compile(r"\*\*([^*\n]+)\*\*|\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelled(n: int) -> str:
    """0 to 999 in words: "one hundred and twenty-three"."""
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")
    return f"{_ONES[n // 100]} hundred" + (f" and {spelled(n % 100)}" if n % 100 else "")


_VALUES = {spelled(n): n for n in range(1000)}
_VALUES |= {name.replace("-", " "): n for name, n in _VALUES.items()}
_VALUES |= {name.replace(" and ", " "): n for name, n in _VALUES.items()}
_SPELLED = re.compile(
    r"(?<!\w)(" + "|".join(sorted(map(re.escape, _VALUES), key=len, reverse=True)) + r")(?!\w)", re.IGNORECASE
)


def sentences(text: str) -> list[str]:
    """In order; a line break ends one too."""
    return [part for part in _SENTENCE.split(text[:MAX_LENGTH]) if part and part.strip()]


def numbers(text: str) -> list[int]:
    """Whole numbers in order. Where there are digits, words as "one" are no numbers; decimals are none."""
    text = text[:MAX_LENGTH].replace("−", "-")
    if found := _DIGITS.findall(text):
        return [int(number.replace(",", "")) for number in found]
    return [_VALUES[word.lower()] for word in _SPELLED.findall(text)]


def word(text: str) -> str | None:
    """The one word meant, in lower case: the first in quotes or bold, a short reply's first, else the sentence's last."""
    for sentence in sentences(text):
        quoted = [next(filter(None, groups)) for groups in _QUOTED.findall(sentence)]
        words = _WORD.findall(quoted[-1] if quoted else sentence)
        if words:
            short = quoted or len(words) <= 2
            return (words[0] if short else words[-1]).lower()
    return None


class Names:
    """Finds the names of a list in text.

    spellings: how it may be written -> the name. A plural is the name too; letter case does not count.
    """

    def __init__(self, spellings: Mapping[str, str]) -> None:
        self._names = {spelling.lower(): name for spelling, name in spellings.items()}
        longest_first = sorted(map(re.escape, self._names), key=len, reverse=True)
        self._pattern = re.compile(r"(?<!\w)(" + "|".join(longest_first) + r")(?:e?s)?(?!\w)", re.IGNORECASE)

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        return cls({name: name for name in names})

    def first(self, text: str, but: Iterable[str] = ()) -> list[str]:
        """Names of the first sentence that has one, in order, those in ``but`` left out."""
        skip = set(but)
        for sentence in sentences(text):
            found = [name for name in self._in(sentence) if name not in skip]
            if found:
                return found
        return []

    def _in(self, sentence: str) -> list[str]:
        return [self._names[match.lower()] for match in self._pattern.findall(sentence.replace("’", "'"))]


@lru_cache(maxsize=64)
def names_of(names: tuple[str, ...]) -> Names:
    return Names.of(names)

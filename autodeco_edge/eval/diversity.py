"""How much the replies to one prompt differ, and how good a scorer finds them.

Owns the measures. A scorer and the vectors are the caller's: nothing here knows a model. Words are compared in lower case,
punctuation left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UsageError

BLEU_ORDER = 4
_WORD = re.compile(r"\w+(?:['’-]\w+)*")

Scorer = Callable[[str, str], tuple[float, int]]  # (prompt, reply) -> sum of ln p of its tokens, their number


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[str], n: int) -> float:
    """Share of different n-grams among all n-grams of the texts together; 0 where there is none. Raises UsageError for n < 1."""
    if n < 1:
        raise UsageError(f"distinct-n: allowed 1 or more; got {n}")
    grams = [gram for text in texts for gram in _grams(words(text), n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each text against all others (Zhu et al. 2018); 1 = all alike. Raises UsageError for fewer than two.

    An order without a common n-gram counts half a match, one that the text is too short for is left out.
    """
    if len(texts) < 2:
        raise UsageError(f"self-BLEU: allowed two texts or more; got {len(texts)}")
    split = [words(text) for text in texts]
    counts = [[Counter(_grams(w, n)) for w in split] for n in range(1, BLEU_ORDER + 1)]  # [order][text]
    highest = [_two_highest(of_order) for of_order in counts]
    return float(np.mean([_bleu(i, split, counts, highest) for i in range(len(texts))]))


def embedding_distance(vectors: ArrayLike) -> float:
    """Mean cosine distance (0 to 2) between two of the vectors [n, d]: mean hidden states, say. Raises UsageError unless n >= 2."""
    points = np.asarray(vectors, np.float64)
    if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
        raise UsageError(
            f"embedding distance: allowed two finite vectors or more; got an array of shape {points.shape}"
        )
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    unit = points / np.where(norms > 0, norms, 1.0)
    n = len(points)
    return float(1.0 - ((unit.sum(0) ** 2).sum() - (unit**2).sum()) / (n * (n - 1)))


def quality(prompt: str, texts: Sequence[str], scorer: Scorer) -> float:
    """Mean ln p of a token under the scorer, over the tokens of all texts. Raises UsageError where there is no token."""
    scores = [scorer(prompt, text) for text in texts]
    n_tokens = sum(n for _, n in scores)
    if n_tokens < 1:
        raise UsageError("quality: the texts have no token")
    return math.fsum(total for total, _ in scores) / n_tokens


def summary(texts: Sequence[str]) -> dict[str, float]:
    """distinct-1, -2 and -3, self-BLEU and words a text, of the replies to one prompt."""
    found = {f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)}
    if len(texts) > 1:
        found["self_bleu"] = self_bleu(texts)
    return found | {"words": float(np.mean([len(words(text)) for text in texts])) if texts else 0.0}


# ---- BLEU --------------------------------------------------------------------------------


def _grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))


def _two_highest(counts: Sequence[Counter]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """n-gram -> (highest count in a text, that text, second highest): what the others have, whichever text is left out."""
    found: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for i, of_text in enumerate(counts):
        for gram, count in of_text.items():
            first, at, second = found.get(gram, (0, -1, 0))
            found[gram] = (count, i, first) if count > first else (first, at, max(second, count))
    return found


def _bleu(i: int, split: Sequence[Sequence[str]], counts: list[list[Counter]], highest: list[dict]) -> float:
    logs = []
    for of_order, most in zip(counts, highest, strict=True):
        total = sum(of_order[i].values())
        if total:
            shared = sum(min(c, most[g][2] if most[g][1] == i else most[g][0]) for g, c in of_order[i].items())
            logs.append(math.log(max(shared, 0.5) / total))
    if not logs:
        return 0.0
    own = len(split[i])
    nearest = min((abs(len(w) - own), len(w)) for j, w in enumerate(split) if j != i)[1]
    brevity = min(0.0, 1.0 - nearest / own)
    return math.exp(min(0.0, brevity + sum(logs) / len(logs)))

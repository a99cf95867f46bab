"""Measures of diversity against plain definitions and texts whose values are known."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from autodeco_edge.errors import UsageError
from autodeco_edge.eval.diversity import distinct, embedding_distance, quality, self_bleu, summary, words

ALIKE = ["The cat sat on the mat today."] * 5
APART = [" ".join(f"w{10 * i + j}" for j in range(8)) for i in range(5)]


def plain_bleu(text: list[str], others: list[list[str]]) -> float:
    """BLEU-4 as it is written down, one reference list at a time."""
    logs = []
    for n in range(1, 5):
        own = Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))
        if not own:
            continue
        most = Counter()
        for other in others:
            most |= Counter(tuple(other[i : i + n]) for i in range(len(other) - n + 1))
        logs.append(math.log(max(sum(min(c, most[g]) for g, c in own.items()), 0.5) / sum(own.values())))
    nearest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
    return math.exp(min(0.0, min(0.0, 1 - nearest / len(text)) + sum(logs) / len(logs)))


def test_ends_of_the_scales() -> None:
    assert self_bleu(ALIKE) == pytest.approx(1.0)
    assert self_bleu(APART) < 0.1
    assert distinct(APART, 1) == distinct(APART, 3) == 1.0
    assert distinct(ALIKE, 1) == pytest.approx(6 / 35)  # "the" twice in each
    assert distinct([], 2) == distinct(["one"], 2) == 0.0


def test_self_bleu_is_the_mean_of_plain_bleu() -> None:
    rng = random.Random(3)
    for _ in range(20):
        texts = [
            " ".join(rng.choices(["a", "b", "c", "d", "e"], k=rng.randint(1, 12))) for _ in range(rng.randint(2, 6))
        ]
        split = [words(t) for t in texts]
        plain = np.mean([plain_bleu(w, split[:i] + split[i + 1 :]) for i, w in enumerate(split)])
        assert self_bleu(texts) == pytest.approx(plain, abs=1e-12)


def test_embedding_distance_is_the_mean_over_pairs() -> None:
    points = np.random.default_rng(0).normal(size=(7, 5))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    plain = np.mean([1 - a @ b for a, b in itertools.combinations(unit, 2)])
    assert embedding_distance(points) == pytest.approx(plain)
    assert embedding_distance(np.ones((3, 4))) == pytest.approx(0.0)


def test_quality_weighs_tokens_not_texts() -> None:
    scores = {"a": (-1.0, 1), "b": (-9.0, 3)}
    assert quality("p", ["a", "b"], lambda prompt, text: scores[text]) == -2.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: self_bleu(["one"]),
        lambda: distinct(["a"], 0),
        lambda: embedding_distance([[1.0, 2.0]]),
        lambda: embedding_distance([[1.0], [np.nan]]),
        lambda: quality("p", [], lambda *_: (0.0, 1)),
    ],
)
def test_what_has_no_value_is_refused(call) -> None:
    with pytest.raises(UsageError):
        call()


@pytest.mark.parametrize("text", ["", "\0", "😀" * 9, "a" * 100_000, "\ud800"])
def test_any_text_has_a_summary(text: str) -> None:
    assert all(math.isfinite(v) for v in summary([text, "a b", text]).values())

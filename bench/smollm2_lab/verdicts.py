"""Which replies are right, judged by the project's own verifiers in processes beside the device.

Owns the limits of a reply and the groups of kinds.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from typing import Any

import numpy as np

from .sampler import EOS


class Pool:
    """Judges replies in processes that are forked before there is a device. problems: rows of `pack`; vocab: bytes of a token."""

    def __init__(self, problems: list[dict[str, Any]], vocab: list[bytes], n: int, dry: bool = False) -> None:
        _shared.update(problems=problems, vocab=vocab, known={}, judge=by_chance if dry else judge)
        self._pool = multiprocessing.get_context("fork").Pool(n) if n > 1 else None

    def keys(self, asked: list[tuple[int, np.ndarray, bool]]) -> list[str | None]:
        """The key of each reply (problem, tokens, whether it ended), None where it is wrong or was cut."""
        return [key for part in self._map(_keys, asked, 512) for key in part]

    def diversity(self, groups: list[list[np.ndarray]]) -> list[dict[str, float]]:
        """The measures of eval/diversity.py over the replies of each group."""
        return [found for part in self._map(_diversity, groups, 4) for found in part]

    def _map(self, function: Any, items: list, size: int) -> list:
        parts = [items[i : i + size] for i in range(0, len(items), size)]
        return self._pool.map(function, parts, chunksize=1) if self._pool else [function(part) for part in parts]


_shared: dict[str, Any] = {}


def text_of(tokens: np.ndarray) -> str:
    vocab = _shared["vocab"]
    return b"".join(vocab[t] for t in tokens.tolist() if t != EOS).decode("utf-8", "replace")


def _keys(asked: list[tuple[int, np.ndarray, bool]]) -> list[str | None]:
    return [_key(number, tokens.tobytes(), tokens) if ended else None for number, tokens, ended in asked]


def _key(number: int, raw: bytes, tokens: np.ndarray) -> str | None:
    known, row = _shared["known"], _shared["problems"][number]
    if (number, raw) not in known:
        if len(known) > 500_000:
            known.clear()
        right, key = _shared["judge"](row, text_of(tokens))
        known[number, raw] = key if right else None
    return known[number, raw]


def judge(row: dict[str, Any], text: str) -> tuple[bool, str]:
    """By the project's own verifier. reasoning-gym is not there: only families are packed whose right answer is one string."""
    from autodeco_edge.tasks import gym, sources
    from autodeco_edge.tasks.problem import Problem

    problem = Problem(row["id"], (), row["gt"], row["kind"])
    if not sources.is_gym(problem.kind):
        return sources.judge(problem, text)
    answer = gym.answer(text, row["reference"])
    return answer == row["reference"], answer


def by_chance(row: dict[str, Any], text: str) -> tuple[bool, str]:
    """For a dry run with a model that knows nothing: one in three is right."""
    number = seed_of(row["id"], text)
    return number % 3 == 0, str(number % 7)


def _diversity(groups: list[list[np.ndarray]]) -> list[dict[str, float]]:
    from autodeco_edge.eval.diversity import summary

    return [summary([text_of(tokens) for tokens in group]) for group in groups]


def group_of(kind: str) -> str:
    """ "exact", "many" or "write"."""
    return "exact" if kind.startswith("rg:") else kind.partition(":")[0]


LIMITS = {"exact": 48, "many": 40, "write": 200}
CUT = {"exact:story": 64}


def limit_of(kind: str) -> int:
    return CUT.get(kind, LIMITS[group_of(kind)])


def seed_of(*names: object) -> int:
    """63 bits."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, names)).encode()).digest()[:8], "big") >> 1

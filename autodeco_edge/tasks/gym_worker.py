"""reasoning-gym's scoring as lines in and lines out, for the process that `io/child.py` keeps within limits.

One JSON line [gt, text] in, `right` or `wrong` out; gt is itself JSON, [family, settings, seed, number]. Imports nothing of
the package. Some families of the library hand the answer to `eval` or to sympy's parser, which is no better: an answer that
could call anything but a mathematical function never gets there.
"""

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

BLOCK = 500  # problems of one data set; `gym` counts the same way
MAX_ANSWER = 2000
FULL = 1.0 - 1e-9  # the score of a right answer; the library gives parts for answers that are near
FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "abs"]
)
_CALL = re.compile(r"([^\W\d]\w*|[)\]}'\"])\s*\(")


def harmless(answer: str) -> bool:
    """False for what might run code if it were evaluated: a call of anything but FUNCTIONS, a private name, towers of powers."""
    plain = unicodedata.normalize("NFKC", answer)
    if len(answer) > MAX_ANSWER or "__" in plain or plain.count("**") + plain.count("^") > 8 or "lambda" in plain:
        return False
    return all(called.lower() in FUNCTIONS or called == ")" for called in _CALL.findall(plain))


def start() -> Callable[[bytes], bytes]:
    """Raises what the import of reasoning-gym raises."""
    from reasoning_gym.factory import create_dataset

    @lru_cache(maxsize=64)
    def dataset(family: str, settings: str, seed: int):
        return create_dataset(family, seed=seed, size=BLOCK, **json.loads(settings))

    @lru_cache(maxsize=4096)
    def problem(spec: str):
        family, settings, seed, number = json.loads(spec)
        found = dataset(family, json.dumps(settings), seed)
        return found, found[number]

    def answer(line: bytes) -> bytes:
        spec, text = json.loads(line)
        try:
            found, entry = problem(spec)
            right = text == entry["answer"] or (harmless(text) and found.score_answer(text, entry) >= FULL)
        except Exception:  # whatever the library meets in a model's text, the answer is not right
            right = False
        return b"right" if right else b"wrong"

    return answer

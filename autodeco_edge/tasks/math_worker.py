"""math-verify as lines in and lines out, for the process that `io/child.py` keeps within limits.

One JSON line [gt, text] in, `right` or `wrong` out. Imports nothing of the package. `math_pool` owns the wall-clock
limit: math-verify's own works by SIGALRM, which cannot stop a long computation inside C.
"""

import json
import logging
from collections.abc import Callable
from functools import lru_cache


def start() -> Callable[[bytes], bytes]:
    """Raises what the import of math-verify raises."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)

    @lru_cache(maxsize=256)
    def gold(gt: str):
        return parse(f"\\boxed{{{gt}}}", parsing_timeout=None)

    def answer(line: bytes) -> bytes:
        gt, text = json.loads(line)
        try:
            right = verify(gold(gt), parse(text, parsing_timeout=None), timeout_seconds=None)
        except Exception:  # whatever a parser meets in a model's text, the answer is not right
            right = False
        return b"right" if right else b"wrong"

    return answer

"""`serve --draft`: the same completion, and its guesses in the timings."""

from __future__ import annotations

import pytest

from tests.support.serving import serving

pytest.importorskip("fastapi")
REQUEST = {
    "model": "autodeco-demo-q8_0",
    "prompt": "[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2,",
    "max_tokens": 60,
    "seed": 3,
    "temperature": 0.5,
}


def test_a_completion_is_the_same_with_drafts():
    found = []
    for more in ((), ("--draft", "ngram", "--draft-cost", "0.05")):
        with serving("-t", "1", "--parallel", "1", *more) as served:
            answer = served.post("/v1/completions", REQUEST).json()
            found.append((answer["choices"][0]["text"], answer["choices"][0]["finish_reason"], answer["timings"]))
    (text, reason, plain), (again, same_reason, drafted) = found
    assert (text, reason) == (again, same_reason) and text
    assert plain["draft_n"] == 0 < drafted["draft_n_accepted"] <= drafted["draft_n"]

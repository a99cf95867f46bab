"""`run --draft`: the same lines, and a word about the guesses."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from autodeco_edge.engine.pairing import demo_model
from tests.support import warm

PROMPT = "[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2,"


def run(*args: str, code: int = 0):
    done = warm.run("run", PROMPT, "--raw", "-m", demo_model(), "-t", "1", "-n", "60", *args, text=True)
    assert done.returncode == code, done.stderr
    return done


def lines(*args: str) -> tuple[list[dict], dict]:
    """Tokens, and the times of the summary, which is the rest of it."""
    *tokens, summary = map(json.loads, run("--jsonl", *args).stdout.splitlines())
    timings = summary.pop("timings")
    return [*tokens, summary], timings


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_jsonl_is_the_same_with_drafts(home, seed):
    want, timings = lines("--seed", seed, "--temp", "0.5")
    assert timings["draft_n"] == timings["draft_n_accepted"] == 0
    got, timings = lines("--seed", seed, "--temp", "0.5", "--draft", "ngram", "--draft-cost", "0")
    assert got == want
    assert timings["draft_n"] >= timings["draft_n_accepted"] > 0


def test_the_line_under_a_reply_says_how_many_guesses_were_right(home):
    done = run("--seed", "1", "--temp", "0", "--draft", "ngram", "--draft-cost", "0")
    assert " guesses right · " in done.stderr
    assert "guesses" not in run("--seed", "1", "--temp", "0", "--draft", "off").stderr


def test_a_draft_model_by_its_path(home, letters, tmp_path):
    """In the home folder too; another vocabulary is refused, and what is drafted with is not written over."""
    (tmp_path / "small.gguf").symlink_to(demo_model())
    want, _ = lines("--seed", "1")
    assert lines("--seed", "1", "--draft", str(tmp_path / "small.gguf"))[0] == want
    assert "has another vocabulary" in run("--draft", str(letters.gguf), code=65).stderr
    assert "no such model file" in run("--draft", str(tmp_path / "none.gguf"), code=66).stderr
    refused = run("--draft", str(tmp_path / "small.gguf"), "--trace", str(tmp_path / "small.gguf"), code=2)
    assert "small.gguf" in refused.stderr and refused.stderr.count("\n") == 1


def test_a_draft_model_that_does_not_fit_beside_its_target_is_refused(home, tmp_path):
    """In one line, before anything is loaded: its file says 200 GB, as far as the disk has to know."""
    large = tmp_path / "large.gguf"
    shutil.copy(demo_model(), large)
    os.truncate(large, 200 * 2**30)
    done = run("--draft", str(large), code=71)
    assert "autodeco-demo-q8_0.gguf with its draft model needs" in done.stderr and "is free" in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--draft", "n-gram"), "draft: allowed ngram"),
        (("--draft", "ngram", "--draft-max", "63"), "draft max: allowed 1 to 62"),
        (("--draft", "ngram", "--draft-cost", "-1"), "draft cost: allowed 0 to 1"),
        (
            ("--draft", "ngram", "-c", "17", "--draft-max", "16"),
            "16 tokens at once need a context of 18, this one has 17",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(home, arguments, words):
    done = run(*arguments, code=2)
    assert words in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""

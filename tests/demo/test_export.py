"""The GGUF of the demo base against Hugging Face: same ids, same logits, same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo.tokenizer import CHAT_TEMPLATE, VOCAB_SIZE, load_tokenizer
from tests.support.stock import open_stock

NASTY = [
    "",
    " ",
    "  ",
    "   x",
    "x   ",
    "\n",
    "\n\n\n",
    " \n ",
    "\t\tx\r\ny",
    "a\n\nb",
    "a \n b",
    "line\r\n",
    "0",
    "12345",
    "1 2  3",
    "3.14159",
    "47 + 38 = 85",
    "\\boxed{37 + 46}",
    "I'm you're we'LL it'S they've he'd",
    "Hello, world!",
    "don’t",
    "naïve café Ünïcödé",
    "cafe\u0301",
    "ﬁ ligature ½ ² Ⅳ ٣٤",
    "日本語のテキスト",
    "한국어",
    "Привет, мир",
    "שלום עולם",
    "مرحبا",
    "नमस्ते",
    "🙂",
    "👩‍👩‍👧‍👦 family",
    "🇫🇷🇯🇵",
    "a\u200bb",
    "\u00a0nbsp\u3000wide",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>",
    "x<|im_end|>y",
    "<|im_end",
    "<|im_start|><|im_start|>",
    "<think>",
    "def f(x):\n    return x**2  # comment\n",
    '{"a": [1, null]}',
    "http://www.example.com/?q=1&r=%20",
    "!!!???...",
    "--==>>",
    "____",
    "\\n",
    "ALLCAPS MiXeD",
    "a" * 300,
    "9" * 50,
    " " * 40 + "end",
    "\x00\x01\x7f",
    "tab\tsep",
    "end with space ",
    "\u2028line sep",
]


@pytest.fixture(scope="module")
def llama(tiny_gguf: Path):
    return open_stock(tiny_gguf, n_ctx=256, logits_all=True)


@pytest.mark.parametrize("text", NASTY)
def test_ids_equal_in_llama_cpp_and_hugging_face(llama, tiny_dir: Path, text: str) -> None:
    expected = load_tokenizer(tiny_dir)(text, add_special_tokens=True)["input_ids"]
    # The BOS rule of the file (none) must hold too, hence add_bos=True.
    assert llama.tokenize(text.encode(), add_bos=True, special=True) == expected


@pytest.mark.parametrize("text", NASTY)
def test_text_survives_the_round_trip(tiny_dir: Path, text: str) -> None:
    tokenizer = load_tokenizer(tiny_dir)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_ids_and_template(llama, tiny_dir: Path) -> None:
    tokenizer = load_tokenizer(tiny_dir)
    assert len(tokenizer) == VOCAB_SIZE == llama.n_vocab()
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [2045, 2046, 2047]
    assert llama.token_eos() == tokenizer.eos_token_id == 2047
    assert llama.metadata["tokenizer.chat_template"] == CHAT_TEMPLATE
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def _hf_logits(directory: Path, ids: list[int]) -> np.ndarray:
    import torch

    from demo.decode import load_base

    with torch.inference_mode():
        return load_base(directory)[0](torch.tensor([ids])).logits[0].numpy()  # [tokens, vocab]


def _llama_logits(llama, ids: list[int]) -> np.ndarray:
    llama.reset()
    llama.eval(ids)
    return np.array(llama.scores[: len(ids)], np.float32)


def test_logits_agree(llama, tiny_dir: Path) -> None:
    ids = load_tokenizer(tiny_dir)(
        "<|im_start|>user\nFind two numbers that make 83.<|im_end|>\n<|im_start|>assistant\n"
    )["input_ids"]
    expected, got = _hf_logits(tiny_dir, ids), _llama_logits(llama, ids)
    # llama.cpp keeps K and V in f16: about 1e-3 of the logits' own spread.
    assert expected.std() > 0.5
    assert np.abs(got - expected).max() < 1e-2 * expected.std()


def test_quantised_logits_are_near(tiny_dir: Path, tmp_path: Path) -> None:
    from demo.export import export_gguf

    path = export_gguf(tiny_dir, tmp_path / "q8.gguf", "q8_0")
    ids = load_tokenizer(tiny_dir)("Tell me a story about a fox.")["input_ids"]
    llama = open_stock(path, n_ctx=64, logits_all=True)
    expected = _hf_logits(tiny_dir, ids)
    assert np.abs(_llama_logits(llama, ids) - expected).max() < 0.15 * expected.std()


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0"])
def test_same_bytes_each_time_and_nothing_left_behind(tiny_dir: Path, tmp_path: Path, outtype: str) -> None:
    from demo.export import export_gguf

    first, second = (export_gguf(tiny_dir, tmp_path / name, outtype).read_bytes() for name in ("a.gguf", "b.gguf"))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "b.gguf"]


def test_unknown_outtype_is_refused(tiny_dir: Path, tmp_path: Path) -> None:
    from demo.export import export_gguf

    with pytest.raises(ValueError, match="q4_0.*f32, f16, q8_0"):
        export_gguf(tiny_dir, tmp_path / "x.gguf", "q4_0")

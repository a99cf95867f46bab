"""Records to token ids: masks, BOS, EOS, truncation, and one clear line for each bad record."""

from __future__ import annotations

import json

import pytest
import torch

from autodeco_edge.errors import FormatError, MissingInputError
from autodeco_edge.train.batches import batches_of, collate, split_validation
from autodeco_edge.train.data import Encoder, TrainingSample, load_dataset
from autodeco_edge.train.losses import IGNORE

EOS, BOS = 2, 3


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer):
    return make_tokenizer()


def write(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def test_prompt_is_masked_and_eos_is_appended_once(tmp_path, tokenizer):
    path = write(tmp_path, {"prompt": "one plus", "completion": " two"}, {"prompt": "", "completion": "two<|im_end|>"})
    first, second = load_dataset(path, tokenizer, 64).samples
    assert tokenizer.decode(first.ids[: first.n_prompt]) == "one plus"
    assert tokenizer.decode(first.ids[first.n_prompt :]) == " two<|im_end|>"
    assert second.n_prompt == 0 and second.ids.count(EOS) == 1


@pytest.mark.parametrize(
    "adds_bos, prompt, n_bos", ((True, "one", 1), (True, "<s>one", 1), (False, "<s>one", 1), (False, "one", 0))
)
def test_only_a_doubled_automatic_bos_is_dropped(make_tokenizer, adds_bos, prompt, n_bos):
    tokenizer = make_tokenizer(adds_bos)
    sample = Encoder(tokenizer)(prompt, " two")
    assert sample.ids.count(BOS) == n_bos
    assert tokenizer.decode(sample.ids, skip_special_tokens=True) == "one two"  # gap 13: no first token lost
    assert tokenizer.decode(sample.ids[sample.n_prompt :]) == " two<|im_end|>"


def test_chat_records_use_the_template(tmp_path, tokenizer):
    messages = [
        {"role": "system", "content": "add"},
        {"role": "user", "content": "one plus two"},
        {"role": "assistant", "content": "three"},
    ]
    (sample,) = load_dataset(write(tmp_path, {"messages": messages}), tokenizer, 256).samples
    assert tokenizer.decode(sample.ids[: sample.n_prompt]) == (
        "<|im_start|>system\nadd<|im_end|>\n<|im_start|>user\none plus two<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(sample.ids[sample.n_prompt :]) == "three<|im_end|>"


def test_truncation_keeps_the_first_tokens(tmp_path, tokenizer):
    long, short = {"prompt": "one", "completion": " two" * 50}, {"prompt": "one " * 50, "completion": "two"}
    data = load_dataset(write(tmp_path, long, short), tokenizer, 20)
    assert [len(s.ids) for s in data.samples] == [20]
    assert (data.n_truncated, data.n_dropped) == (2, 1)
    with pytest.raises(FormatError, match="no completion left within 20 tokens"):
        load_dataset(write(tmp_path, short), tokenizer, 20)


GOOD = {"prompt": "one", "completion": "two"}
USER, ASSISTANT = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
BAD = {
    "no completion": ({"prompt": "one"}, '"completion" missing'),
    "no prompt": ({"completion": "one"}, '"prompt" missing'),
    "prompt not text": ({"prompt": 3, "completion": "x"}, '"prompt" must be a string, got int'),
    "completion not text": ({"prompt": "x", "completion": None}, '"completion" must be a string, got NoneType'),
    "broken json": (b'{"prompt": "x", ', "not valid JSON"),
    "not an object": ([1, 2], "expected a JSON object, got list"),
    "not utf-8": (b'{"prompt": "\xff"}', "not UTF-8"),
    "deep json": (b"[" * 100_000, "not valid JSON"),
    "messages not a list": ({"messages": "hi"}, "list of objects"),
    "messages too short": ({"messages": [ASSISTANT]}, "at least two"),
    "last not assistant": ({"messages": [USER, USER]}, 'last with role "assistant"'),
    "no content": ({"messages": [{"role": "user"}, ASSISTANT]}, '"content" missing'),
    "empty role": ({"messages": [{"role": "", "content": "x"}, ASSISTANT]}, '"role" is empty'),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_name_file_and_line(tmp_path, tokenizer, name):
    record, message = BAD[name]
    path = write(tmp_path, GOOD, b"", record)
    with pytest.raises(FormatError) as caught:
        load_dataset(path, tokenizer, 64)
    assert str(caught.value).startswith(f"{path}:3: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_answer_is_dropped_and_counted(tmp_path, tokenizer):
    empty = {"prompt": "x", "completion": ""}, {"messages": [USER, {"role": "assistant", "content": ""}]}
    data = load_dataset(write(tmp_path, empty[0], GOOD, empty[1], GOOD), tokenizer, 64)
    assert (len(data.samples), data.n_dropped) == (2, 2)
    assert [s.index for s in data.samples] == [0, 1]
    with pytest.raises(FormatError, match="no completion left.*2 records dropped"):
        load_dataset(write(tmp_path, *empty), tokenizer, 64)


def test_missing_and_empty_files(tmp_path, tokenizer):
    with pytest.raises(MissingInputError, match="no such file"):
        load_dataset(tmp_path / "none.jsonl", tokenizer, 64)
    with pytest.raises(FormatError, match="no completion left"):
        load_dataset(write(tmp_path), tokenizer, 64)


def test_collate_pads_on_the_right():
    batch = collate([TrainingSample([5, 6, 7], 1), TrainingSample([8, 9, 10, 11, 2], 3)], pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0, 0], [8, 9, 10, 11, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7, IGNORE, IGNORE], [IGNORE] * 3 + [11, 2]]


def test_batches_hold_every_sample_once_and_similar_lengths():
    samples = [TrainingSample(list(range(2 + i % 37)), 1) for i in range(203)]
    batches = batches_of(samples, 8, torch.Generator().manual_seed(1))
    assert sorted(id(s) for b in batches for s in b) == sorted(map(id, samples))
    assert batches == batches_of(samples, 8, torch.Generator().manual_seed(1))
    assert batches != batches_of(samples, 8, torch.Generator().manual_seed(2))
    padded = sum(len(b) * max(len(s.ids) for s in b) for b in batches)
    assert padded < 1.15 * sum(len(s.ids) for s in samples)


def test_split_is_a_partition():
    samples = [TrainingSample([i, 1], 1) for i in range(40)]
    train, held = split_validation(samples, 0.1, torch.Generator().manual_seed(1))
    assert len(held) == 4 and {s.ids[0] for s in train + held} == set(range(40))
    assert len(split_validation(samples, 0.0, torch.Generator())[1]) == 0
    assert [len(x) for x in split_validation(samples[:1], 0.5, torch.Generator())] == [1, 0]

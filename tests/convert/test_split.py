"""Models split into parts: the same heads, the same fingerprints, the same forecast as the whole file."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.convert.merge import merge_single_file
from autodeco_edge.convert.verify import check_base, read_heads_gguf, verify_file
from autodeco_edge.engine import memory
from autodeco_edge.errors import FormatError, MismatchError, MissingInputError
from autodeco_edge.hub.heads import base_info, fingerprint
from autodeco_edge.hub.inspect import inspect
from convert_makers import make_base, make_folder
from tests.support.split_model import split_model

NORM = ["output_norm.weight"]
LAYOUTS = {  # where the norm lies: in the first, a middle, the last part; and a first part of metadata only
    "norm first": [NORM, ["token_embd.weight"], []],
    "norm between": [["token_embd.weight"], NORM, []],
    "norm last": [["token_embd.weight"], []],
    "metadata only": [[], ["token_embd.weight"], []],
    "a part without tensors": [[], NORM + ["token_embd.weight"], []],
}


@pytest.fixture
def whole(tmp_path):
    return make_base(tmp_path / "whole.gguf")


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS)
def parts(request, whole, tmp_path):
    return split_model(whole, tmp_path / "split", request.param)


def identity(path):
    file, info = open_base(path)
    file.close()
    return info


def test_a_split_model_is_who_the_whole_one_is(whole, parts):
    expected, found = identity(whole), identity(parts[0])
    assert found.tokenizer_sha256 and found.norm_sha256
    assert found.files == tuple(parts) and expected.files == (whole,)
    assert dataclasses.replace(found, path=expected.path, files=expected.files) == expected
    assert fingerprint(base_info(parts[0])) == fingerprint(base_info(whole))


def test_convert_with_the_first_part_as_base(whole, parts, tmp_path):
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    for base, name in ((whole, "a.gguf"), (parts[0], "b.gguf")):
        write_heads(checkpoint, tmp_path / name, base=identity(base))
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    check_base(read_heads_gguf(tmp_path / "b.gguf"), identity(whole))
    other = identity(make_base(tmp_path / "other.gguf", seed=8))
    with pytest.raises(MismatchError, match="output_norm"):
        check_base(read_heads_gguf(tmp_path / "b.gguf"), other)


def test_a_merged_file_that_was_split_verifies(whole, tmp_path):
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    merge_single_file(checkpoint, whole, tmp_path / "one.gguf")
    parts = split_model(tmp_path / "one.gguf", tmp_path / "split", LAYOUTS["norm last"])
    assert len(verify_file(checkpoint, parts[0])) == 9
    facts = inspect(parts[0])
    assert facts["heads"]["fits"] and facts["parts"] == 2


def test_merge_wants_one_file(parts, tmp_path):
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    with pytest.raises(FormatError, match="llama-gguf-split --merge.*convert"):
        merge_single_file(checkpoint, parts[0], tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


def test_tensors_are_read_out_of_their_parts(whole, parts):
    one, _ = open_base(whole)
    many, _ = open_base(parts[0])
    with one, many:
        assert many.tensors.keys() == one.tensors.keys()
        for name, tensor in one.tensors.items():
            assert many.tensor_bytes(name) == one.tensor_bytes(name)
            assert many.read_tensor(name, 4, tensor.nbytes - 8) == one.tensor_bytes(name)[4:-4]
        n_open = len(many.parts)
    assert n_open == len(parts) - 1 and all(part._fd == -1 for part in many.parts)


def test_the_forecast_is_of_the_sum_of_the_parts(whole, parts):
    expected, found = memory.forecast(whole), memory.forecast(parts[0])
    assert found.weights == sum(path.stat().st_size for path in parts)
    assert dataclasses.replace(found, weights=0) == dataclasses.replace(expected, weights=0)
    parts[1].unlink()
    assert memory.forecast(parts[0]) is None


def test_through_links_as_in_the_hub_cache(parts, tmp_path):
    """A snapshot links every part to a blob under its checksum: the names of the parts are those of the links."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for i, path in enumerate(parts):
        shutil.move(path, tmp_path / "blobs" / f"{i:064x}")
        os.symlink(f"../blobs/{i:064x}", tmp_path / "snapshot" / path.name)
    assert identity(tmp_path / "snapshot" / parts[0].name).norm_sha256


def test_what_is_wrong_with_a_part_is_said(parts, tmp_path):
    number = len(parts)
    with pytest.raises(FormatError, match=f"part {number} of {number} of a split model; give the first part, m-00001"):
        open_base(parts[-1])
    renamed = parts[0].with_name("model.gguf")
    shutil.copy(parts[0], renamed)
    with pytest.raises(FormatError, match="under another name; its name must end in -00001-of-"):
        open_base(renamed)
    backup = parts[-1].read_bytes()
    shutil.copy(parts[0], parts[-1])
    with pytest.raises(
        FormatError, match=f"its keys say split.no 0, split.count {number}; by its name it is part {number}"
    ):
        open_base(parts[0])
    parts[-1].write_bytes(backup[:40])
    with pytest.raises(FormatError, match="m-0000"):
        open_base(parts[0])
    parts[-1].unlink()
    with pytest.raises(MissingInputError, match=f"no such file \\(part {number} of {number}"):
        open_base(parts[0])
    os.mkfifo(parts[-1])
    with pytest.raises(FormatError, match="a pipe"):
        open_base(parts[0])


def test_a_tensor_in_two_parts(whole, tmp_path):
    parts = split_model(whole, tmp_path / "split", [["token_embd.weight"], []])
    again = split_model(whole, tmp_path / "again", [[], []])
    shutil.copy(again[1], parts[1])
    with pytest.raises(FormatError, match="'token_embd.weight' lies in an earlier part too"):
        open_base(parts[0])


@pytest.mark.parametrize("number, count", [(0, 60_000), (7, 3), (0, 1000)])
def test_impossible_numbers(whole, tmp_path, number, count):
    import struct

    (first, _) = split_model(whole, tmp_path / "split", [[], []])
    data = first.read_bytes()
    for key, value in ((b"split.no", number), (b"split.count", count)):
        at = data.index(key) + len(key) + 4
        data = data[:at] + struct.pack("<H", value) + data[at + 2 :]
    first.write_bytes(data)
    with pytest.raises(FormatError, match="of a split model|allowed: up to 999 parts"):
        open_base(first)


def test_the_engine_takes_heads_with_fingerprints(tmp_path):
    """A split model and heads that record whose they are; the draws are those of the whole model."""
    from autodeco_edge.engine.engine import Engine
    from autodeco_edge.engine.sampler import SamplingParams
    from tests.support.letters import make_letters

    letters = make_letters(tmp_path)
    parts = split_model(letters.gguf, tmp_path / "split", [[], ["token_embd.weight"], []])
    replies = []
    for model in (letters.gguf, parts[0]):
        with Engine(model, heads=letters.heads, n_ctx=64, n_threads=1) as engine:
            steps = engine.generate([1, 2, 3], SamplingParams(seed=3), max_tokens=8, stop_at_end=False)
            replies.append(list(steps))
    assert replies[0] == replies[1] and len(replies[0]) == 8
    other = split_model(make_base(tmp_path / "other.gguf"), tmp_path / "other", [[], []])
    with pytest.raises(MismatchError):
        Engine(other[0], heads=letters.heads, n_ctx=64, n_threads=1)

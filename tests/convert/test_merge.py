"""The single file: the base untouched inside it, the heads whole, stock llama.cpp content."""

import os
import struct

import gguf
import numpy as np
import pytest

from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.convert.merge import merge_single_file
from autodeco_edge.convert.verify import read_heads_gguf, verify_file
from autodeco_edge.errors import FormatError, MismatchError, StorageError, UsageError
from autodeco_edge.gguf import keys as fmt
from autodeco_edge.gguf.reader import GGUFFile
from convert_makers import N_EMBD, N_HIDDEN, make_base, make_config, make_folder, make_heads

MEANS = {"autodeco_mean_temperature": 0.8, "autodeco_mean_top_p": 0.9}


@pytest.fixture
def checkpoint(tmp_path):
    return read_checkpoint(make_folder(tmp_path / "heads", config=make_config(**MEANS)))


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base.gguf")


def contents(path):
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return keys, {t.name: (t.tensor_type, tuple(map(int, t.shape)), t.data.tobytes()) for t in reader.tensors}


def test_base_is_untouched_and_the_heads_are_added(tmp_path, checkpoint, base):
    out = tmp_path / "merged.gguf"
    written = merge_single_file(checkpoint, base, out)
    assert written.n_bytes == out.stat().st_size
    base_keys, base_tensors = contents(base)
    keys, tensors = contents(out)
    assert tensors == base_tensors
    assert list(keys)[: len(base_keys)] == list(base_keys)
    assert {k: keys[k] for k in base_keys} == base_keys
    added = {k: v for k, v in keys.items() if k not in base_keys}
    assert added["general.sampling.temp"] == np.float32(0.8) and added["general.sampling.top_p"] == np.float32(0.9)
    assert added["autodeco.architecture"] == "llama"
    assert added["autodeco.tensor.temp.fc1.weight.type"] == 30
    assert added["autodeco.tensor.temp.fc1.weight.shape"] == [N_EMBD, N_HIDDEN]
    bits = np.array(added["autodeco.tensor.temp.fc1.weight.data"], "<u8").tobytes()
    assert bits == checkpoint.tensors["temp_head.mlp.0.weight"].data
    assert len(added["autodeco.tensor.temp.fc2.bias.data"]) == 1  # 4 bytes, padded to 8
    assert len([k for k in added if k.startswith("autodeco.tensor.")]) == 27
    with GGUFFile(base) as a, GGUFFile(out) as b:
        old, new = a.read(a.kv_span[0], a.kv_span[1] - a.kv_span[0]), b.read(b.kv_span[0], a.kv_span[1] - a.kv_span[0])
        assert old == new
        assert a.read(a.data_offset, a.size - a.data_offset) == b.read(b.data_offset, b.size - b.data_offset)


@pytest.mark.parametrize("outtype", ["auto", "f32", "f16", "q8_0"])
@pytest.mark.parametrize("heads", [("temp_head", "top_p_head"), ("temp_head",), ("top_p_head",)], ids="+".join)
def test_round_trip(tmp_path, base, outtype, heads):
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads", make_heads(heads=heads), make_config(**MEANS)))
    merge_single_file(checkpoint, base, tmp_path / "m.gguf", outtype=outtype)
    assert verify_file(checkpoint, tmp_path / "m.gguf")
    loaded = read_heads_gguf(tmp_path / "m.gguf")
    assert loaded.kind == "single file" and loaded.arch == "llama" and loaded.n_vocab == 40
    has = (loaded.means.temperature is not None, loaded.means.top_p is not None)
    assert has == ("temp_head" in heads, "top_p_head" in heads)
    keys, _ = contents(tmp_path / "m.gguf")
    assert ("general.sampling.temp" in keys, "general.sampling.top_p" in keys) == has


def test_sampling_keys_of_the_base_win(tmp_path, checkpoint):
    base = make_base(tmp_path / "b.gguf", extra=lambda w: w.add_float32("general.sampling.temp", 0.25))
    merge_single_file(checkpoint, base, tmp_path / "m.gguf")
    keys, _ = contents(tmp_path / "m.gguf")
    assert keys["general.sampling.temp"] == 0.25 and keys["general.sampling.top_p"] == np.float32(0.9)


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment_of_the_base_is_kept(tmp_path, checkpoint, alignment):
    base = make_base(tmp_path / "b.gguf", extra=lambda w: w.add_custom_alignment(alignment))
    merge_single_file(checkpoint, base, tmp_path / "m.gguf")
    assert contents(base)[1] == contents(tmp_path / "m.gguf")[1]
    with GGUFFile(tmp_path / "m.gguf") as file:
        assert file.data_offset % alignment == 0


def test_version_2_base(tmp_path, checkpoint, base):
    raw = bytearray(base.read_bytes())
    raw[4:8] = struct.pack("<I", 2)
    base.write_bytes(raw)
    merge_single_file(checkpoint, base, tmp_path / "m.gguf")
    with GGUFFile(tmp_path / "m.gguf") as file:
        assert file.version == 2
    assert verify_file(checkpoint, tmp_path / "m.gguf")


def refused(tmp_path, checkpoint, base, error, message):
    with pytest.raises(error, match=message) as caught:
        merge_single_file(checkpoint, base, tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)
    assert not [n for n in os.listdir(tmp_path) if n == "m.gguf" or n.endswith(".part")]


def test_bases_that_are_refused(tmp_path, checkpoint, base):
    merge_single_file(checkpoint, base, tmp_path / "once.gguf")
    refused(tmp_path, checkpoint, tmp_path / "once.gguf", FormatError, "holds AutoDeco heads already")
    from autodeco_edge.convert.export import write_heads

    write_heads(checkpoint, tmp_path / "heads.gguf")
    refused(tmp_path, checkpoint, tmp_path / "heads.gguf", FormatError, "general.type is 'adapter', not a model")
    split = make_base(tmp_path / "split.gguf", extra=lambda w: w.add_uint16("split.count", 3))
    refused(tmp_path, checkpoint, split, FormatError, "part 1 of 3 of a split model, under another name")
    whole = make_base(tmp_path / "whole.gguf", extra=lambda w: w.add_uint16("split.count", 1))
    merge_single_file(checkpoint, whole, tmp_path / "fine.gguf")
    refused(tmp_path, checkpoint, make_base(tmp_path / "n.gguf", n_embd=32), MismatchError, "hidden size 32")
    refused(tmp_path, checkpoint, make_base(tmp_path / "v.gguf", n_vocab=48), MismatchError, "vocabulary size 48")
    other = read_checkpoint(make_folder(tmp_path / "qwen", config=make_config(base_model_type="qwen2")))
    refused(tmp_path, other, base, MismatchError, "architecture 'llama', but .* 'qwen2'")
    (tmp_path / "cut.gguf").write_bytes(base.read_bytes()[:-4])
    refused(tmp_path, checkpoint, tmp_path / "cut.gguf", FormatError, "after the end of the file")
    writer = gguf.GGUFWriter(tmp_path / "bare.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    refused(tmp_path, checkpoint, tmp_path / "bare.gguf", FormatError, "'llama.embedding_length' is missing")


def test_never_onto_an_input(tmp_path, checkpoint, base):
    os.link(base, tmp_path / "hard.gguf")
    before = base.read_bytes()
    for target in (base, tmp_path / "hard.gguf"):
        with pytest.raises(UsageError, match="input file"):
            merge_single_file(checkpoint, base, target)
    assert base.read_bytes() == before


def test_a_base_that_changes_under_us(tmp_path, checkpoint, base, monkeypatch):
    from autodeco_edge.convert import merge as module

    original = module._copy_span

    def touch(file, begin, end, out):
        original(file, begin, end, out)
        os.utime(base, ns=(1, 1))

    monkeypatch.setattr(module, "_copy_span", touch)
    refused(tmp_path, checkpoint, base, StorageError, "changed while it was being read")


def test_heads_of_another_base_in_the_file(tmp_path, checkpoint, base):
    """verify: a single file whose final norm is not the one that was recorded."""
    merge_single_file(checkpoint, base, tmp_path / "m.gguf")
    with GGUFFile(tmp_path / "m.gguf") as file:
        at = file.data_offset + file.tensors["output_norm.weight"].offset
    raw = bytearray((tmp_path / "m.gguf").read_bytes())
    raw[at] ^= 1
    (tmp_path / "m.gguf").write_bytes(raw)
    with pytest.raises(MismatchError, match=fmt.KEY_BASE_NORM_SHA256):
        verify_file(checkpoint, tmp_path / "m.gguf")


def test_stock_llama_cpp_gives_the_same_logits(tmp_path, checkpoint, base):
    pytest.importorskip("llama_cpp")
    from tests.support.stock import open_stock

    merge_single_file(checkpoint, base, tmp_path / "m.gguf", outtype="f32")
    logits = []
    for path in (base, tmp_path / "m.gguf"):
        model = open_stock(path, n_ctx=32, logits_all=True)
        model.eval([1, 5, 9, 12])
        logits.append(model.scores[:4].copy())
        assert ("autodeco.format_version" in model.metadata) == (path != base)
        model.close()
    assert np.isfinite(logits[0]).all() and logits[0].std() > 0
    assert np.array_equal(*logits)


@pytest.mark.parametrize("outtype", ["auto", "f16", "q8_0"])
def test_a_heads_file_merges_as_its_checkpoint_does(tmp_path, checkpoint, base, outtype):
    info = read_base_info(base)
    write_heads(checkpoint, tmp_path / "heads.gguf", base=info, outtype=outtype)
    merge_single_file(checkpoint, base, tmp_path / "a.gguf", outtype=outtype)
    merge_single_file(read_heads_gguf(tmp_path / "heads.gguf"), base, tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_a_heads_file_is_refused_elsewhere(tmp_path, checkpoint, base):
    write_heads(checkpoint, tmp_path / "heads.gguf", base=read_base_info(base))
    heads = read_heads_gguf(tmp_path / "heads.gguf")
    with pytest.raises(UsageError, match="--outtype f32: .*heads.gguf is a heads file"):
        merge_single_file(heads, base, tmp_path / "b.gguf", outtype="f32")
    other = make_base(tmp_path / "other.gguf", n_vocab=99)
    with pytest.raises(MismatchError, match="vocab_size"):
        merge_single_file(heads, other, tmp_path / "b.gguf")
    with pytest.raises(UsageError, match="heads.gguf"):
        merge_single_file(heads, base, tmp_path / "heads.gguf")
    assert not (tmp_path / "b.gguf").exists()


def read_base_info(path):
    file, info = open_base(path)
    file.close()
    return info

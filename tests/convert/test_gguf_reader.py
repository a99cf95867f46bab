"""The strict GGUF reader: real files parse, damaged files give one clear FormatError, quickly."""

import contextlib
import os
import struct
import time

import numpy as np
import pytest

from autodeco_edge.errors import AutodecoError, FormatError, MissingInputError
from autodeco_edge.gguf import types as gt
from autodeco_edge.gguf.reader import GGUFFile
from convert_makers import make_base


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def kv(key, value_type, payload):
    return string(key) + struct.pack("<I", value_type) + payload


def info(name, shape, ggml_type, offset, n_dims=None):
    dims = struct.pack(f"<{len(shape)}Q", *shape)
    return (
        string(name)
        + struct.pack("<I", len(shape) if n_dims is None else n_dims)
        + dims
        + struct.pack("<IQ", ggml_type, offset)
    )


def gguf_bytes(kvs=(), infos=(), data=b"", version=3, n_kv=None, n_tensors=None, magic=b"GGUF", align=32):
    counts = (len(infos) if n_tensors is None else n_tensors, len(kvs) if n_kv is None else n_kv)
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(kvs) + b"".join(infos)
    return head + bytes(-len(head) % align) + data


U32_ONE = struct.pack("<I", 1)
GOOD_KVS = [
    kv("general.architecture", gt.STRING, string("llama")),
    kv("a.u8", gt.U8, b"\x07"),
    kv("a.bool", gt.BOOL, b"\x01"),
    kv("a.f64", gt.F64, struct.pack("<d", 0.5)),
    kv("a.words", gt.ARRAY, struct.pack("<IQ", gt.STRING, 2) + string("one") + string("two")),
    kv("a.numbers", gt.ARRAY, struct.pack("<IQ3Q", gt.U64, 3, 1, 2, 3)),
]
GOOD_INFOS = [info("x", (4, 2), 0, 0), info("y", (32,), 8, 32)]
GOOD = gguf_bytes(GOOD_KVS, GOOD_INFOS, bytes(32 + 34))


def parse(tmp_path, raw):
    path = tmp_path / "f.gguf"
    path.write_bytes(raw)
    with GGUFFile(path) as file:
        return file


def test_a_real_file_reads_as_gguf_reads_it(tmp_path):
    import gguf

    path = make_base(tmp_path / "base.gguf")
    theirs = gguf.GGUFReader(path)
    with GGUFFile(path) as ours:
        assert list(ours.kv) == [k for k in theirs.fields if not k.startswith("GGUF.")]
        assert [(t.name, t.shape) for t in ours.tensors.values()] == [
            (t.name, tuple(map(int, t.shape))) for t in theirs.tensors
        ]
        assert ours.data_offset + next(iter(ours.tensors.values())).offset == theirs.tensors[0].data_offset
        for tensor in theirs.tensors:
            assert ours.tensor_bytes(tensor.name) == tensor.data.tobytes()
        assert ours.strings("tokenizer.ggml.tokens") == theirs.fields["tokenizer.ggml.tokens"].contents()
        assert ours.integer("llama.embedding_length") == 64
        assert ours.string("general.name") == "Tiny Llama 8B"


@pytest.mark.parametrize("version", [2, 3])
def test_values(tmp_path, version):
    path = tmp_path / "f.gguf"
    path.write_bytes(gguf_bytes(GOOD_KVS, GOOD_INFOS, bytes(66), version=version))
    with GGUFFile(path) as file:
        assert file.integer("a.u8") == 7 and file.u32("absent") is None
        assert file.strings("a.words") == ["one", "two"]
        assert file.u64s("a.numbers").tolist() == [1, 2, 3]
        assert [file.display(k) for k in file.kv][1:] == [
            "7",
            "True",
            "0.5",
            "array of string, 2 items",
            "array of u64, 3 items",
        ]
        assert file.read(*file.kv_span[:1], file.kv_span[1] - file.kv_span[0]) == b"".join(GOOD_KVS)
        for key, getter in (("a.u8", file.u32), ("a.u8", file.string), ("a.words", file.u64s), ("a.f64", file.f32)):
            with pytest.raises(FormatError, match="expected"):
                getter(key)
        with pytest.raises(FormatError, match="at most 1"):
            file.strings("a.words", limit=1)


def array(item_type, count, payload=b""):
    return struct.pack("<IQ", item_type, count) + payload


BIG = (1 << 64) - 1
MALFORMED = {
    "empty": (b"", "not a GGUF file"),
    "one byte": (b"G", "not a GGUF file"),
    "zip": (gguf_bytes(magic=b"PK\x03\x04"), "not a GGUF file"),
    "lower case": (gguf_bytes(magic=b"gguf"), "not a GGUF file"),
    "version 0": (gguf_bytes(version=0), "version 0; allowed"),
    "version 1": (gguf_bytes(version=1), "version 1; allowed"),
    "version 4": (gguf_bytes(version=4), "version 4; allowed"),
    "big-endian": (gguf_bytes(version=3 << 24), "big-endian"),
    "huge n_kv": (gguf_bytes(n_kv=BIG), "keys, at most"),
    "n_kv above the limit": (gguf_bytes(n_kv=(1 << 16) + 1), "keys, at most"),
    "n_kv above the file": (gguf_bytes(n_kv=60000), "keys, more than the file can hold"),
    "n_kv one too many": (gguf_bytes(GOOD_KVS, n_kv=7, data=bytes(64)), "allowed: 1 to"),
    "huge n_tensors": (gguf_bytes(n_tensors=BIG), "tensors, at most"),
    "n_tensors above the file": (gguf_bytes(n_tensors=60000), "tensors, more than the file can hold"),
    "huge key": (gguf_bytes([struct.pack("<Q", BIG) + bytes(32)]), "the name of key 0 has 1844"),
    "long key": (gguf_bytes([kv("k" * 1025, gt.U32, U32_ONE)]), "the name of key 0 has 1025"),
    "empty key": (gguf_bytes([kv("", gt.U32, U32_ONE + bytes(8))]), "the name of key 0 has 0"),
    "key not UTF-8": (gguf_bytes([kv(b"\xff\xfe", gt.U32, U32_ONE)]), "the name of key 0 is not valid UTF-8"),
    "key past the end": (gguf_bytes([struct.pack("<Q", 100) + b"abcdef"]), "the file ends inside the name of key 0"),
    "duplicate key": (gguf_bytes([kv("twin", gt.U32, U32_ONE)] * 2), "key 'twin' appears twice"),
    "type 13": (gguf_bytes([kv("k", 13, U32_ONE)]), "key 'k' has the unknown value type 13"),
    "array of type 99": (gguf_bytes([kv("k", gt.ARRAY, array(99, 1))]), "key 'k' has the unknown value type 99"),
    "nested array": (gguf_bytes([kv("k", gt.ARRAY, array(gt.ARRAY, 1, array(gt.U8, 1)))]), "array of arrays"),
    "huge array": (gguf_bytes([kv("k", gt.ARRAY, array(gt.U8, BIG))]), "key 'k' promises .* bytes, at most"),
    "array past the end": (gguf_bytes([kv("k", gt.ARRAY, array(gt.U64, 1000))]), "inside the value of key 'k'"),
    "overflowing array": (gguf_bytes([kv("k", gt.ARRAY, array(gt.U64, 1 << 61))]), "key 'k' promises"),
    "huge string array": (gguf_bytes([kv("k", gt.ARRAY, array(gt.STRING, BIG))]), "strings, at most"),
    "string array past the end": (
        gguf_bytes([kv("k", gt.ARRAY, array(gt.STRING, 9999))]),
        "more than the file can hold",
    ),
    "huge item": (
        gguf_bytes([kv("k", gt.ARRAY, array(gt.STRING, 1, struct.pack("<Q", BIG)))]),
        "inside the text of key 'k'",
    ),
    "huge string": (gguf_bytes([kv("k", gt.STRING, struct.pack("<Q", BIG))]), "inside the text of key 'k'"),
    "string past the end": (gguf_bytes([kv("k", gt.STRING, struct.pack("<Q", 1 << 20))]), "inside the text of key 'k'"),
    "bool 2": (gguf_bytes([kv("k", gt.BOOL, b"\x02")]), "key 'k' is a bool"),
    "alignment type": (gguf_bytes([kv("general.alignment", gt.U64, struct.pack("<Q", 32))]), "expected u32"),
    "alignment 0": (gguf_bytes([kv("general.alignment", gt.U32, bytes(4))]), "general.alignment' is 0"),
    "alignment 24": (gguf_bytes([kv("general.alignment", gt.U32, struct.pack("<I", 24))]), "general.alignment' is 24"),
    "alignment 2^31": (gguf_bytes([kv("general.alignment", gt.U32, struct.pack("<I", 1 << 31))]), "is 2147483648"),
    "tensor name empty": (gguf_bytes(infos=[info("", (4,), 0, 0)], data=bytes(32)), "name of tensor 0 has 0"),
    "tensor name long": (gguf_bytes(infos=[info("n" * 64, (4,), 0, 0)], data=bytes(32)), "name of tensor 0 has 64"),
    "tensor twice": (gguf_bytes(infos=[info("x", (4,), 0, 0)] * 2, data=bytes(32)), "tensor 'x' appears twice"),
    "5 dimensions": (gguf_bytes(infos=[info("x", (1,) * 5, 0, 0)], data=bytes(32)), "5 dimensions"),
    "2^32 dimensions": (
        gguf_bytes(infos=[info("x", (), 0, 0, (1 << 32) - 1)], data=bytes(32)),
        "4294967295 dimensions",
    ),
    "huge shape": (gguf_bytes(infos=[info("x", (1 << 40, 1 << 40), 0, 0)], data=bytes(32)), "too large to be real"),
    "negative dimension": (gguf_bytes(infos=[info("x", (BIG, 0), 0, 0)], data=bytes(32)), "too large to be real"),
    "type 4": (gguf_bytes(infos=[info("x", (4,), 4, 0)], data=bytes(32)), "tensor 'x' has the unknown type 4"),
    "type 2^32": (gguf_bytes(infos=[info("x", (4,), 0xFFFFFFFF, 0)], data=bytes(32)), "unknown type 4294967295"),
    "broken block": (gguf_bytes(infos=[info("x", (33,), 8, 0)], data=bytes(64)), "not a multiple of 32 .Q8_0"),
    "offset misaligned": (gguf_bytes(infos=[info("x", (4,), 0, 4)], data=bytes(64)), "lies at offset 4"),
    "offset past the end": (
        gguf_bytes(infos=[info("x", (4,), 0, 64)], data=bytes(64)),
        "tensor 'x' ends 16 bytes after",
    ),
    "offset huge": (gguf_bytes(infos=[info("x", (4,), 0, BIG - 31)], data=bytes(64)), "after the end of the file"),
    "overlap": (
        gguf_bytes(infos=[info("x", (16,), 0, 0), info("y", (4,), 0, 32)], data=bytes(64)),
        "'x' and 'y' overlap",
    ),
    "data cut": (GOOD[:-1], "tensor 'y' ends 1 bytes after the end"),
    "line break in a key": (gguf_bytes([kv("a\nb", gt.U32, U32_ONE)] * 2), r"key 'a\\nb' appears twice"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(tmp_path, name):
    raw, message = MALFORMED[name]
    begin = time.perf_counter()
    with pytest.raises(FormatError, match=message) as caught:
        parse(tmp_path, raw)
    assert time.perf_counter() - begin < 0.5
    assert "\n" not in str(caught.value) and "f.gguf" in str(caught.value)


def test_truncated_at_every_byte(tmp_path):
    assert parse(tmp_path, GOOD).tensors
    for n in range(len(GOOD)):
        with pytest.raises(FormatError):
            parse(tmp_path, GOOD[:n])


def test_every_byte_changed(tmp_path):
    """Each header byte set to three other values: a FormatError or a file that reads, never anything else."""
    header = len(GOOD) - 66
    for i in range(header):
        for value in (0, 1, 0xFF):
            damaged = bytearray(GOOD)
            damaged[i] = value
            with contextlib.suppress(FormatError):
                parse(tmp_path, bytes(damaged))


def test_random_damage(tmp_path):
    rng = np.random.default_rng(3)
    for _ in range(700):
        damaged = np.frombuffer(GOOD, np.uint8).copy()
        at = rng.integers(0, len(GOOD), rng.integers(1, 12))
        damaged[at] = rng.integers(0, 256, len(at))
        with contextlib.suppress(FormatError):
            parse(tmp_path, damaged.tobytes())


def test_large_vocabulary_is_quick(tmp_path):
    tokens = array(gt.STRING, 150_000, b"".join(string(f"token{i}") for i in range(150_000)))
    merges = array(gt.STRING, 300_000, b"".join(string(f"a b{i}") for i in range(300_000)))
    scores = array(gt.F32, 150_000, bytes(600_000))
    path = tmp_path / "big.gguf"
    path.write_bytes(gguf_bytes([kv("t", gt.ARRAY, tokens), kv("m", gt.ARRAY, merges), kv("s", gt.ARRAY, scores)]))
    begin = time.perf_counter()
    with GGUFFile(path) as file:
        assert file.kv["t"].count == 150_000
    assert time.perf_counter() - begin < 1.0  # about 0.1 s on an idle core


def test_strings_across_the_read_window(tmp_path):
    """A text longer than one chunk, and lengths that straddle its edge."""
    texts = ["x" * (1 << 20), "y" * 13, "z" * ((1 << 20) + 5), "", "w"] * 3
    path = tmp_path / "long.gguf"
    path.write_bytes(gguf_bytes([kv("t", gt.ARRAY, array(gt.STRING, len(texts), b"".join(map(string, texts))))]))
    with GGUFFile(path) as file:
        assert file.strings("t") == texts


def test_not_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(AutodecoError):
            GGUFFile(tmp_path / name)
    for name in ("absent", "a\0b", "n" * 300):
        with pytest.raises(MissingInputError):
            GGUFFile(tmp_path / name)


def test_type_table_is_that_of_gguf():
    import gguf

    theirs = {int(t): (t.name, *sizes) for t, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert theirs == gt.GGML_TYPES

"""Passing over arrays of strings: fast and slow agree on every array, and hostile ones cost what they weigh."""

from __future__ import annotations

import os
import random
import struct
import time

import numpy as np
import pytest

from autodeco_edge.errors import FormatError
from autodeco_edge.gguf import reader
from autodeco_edge.gguf.reader import GGUFFile, skip_run

STRING, ARRAY, U8, U32 = 8, 9, 0, 4


def packed(texts) -> bytes:
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


def string_array(key: str, payload: bytes, count: int) -> bytes:
    return packed([key.encode()]) + struct.pack("<IIQ", ARRAY, STRING, count) + payload


def gguf_of(*pairs: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


def plainly(data: bytes, count: int, run_bytes: int) -> list[int]:
    """Ends of the strings that lie whole in ``data[:run_bytes]``: the rule itself."""
    at, ends = 0, []
    while len(ends) < count and at + 8 <= run_bytes:
        (n,) = struct.unpack_from("<Q", data, at)
        at += 8 + n
        if at > run_bytes:
            break
        ends.append(at)
    return ends


def random_texts(rng: random.Random) -> list[bytes]:
    """Vocabulary-like, empty, long, and made of the very bytes that look like lengths."""
    kinds = [
        lambda: rng.randbytes(rng.randint(1, 12)),
        lambda: b"",
        lambda: bytes(rng.randint(1, 20)),
        lambda: struct.pack("<Q", rng.randint(0, 20)) * rng.randint(1, 3),
        lambda: b"x" * rng.choice([1, 7, 8, 254, 255, 256, 257, 511, 512, 70_000]),
        lambda: b"\x01" + bytes(7) + b"a",
    ]
    weights = [rng.random() ** 3 for _ in kinds]
    return [rng.choices(kinds, weights)[0]() for _ in range(rng.randint(0, 60))]


def test_a_run_is_what_the_plain_rule_gives():
    rng, taken = random.Random(5), 0
    for _ in range(3000):
        texts = random_texts(rng)
        data = packed(texts) + rng.choice([b"", bytes(rng.randint(0, 30)), rng.randbytes(30)])
        cut = rng.choice([len(data), rng.randint(0, len(data))])
        limit = rng.choice([len(texts), rng.randint(0, len(texts) + 1)])
        n, end = skip_run(np.frombuffer(data[:cut], np.uint8), limit)
        ends = plainly(data, limit, cut)
        assert n <= len(ends) and end == ([0, *ends][n]), (texts, cut, limit)
        taken += n
    assert taken > 3_000


@pytest.mark.parametrize(
    "chunk, run, patience", [(1 << 20, 1 << 17, (16, 8192)), (64, 40, (1, 2)), (300, 300, (2, 64)), (40, 1000, (1, 1))]
)
def test_every_array_is_passed_over(tmp_path, monkeypatch, chunk, run, patience):
    """Also where strings straddle the windows: the next key is found, and the texts read back."""
    monkeypatch.setattr(reader, "CHUNK", chunk)
    monkeypatch.setattr(reader, "RUN_BYTES", run)
    monkeypatch.setattr(reader, "MIN_SINGLY", patience[0])
    monkeypatch.setattr(reader, "MAX_SINGLY", patience[1])
    rng = random.Random(chunk)
    for i in range(120):
        texts = [bytes(b & 0x7F for b in text) for text in random_texts(rng)]
        path = tmp_path / f"{i}.gguf"
        path.write_bytes(
            gguf_of(string_array("a", packed(texts), len(texts)), packed([b"z"]) + struct.pack("<II", U32, i))
        )
        with GGUFFile(path) as file:
            assert file.strings("a") == [text.decode() for text in texts] and file.u32("z") == i


@pytest.mark.parametrize("text", [b"", b"a", bytes(8), b"x" * 300, b"\x01" + bytes(7)], ids=ascii)
def test_damage_behind_a_run_is_found(tmp_path, text):
    """A length that leads out of the file, behind 5000 strings."""
    payload = packed([text] * 5000) + struct.pack("<Q", 1 << 40)
    path = tmp_path / "f.gguf"
    path.write_bytes(gguf_of(string_array("a", payload, 5001)))
    with pytest.raises(FormatError, match="inside the text of key 'a'"):
        GGUFFile(path)
    path.write_bytes(gguf_of(string_array("a", packed([text] * 5000), 5001)))
    with pytest.raises(FormatError):
        GGUFFile(path)


def sparse(path, n_arrays: int, count: int):
    """Arrays of empty strings that are holes of the file: kilobytes on the disk."""
    with path.open("wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, 0, n_arrays))
        for i in range(n_arrays):
            out.write(string_array(f"key{i}", b"", count))
            out.seek(8 * count, os.SEEK_CUR)
        out.truncate(out.tell() + 64)
    return path


@pytest.mark.parametrize(
    "n_arrays, count", [(100, 2_000_000), (1, 1 << 22), (1, 1 << 40), (60_000, 4000), (1, 2_000_000)]
)
def test_millions_of_empty_strings_in_a_sparse_file(tmp_path, n_arrays, count):
    """These took 9 to 100 s. (What is left is mostly the writing of the file.)"""
    path = sparse(tmp_path / "s.gguf", n_arrays, min(count, 1 << 25))
    if count > 1 << 25:
        path.write_bytes(gguf_of(string_array("k", bytes(4096), count)))
    begin = time.process_time()
    try:
        GGUFFile(path).close()
    except FormatError as error:
        assert "strings" in str(error)
    else:
        assert n_arrays * count <= reader.MAX_STRINGS
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize("text", [b"", b"\x08" + bytes(7), bytes(8), b"ab", b"x" * 260], ids=ascii)
def test_the_dearest_strings_are_refused_in_time(tmp_path, text):
    """As many as are allowed of the kind that runs cannot take: linear, about 0.3 us each."""
    path = tmp_path / "f.gguf"
    count = reader.MAX_STRINGS // 8
    path.write_bytes(gguf_of(string_array("a", packed([text]) * count, count)))
    begin = time.process_time()
    with GGUFFile(path) as file:
        assert file.kv["a"].count == count
    assert time.process_time() - begin < 2.0


def test_other_huge_claims_in_small_files(tmp_path):
    """Keys and tensors are counted against the bytes that are there, numbers are passed over unread."""
    path = tmp_path / "f.gguf"
    with path.open("wb") as out:
        out.write(gguf_of(packed([b"n"]) + struct.pack("<IIQ", ARRAY, U8, 1 << 26)))
        out.truncate(1 << 27)
    begin = time.process_time()
    with GGUFFile(path) as file:
        assert file.kv["n"].count == 1 << 26
    assert time.process_time() - begin < 0.5

"""The safetensors reader: one message for each way to be wrong; pickles are never opened."""

import contextlib
import io
import json
import pickle
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.safetensors_reader import SafetensorsFile
from autodeco_edge.errors import FormatError
from convert_makers import make_heads, save_safetensors


def pack(header, data=b"", n=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if n is None else n) + raw + data


def one(**changes):
    return {"x": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]} | changes}


def two(a, b):
    return {n: {"dtype": "U8", "shape": [e - s], "data_offsets": [s, e]} for n, (s, e) in (("a", a), ("b", b))}


TWICE = b'{"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"x":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}'
MALFORMED = {
    "empty": (b"", "too few"),
    "7 bytes": (bytes(7), "too few"),
    "length 0": (bytes(8), "does not begin with"),
    "length 1": (pack(b"{"), "does not begin with"),
    "length past the end": (pack(one(), bytes(4), n=1000), "claims 1000 bytes, the file has"),
    "length above 100 MB": (pack(one(), n=100_000_001), "at most 16777216"),
    "length 2^64 - 1": (pack(one(), n=(1 << 64) - 1), "at most 16777216"),
    "a list": (pack(b"[{}]"), "does not begin with"),
    "leading space": (pack(b" {}"), "does not begin with"),
    "not JSON": (pack(b"{abc}"), "not valid JSON"),
    "not UTF-8": (pack(b'{"\xff":1}'), "not valid JSON"),
    "NaN": (pack(b'{"x":NaN}'), "not valid JSON"),
    "trailing garbage": (pack(b"{} x"), "not valid JSON"),
    "deep nesting": (pack(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not valid JSON"),
    "long number": (pack(b'{"x":' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "key twice": (pack(TWICE, bytes(4)), "names 'x' twice"),
    "entry is a number": (pack({"x": 1}), "lacks dtype"),
    "entry is a list": (pack({"x": []}), "lacks dtype"),
    "no dtype": (pack({"x": {"shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "lacks dtype"),
    "no shape": (pack({"x": {"dtype": "F16", "data_offsets": [0, 4]}}, bytes(4)), "lacks dtype"),
    "no offsets": (pack({"x": {"dtype": "F16", "shape": [2]}}, bytes(4)), "lacks dtype"),
    "dtype a number": (pack(one(dtype=3), bytes(4)), "dtype that is not a string"),
    "shape a string": (pack(one(shape="2"), bytes(4)), "not a list of sizes"),
    "shape negative": (pack(one(shape=[-2]), bytes(4)), "not a list of sizes"),
    "shape fraction": (pack(one(shape=[2.0]), bytes(4)), "not a list of sizes"),
    "shape true": (pack(one(shape=[True]), bytes(4)), "not a list of sizes"),
    "shape of 65": (pack(one(shape=[1] * 65), bytes(4)), "not a list of sizes"),
    "shape 2^63": (pack(one(shape=[1 << 63]), bytes(4)), "not a list of sizes"),
    "shape overflows": (pack(one(shape=[1 << 62, 1 << 62]), bytes(4)), "cannot take 4 bytes"),
    "shape too small": (pack(one(shape=[1]), bytes(4)), "cannot take 4 bytes"),
    "one offset": (pack(one(data_offsets=[0]), bytes(4)), "not two positions"),
    "offsets a string": (pack(one(data_offsets="04"), bytes(4)), "not two positions"),
    "offset negative": (pack(one(data_offsets=[-4, 0]), bytes(4)), "not two positions"),
    "offset fraction": (pack(one(data_offsets=[0, 4.0]), bytes(4)), "not two positions"),
    "offsets swapped": (pack(one(data_offsets=[4, 0]), bytes(4)), "claims the bytes 4 to 0"),
    "offset past the end": (
        pack(one(data_offsets=[0, 4]), bytes(3)),
        r"claims the bytes 0 to 4 of a data section of 3",
    ),
    "hole": (pack(two((0, 2), (3, 4)), bytes(4)), "'b' begins 1 bytes too late"),
    "hole at the start": (pack(two((1, 2), (2, 4)), bytes(4)), "'a' begins 1 bytes too late"),
    "overlap": (pack(two((0, 3), (2, 4)), bytes(4)), "'b' overlaps"),
    "remainder": (pack(one(), bytes(5)), "1 bytes after the last tensor"),
    "line break in a name": (pack({"a\nb": 1}), r"tensor 'a\\nb' lacks"),
    "GGUF": (b"GGUF" + bytes(60), "a GGUF file, not a checkpoint"),
    "text": (b"just some text, not tensors", "at most 16777216"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
}


def parse(tmp_path, raw):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with SafetensorsFile(path) as file:
        return file.entries


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(tmp_path, name):
    raw, message = MALFORMED[name]
    begin = time.perf_counter()
    with pytest.raises(FormatError, match=message) as caught:
        parse(tmp_path, raw)
    assert time.perf_counter() - begin < 1
    assert "\n" not in str(caught.value) and "model.safetensors" in str(caught.value)


def test_truncated_at_every_header_byte_and_in_the_data(tmp_path):
    good = save_safetensors(tmp_path / "good.safetensors", make_heads(n_embd=8, n_hidden=4)).read_bytes()
    assert len(parse(tmp_path, good)) == 8
    for n in range(len(good)):
        with pytest.raises(FormatError):
            parse(tmp_path, good[:n])


def test_random_damage(tmp_path):
    good = save_safetensors(tmp_path / "good.safetensors", make_heads(n_embd=8, n_hidden=4)).read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(500):
        damaged = np.frombuffer(good, np.uint8).copy()
        at = rng.integers(0, len(good), rng.integers(1, 6))
        damaged[at] = rng.integers(0, 256, len(at))
        with contextlib.suppress(FormatError):
            parse(tmp_path, damaged.tobytes())


def test_metadata_and_unknown_types_are_let_pass(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "q": {"dtype": "NEW4", "shape": [3], "data_offsets": [0, 5]}}
    assert list(parse(tmp_path, pack(header, bytes(5)))) == ["q"]
    assert parse(tmp_path, pack(b"{}")) == {}


# ---- pickles ------------------------------------------------------------------------


class Bomb:
    """Leaves a file behind when it is unpickled."""

    marker = None

    def __reduce__(self):
        return (open, (str(Bomb.marker), "w"))


def zipped(payload):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return raw.getvalue()


def tarred(payload):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(payload)
        archive.addfile(entry, io.BytesIO(payload))
    return raw.getvalue()


@pytest.mark.parametrize("kind", ["p0", "p1", "p2", "p3", "p4", "p5", "zip", "tar", "old torch", "header"])
@pytest.mark.parametrize("name", ["model.safetensors", "autodeco_heads.bin"])
def test_pickles_are_refused(tmp_path, kind, name):
    Bomb.marker = tmp_path / "ran"
    payload = pickle.dumps({"temp_head.mlp.0.weight": Bomb()}, protocol=int(kind[1]) if kind[0] == "p" else 2)
    raw = {"zip": zipped, "tar": tarred, "old torch": lambda p: pickle.dumps(0x1950A86A20F9469CFC6C, 2) + p}.get(
        kind, lambda p: p
    )(payload)
    if kind == "header":  # a pickle behind a plausible length
        raw = struct.pack("<Q", len(raw)) + raw
    folder = tmp_path / "heads"
    folder.mkdir()
    (folder / name).write_bytes(raw)
    for place in (folder, folder / name):
        with pytest.raises(FormatError) as caught:
            read_checkpoint(place)
        assert "\n" not in str(caught.value)
        if name.endswith(".bin") or kind in ("p2", "p3", "p4", "p5", "zip", "old torch"):
            assert "pickle, which can run code" in str(caught.value)
    assert not Bomb.marker.exists()


def test_pickles_beside_the_heads_are_left_alone(tmp_path):
    save_safetensors(tmp_path / "model.safetensors", make_heads())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02}.")
    assert read_checkpoint(tmp_path).spec.has_temp

"""Small and sparse files that claim much: refused before memory is asked for or a second has gone."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import time

import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.checkpoint_config import read_config
from autodeco_edge.convert.export import write_heads
from autodeco_edge.convert.merge import merge_single_file
from autodeco_edge.convert.safetensors_reader import MAX_JSON_PARTS, SafetensorsFile, parse_json_object
from autodeco_edge.convert.sources import read_json
from autodeco_edge.convert.verify import read_heads_gguf
from autodeco_edge.errors import FormatError
from autodeco_edge.gguf.reader import GGUFFile
from autodeco_edge.hub.inspect import inspect
from convert_makers import make_base, make_folder

MiB = 1 << 20


@pytest.fixture
def limited():
    """Address space of 1.5 GiB beyond what is in use: what needs more ends in a MemoryError, and the test fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 1536 * MiB, before[1]))
    begin = time.process_time()
    yield
    spent = time.process_time() - begin
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert spent < 4.0, "seconds; about 0.5 on an idle core"


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def heads_that_claim(path, shape, *, ftype=0, apparent=None):
    """A heads file of a few hundred bytes: one tensor, its data not there."""

    def kv(key, value_type, payload):
        return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", value_type) + payload

    def text(value):
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [
        kv("general.type", 8, text("adapter")),
        kv("adapter.type", 8, text("autodeco")),
        kv("general.architecture", 8, text("llama")),
        kv("autodeco.format_version", 4, struct.pack("<I", 1)),
        kv("autodeco.temperature.scale", 6, struct.pack("<f", 2)),
        kv("autodeco.embedding_length", 4, struct.pack("<I", shape[0] & 0xFFFFFFFF)),
        kv("autodeco.hidden_length", 4, struct.pack("<I", shape[1] & 0xFFFFFFFF)),
    ]
    name = "autodeco.temp.fc1.weight"
    info = text(name) + struct.pack("<I2QIQ", 2, *shape, ftype, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + info
    path.write_bytes(head + bytes(-len(head) % 32))
    if apparent:
        os.truncate(path, apparent)
    return path


@linux
@pytest.mark.parametrize("apparent", [None, 1 << 43], ids=["758 bytes", "sparse"])
@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (4096, 1 << 28), (1 << 30, 1), (1 << 20, 257)], ids=str)
def test_heads_that_claim_terabytes(tmp_path, limited, shape, apparent):
    path = heads_that_claim(tmp_path / "h.gguf", shape, apparent=apparent)
    assert path.stat().st_blocks * 512 < 10_000
    with pytest.raises(FormatError, match="after the end of the file|allowed: up to"):
        read_heads_gguf(path)
    with pytest.raises(FormatError):
        inspect(path)


@linux
def test_a_single_file_that_claims_much(tmp_path, limited):
    """The same as metadata: arrays of numbers that are holes of the file."""
    merge_single_file(
        read_checkpoint(make_folder(tmp_path / "heads")), make_base(tmp_path / "b.gguf"), tmp_path / "m.gguf"
    )
    with GGUFFile(tmp_path / "m.gguf") as file:
        value = file.kv["autodeco.tensor.temp.fc1.weight.data"]
    data = (tmp_path / "m.gguf").read_bytes()
    count = 1 << 25  # of 8 bytes
    with (tmp_path / "big.gguf").open("wb") as out:
        out.write(data[: value.offset - 8] + struct.pack("<Q", count))
        out.seek(8 * count, os.SEEK_CUR)
        out.write(data[value.offset + value.nbytes :])
    with pytest.raises(FormatError, match="heads of 26[89].* bytes; allowed: up to 268435456"):
        read_heads_gguf(tmp_path / "big.gguf")


@linux
def test_sparse_checkpoints(tmp_path, limited):
    folder = make_folder(tmp_path / "heads")
    rows, width = 1 << 14, 1 << 14
    end = rows * width * 4
    header = json.dumps(
        {"temp_head.mlp.0.weight": {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, end]}}
    ).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(folder / "model.safetensors", 8 + len(header) + end)
    with pytest.raises(FormatError, match="allowed: 268435456 in all"):
        read_checkpoint(folder)


def headers():
    """Valid JSON of many shapes: 16 MB, the most that is looked into, and the 90 MB of the report."""
    tensor = '"%x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    shapes = {
        "tensors": lambda n: "{" + ",".join(tensor % i for i in range(n // 62)) + "}",
        "numbers": lambda n: '{"a":[' + "0," * (n // 2 - 10) + "0]}",
        "lists": lambda n: '{"a":[' + "[]," * (n // 3 - 10) + "0]}",
        "objects": lambda n: '{"a":[' + "{}," * (n // 3 - 10) + "0]}",
        "keys": lambda n: "{" + ",".join(f'"{i:x}":1' for i in range(n // 9)) + "}",
        "nested": lambda n: '{"a":' + "[" * (n // 2 - 10) + "]" * (n // 2 - 10) + "}",
        "text": lambda n: '{"__metadata__":{"a":"' + "x" * (n - 40) + '"}}',
        "digits": lambda n: '{"a":' + "9" * (n - 20) + "}",
        "escapes": lambda n: '{"a":"' + "\\u0041" * (n // 6 - 10) + '"}',
        "blanks": lambda n: "{" + " " * (n - 2) + "}",
    }
    return [("text", 90_000_000), *((name, 16_000_000) for name in shapes)], shapes


CASES, SHAPES = headers()


@linux
@pytest.mark.parametrize("name, n", CASES, ids=lambda x: str(x))
def test_large_safetensors_headers(tmp_path, name, n):
    """These took 10 to 16 s and 1.5 to 2.3 GB. In a child, so that its peak of memory is its own."""
    header = SHAPES[name](n).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    del header
    code = (
        "import re, sys, time; from autodeco_edge.convert.safetensors_reader import SafetensorsFile\n"
        "from autodeco_edge.errors import FormatError\n"
        "begin = time.process_time()\n"
        "try: SafetensorsFile(sys.argv[1])\n"
        "except FormatError as e: print(e)\n"
        "else: print('read')\n"
        "print(time.process_time() - begin, re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read()).group(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    said, figures = done.stdout.rstrip("\n").rsplit("\n", 1)
    seconds, peak_kb = figures.split()
    assert float(seconds) < 3.0 and int(peak_kb) < 300_000, (said, figures)
    refused = ("at most", "parts; allowed", "JSON")
    assert name in ("text", "escapes", "blanks") and n < 16 * MiB or any(word in said for word in refused)


def test_a_real_header_of_many_tensors_is_read(tmp_path):
    """30,000 tensors with long names, as an unsharded mixture of experts has them."""
    names = [f"model.layers.{i % 94}.mlp.experts.{i // 94}.gate_proj.weight" for i in range(30_000)]
    header = {name: {"dtype": "BF16", "shape": [0, 1536], "data_offsets": [0, 0]} for name in names}
    raw = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    with SafetensorsFile(path) as file:
        assert len(file.entries) == 30_000


def test_large_json_beside_a_checkpoint(tmp_path):
    for text in ("[" * 100_000, '{"a":' * 100_000, "{" + " " * (1 << 22) + "}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(FormatError):
            read_config(tmp_path / "config.json")
        (tmp_path / "x.json").write_text(text.replace(" ", "  " * 8))
        with pytest.raises(FormatError):
            read_json(tmp_path / "x.json")
    with pytest.raises(FormatError, match="parts; allowed"):
        parse_json_object(b'{"a":[' + b"0," * MAX_JSON_PARTS + b"0]}", "here")


@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors.index.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "closed"])
def test_every_file_of_a_checkpoint_is_a_regular_one(tmp_path, name, kind):
    """Nothing waits for a pipe, ends in a traceback, or reads a device without end."""
    folder = make_folder(tmp_path / "heads")
    path = folder / name
    path.unlink(missing_ok=True)
    {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
        "loop": lambda: path.symlink_to(path.name),
        "closed": lambda: (path.write_text("{}"), path.chmod(0)),
    }[kind]()
    code = (
        "import sys; from autodeco_edge.convert.checkpoint import read_checkpoint; from autodeco_edge.errors import AutodecoError\n"
        "try: read_checkpoint(sys.argv[1])\n"
        "except AutodecoError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stdout.count("\n") <= 1, done.stderr
    if name == "model.safetensors" and kind != "closed":
        assert "not a regular file" in done.stdout or "cannot be opened" in done.stdout


def test_show_of_a_model_beside_hostile_neighbours(tmp_path):
    """A damaged heads file, a dangling link, a pipe, a folder: the model is shown all the same."""
    base = make_base(tmp_path / "base.gguf")
    write_heads(read_checkpoint(make_folder(tmp_path / "heads")), tmp_path / "good.gguf")
    data = (tmp_path / "good.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(data[:-100])
    (tmp_path / "nan.gguf").write_bytes(data[:-64] + b"\xff" * 64)
    (tmp_path / "dangling.gguf").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    beside = {os.path.basename(f["file"]): f for f in inspect(base)["heads_files"]}
    assert beside.keys() == {"good.gguf", "nan.gguf"}
    assert beside["good.gguf"]["fits"] and "NaN" in beside["nan.gguf"]["mismatch"]

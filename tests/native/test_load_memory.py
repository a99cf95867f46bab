"""What loading costs: bytes asked for, and time, bounded by the bytes that are really there."""

from __future__ import annotations

import ctypes
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.engine.native import Status, lib
from tests.native.support import merged
from tests.support import checkpoints
from tests.support.letters import make_letters

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and RLIMIT_AS")

MEASURE = """
import ctypes, json, resource, sys
from autodeco_edge.engine.native import lib

def field(name):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(name))

def load(path, err):
    handle = ctypes.c_void_p()
    status = lib.autodeco_heads_load_from_file(path.encode(), ctypes.byref(handle), err, len(err))
    return handle, status

err = ctypes.create_string_buffer(512)
path, limit = sys.argv[1], int(sys.argv[2])
if limit >= 0:
    most = field("VmSize:") + limit
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    handle, status = load(path, err)
    print(json.dumps([status, err.value.decode()]))
else:
    open("/proc/self/clear_refs", "w").write("5")
    before = field("VmRSS:")
    handle, status = load(path, err)
    print(json.dumps([status, field("VmHWM:") - before, lib.autodeco_heads_memory(handle)]))
"""


def measure(path: Path, limit: int = -1) -> list:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(limit)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{done.returncode} {done.stderr[-2000:]}"
    return json.loads(done.stdout)


def make_heads(folder: Path, n_embd: int, outtype: str) -> Path:
    folder = checkpoints.random_heads(folder / "c", n_embd, seed=2)
    (folder / "config.json").write_text(json.dumps({"base_model_type": "llama", "hidden_size": n_embd}))
    write_heads(read_checkpoint(folder), folder / "heads.gguf", outtype=outtype)
    return folder / "heads.gguf"


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0"])
def test_loading_takes_no_more_than_the_heads(tmp_path, outtype):
    """The widest released base, 7168. At most 1.5 times the file, and what the heads then hold is the file's size."""
    path = make_heads(tmp_path, 7168, outtype)
    status, peak, held = measure(path)
    size = path.stat().st_size
    print(f"{outtype}: file {size}, peak {peak} ({peak / size:.2f}), held {held} ({held / size:.2f})")
    assert status == Status.OK
    assert peak <= 1.5 * size
    assert held <= 1.05 * size


def test_little_memory_is_said_with_the_number_of_bytes(tmp_path):
    """Address space cut to 0, 1, 2, ... 17 MB more than there was: memory, or success; never damage, never a signal."""
    path = make_heads(tmp_path, 7168, "f32")
    seen = set()
    for megabytes in (0, 1, 3, 5, 7, 9, 12, 15, 17, 40):
        status, message = measure(path, megabytes << 20)
        assert status in (Status.OK, Status.MEMORY), message
        assert status == Status.OK or "no memory for" in message and "bytes" in message
        seen.add(status)
    assert seen == {Status.OK, Status.MEMORY}


# ---- files that claim much --------------------------------------------------------------


def load(path: Path) -> tuple[int, str, float]:
    handle, err = ctypes.c_void_p(), ctypes.create_string_buffer(512)
    start = time.perf_counter()
    status = lib.autodeco_heads_load_from_file(str(path).encode(), ctypes.byref(handle), err, len(err))
    took = time.perf_counter() - start
    lib.autodeco_heads_free(handle)
    return status, err.value.decode(), took


def header(n_tensors: int, n_keys: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_keys)


def key(name: bytes, kind: int, payload: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + payload


def sparse(path: Path, data: bytes, size: int) -> Path:
    with open(path, "wb") as f:
        f.write(data)
        f.truncate(size)
    return path


@pytest.mark.parametrize("n_keys", [1, 40, 65536])
def test_millions_of_empty_strings_in_a_sparse_file(tmp_path, n_keys):
    """An array of two million empty strings is 16 MB of zeros that are on no disk. Two of them are too many."""
    n = 2097152
    path = tmp_path / "sparse.gguf"
    begin = header(0, n_keys)
    with open(path, "wb") as f:
        f.write(begin)
        for i in range(min(n_keys, 40)):
            f.write(key(b"k%d" % i, 9, struct.pack("<IQ", 8, n)))
            f.seek(8 * n, os.SEEK_CUR)
        f.truncate(f.tell())
    assert path.stat().st_blocks * 512 < 1 << 20, "the file system keeps holes"
    status, message, took = load(path)
    assert took < 5, message  # 0.1 s on a quiet machine
    assert status == (Status.NO_HEADS if n_keys == 1 else Status.FORMAT)
    assert n_keys == 1 or "strings" in message


def test_text_of_many_megabytes_is_no_header(tmp_path):
    """Strings of 64 MB, all holes: there is room for four, and the fifth is refused by name."""
    path = tmp_path / "sparse.gguf"
    with open(path, "wb") as f:
        f.write(header(0, 5))
        for i in range(5):
            f.write(key(b"k%d" % i, 8, struct.pack("<Q", (64 << 20) - 64)))
            f.seek((64 << 20) - 64, os.SEEK_CUR)
        f.truncate(f.tell())
    status, message, took = load(path)
    assert status == Status.FORMAT and "'k4'" in message and "text in the header" in message
    assert took < 5


def test_skipped_arrays_cost_a_read_each(tmp_path):
    """8,192 keys of 1 MB of numbers each: 8 GB of zeros, walked in a tenth of a second."""
    path = tmp_path / "sparse.gguf"
    with open(path, "wb") as f:
        f.write(header(0, 8192))
        for i in range(8192):
            f.write(key(b"k%d" % i, 9, struct.pack("<IQ", 10, 1 << 17)))
            f.seek(1 << 20, os.SEEK_CUR)
        f.truncate(f.tell())
    status, message, took = load(path)
    assert status == Status.NO_HEADS, message
    assert took < 5


def test_terabytes_that_are_holes_ask_for_no_memory(tmp_path):
    """The claim holds in the file's size: still no head of the world is 4 TB wide."""
    from tests.native.test_corpus import CASES

    path = sparse(tmp_path / "heads.gguf", CASES["claims-4-tb"].data, 9 << 40)
    status, message, took = load(path)
    assert status == Status.FORMAT and "at most" in message and took < 1


@pytest.mark.parametrize(
    "n_hidden,status,word", [(24, Status.MEMORY, "100663360 bytes"), (40, Status.FORMAT, "at most 268435456")]
)
def test_a_claim_that_the_file_size_bears_out(tmp_path, n_hidden, status, word):
    """All holes. 192 MB of heads with room for 64 more: memory, its bytes named. 320 MB: more than heads may have."""
    from tests.native.test_corpus import corpus

    file = corpus.heads_file()
    corpus.claims_mb(n_hidden)(file)
    path = sparse(tmp_path / "heads.gguf", file.bytes(), 4 << 30)
    got, message = measure(path, 64 << 20)
    assert (got, word in message) == (status, True), message


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "device", "missing", "no permission", "a file as a folder", "long name"]
)
def test_what_is_no_file(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "no permission":
        path.write_bytes(b"GGUF")
        path.chmod(0)
    elif kind == "a file as a folder":
        path.write_bytes(b"GGUF")
        path = path / "y"
    elif kind == "long name":
        path = tmp_path / ("n" * 5000)
    status, message, took = load(path)
    no_file = kind in ("folder", "pipe", "device")
    root_reads_all = kind == "no permission" and os.geteuid() == 0
    assert status == (Status.FORMAT if no_file or root_reads_all else Status.NOT_FOUND), message
    assert took < 1 and str(path)[:200] in message
    assert not no_file or "no regular file" in message


def test_a_model_of_gigabytes_with_heads_costs_only_its_header(tmp_path):
    """The data section is not read: 5 GB of holes behind it change nothing."""
    single = merged(make_letters(tmp_path), tmp_path / "single.gguf")
    os.truncate(single, 5 << 30)
    status, message, took = load(single)
    assert status == Status.OK and took < 1, message

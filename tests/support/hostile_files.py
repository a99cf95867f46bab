"""Three hundred files that nobody should open, the same ones on every run; and a process that tries commands on them.

``hostile_files`` makes them out of sound ones: cut, flipped, retyped, recounted, doubled, swollen, sparse, of other
formats. ``try_commands`` runs command lines, each in a fork of its own, and says how each ended.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BIG = (1 << 64) - 1
ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 20  # a command is killed then


@dataclass(frozen=True)
class Ended:
    """How a command ended: ``status`` is its exit code, or minus the signal that ended it."""

    args: tuple[str, ...]
    status: int
    seconds: float
    output: str


def hostile_files(folder: Path, sound: dict[str, Path]) -> dict[str, Path]:
    """``sound``: files by kind: "model", "heads", "single" (GGUF) and "checkpoint" (safetensors). Suffixes are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}

    def add(name: str, content: bytes, suffix: str, apparent: int = 0) -> None:
        assert name not in made, name
        path = folder / str(len(made)) / (re.sub(r"[^\w.-]+", "-", name) + suffix)
        path.parent.mkdir()  # alone: `show` looks at the files beside a model
        path.write_bytes(content)
        if apparent:
            os.truncate(path, apparent)
        made[name] = path

    for kind in ("model", "heads", "single"):
        data = sound[kind].read_bytes()
        for name, content in _damaged(data, random.Random(f"{kind} 1"), _header_size(data), 50):
            add(f"{kind} {name}", content, ".gguf")
    for name, content in _gguf_headers():
        add(f"gguf {name}", content, ".gguf")
    for name, content, apparent in _sparse():
        add(f"sparse {name}", content, ".gguf", apparent)
    checkpoint = sound["checkpoint"].read_bytes()
    for name, content in _damaged(checkpoint, random.Random("c"), 8 + int.from_bytes(checkpoint[:8], "little"), 30):
        add(f"checkpoint {name}", content, ".safetensors")
    for name, content in _safetensors_headers():
        add(f"safetensors {name}", content, ".safetensors")
    for name, content in _other_formats():
        add(f"other {name}", content, ".gguf")
        add(f"disguised {name}", content, ".safetensors")
    return made


def _header_size(data: bytes) -> int:
    return min(len(data) // 2, 8000)


def _damaged(data: bytes, rng: random.Random, header: int, count: int) -> Iterator[tuple[str, bytes]]:
    for i in range(count):
        copy = bytearray(data)
        how = i % 5
        if how == 0:
            yield f"cut {i}", data[: rng.choice([rng.randrange(header), rng.randrange(len(data)), len(data) - 1 - i])]
        elif how == 1:
            for _ in range(rng.randint(1, 8)):
                copy[rng.randrange(header)] ^= 1 << rng.randrange(8)
            yield f"flipped {i}", bytes(copy)
        elif how == 2:
            at = rng.randrange(4, header)
            copy[at : at + 8] = rng.choice([bytes(8), b"\xff" * 8, struct.pack("<Q", 1 << 40)])
            yield f"swollen {i}", bytes(copy)
        elif how == 3:
            at, n = rng.randrange(header), rng.randint(1, 300)
            yield f"removed {i}", data[:at] + data[at + n :]
        else:
            at, n = rng.randrange(header), rng.randint(1, 300)
            yield f"doubled {i}", data[: at + n] + data[at:]


def _string(text: bytes | str) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def _kv(key: bytes | str, value_type: int, payload: bytes) -> bytes:
    return _string(key) + struct.pack("<I", value_type) + payload


def _gguf(
    keys=(), infos=(), *, magic=b"GGUF", version=3, n_kv=None, n_tensors=None, order="<", tail=bytes(64)
) -> bytes:
    counts = (len(infos) if n_tensors is None else n_tensors, len(keys) if n_kv is None else n_kv)
    return magic + struct.pack(f"{order}IQQ", version, *counts) + b"".join(keys) + b"".join(infos) + tail


def _info(name: str, shape: tuple[int, ...], ggml_type: int, offset: int) -> bytes:
    return _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, ggml_type, offset)


def _gguf_headers() -> Iterator[tuple[str, bytes]]:
    arch, u32 = _kv("general.architecture", 8, _string("llama")), struct.pack("<I", 1)
    for version in (0, 1, 2, 4, 1 << 24, 3 << 24, BIG >> 32):
        yield f"version {version}", _gguf([arch], version=version)
    yield "big-endian", _gguf(order=">")
    yield "magic", _gguf([arch], magic=b"GGML")
    yield "magic reversed", _gguf([arch], magic=b"FUGG")
    for n in (1, 60_000, 1 << 31, 1 << 63, BIG):
        yield f"{n} keys", _gguf(n_kv=n)
        yield f"{n} tensors", _gguf([arch], n_tensors=n)
        yield f"key of {n}", _gguf([struct.pack("<Q", n) + b"k" * 40])
        yield f"text of {n}", _gguf([_kv("k", 8, struct.pack("<Q", n))])
        yield f"strings {n}", _gguf([_kv("k", 9, struct.pack("<IQ", 8, n))])
        yield f"numbers {n}", _gguf([_kv("k", 9, struct.pack("<IQ", 10, n))])
    for value_type in (9, 13, 255, BIG >> 32):
        yield f"type {value_type}", _gguf([_kv("k", value_type, u32)])
        yield f"array of {value_type}", _gguf([_kv("k", 9, struct.pack("<IQ", value_type, 1))])
    for key in (
        "general.architecture",
        "general.type",
        "tokenizer.ggml.tokens",
        "general.alignment",
        "adapter.type",
        "split.count",
    ):
        for value_type, payload in (
            (4, u32),
            (6, struct.pack("<f", 1)),
            (9, struct.pack("<IQ", 4, 1) + u32),
            (8, _string("x")),
        ):
            if key != "general.architecture":
                yield f"{key} as {value_type}", _gguf([arch, _kv(key, value_type, payload)])
            else:
                yield f"{key} as {value_type}", _gguf([_kv(key, value_type, payload)])
    for name in ("x/../../../y", "/etc/passwd", "a\0b", "x" * 5000, "\x1b[2J", "", "CON"):
        yield (
            f"architecture {ascii(name)[1:12]}".replace("\\", "_"),
            _gguf([_kv("general.architecture", 8, _string(name))]),
        )
    yield "architecture no text", _gguf([_kv("general.architecture", 8, _string(b"\xff\xfe"))])
    yield "key twice", _gguf([arch, arch])
    yield "key with line breaks", _gguf([_kv("a\nb\x1b[31m", 4, u32)] * 2)
    for shape in ((0,), (BIG,), (1 << 40, 1 << 40), (1 << 62, 1), (33,), (1,) * 4):
        for ggml_type in (0, 8, 4, 99):
            yield f"tensor {len(shape)}x{shape[0]} of {ggml_type}", _gguf([arch], [_info("x", shape, ggml_type, 0)])
    for offset in (1, 32, 1 << 40, BIG - 31):
        yield f"offset {offset}", _gguf([arch], [_info("x", (4,), 0, offset)])
    yield "tensor twice", _gguf([arch], [_info("x", (4,), 0, 0)] * 2)
    yield (
        "split without others",
        _gguf([arch, _kv("split.count", 2, struct.pack("<H", 60_000)), _kv("split.no", 2, bytes(2))]),
    )


def _sparse() -> Iterator[tuple[str, bytes, int]]:
    heads = [_kv("general.type", 8, _string("adapter")), _kv("adapter.type", 8, _string("autodeco")),
             _kv("general.architecture", 8, _string("llama")), _kv("autodeco.format_version", 4, struct.pack("<I", 1)),
             _kv("autodeco.temperature.scale", 6, struct.pack("<f", 2))]  # fmt: skip
    yield "strings", _gguf([_kv("k", 9, struct.pack("<IQ", 8, 1 << 21))], tail=b""), 1 << 31
    yield "many strings", _gguf([_kv("k", 9, struct.pack("<IQ", 8, 1 << 30))], tail=b""), 1 << 34
    yield "numbers", _gguf([_kv("k", 9, struct.pack("<IQ", 10, 1 << 26))], tail=b""), 1 << 30
    yield "heads of 4 TB", _gguf(heads, [_info("autodeco.temp.fc1.weight", (1 << 20, 1 << 20), 0, 0)]), 0
    yield "heads of 4 TB, there", _gguf(heads, [_info("autodeco.temp.fc1.weight", (1 << 20, 1 << 20), 0, 0)]), 1 << 43
    yield "zeros", b"", 1 << 40


def _safetensors(header: object, data: bytes = bytes(8), n: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if n is None else n) + raw + data


def _safetensors_headers() -> Iterator[tuple[str, bytes]]:
    def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
        return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}

    name = "temp_head.mlp.0.weight"
    for n in (0, 1, 1 << 20, 100_000_000, 1 << 63, BIG):
        yield f"header of {n}", _safetensors({}, n=n)
    for offsets in ((8, 0), (0, 9), (0, 1 << 60), (-8, 0), (1, 8), (0, 4), (BIG, BIG)):
        yield f"offsets {offsets[0]} {offsets[1]}", _safetensors({name: entry(offsets=offsets)})
    yield "overlap", _safetensors({name: entry(), "b": entry(offsets=(4, 8), shape=(1,))})
    yield "hole", _safetensors({name: entry(), "b": entry(offsets=(12, 16), shape=(1,))}, bytes(16))
    yield "rest", _safetensors({name: entry()}, bytes(100))
    for shape in ((BIG,), (-1, -2), (1 << 40, 1 << 40), (0,), ()):
        yield f"shape {shape}", _safetensors({name: entry(shape=shape)})
    for dtype in ("F64", "I8", "X", "", 5, None):
        yield f"dtype {dtype}", _safetensors({name: entry(dtype=dtype)})
    for what in ([], 5, None, "x", {name: 5}, {name: []}, {name: {}}, {"__metadata__": 5}):
        yield f"header {json.dumps(what)}", _safetensors(what)
    yield "nested", _safetensors(b'{"a":' + b"[" * 50_000)
    yield "key twice", _safetensors(b'{"a":1,"a":2}')
    yield "not text", _safetensors(b'{"\xff\xfe":1}')
    yield "surrogate", _safetensors(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}')
    yield "infinity", _safetensors(b'{"a":Infinity}')
    yield "large", _safetensors(b'{"a":"' + b"x" * 17_000_000 + b'"}')


def _other_formats() -> Iterator[tuple[str, bytes]]:
    import io

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("archive/data.pkl", pickle.dumps({"temp_head.mlp.0.weight": [1.0]}))
    yield "empty", b""
    yield "one byte", b"G"
    yield "text", b"temp_head\n" * 100
    yield "json", b'{"temp_head.mlp.0.weight": [1]}'
    yield "html", b"<!doctype html><title>404</title>"
    yield "lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    yield "zip", archive.getvalue()
    yield "png", b"\x89PNG\r\n\x1a\n" + bytes(100)
    yield "elf", b"\x7fELF" + bytes(100)
    yield "zeros", bytes(5000)
    yield "ones", b"\xff" * 5000
    for protocol in range(6):
        yield f"pickle {protocol}", pickle.dumps({"temp_head.mlp.0.weight": [1.0]}, protocol=protocol)


# ---- trying them --------------------------------------------------------------------------------

DRIVER = """
import json, os, signal, sys, tempfile, time
sys.path.append(sys.argv[2])
import autodeco_edge.cli as cli
from tests.support import warm
for name in warm.COMMANDS:
    warm.load(name)
limit = int(sys.argv[1])
for line in sys.stdin:
    args = json.loads(line)
    with tempfile.TemporaryFile() as out:
        begin = time.monotonic()
        pid = os.fork()
        if not pid:
            signal.alarm(limit)
            for fd in (1, 2):
                os.dup2(out.fileno(), fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.argv = ["autodeco-edge", *args]
            code = 255
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code or 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stdout.flush(); sys.stderr.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        text = out.read(20_000).decode("utf-8", "replace")
        print(json.dumps([status, time.monotonic() - begin, text]), flush=True)
"""


def try_commands(commands: list[list[str]], **environment: str) -> list[Ended]:
    """Each command line in a fork of one process that has imported everything: a tenth of a second less each."""
    lines = "".join(json.dumps(list(map(str, command))) + "\n" for command in commands)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(LIMIT_S), str(ROOT)], input=lines, capture_output=True, text=True,
        env=os.environ | {"GGML_NO_BACKTRACE": "1", "OMP_WAIT_POLICY": "passive"} | environment,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(commands), done.stderr[-500:]
    return [Ended(tuple(map(str, c)), *answer) for c, answer in zip(commands, answers, strict=True)]


def wrong(ended: list[Ended], allowed: Callable[[Ended], bool], limit_s: float) -> list[str]:
    """One line for every command that ended as none may."""
    found = []
    for one in ended:
        good = allowed(one) and "Traceback" not in one.output and one.seconds < limit_s
        if not good:
            found.append(f"{' '.join(one.args)}: {one.status} after {one.seconds:.1f} s: {one.output[-200:]}")
    return found

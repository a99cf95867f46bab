"""A model split into parts, as llama-gguf-split writes them, byte by byte and apart from the code under test."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np


def split_model(source: Path, folder: Path, groups: list[list[str]], stem: str = "m") -> list[Path]:
    """``groups``: names of the tensors of each part, in the order of the file; what no group names goes into the last.

    The first part has the metadata; an empty first group makes it metadata only.
    """
    from gguf import GGUFReader

    reader = GGUFReader(source)
    named = {name for group in groups for name in group}
    groups = [*groups[:-1], groups[-1] + [t.name for t in reader.tensors if t.name not in named]]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, group in enumerate(groups):
        own = [t for t in reader.tensors if t.name in group]
        keys = [
            _kv("split.no", 2, "H", i),
            _kv("split.count", 2, "H", len(groups)),
            _kv("split.tensors.count", 5, "i", len(reader.tensors)),
        ]
        old = list(_old_keys(reader)) if i == 0 else []
        path = folder / f"{stem}-{i + 1:05d}-of-{len(groups):05d}.gguf"
        path.write_bytes(_encode(old + keys, own))
        paths.append(path)
    return paths


def _old_keys(reader):
    """The raw bytes of every pair of the source."""
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            yield b"".join(np.asarray(part).tobytes() for part in field.parts)


def _kv(key: str, value_type: int, code: str, value: int) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack(f"<I{code}", value_type, value)


def _encode(keys: list[bytes], tensors: list) -> bytes:
    infos, data = b"", b""
    for t in tensors:
        dims = [int(n) for n in t.shape]
        infos += struct.pack("<Q", len(t.name)) + t.name.encode() + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        infos += struct.pack("<IQ", int(t.tensor_type), len(data))
        raw = np.ascontiguousarray(t.data).tobytes()
        data += raw + bytes(-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + infos
    return head + bytes(-len(head) % 32) + data

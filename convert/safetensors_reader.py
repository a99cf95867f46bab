"""A strict reader of safetensors headers that keeps BF16 exact.

Owns the parsing of one ``.safetensors`` file: the JSON header, its checks (one message
for each way to be wrong) and the raw bytes of a tensor. The library's numpy side has no
bfloat16, hence this. Does not know which tensors matter. Nothing here can execute code:
pickles, also those that carry a .safetensors name, are recognised and refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from ..errors import FormatError
from ..gguf.raw_file import RawFile

MAX_HEADER_BYTES = 1 << 24  # the library allows 100 MB, which takes Python 10 s and 2 GB; 65,000 tensors have 10 MB
MAX_JSON_PARTS = 1 << 19  # commas and opening brackets: 65,000 tensors, or half a second
MAX_DIMS = 64

# Bits a value. Types that a merged base model may carry; heads are BF16, F16 or F32.
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
    "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

_PICKLE_STARTS = (
    b"PK\x03\x04",
    *(bytes([0x80, n]) for n in range(2, 6)),
    b"\x1f\x8b",
    b"(",
    b"ccopy_reg",
    b"c__builtin__",
)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: ``begin`` and ``end`` count from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile(RawFile):
    """An open safetensors file, its header checked. ``entries`` maps tensor name to TensorEntry."""

    def tensor_bytes(self, name: str) -> bytes:
        """Raw little-endian bytes of a tensor."""
        entry = self.entries[name]
        return self.read(entry.begin, entry.end - entry.begin)

    def _parse(self) -> None:
        header, data_begin = self._parse_header()
        header.pop("__metadata__", None)
        room = self.size - data_begin
        entries = {name: self._parse_entry(name, item, data_begin, room) for name, item in header.items()}
        self._check_cover(entries, data_begin)
        self.entries = entries

    def _parse_header(self) -> tuple[dict[str, object], int]:
        start = self.read(0, min(16, self.size))
        self._refuse_foreign(start)
        if self.size < 8:
            raise FormatError(f"{self.path}: {self.size} bytes are too few for a safetensors file")
        n = int.from_bytes(start[:8], "little")
        if n > MAX_HEADER_BYTES:
            raise FormatError(
                f"{self.path}: the safetensors header claims {n} bytes, at most {MAX_HEADER_BYTES} allowed"
            )
        if n > self.size - 8:
            raise FormatError(
                f"{self.path}: the safetensors header claims {n} bytes, the file has {self.size - 8} (truncated?)"
            )
        if n < 2 or start[8:9] != b"{":
            raise FormatError(f"{self.path}: the safetensors header does not begin with '{{'")
        return parse_json_object(self.read(8, n), f"{self.path}: the safetensors header"), 8 + n

    def _refuse_foreign(self, start: bytes) -> None:
        if start[:4] == b"GGUF":
            raise FormatError(
                f"{self.path}: this is a GGUF file, not a checkpoint; try `autodeco-edge show {self.path}`"
            )
        if start == b"version https://":
            raise FormatError(f"{self.path}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull`")
        if start[8:9] != b"{" and start.startswith(_PICKLE_STARTS):
            raise FormatError(f"{self.path}: {PICKLE_REFUSAL}")

    def _parse_entry(self, name: str, item: object, data_begin: int, room: int) -> TensorEntry:
        where = f"{self.path}: tensor {name!r}"
        if not isinstance(item, dict) or not {"dtype", "shape", "data_offsets"} <= item.keys():
            raise FormatError(f"{where} lacks dtype, shape or data_offsets")
        dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
        if not isinstance(dtype, str):
            raise FormatError(f"{where} has a dtype that is not a string")
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_DIMS
            or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape)
        ):
            raise FormatError(f"{where} has a shape that is not a list of sizes")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
            raise FormatError(f"{where} has data_offsets that are not two positions")
        begin, end = offsets
        if not begin <= end <= room:
            raise FormatError(f"{where} claims the bytes {begin} to {end} of a data section of {room} (truncated?)")
        if dtype in DTYPE_BITS and math.prod(shape) * DTYPE_BITS[dtype] != (end - begin) * 8:
            raise FormatError(f"{where} of shape {shape} and type {dtype} cannot take {end - begin} bytes")
        return TensorEntry(dtype, tuple(shape), data_begin + begin, data_begin + end)

    def _check_cover(self, entries: dict[str, TensorEntry], data_begin: int) -> None:
        """The tensors cover the data section without holes, overlaps or a remainder."""
        at = data_begin
        for name, entry in sorted(entries.items(), key=lambda kv: (kv[1].begin, kv[1].end)):
            if entry.begin != at:
                how = "overlaps the one before it" if entry.begin < at else f"begins {entry.begin - at} bytes too late"
                raise FormatError(f"{self.path}: tensor {name!r} {how}")
            at = entry.end
        if at != self.size:
            raise FormatError(f"{self.path}: {self.size - at} bytes after the last tensor belong to nothing")


PICKLE_REFUSAL = (
    "this is a PyTorch pickle, which can run code when it is opened, so it is refused; "
    "save the heads as .safetensors and try again"
)


def parse_json_object(raw: bytes, where: str) -> dict[str, object]:
    """A JSON object without repeated keys; ``where`` begins the message of a FormatError.

    Its parts are counted before any of them is made: a byte of JSON can become 50 of memory.
    """
    n_parts = sum(map(raw.count, (b",", b"[", b"{")))
    if n_parts > MAX_JSON_PARTS:
        raise FormatError(f"{where} has {n_parts} parts; allowed: up to {MAX_JSON_PARTS}")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except _RepeatedKey as repeated:
        raise FormatError(f"{where} names {repeated.args[0]!r} twice") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{where} is not valid JSON") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not a JSON object")
    return value


class _RepeatedKey(Exception):
    pass


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        raise _RepeatedKey(next(key for key, _ in pairs if key in seen or seen.add(key)))
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(name)

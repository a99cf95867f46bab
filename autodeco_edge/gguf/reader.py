"""A strict reader of GGUF v2 and v3 headers, for files that nobody vouches for.

Owns the walk over a GGUF file: header, metadata, tensor table, and where each of them
lies in the file, so that a copy can take them over byte for byte. Every length is
checked against the bytes that are left before anything is read, every kind of damage
has a message of its own that names the key or tensor, and large arrays stay in the file
until somebody asks for them. Knows nothing of AutoDeco and never writes. (gguf's own
GGUFReader is not used: it hangs on some malformed files.)
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, StorageError
from ..io.regular import read_exact
from . import types as gt
from .raw_file import RawFile

# Far above any real model, low enough that a hostile file costs well under a second.
MAX_KV = 1 << 16
MAX_TENSORS = 1 << 16
MAX_KEY_BYTES = 1 << 10
MAX_STRING_BYTES = 1 << 26
MAX_ARRAY_STRINGS = 1 << 21
MAX_STRINGS = 1 << 21  # in all arrays together; the largest vocabulary with its merges has 800,000
MAX_ARRAY_BYTES = 1 << 28  # numbers: heads in a model; llama.cpp takes seconds to read a gigabyte one by one
MAX_ALIGNMENT = 1 << 16
MAX_HEADER_BYTES = 1 << 31

CHUNK = 1 << 20
RUN_BYTES = 1 << 17  # looked through at once for short strings
MIN_SINGLY, MAX_SINGLY = 16, 1 << 13  # strings passed over one by one between two such looks
_U64 = struct.Struct("<Q")


@dataclass(frozen=True)
class Value:
    """Where a metadata value lies: ``count`` items of ``item_type``, ``nbytes`` from ``offset``."""

    is_array: bool
    item_type: int
    count: int
    offset: int
    nbytes: int

    @property
    def type_text(self) -> str:
        """Type for messages: ``u32`` or ``array of string``."""
        name = gt.VALUE_NAMES[self.item_type]
        return f"array of {name}" if self.is_array else name


@dataclass(frozen=True)
class Tensor:
    """One row of the tensor table; ``shape`` in ggml order (ne0 first), ``offset`` from the data section."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int
    nbytes: int


class GGUFFile(RawFile):
    """An open GGUF file, its header checked.

    kv, tensors           dicts in file order
    kv_span, info_span    (begin, end) byte positions in the file
    data_offset           where the data section begins
    """

    # ---- raw access -----------------------------------------------------------------

    def tensor_bytes(self, name: str) -> bytes:
        """Raw bytes of a tensor's data."""
        return self.read_tensor(name, 0, self.tensors[name].nbytes)

    def read_tensor(self, name: str, begin: int, nbytes: int) -> bytes:
        """``nbytes`` of a tensor's data from its byte ``begin``; the caller has checked them against its size."""
        return self.read(self.data_offset + self.tensors[name].offset + begin, nbytes)

    def check_unchanged(self) -> None:
        """Raises StorageError when somebody wrote to the file since it was opened."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self.stat.st_size, self.stat.st_mtime_ns):
            raise StorageError(f"{self.path}: the file changed while it was being read; run the command again")

    # ---- typed metadata -------------------------------------------------------------

    def string(self, key: str) -> str | None:
        """A string value, None when the key is absent."""
        value = self._typed(key, False, (gt.STRING,), "string")
        return None if value is None else self._text(key, self.read(value.offset + 8, value.nbytes - 8))

    def integer(self, key: str) -> int | None:
        """An integer value of any width, None when the key is absent."""
        return self._scalar(key, gt.INTEGERS, "integer")

    def u32(self, key: str) -> int | None:
        """A u32 value, None when the key is absent."""
        return self._scalar(key, (gt.U32,), "u32")

    def f32(self, key: str) -> float | None:
        """A finite f32 value, None when the key is absent."""
        number = self._scalar(key, (gt.F32,), "f32")
        if number is not None and not math.isfinite(number):
            raise FormatError(f"{self.path}: key {key!r} is {number}, expected a finite number")
        return number

    def strings(self, key: str, limit: int = MAX_ARRAY_STRINGS) -> list[str] | None:
        """An array of at most ``limit`` strings, None when the key is absent."""
        value = self._typed(key, True, (gt.STRING,), "array of string")
        if value is None:
            return None
        if value.count > limit:
            raise FormatError(f"{self.path}: key {key!r} holds {value.count} strings, at most {limit} are allowed")
        raw, items, at = self.read(value.offset, value.nbytes), [], 0
        for _ in range(value.count):
            (n,) = _U64.unpack_from(raw, at)
            items.append(self._text(key, raw[at + 8 : at + 8 + n]))
            at += 8 + n
        return items

    def u64s(self, key: str) -> np.ndarray | None:
        """An array of u64, [count], None when the key is absent."""
        value = self._typed(key, True, (gt.U64,), "array of u64")
        return None if value is None else np.frombuffer(self.read(value.offset, value.nbytes), dtype="<u8")

    def display(self, key: str, max_chars: int = 60) -> str:
        """Any value as short text, for people."""
        value = self.kv[key]
        if value.is_array:
            return f"{value.type_text}, {value.count} items"
        if value.item_type == gt.STRING:
            text = self.read(value.offset + 8, min(value.nbytes - 8, 4 * max_chars)).decode("utf-8", "replace")
            return text if len(text) <= max_chars else text[: max_chars - 3] + "..."
        number = self._unpack(value)
        if value.item_type == gt.BOOL:
            return str(bool(number))
        return f"{number:.9g}" if isinstance(number, float) else str(number)

    def _typed(self, key: str, is_array: bool, types: tuple[int, ...], expected: str) -> Value | None:
        value = self.kv.get(key)
        if value is not None and (value.is_array != is_array or value.item_type not in types):
            raise FormatError(f"{self.path}: key {key!r} is of type {value.type_text}, expected {expected}")
        return value

    def _scalar(self, key: str, types: tuple[int, ...], expected: str) -> Any:
        value = self._typed(key, False, types, expected)
        return None if value is None else self._unpack(value)

    def _unpack(self, value: Value) -> int | float:
        return struct.unpack("<" + gt.SCALARS[value.item_type][0], self.read(value.offset, value.nbytes))[0]

    def _text(self, key: str, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{self.path}: key {key!r} holds text that is not valid UTF-8") from None

    # ---- the walk -------------------------------------------------------------------

    def _parse(self) -> None:
        cursor = _Cursor(self._fd, self.path, min(self.size, MAX_HEADER_BYTES))
        self.version, n_tensors, n_kv = self._parse_header(cursor)
        begin = cursor.at
        self.kv: dict[str, Value] = {}
        for i in range(n_kv):
            self._parse_kv(cursor, i)
        self.kv_span = (begin, cursor.at)
        self.alignment = self._parse_alignment()
        self.tensors: dict[str, Tensor] = {}
        for i in range(n_tensors):
            self._parse_tensor(cursor, i)
        self.info_span = (self.kv_span[1], cursor.at)
        self.data_offset = gt.pad_to(cursor.at, self.alignment)
        self._check_data()

    def _parse_header(self, cursor: _Cursor) -> tuple[int, int, int]:
        magic = cursor.take(min(4, self.size), "the magic number")
        if magic != gt.MAGIC:
            raise FormatError(f"{self.path}: not a GGUF file (it begins with {magic!r}, expected b'GGUF')")
        version = cursor.u32("the version")
        if version not in gt.VERSIONS:
            why = "a big-endian file is not supported" if version & 0xFFFF == 0 and version else "allowed: 2 or 3"
            raise FormatError(f"{self.path}: GGUF version {version}; {why}")
        n_tensors, n_kv = cursor.u64("the tensor count"), cursor.u64("the key count")
        # A key takes at least 13 bytes, a tensor info at least 24.
        for what, n, limit, least in (("tensors", n_tensors, MAX_TENSORS, 24), ("keys", n_kv, MAX_KV, 13)):
            if n > limit:
                raise FormatError(f"{self.path}: the header promises {n} {what}, at most {limit} are allowed")
            if n * least > cursor.left:
                raise FormatError(
                    f"{self.path}: the header promises {n} {what}, more than the file can hold (truncated?)"
                )
        return version, n_tensors, n_kv

    def _parse_kv(self, cursor: _Cursor, index: int) -> None:
        key = cursor.name(f"the name of key {index}", MAX_KEY_BYTES)
        if key in self.kv:
            raise FormatError(f"{self.path}: key {key!r} appears twice")
        value_type = cursor.u32(f"the type of key {key!r}")
        is_array = value_type == gt.ARRAY
        count = 1
        if is_array:
            value_type = cursor.u32(f"the item type of key {key!r}")
            count = cursor.u64(f"the length of key {key!r}")
            if value_type == gt.ARRAY:
                raise FormatError(f"{self.path}: key {key!r} is an array of arrays, which is not supported")
        if value_type != gt.STRING and value_type not in gt.SCALARS:
            raise FormatError(f"{self.path}: key {key!r} has the unknown value type {value_type}; allowed: 0 to 12")
        offset = cursor.at
        self._skip_value(cursor, key, value_type, count, is_array)
        self.kv[key] = Value(is_array, value_type, count, offset, cursor.at - offset)

    def _skip_value(self, cursor: _Cursor, key: str, value_type: int, count: int, is_array: bool) -> None:
        if value_type == gt.STRING:
            if count > MAX_ARRAY_STRINGS:
                raise FormatError(
                    f"{self.path}: key {key!r} promises {count} strings, at most {MAX_ARRAY_STRINGS} are allowed"
                )
            cursor.skip_strings(count, key)
            return
        nbytes = count * gt.SCALARS[value_type][1]
        if nbytes > MAX_ARRAY_BYTES:
            raise FormatError(
                f"{self.path}: key {key!r} promises {nbytes} bytes, at most {MAX_ARRAY_BYTES} are allowed"
            )
        if value_type == gt.BOOL and not is_array:
            if cursor.take(1, f"the value of key {key!r}")[0] > 1:
                raise FormatError(f"{self.path}: key {key!r} is a bool that is neither 0 nor 1")
            return
        cursor.skip(nbytes, f"the value of key {key!r}")

    def _parse_alignment(self) -> int:
        alignment = self.u32("general.alignment")
        if alignment is None:
            return gt.DEFAULT_ALIGNMENT
        if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise FormatError(
                f"{self.path}: key 'general.alignment' is {alignment}; allowed: a power of two up to {MAX_ALIGNMENT}"
            )
        return alignment

    def _parse_tensor(self, cursor: _Cursor, index: int) -> None:
        name = cursor.name(f"the name of tensor {index}", gt.MAX_TENSOR_NAME)
        if name in self.tensors:
            raise FormatError(f"{self.path}: tensor {name!r} appears twice")
        n_dims = cursor.u32(f"the dimensions of tensor {name!r}")
        if n_dims > gt.MAX_DIMS:
            raise FormatError(
                f"{self.path}: tensor {name!r} has {n_dims} dimensions, at most {gt.MAX_DIMS} are allowed"
            )
        shape = tuple(cursor.u64(f"the shape of tensor {name!r}") for _ in range(n_dims))
        ggml_type = cursor.u32(f"the type of tensor {name!r}")
        offset = cursor.u64(f"the offset of tensor {name!r}")
        self.tensors[name] = self._checked_tensor(name, shape, ggml_type, offset)

    def _checked_tensor(self, name: str, shape: tuple[int, ...], ggml_type: int, offset: int) -> Tensor:
        where = f"{self.path}: tensor {name!r}"
        if ggml_type not in gt.GGML_TYPES:
            raise FormatError(f"{where} has the unknown type {ggml_type}")
        if math.prod(shape) >= 1 << 63 or any(n >= 1 << 63 for n in shape):
            raise FormatError(f"{where} has the shape {list(shape)}, too large to be real")
        type_name, block, _ = gt.GGML_TYPES[ggml_type]
        if (shape[0] if shape else 1) % block:
            raise FormatError(
                f"{where} has rows of {shape[0] if shape else 1}, not a multiple of {block} ({type_name})"
            )
        if offset % self.alignment:
            raise FormatError(f"{where} lies at offset {offset}, not a multiple of the alignment {self.alignment}")
        return Tensor(name, shape, ggml_type, offset, gt.tensor_nbytes(shape, ggml_type))

    def _check_data(self) -> None:
        """Every tensor inside the file, no two of them overlapping."""
        room, end, last = self.size - self.data_offset, 0, ""
        for tensor in sorted(self.tensors.values(), key=lambda t: (t.offset, t.nbytes)):
            if tensor.offset + tensor.nbytes > room:
                raise FormatError(
                    f"{self.path}: tensor {tensor.name!r} ends {tensor.offset + tensor.nbytes - max(room, 0)} bytes "
                    f"after the end of the file (truncated?)"
                )
            if tensor.offset < end:
                raise FormatError(f"{self.path}: tensors {last!r} and {tensor.name!r} overlap")
            end, last = tensor.offset + tensor.nbytes, tensor.name


class _Cursor:
    """Sequential reads of a header through a window of one chunk; never past ``limit``."""

    def __init__(self, fd: int, path: Path, limit: int) -> None:
        self._fd, self._path, self._limit = fd, path, limit
        self.at = 0
        self._window, self._base = b"", 0
        self._n_strings = 0

    @property
    def left(self) -> int:
        """Bytes between here and the end of the file."""
        return self._limit - self.at

    def take(self, n: int, what: str) -> bytes:
        """The next ``n`` bytes; ``what`` goes into the message when the file ends first."""
        if n > self.left:
            raise FormatError(f"{self._path}: the file ends inside {what} (needs {n} bytes, {self.left} are left)")
        i = self.at - self._base
        if i < 0 or i + n > len(self._window):
            self._window = read_exact(self._fd, self._path, self.at, min(max(n, CHUNK), self.left))
            self._base, i = self.at, 0
        self.at += n
        return self._window[i : i + n]

    def skip(self, n: int, what: str) -> None:
        """Passes over ``n`` bytes without reading them."""
        if n > self.left:
            raise FormatError(f"{self._path}: the file ends inside {what} (needs {n} bytes, {self.left} are left)")
        self.at += n

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        return int.from_bytes(self.take(8, what), "little")

    def name(self, what: str, limit: int) -> str:
        """A non-empty UTF-8 string of at most ``limit`` bytes."""
        n = self.u64(what)
        if not 1 <= n <= limit:
            raise FormatError(f"{self._path}: {what} has {n} bytes; allowed: 1 to {limit}")
        try:
            return self.take(n, what).decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{self._path}: {what} is not valid UTF-8") from None

    def skip_strings(self, count: int, key: str) -> None:
        """Passes over ``count`` strings: runs of short ones at once, the others one by one.

        A vocabulary is nearly all runs: 300,000 strings take 10 ms, one by one 100 ms. Where runs are short, more
        is done one by one before the next is looked for, so that the work stays linear.
        """
        if count * 8 > self.left:
            raise FormatError(f"{self._path}: key {key!r} promises {count} strings, more than the file can hold")
        self._count_strings(count, key)
        patience = MIN_SINGLY
        while count:
            n = skip_run(self._view(), count)
            self.at += n[1]
            patience = min(2 * patience, MAX_SINGLY) if n[0] < patience else MIN_SINGLY
            n_singly = min(count - n[0], patience)
            self._skip_singly(n_singly, key)
            count -= n[0] + n_singly

    def _count_strings(self, count: int, key: str) -> None:
        self._n_strings += count
        if self._n_strings > MAX_STRINGS:
            raise FormatError(
                f"{self._path}: {self._n_strings} strings in arrays up to key {key!r}; allowed: {MAX_STRINGS} in all"
            )

    def _view(self) -> np.ndarray:
        """The next bytes, at most RUN_BYTES; fewer only at the end of a window or of the file."""
        if self.at + 8 > self._base + len(self._window) or self.at < self._base:
            n = min(CHUNK, self.left)
            self._window, self._base = read_exact(self._fd, self._path, self.at, n), self.at
        begin = self.at - self._base
        return np.frombuffer(self._window, np.uint8)[begin : begin + RUN_BYTES]

    def _skip_singly(self, count: int, key: str) -> None:
        """The plain rule, one string after another; ``skip_run`` is tested against it."""
        what = f"the text of key {key!r}"
        window, base, at, limit = self._window, self._base, self.at, self._limit
        for _ in range(count):
            i = at - base
            if i < 0 or i + 8 > len(window):
                self.at = at
                self.take(8, what)
                window, base, i = self._window, self._base, at - self._base
            (n,) = _U64.unpack_from(window, i)
            at += 8
            if n > limit - at:
                raise FormatError(f"{self._path}: the file ends inside {what} (needs {n} bytes, {limit - at} are left)")
            if n > MAX_STRING_BYTES:
                raise FormatError(
                    f"{self._path}: key {key!r} holds {n} bytes of text, at most {MAX_STRING_BYTES} allowed"
                )
            at += n
        self.at = at


def skip_run(data: np.ndarray, limit: int) -> tuple[int, int]:
    """(strings, bytes) of a run of at most ``limit`` strings that lie whole at the start of ``data`` (uint8).

    Only strings of one kind: empty ones, or those of 1 to 255 bytes. A length below 256 is a byte and seven zeros.
    Such places are all found at once; those from the start on that each end where the next begins are strings.
    May stop early, never goes too far.
    """
    if len(data) < 8:
        return 0, 0
    if not data[:8].any():
        ends = data.any() and int(np.argmax(data != 0))
        n = min(limit, (ends or len(data)) // 8)
        return n, 8 * n
    zero = data == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    seven = four[:-3] & four[3:]  # seven[i]: bytes i to i + 6 are zero
    (starts,) = np.nonzero(seven[1:] & ~zero[: len(seven) - 1])
    if not len(starts) or starts[0]:
        return 0, 0
    ends = starts + 8 + data[starts]
    broken = ends[:-1] != starts[1:]
    n = int(np.argmax(broken)) + 1 if broken.any() else len(starts)
    n = min(n, limit, int(np.searchsorted(ends[:n], len(data), "right")))
    return (n, int(ends[n - 1])) if n else (0, 0)

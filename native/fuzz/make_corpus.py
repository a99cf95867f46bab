"""Writes the kept corpus of the loader's fuzzer: sound files, and malformed ones, one a kind of violation.

Owns a GGUF writer that can write what no other would, and the table of what the loader has to say about each file:
its status (autodeco.h) and a word of its message. tests/native/test_corpus.py holds the loader to it.

    python native/fuzz/make_corpus.py [FOLDER]
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

OK, FORMAT, NO_HEADS = 0, 2, 3
U8, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 6, 7, 8, 9, 10
ENHANCED = ["temperature", "max_prob", "entropy", "prob_var", "top5_sum"]
N_EMBD, N_HIDDEN = 32, 4
TB = 1 << 40


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def u32(n: int) -> bytes:
    return struct.pack("<I", n)


def u64(*n: int) -> bytes:
    return struct.pack(f"<{len(n)}Q", *n)


def f32(*x: float) -> bytes:
    return struct.pack(f"<{len(x)}f", *x)


def array(item: int, n: int, payload: bytes) -> bytes:
    return struct.pack("<IQ", item, n) + payload


def strings(*items: str) -> bytes:
    return array(STRING, len(items), b"".join(map(string, items)))


@dataclass
class Tensor:
    ne: tuple[int, ...]
    type: int
    data: bytes
    offset: int | None = None  # None: where it belongs


@dataclass
class File:
    """Every part of a GGUF, to be changed at will."""

    keys: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    n_keys: int | None = None  # None: as many as there are
    n_tensors: int | None = None
    extra_keys: list[bytes] = field(default_factory=list)  # raw, behind the others
    extra_tensors: list[bytes] = field(default_factory=list)
    alignment: int = 32
    cut: int | None = None  # bytes that stay; negative: bytes that go

    def table(self) -> bytes:
        out, at = b"", 0
        for name, t in self.tensors.items():
            offset = at if t.offset is None else t.offset
            out += string(name) + u32(len(t.ne)) + u64(*t.ne) + u32(t.type) + u64(offset)
            at += -(-len(t.data) // self.alignment) * self.alignment
        return out + b"".join(self.extra_tensors)

    def bytes(self) -> bytes:
        n_keys = len(self.keys) + len(self.extra_keys) if self.n_keys is None else self.n_keys
        n_tensors = len(self.tensors) + len(self.extra_tensors) if self.n_tensors is None else self.n_tensors
        out = self.magic + self.version + u64(n_tensors, n_keys)
        out += b"".join(string(k) + u32(t) + v for k, (t, v) in self.keys.items()) + b"".join(self.extra_keys)
        out += self.table()
        out += bytes(-len(out) % self.alignment)
        for t in self.tensors.values():
            out += t.data + bytes(-len(t.data) % self.alignment)
        return out[: self.cut] if self.cut is not None else out


# ---- sound files ------------------------------------------------------------------------


def wide(kind: int) -> bytes:
    """[N_HIDDEN][N_EMBD] small weights in ggml type 0, 1, 30 or 8."""
    n = N_HIDDEN * N_EMBD
    if kind == 0:
        return f32(*[(i % 7 - 3) / 8 for i in range(n)])
    if kind == 8:
        return b"".join(struct.pack("<e32b", 0.01, *[(i * 5 + r) % 17 - 8 for i in range(32)]) for r in range(n // 32))
    code = "<e" if kind == 1 else "<f"
    return b"".join(struct.pack(code, (i % 7 - 3) / 8)[-2:] for i in range(n))


def floats(n: int) -> Tensor:
    return Tensor((n,), 0, f32(*[(i % 5 - 2) / 4 for i in range(n)]))


def tensors(kind: int = 0, n_extra: int = 5, temp: bool = True) -> dict[str, Tensor]:
    out = {}
    heads = [("temp", 0)] * temp + [("top_p", n_extra)] * (n_extra > 0)
    for head, extra in heads:
        out[f"{head}.fc1.weight"] = Tensor((N_EMBD, N_HIDDEN), kind, wide(kind))
        if extra:
            out[f"{head}.fc1_extra.weight"] = Tensor((extra, N_HIDDEN), 0, floats(extra * N_HIDDEN).data)
        out[f"{head}.fc1.bias"] = floats(N_HIDDEN)
        out[f"{head}.fc2.weight"] = floats(N_HIDDEN)
        out[f"{head}.fc2.bias"] = floats(1)
    return out


def spec_keys(n_extra: int) -> dict[str, tuple[int, bytes]]:
    return {
        "autodeco.format_version": (U32, u32(1)),
        "autodeco.embedding_length": (U32, u32(N_EMBD)),
        "autodeco.hidden_length": (U32, u32(N_HIDDEN)),
        "autodeco.temperature.scale": (F32, f32(2.0)),
        "autodeco.top_p.features": (ARRAY, strings(*ENHANCED[:n_extra])),
        "autodeco.vocab_size": (U32, u32(100)),
        "autodeco.mean_temperature": (F32, f32(0.75)),
        "autodeco.mean_top_p": (F32, f32(0.9)),
    }


def heads_file(kind: int = 0, n_extra: int = 5, temp: bool = True) -> File:
    file = File(tensors={f"autodeco.{k}": t for k, t in tensors(kind, n_extra, temp).items()})
    file.keys = {
        "general.type": (STRING, string("adapter")),
        "adapter.type": (STRING, string("autodeco")),
        "general.architecture": (STRING, string("llama")),
        **spec_keys(n_extra),
    }
    return file


def single_file(kind: int = 0) -> File:
    file = File(tensors={"token_embd.weight": floats(64)})
    file.keys = {
        "general.architecture": (STRING, string("llama")),
        "tokenizer.ggml.tokens": (ARRAY, strings("a", "", "ccc")),
        "tokenizer.ggml.scores": (ARRAY, array(F32, 3, f32(1, 2, 3))),
        **spec_keys(5),
        "autodeco.architecture": (STRING, string("llama")),
    }
    for name, t in tensors(kind).items():
        ne, data = (*t.ne, 1)[:2], t.data + bytes(-len(t.data) % 8)
        file.keys[f"autodeco.tensor.{name}.type"] = (U32, u32(t.type))
        file.keys[f"autodeco.tensor.{name}.shape"] = (ARRAY, array(U64, len(ne), u64(*ne)))
        file.keys[f"autodeco.tensor.{name}.data"] = (ARRAY, array(U64, len(data) // 8, data))
    return file


# ---- the table --------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    data: bytes
    status: int
    word: str  # in the message; "" where there is none


CASES: dict[str, Case] = {}


def case(name: str, status: int, word: str, make: Callable[[], File] = heads_file, change=lambda f: None) -> None:
    file = make()
    change(file)
    CASES[name] = Case(file.bytes(), status, word)


def key(name: str, kind: int, value: bytes):
    return lambda f: f.keys.__setitem__(name, (kind, value))


def no_key(name: str):
    return lambda f: f.keys.pop(name)


def attribute(name: str, value):
    return lambda f: setattr(f, name, value)


def tensor(name: str, **changes):
    def change(f: File) -> None:
        for field_name, value in changes.items():
            setattr(f.tensors[f"autodeco.{name}"], field_name, value)

    return change


def no_tensor(name: str):
    return lambda f: f.tensors.pop(f"autodeco.{name}")


def raw_key(raw: bytes):
    return lambda f: f.extra_keys.append(raw)


def poke(name: str, at: int, raw: bytes):
    """Bytes of a tensor's data replaced."""

    def change(f: File) -> None:
        t = f.tensors[f"autodeco.{name}"]
        t.data = t.data[:at] + raw + t.data[at + len(raw) :]

    return change


for kind, label in ((0, "f32"), (1, "f16"), (30, "bf16"), (8, "q8_0")):
    case(f"ok-{label}", OK, "", lambda kind=kind: heads_file(kind))
    case(f"ok-single-{label}", OK, "", lambda kind=kind: single_file(kind))
case("ok-temperature-only", OK, "", lambda: heads_file(n_extra=0))
case("ok-top-p-only", OK, "", lambda: heads_file(temp=False))
case("ok-basic", OK, "", lambda: heads_file(n_extra=1))
case("ok-version-2", OK, "", change=attribute("version", u32(2)))
case("ok-unknown-key", OK, "", change=key("autodeco.colour", STRING, string("blue")))
case(
    "ok-every-type",
    OK,
    "",
    change=lambda f: [
        key(f"x.{t}", t, bytes(8)[: (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[t]])(f)
        for t in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12)
    ],
)
case(
    "ok-without-optional-keys",
    OK,
    "",
    change=lambda f: [no_key(f"autodeco.{k}")(f) for k in ("vocab_size", "mean_temperature", "mean_top_p")],
)
case("ok-four-dimensions-of-one", OK, "", change=tensor("temp.fc1.bias", ne=(N_HIDDEN, 1, 1, 1)))


def align(n: int):
    def change(f: File) -> None:
        f.alignment = n
        f.keys["general.alignment"] = (U32, u32(n))

    return change


case("ok-alignment-64", OK, "", change=align(64))
case("ok-alignment-1", OK, "", change=align(1))

# the header
CASES["empty"] = Case(b"", FORMAT, "header")
CASES["three-bytes"] = Case(b"GGU", FORMAT, "header")
CASES["text"] = Case(b"this is a text file, and a long one too\n" * 2, FORMAT, "GGUF")
CASES["zip"] = Case(b"PK\x03\x04" + bytes(60), FORMAT, "GGUF")
case("version-0", FORMAT, "version 0", change=attribute("version", u32(0)))
case("version-1", FORMAT, "version 1", change=attribute("version", u32(1)))
case("version-4", FORMAT, "version 4", change=attribute("version", u32(4)))
case("big-endian", FORMAT, "big-endian", change=attribute("version", struct.pack(">I", 3)))
case("too-many-keys", FORMAT, "65536", change=attribute("n_keys", 65537))
case("2-64-keys", FORMAT, "65536", change=attribute("n_keys", 2**64 - 1))
case("more-keys-than-there-are", FORMAT, "key", change=attribute("n_keys", 60))
case("fewer-keys-than-there-are", FORMAT, "", change=attribute("n_keys", 10))
case("no-keys", NO_HEADS, "no AutoDeco heads", change=attribute("n_keys", 0))
case("too-many-tensors", FORMAT, "tensors", change=attribute("n_tensors", 10))
case("2-63-tensors", FORMAT, "tensors", change=attribute("n_tensors", 2**63))
case("one-tensor-less", FORMAT, "tensors", change=attribute("n_tensors", 8))

# names and values of keys
case("key-name-empty", FORMAT, "empty", change=raw_key(string("") + u32(U32) + u32(1)))
case("key-name-with-zero", FORMAT, "zero byte", change=raw_key(string("a\0b") + u32(U32) + u32(1)))
case("key-name-too-long", FORMAT, "1024", change=raw_key(string("k" * 1025) + u32(U32) + u32(1)))
case("key-name-4-tb", FORMAT, "1024", change=raw_key(u64(4 * TB)))
case("key-name-behind-the-end", FORMAT, "ends behind", change=lambda f: (raw_key(u64(1000))(f), f.tensors.clear()))
case("key-name-controls", FORMAT, "'a??[31mb'", change=raw_key(string("a\n\x1b[31mb") + u32(13)))
case("key-twice", FORMAT, "twice", change=raw_key(string("general.type") + u32(U32) + u32(1)))
case("key-of-type-13", FORMAT, "type 13", change=raw_key(string("x") + u32(13) + u32(1)))
case("key-of-type-2-32", FORMAT, "type 4294967295", change=raw_key(string("x") + u32(2**32 - 1)))
case("string-4-tb", FORMAT, "'x'", change=raw_key(string("x") + u32(STRING) + u64(4 * TB)))
case("string-2-64", FORMAT, "'x'", change=raw_key(string("x") + u32(STRING) + u64(2**64 - 1)))
case("string-behind-the-end", FORMAT, "ends behind", change=raw_key(string("x") + u32(STRING) + u64(1 << 20)))
case("array-nested", FORMAT, "array of type 9", change=raw_key(string("x") + u32(ARRAY) + array(ARRAY, 1, bytes(12))))
case("array-of-type-99", FORMAT, "array of type 99", change=raw_key(string("x") + u32(ARRAY) + array(99, 0, b"")))
case("array-2-61-numbers", FORMAT, "numbers", change=raw_key(string("x") + u32(ARRAY) + array(U64, 2**61, b"")))
case("array-2-64-bytes", FORMAT, "numbers", change=raw_key(string("x") + u32(ARRAY) + array(U8, 2**64 - 1, b"")))
case("array-behind-the-end", FORMAT, "ends behind", change=raw_key(string("x") + u32(ARRAY) + array(U64, 1 << 20, b"")))
case(
    "array-of-too-many-strings",
    FORMAT,
    "2097152",
    change=raw_key(string("x") + u32(ARRAY) + array(STRING, 2097153, b"")),
)
case(
    "array-of-strings-behind-the-end",
    FORMAT,
    "ends behind",
    change=raw_key(string("x") + u32(ARRAY) + array(STRING, 2097000, b"")),
)
case(
    "array-with-a-string-of-4-tb",
    FORMAT,
    "'x'",
    change=raw_key(string("x") + u32(ARRAY) + array(STRING, 1, u64(4 * TB))),
)

# cut short
for n in (4, 12, 20, 24, 28, 36, 40, 44, 100, 300):
    case(f"cut-at-{n}", FORMAT, "", change=attribute("cut", n))
case("cut-in-the-table", FORMAT, "tensor", change=attribute("cut", 760))
case("cut-in-the-data", FORMAT, "truncated", change=attribute("cut", -200))
case("cut-in-the-last-tensor", FORMAT, "truncated", change=attribute("cut", -30))

# alignment
case("alignment-0", FORMAT, "alignment", change=key("general.alignment", U32, u32(0)))
case("alignment-3", FORMAT, "alignment", change=key("general.alignment", U32, u32(3)))
case("alignment-2-17", FORMAT, "alignment", change=key("general.alignment", U32, u32(1 << 17)))
case("alignment-is-a-string", FORMAT, "alignment", change=key("general.alignment", STRING, string("32")))

# whose file it is
case(
    "another-adapter",
    NO_HEADS,
    "no AutoDeco heads",
    change=lambda f: (key("adapter.type", STRING, string("lora"))(f), no_key("autodeco.format_version")(f)),
)
case("adapter-type-is-a-number", FORMAT, "architecture", change=key("adapter.type", U32, u32(1)))
case("a-plain-model", NO_HEADS, "no AutoDeco heads", single_file, no_key("autodeco.format_version"))
case("format-version-2", FORMAT, "version 2", change=key("autodeco.format_version", U32, u32(2)))
case("format-version-0", FORMAT, "format_version", change=key("autodeco.format_version", U32, u32(0)))
case("format-version-is-a-string", FORMAT, "format_version", change=key("autodeco.format_version", STRING, string("1")))

# the other keys: missing, of another type, out of range
for name, word in (
    ("general.architecture", "general.architecture"),
    ("autodeco.embedding_length", "embedding_length"),
    ("autodeco.hidden_length", "hidden_length"),
    ("autodeco.temperature.scale", "scale"),
    ("autodeco.top_p.features", "features"),
):
    case(f"without-{name}", FORMAT, word, change=no_key(name))
    case(f"{name}-is-a-bool", FORMAT, word, change=key(name, BOOL, b"\1"))
for name in ("embedding_length", "hidden_length"):
    for n in (0, N_EMBD + 1, (1 << 20) + 1, 2**32 - 1):
        case(f"{name}-{n}", FORMAT, "" if n == N_EMBD + 1 else name, change=key(f"autodeco.{name}", U32, u32(n)))
case("vocab-size-0", FORMAT, "vocab_size", change=key("autodeco.vocab_size", U32, u32(0)))
case("vocab-size-2-32", FORMAT, "vocab_size", change=key("autodeco.vocab_size", U32, u32(2**32 - 1)))
case("vocab-size-is-a-float", FORMAT, "vocab_size", change=key("autodeco.vocab_size", F32, f32(100)))
for label, x in (("1", 1.0), ("nan", float("nan")), ("inf", float("inf"))):
    case(f"scale-{label}", FORMAT, "scale", change=key("autodeco.temperature.scale", F32, f32(x)))
for name, high in (("mean_temperature", 2.5), ("mean_top_p", 1.5)):
    for label, x in (("0", 0.0), ("high", high), ("nan", float("nan")), ("negative", -0.5)):
        case(f"{name}-{label}", FORMAT, name, change=key(f"autodeco.{name}", F32, f32(x)))
    case(f"{name}-is-u32", FORMAT, name, change=key(f"autodeco.{name}", U32, u32(1)))
case("architecture-empty", FORMAT, "general.architecture", change=key("general.architecture", STRING, string("")))
case(
    "architecture-too-long",
    FORMAT,
    "general.architecture",
    change=key("general.architecture", STRING, string("a" * 64)),
)

# features
case("features-two", FORMAT, "2 names", change=key("autodeco.top_p.features", ARRAY, strings(*ENHANCED[:2])))
case("features-six", FORMAT, "6 names", change=key("autodeco.top_p.features", ARRAY, strings(*ENHANCED, "x")))
case(
    "features-in-another-order",
    FORMAT,
    "features[1]",
    change=key("autodeco.top_p.features", ARRAY, strings("temperature", "entropy", "max_prob", *ENHANCED[3:])),
)
case(
    "features-with-a-long-name",
    FORMAT,
    "features[4]",
    change=key("autodeco.top_p.features", ARRAY, strings(*ENHANCED[:4], "top5_sum" * 100)),
)
case(
    "features-with-controls",
    FORMAT,
    "'?[2J'",
    change=key("autodeco.top_p.features", ARRAY, strings("\x1b[2J", *ENHANCED[1:])),
)
case("features-of-numbers", FORMAT, "features", change=key("autodeco.top_p.features", ARRAY, array(U32, 5, bytes(20))))
case(
    "features-without-top-p-head",
    FORMAT,
    "go together",
    lambda: heads_file(n_extra=0),
    key("autodeco.top_p.features", ARRAY, strings(*ENHANCED)),
)
case("top-p-head-without-features", FORMAT, "go together", change=key("autodeco.top_p.features", ARRAY, strings()))

# tensors
case("no-tensors", FORMAT, "neither", change=lambda f: f.tensors.clear())
case("only-unknown-tensors", FORMAT, "neither", change=lambda f: (f.tensors.clear(), f.tensors.update(x=floats(4))))
for name in tensors():
    if name.endswith("fc1.weight"):
        continue
    case(f"without-{name}", FORMAT, "expected 9", change=no_tensor(name))
    case(
        f"other-name-for-{name}",
        FORMAT,
        name,
        change=lambda f, name=name: f.tensors.__setitem__("x", f.tensors.pop(f"autodeco.{name}")),
    )
case(
    "tensor-name-too-long",
    FORMAT,
    "63",
    change=lambda f: f.tensors.__setitem__("t" * 64, f.tensors.pop("autodeco.top_p.fc2.bias")),
)
case(
    "tensor-name-empty",
    FORMAT,
    "empty",
    change=lambda f: f.tensors.__setitem__("", f.tensors.pop("autodeco.top_p.fc2.bias")),
)


def twice(f: File) -> None:
    f.tensors.pop("autodeco.top_p.fc2.bias")
    f.extra_tensors.append(string("autodeco.temp.fc2.bias") + u32(1) + u64(1) + u32(0) + u64(0))


case("tensor-twice", FORMAT, "twice", change=twice)
case("tensor-no-dimensions", FORMAT, "dimensions", change=tensor("temp.fc1.bias", ne=()))
case("tensor-five-dimensions", FORMAT, "dimensions", change=tensor("temp.fc1.bias", ne=(1,) * 5))
case("tensor-three-dimensions", FORMAT, "2 dimensions", change=tensor("temp.fc1.bias", ne=(N_HIDDEN, 1, 2)))
case("tensor-transposed", FORMAT, "temp.fc1.weight", change=tensor("temp.fc1.weight", ne=(N_HIDDEN, N_EMBD)))
case("tensor-of-2-63", FORMAT, "temp.fc1.bias", change=tensor("temp.fc1.bias", ne=(2**63,)))
case("tensor-of-zero", FORMAT, "temp.fc1.bias", change=tensor("temp.fc1.bias", ne=(0,)))
case("tensor-type-unknown", FORMAT, "type 77", change=tensor("temp.fc1.weight", type=77))
case("tensor-type-q4_0", FORMAT, "type 2", change=tensor("temp.fc1.weight", type=2))
case("bias-in-f16", FORMAT, "type 1", change=tensor("temp.fc1.bias", type=1))
case("tensor-offset-misaligned", FORMAT, "alignment", change=tensor("temp.fc1.bias", offset=4))
case("tensor-offset-2-64", FORMAT, "beyond", change=tensor("temp.fc1.bias", offset=2**64 - 32))
case("tensor-offset-behind-the-end", FORMAT, "beyond", change=tensor("temp.fc1.bias", offset=1 << 30))
case("tensors-overlap", FORMAT, "overlap", change=tensor("temp.fc2.weight", offset=0))
case("nan-in-f32", FORMAT, "not finite", change=poke("temp.fc1.weight", 40, f32(float("nan"))))
case("inf-in-a-bias", FORMAT, "temp.fc2.bias", change=poke("temp.fc2.bias", 0, f32(float("inf"))))
case("inf-in-the-extra", FORMAT, "fc1_extra", change=poke("top_p.fc1_extra.weight", 8, f32(float("-inf"))))
case("nan-in-f16", FORMAT, "not finite", lambda: heads_file(1), poke("temp.fc1.weight", 2, b"\x01\x7e"))
case("inf-in-bf16", FORMAT, "not finite", lambda: heads_file(30), poke("top_p.fc1.weight", 6, b"\x80\xff"))
case("inf-in-a-q8_0-scale", FORMAT, "not finite", lambda: heads_file(8), poke("temp.fc1.weight", 34, b"\x00\x7c"))


def claims_4_tb(f: File) -> None:
    """758 bytes or so: 2^20 x 2^20 floats a head."""
    f.keys["autodeco.embedding_length"] = (U32, u32(1 << 20))
    f.keys["autodeco.hidden_length"] = (U32, u32(1 << 20))
    for name, t in f.tensors.items():
        t.ne = tuple(1 << 20 if n in (N_EMBD, N_HIDDEN) else n for n in t.ne)
        t.data = b"" if "fc1.weight" in name else t.data[:4]


case("claims-4-tb", FORMAT, "temp.fc1.weight", change=claims_4_tb)


def claims_mb(n_hidden: int):
    """Heads of 2^20 inputs: 4 MB a hidden unit and head."""

    def change(f: File) -> None:
        f.keys["autodeco.embedding_length"] = (U32, u32(1 << 20))
        f.keys["autodeco.hidden_length"] = (U32, u32(n_hidden))
        for i, (name, t) in enumerate(f.tensors.items()):
            t.ne = tuple({N_EMBD: 1 << 20, N_HIDDEN: n_hidden}.get(n, n) for n in t.ne)
            t.data = b"" if name.endswith("fc1.weight") else t.data
            t.offset = i << 28

    return change


case("claims-192-mb", FORMAT, "truncated", change=claims_mb(24))
case("claims-1-gb", FORMAT, "at most 268435456", change=claims_mb(128))


def odd_q8(f: File) -> None:
    f.keys["autodeco.embedding_length"] = (U32, u32(N_EMBD - 1))
    for t in f.tensors.values():
        t.ne = tuple(N_EMBD - 1 if n == N_EMBD else n for n in t.ne)


case("q8_0-rows-not-of-whole-blocks", FORMAT, "whole blocks", lambda: heads_file(8), odd_q8)

# single files
META = "autodeco.tensor.temp.fc1.bias"
case("single-without-architecture", FORMAT, "autodeco.architecture", single_file, no_key("autodeco.architecture"))
case("single-without-type", FORMAT, ".type", single_file, no_key(f"{META}.type"))
case("single-type-is-u64", FORMAT, ".type", single_file, key(f"{META}.type", U64, u64(0)))
case("single-type-unknown", FORMAT, "type 4000000000", single_file, key(f"{META}.type", U32, u32(4_000_000_000)))
case("single-without-shape", FORMAT, ".shape", single_file, no_key(f"{META}.shape"))
case("single-shape-of-u32", FORMAT, ".shape", single_file, key(f"{META}.shape", ARRAY, array(U32, 1, u32(4))))
case("single-shape-empty", FORMAT, ".shape", single_file, key(f"{META}.shape", ARRAY, array(U64, 0, b"")))
case(
    "single-shape-of-five",
    FORMAT,
    ".shape",
    single_file,
    key(f"{META}.shape", ARRAY, array(U64, 5, u64(4, 1, 1, 1, 1))),
)
case(
    "single-shape-of-2-64",
    FORMAT,
    "temp.fc1.bias",
    single_file,
    key(f"{META}.shape", ARRAY, array(U64, 1, u64(2**64 - 1))),
)
case("single-without-data", FORMAT, ".data", single_file, no_key(f"{META}.data"))
case("single-data-too-short", FORMAT, "2 u64", single_file, key(f"{META}.data", ARRAY, array(U64, 1, bytes(8))))
case("single-data-too-long", FORMAT, "2 u64", single_file, key(f"{META}.data", ARRAY, array(U64, 3, bytes(24))))
case("single-data-of-u8", FORMAT, ".data", single_file, key(f"{META}.data", ARRAY, array(U8, 16, bytes(16))))
case(
    "single-padding-not-zero",
    FORMAT,
    "padded",
    single_file,
    key("autodeco.tensor.temp.fc2.bias.data", ARRAY, array(U64, 1, f32(0.5) + b"\0\0\0\1")),
)
case(
    "single-nan",
    FORMAT,
    "not finite",
    single_file,
    key(f"{META}.data", ARRAY, array(U64, 2, f32(1, float("nan"), 0, 0))),
)
case(
    "single-without-both-heads",
    FORMAT,
    "neither",
    single_file,
    lambda f: [no_key(f"autodeco.tensor.{h}.fc1.weight.data")(f) for h in ("temp", "top_p")],
)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.gguf"):
        old.unlink()
    for name, made in CASES.items():
        (folder / f"{name}.gguf").write_bytes(made.data)
    bad = sum(made.status != OK for made in CASES.values())
    print(f"{folder}: {len(CASES)} files, {bad} malformed, {sum(len(c.data) for c in CASES.values())} bytes")


if __name__ == "__main__":
    main()

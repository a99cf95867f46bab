"""Reopening a written file: the Python loader of heads, and the comparison with a checkpoint.

Owns ``read_heads_gguf`` (heads file or single file -> tensors and what the file says of
them), ``verify_file`` and ``check_base``. Reads with the strict reader and checks every key, type and
shape of docs/format.md. Does not write.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FormatError, MismatchError
from ..gguf import keys as fmt
from ..gguf import types as gt
from ..gguf.keys import HeadSpec
from ..gguf.reader import GGUFFile
from .base import BaseInfo, open_base
from .checkpoint import Checkpoint
from .layout import Means, split_heads
from .tensors import RawTensor, cast_bound

HEADS_FILE = "heads file"
SINGLE_FILE = "single file"
WIDE_TYPES = ("F32", "F16", "BF16", "Q8_0")  # fc1.weight; every other tensor is F32
MAX_FEATURES = 16


@dataclass(frozen=True)
class GgufHeads:
    """Heads out of a GGUF. ``tensors`` by name without prefix, shapes row-major; None where the file does not say."""

    path: Path
    kind: str
    arch: str
    spec: HeadSpec
    tensors: dict[str, RawTensor]
    n_vocab: int | None
    means: Means
    source_sha256: str | None
    tokenizer_sha256: str | None
    norm_sha256: str | None


@dataclass(frozen=True)
class Compared:
    """One tensor against the checkpoint: largest difference, and the largest allowed one at that kind of cast."""

    name: str
    source_type: str
    stored_type: str
    max_error: float
    max_bound: float


def read_heads_gguf(path: str | os.PathLike[str]) -> GgufHeads:
    """The heads in a heads file or a single file. Raises FormatError."""
    with GGUFFile(path) as file:
        return load_heads(file)


def verify_file(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> list[Compared]:
    """Compares a file with the checkpoint it was made from; raises FormatError at the first difference."""
    with GGUFFile(path) as file:
        loaded = load_heads(file)
    if loaded.kind == SINGLE_FILE:
        file, base = open_base(path)
        file.close()
        check_base(loaded, base)
    if loaded.spec != checkpoint.spec:
        raise FormatError(f"{path}: heads of the shape {loaded.spec}, the checkpoint has {checkpoint.spec}")
    rows = [_compare(path, name, raw, loaded.tensors[name]) for name, raw in split_heads(checkpoint).items()]
    if loaded.source_sha256 != checkpoint.sha256:
        raise FormatError(
            f"{path}: {fmt.KEY_SOURCE_SHA256} is {loaded.source_sha256}, the checkpoint's is {checkpoint.sha256}; convert again"
        )
    return rows


def _compare(path: str | os.PathLike[str], name: str, source: RawTensor, stored: RawTensor) -> Compared:
    bound = cast_bound(source, stored.dtype)
    error = np.abs(stored.f32().astype(np.float64) - source.f32())
    worse = np.argwhere(error > bound)
    if len(worse):
        at = tuple(int(i) for i in worse[0])
        raise FormatError(
            f"{path}: {name}{list(at)} differs from the checkpoint by {error[at]:.3g}, allowed {bound[at]:.3g} "
            f"({source.dtype} to {stored.dtype}); convert again"
        )
    if source.dtype == stored.dtype and source.data != stored.data:  # the sign of a zero
        raise FormatError(f"{path}: {name} is not bit for bit that of the checkpoint; convert again")
    return Compared(name, source.dtype, stored.dtype, float(error.max()), float(bound.max()))


def check_base(loaded: GgufHeads, base: BaseInfo) -> None:
    """Raises MismatchError, naming both values, when heads out of a GGUF are for another base model.

    What either side does not record is not compared. The fingerprints catch a base of the same shape.
    """
    pairs = (
        (fmt.KEY_ARCH, loaded.arch, base.arch),
        (fmt.KEY_N_EMBD, loaded.spec.n_embd, base.n_embd),
        (fmt.KEY_N_VOCAB, loaded.n_vocab, base.n_vocab),
        (fmt.KEY_BASE_TOKENIZER_SHA256, loaded.tokenizer_sha256, base.tokenizer_sha256),
        (fmt.KEY_BASE_NORM_SHA256, loaded.norm_sha256, base.norm_sha256),
    )
    for key, said, found in pairs:
        if None not in (said, found) and said != found:
            raise MismatchError(
                f"{loaded.path}: {key} is {said!r}, but the base model in {base.path} has {found!r}; "
                "use the heads of this base, or convert them again with it as --base"
            )


# ---- the loader ---------------------------------------------------------------------


def kind_of(file: GGUFFile) -> str | None:
    """HEADS_FILE, SINGLE_FILE, or None for a file without AutoDeco heads."""
    if file.string("general.type") == fmt.GENERAL_TYPE and file.string("adapter.type") == fmt.ADAPTER_TYPE:
        return HEADS_FILE
    return SINGLE_FILE if any(key.startswith(fmt.TENSOR_PREFIX) for key in file.kv) else None


def load_heads(file: GGUFFile) -> GgufHeads:
    """The heads in an open file. Raises FormatError for any departure from docs/format.md."""
    kind = kind_of(file)
    if kind is None:
        raise FormatError(f"{file.path}: no AutoDeco heads in this file; make one with `autodeco-edge convert`")
    _check_version(file)
    tensors = _stored_tensors(file) if kind == HEADS_FILE else _metadata_tensors(file)
    if not tensors:
        raise FormatError(
            f"{file.path}: autodeco keys but no heads; a heads file needs general.type '{fmt.GENERAL_TYPE}', adapter.type "
            f"'{fmt.ADAPTER_TYPE}' and tensors, a single file needs {fmt.META_TENSOR_PREFIX}* keys"
        )
    spec = _spec(file, tensors)
    _check_tensors(file, spec, tensors)
    return GgufHeads(
        path=file.path,
        kind=kind,
        arch=_required(file, "general.architecture" if kind == HEADS_FILE else fmt.KEY_ARCH, GGUFFile.string),
        spec=spec,
        tensors=tensors,
        n_vocab=file.u32(fmt.KEY_N_VOCAB),
        means=Means(_mean(file, fmt.KEY_MEAN_TEMP, 2.0), _mean(file, fmt.KEY_MEAN_TOP_P, 1.0)),
        source_sha256=file.string(fmt.KEY_SOURCE_SHA256),
        tokenizer_sha256=file.string(fmt.KEY_BASE_TOKENIZER_SHA256),
        norm_sha256=file.string(fmt.KEY_BASE_NORM_SHA256),
    )


def _required(file: GGUFFile, key: str, getter) -> object:
    value = getter(file, key)
    if value is None:
        raise FormatError(f"{file.path}: key {key!r} is missing")
    return value


def _check_version(file: GGUFFile) -> None:
    version = _required(file, fmt.KEY_FORMAT_VERSION, GGUFFile.u32)
    if version != fmt.FORMAT_VERSION:
        raise FormatError(
            f"{file.path}: {fmt.KEY_FORMAT_VERSION} is {version}, this program reads {fmt.FORMAT_VERSION}; "
            "update autodeco-edge or convert again"
        )
    scale = _required(file, fmt.KEY_TEMP_SCALE, GGUFFile.f32)
    if scale != fmt.TEMP_SCALE:
        raise FormatError(f"{file.path}: {fmt.KEY_TEMP_SCALE} is {scale:g}; allowed: {fmt.TEMP_SCALE:g}")


def _mean(file: GGUFFile, key: str, limit: float) -> float | None:
    value = file.f32(key)
    if value is not None and not 0 < value <= limit:
        raise FormatError(f"{file.path}: {key} is {value:g}; allowed: above 0, up to {limit:g}")
    return value


def _spec(file: GGUFFile, tensors: dict[str, RawTensor]) -> HeadSpec:
    has_temp = any(name.startswith("temp.") for name in tensors)
    has_top_p = any(name.startswith("top_p.") for name in tensors)
    features = tuple(file.strings(fmt.KEY_TOP_P_FEATURES, MAX_FEATURES) or ())
    allowed = (fmt.FEATURES_ENHANCED, fmt.FEATURES_BASIC) if has_top_p else ((),)
    if features not in allowed:
        raise FormatError(
            f"{file.path}: {fmt.KEY_TOP_P_FEATURES} is {list(features)}; allowed: {[list(f) for f in allowed]}"
        )
    n_embd, n_hidden = (_required(file, key, GGUFFile.u32) for key in (fmt.KEY_N_EMBD, fmt.KEY_N_HIDDEN))
    if not n_embd or not n_hidden:
        raise FormatError(
            f"{file.path}: {fmt.KEY_N_EMBD} {n_embd}, {fmt.KEY_N_HIDDEN} {n_hidden}; both must be at least 1"
        )
    return HeadSpec(n_embd, n_hidden, features, has_temp, has_top_p)


def expected_shapes(spec: HeadSpec) -> dict[str, tuple[int, ...]]:
    """Row-major shape of every tensor that a file with this spec must hold, and no other."""
    shapes: dict[str, tuple[int, ...]] = {}
    for short, present in (("temp", spec.has_temp), ("top_p", spec.has_top_p)):
        if present:
            shapes[f"{short}.fc1.weight"] = (spec.n_hidden, spec.n_embd)
            shapes[f"{short}.fc1.bias"] = (spec.n_hidden,)
            shapes[f"{short}.fc2.weight"] = (spec.n_hidden,)
            shapes[f"{short}.fc2.bias"] = (1,)
    if spec.has_top_p:
        shapes[f"top_p.{fmt.FC1_EXTRA}"] = (spec.n_hidden, len(spec.features))
    return shapes


def _check_tensors(file: GGUFFile, spec: HeadSpec, tensors: dict[str, RawTensor]) -> None:
    expected = expected_shapes(spec)
    for name in sorted(expected.keys() ^ tensors.keys()):
        what = "is missing" if name in expected else "is not one of the format"
        raise FormatError(f"{file.path}: tensor {name!r} {what}")
    for name, tensor in tensors.items():
        allowed = WIDE_TYPES if name.endswith(".fc1.weight") else ("F32",)
        if tensor.dtype not in allowed:
            raise FormatError(f"{file.path}: tensor {name!r} is {tensor.dtype}; allowed: {', '.join(allowed)}")
        if tensor.shape != expected[name]:
            raise FormatError(
                f"{file.path}: tensor {name!r} has the shape {list(tensor.shape)}, expected {list(expected[name])}"
            )
        if not tensor.is_finite():
            raise FormatError(f"{file.path}: tensor {name!r} holds a NaN or an infinity")


def _check_size(file: GGUFFile, n_bytes: int) -> None:
    """Before any is read: a sparse file can promise far more than memory holds."""
    if n_bytes > gt.MAX_HEADS_BYTES:
        raise FormatError(f"{file.path}: heads of {n_bytes} bytes; allowed: up to {gt.MAX_HEADS_BYTES}")


def _stored_tensors(file: GGUFFile) -> dict[str, RawTensor]:
    """Tensors of a heads file."""
    found = {}
    _check_size(file, sum(tensor.nbytes for tensor in file.tensors.values()))
    for full, tensor in file.tensors.items():
        name = full.removeprefix(fmt.TENSOR_PREFIX)
        found[name] = RawTensor(gt.type_name(tensor.ggml_type), tensor.shape[::-1], file.tensor_bytes(full))
    return found


def _metadata_tensors(file: GGUFFile) -> dict[str, RawTensor]:
    """Tensors of a single file, kept as three keys each."""
    keys = [key for key in file.kv if key.startswith(fmt.META_TENSOR_PREFIX)]
    _check_size(file, sum(file.kv[key].nbytes for key in keys))
    names = {}.fromkeys(key.removeprefix(fmt.META_TENSOR_PREFIX).rpartition(".")[0] for key in keys)
    return {name: _metadata_tensor(file, name) for name in names}


def _metadata_tensor(file: GGUFFile, name: str) -> RawTensor:
    prefix = fmt.META_TENSOR_PREFIX + name
    ggml_type = _required(file, f"{prefix}.type", GGUFFile.u32)
    shape = tuple(int(n) for n in _required(file, f"{prefix}.shape", GGUFFile.u64s))
    words = _required(file, f"{prefix}.data", GGUFFile.u64s)
    if ggml_type not in gt.GGML_TYPES or not 1 <= len(shape) <= gt.MAX_DIMS:
        raise FormatError(
            f"{file.path}: {prefix!r} has the type {ggml_type} and {len(shape)} dimensions, not a tensor of a head"
        )
    type_name, block, _ = gt.GGML_TYPES[ggml_type]
    if shape[0] % block:
        raise FormatError(f"{file.path}: {prefix!r} has rows of {shape[0]}, not a multiple of {block} ({type_name})")
    n = gt.tensor_nbytes(shape, ggml_type)
    if gt.pad_to(n, 8) != words.nbytes:
        raise FormatError(
            f"{file.path}: key '{prefix}.data' has {words.nbytes} bytes, its shape and type need {gt.pad_to(n, 8)}"
        )
    data = words.tobytes()
    if any(data[n:]):
        raise FormatError(f"{file.path}: key '{prefix}.data' is padded with bytes that are not zero")
    return RawTensor(type_name, shape[::-1], data[:n])

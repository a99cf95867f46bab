"""The single file: a base model's GGUF with the heads inside, as metadata.

Owns ``merge_single_file``: what a base must be, which keys are added, and the streaming
copy (metadata and tensor table byte for byte, tensor data in chunks, never the whole
model in memory). llama.cpp refuses unknown tensors but ignores unknown keys, so the
heads travel as arrays of u64, which load fastest (docs/format.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..errors import FormatError, UsageError
from ..gguf import keys as fmt
from ..gguf import types as gt
from ..gguf.model_file import ModelFile
from ..gguf.reader import GGUFFile
from ..io.atomic import AtomicWriter, atomic_write
from .base import BaseInfo, open_base
from .checkpoint import Checkpoint
from .export import Written, check_output, describe_written
from .layout import HeadsImage, Means, StoredTensor, build_image, encode_keys, heads_keys, means_of
from .verify import GgufHeads, check_base

COPY_CHUNK = 1 << 22


def merge_single_file(
    heads: Checkpoint | GgufHeads,
    base_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    *,
    outtype: str = "auto",
    mean_temperature: float | None = None,
    mean_top_p: float | None = None,
    dry_run: bool = False,
) -> Written:
    """Writes ``base_path`` plus the heads, of a checkpoint or of a heads file, to ``out_path``, atomically.

    Raises MismatchError for heads of another base, UsageError for an outtype where the heads are a file, which has one.
    """
    target = Path(out_path)
    file, base = open_base(base_path)
    with file:
        _refuse_split(file)
        _refuse_merged(file)
        means = Means(mean_temperature, mean_top_p)
        image = (_image_of if isinstance(heads, GgufHeads) else build_image)(heads, base, outtype, means)
        check_output(target, (heads.path,) if isinstance(heads, GgufHeads) else heads.files, base)
        added = encode_keys(image) + _metadata_tensors(image) + _sampling_keys(image, file)
        added.append(gt.encode_kv(fmt.KEY_ARCH, gt.STRING, image.arch))
        size = _data_begin(file, added) + _data_nbytes(file)
        if not dry_run:
            with atomic_write(target) as out:
                _copy_with(file, added, out)
                file.check_unchanged()
    return describe_written(image, target, size, not dry_run)


def _image_of(heads: GgufHeads, base: BaseInfo, outtype: str, means: Means) -> HeadsImage:
    """What a heads file holds, as it is."""
    if outtype != "auto":
        raise UsageError(f"--outtype {outtype}: {heads.path} is a heads file, whose types stay; leave it out")
    check_base(heads, base)
    means = means_of(heads.spec, means, heads.means)
    hashes = (heads.source_sha256, base.tokenizer_sha256, base.norm_sha256)
    tensors = tuple(
        StoredTensor(name, gt.GGML_TYPE_OF_NAME[t.dtype], tuple(reversed(t.shape)), t.data)
        for name, t in heads.tensors.items()
    )
    n_vocab = heads.n_vocab if base.n_vocab is None else base.n_vocab
    return HeadsImage(base.arch, heads_keys(heads.spec, n_vocab, means, hashes), heads.spec.features, tensors, means)


def _refuse_split(file: ModelFile) -> None:
    if file.parts:
        raise FormatError(
            f"{file.path}: one of the {len(file.files)} parts of a split model, and a single file is one file; join them "
            "first with `llama-gguf-split --merge`, or put a heads file beside them with `autodeco-edge convert`"
        )


def _refuse_merged(file: GGUFFile) -> None:
    for key in (*file.kv, *file.tensors):
        if key.startswith(fmt.TENSOR_PREFIX):
            raise FormatError(
                f"{file.path}: holds AutoDeco heads already ({key!r}); pass the plain base model as --base"
            )


def _metadata_tensors(image: HeadsImage) -> list[bytes]:
    return [pair for tensor in image.tensors for pair in _metadata_tensor(tensor)]


def _metadata_tensor(tensor: StoredTensor) -> list[bytes]:
    """Three pairs: the bytes as u64 (zero-padded to a multiple of 8), the ggml type, the shape."""
    name = fmt.META_TENSOR_PREFIX + tensor.name
    words = np.frombuffer(tensor.data + bytes(-len(tensor.data) % 8), dtype="<u8")
    return [
        gt.encode_kv(f"{name}.type", gt.U32, tensor.ggml_type),
        gt.encode_u64_array(f"{name}.shape", tensor.shape),
        gt.encode_u64_array(f"{name}.data", words),
    ]


def _sampling_keys(image: HeadsImage, file: GGUFFile) -> list[bytes]:
    """Mean T and P as the defaults of stock llama.cpp tools, unless the base sets its own."""
    pairs = ((fmt.KEY_SAMPLING_TEMP, image.means.temperature), (fmt.KEY_SAMPLING_TOP_P, image.means.top_p))
    return [gt.encode_kv(key, gt.F32, mean) for key, mean in pairs if mean is not None and key not in file.kv]


# ---- the copy -----------------------------------------------------------------------


def _data_begin(file: GGUFFile, added: list[bytes]) -> int:
    return gt.pad_to(file.info_span[1] + sum(map(len, added)), file.alignment)


def _data_nbytes(file: GGUFFile) -> int:
    return max(0, file.size - file.data_offset)


def _copy_with(file: GGUFFile, added: list[bytes], out: AtomicWriter) -> None:
    """Header with the new key count, old keys, new keys, tensor table, padding, tensor data."""
    out.write(gt.encode_header(file.version, len(file.tensors), len(file.kv) + len(added)))
    _copy_span(file, file.kv_span[0], file.kv_span[1], out)
    out.write(b"".join(added))
    _copy_span(file, file.info_span[0], file.info_span[1], out)
    out.pad_to(_data_begin(file, added))
    _copy_span(file, file.data_offset, file.data_offset + _data_nbytes(file), out)


def _copy_span(file: GGUFFile, begin: int, end: int, out: AtomicWriter) -> None:
    for at in range(begin, end, COPY_CHUNK):
        out.write(file.read(at, min(COPY_CHUNK, end - at)))

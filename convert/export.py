"""The heads file: a small GGUF that lies beside its base model.

Owns ``write_heads``: the ``general.*`` keys of an adapter, the tensor section and the
deterministic bytes (the same checkpoint, base and options give the same file). What the
heads say of themselves comes from layout.py, the safe writing from atomic.py.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..gguf import keys as fmt
from ..gguf import types as gt
from ..gguf.reader import GGUFFile
from ..io.atomic import atomic_write, refuse_foreign, refuse_inputs
from .base import BaseInfo
from .checkpoint import Checkpoint
from .layout import HeadsImage, Means, build_image, encode_keys
from .verify import kind_of

NAME_VERSION = "v1.0"
_SIZE_LABEL = re.compile(
    r"(?<![A-Za-z0-9])(?:\d+x)?\d+(?:\.\d+)?[KMBT](?:-A\d+(?:\.\d+)?[KMBT])?(?![A-Za-z0-9])", re.IGNORECASE
)


@dataclass(frozen=True)
class Written:
    """What was written, or would be with ``dry_run``."""

    path: Path
    n_bytes: int
    n_params: int
    arch: str
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, type, shape with ne0 first
    means: Means
    written: bool


def write_heads(
    checkpoint: Checkpoint,
    out_path: str | os.PathLike[str],
    *,
    base: BaseInfo | None = None,
    outtype: str = "auto",
    mean_temperature: float | None = None,
    mean_top_p: float | None = None,
    dry_run: bool = False,
) -> Written:
    """Writes the heads file of ``checkpoint`` to ``out_path``, atomically."""
    target = Path(out_path)
    image = build_image(checkpoint, base, outtype, Means(mean_temperature, mean_top_p))
    check_output(target, checkpoint.files, base)
    content = _encode(image, checkpoint, base)
    if not dry_run:
        with atomic_write(target) as out:
            out.write(content)
    return describe_written(image, target, len(content), not dry_run)


def check_output(target: Path, files: tuple[Path, ...], base: BaseInfo | None) -> None:
    """Raises UsageError when ``target`` is one of the files that are read, or holds anything but AutoDeco heads."""
    refuse_inputs(target, (*files, *((base.path, *base.files) if base else ())))
    refuse_foreign(target, _holds_heads, "a file with AutoDeco heads")


def _holds_heads(path: Path) -> bool:
    with GGUFFile(path) as file:
        return kind_of(file) is not None


def describe_written(image: HeadsImage, path: Path, n_bytes: int, written: bool) -> Written:
    """The report of either writer."""
    tensors = tuple((t.name, gt.type_name(t.ggml_type), t.shape) for t in image.tensors)
    n_params = sum(math.prod(t.shape) for t in image.tensors)
    return Written(path, n_bytes, n_params, image.arch, tensors, image.means, written)


def default_heads_name(checkpoint: Checkpoint, base: BaseInfo | None) -> str:
    """``autodeco-<BaseName>-<SizeLabel>-v1.0.gguf`` from the base's own labels, else from its name."""
    name = (base and base.name) or checkpoint.config.base_name or re.sub(r"(?i)^autodeco[-_]+", "", checkpoint.label)
    found = _SIZE_LABEL.search(name)
    size = found.group(0) if found else None
    stem = name[: found.start()] + name[found.end() :] if found else name
    if base and base.basename:
        stem, size = base.basename, base.size_label or size
    parts = ["autodeco", _clean(stem), _clean(size or ""), NAME_VERSION]
    return "-".join(part for part in parts if part) + ".gguf"


def _clean(text: str) -> str:
    """Letters, digits, dot and single dashes only."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9.]+", "-", text)).strip("-.")[:80]


def _general_keys(image: HeadsImage, checkpoint: Checkpoint, base: BaseInfo | None) -> list[bytes]:
    base_name = (base and base.name) or checkpoint.config.base_name
    keys = [
        ("general.architecture", gt.STRING, image.arch),
        ("general.type", gt.STRING, fmt.GENERAL_TYPE),
        ("adapter.type", gt.STRING, fmt.ADAPTER_TYPE),
        ("general.name", gt.STRING, f"AutoDeco heads for {base_name or checkpoint.label}"),
        ("general.license", gt.STRING, checkpoint.license),
        ("general.base_model.count", gt.U32, 1 if base_name else None),
        ("general.base_model.0.name", gt.STRING, base_name),
    ]
    return [gt.encode_kv(*key) for key in keys if key[2] is not None]


def _encode(image: HeadsImage, checkpoint: Checkpoint, base: BaseInfo | None) -> bytes:
    """The whole file; a few megabytes."""
    keys = _general_keys(image, checkpoint, base) + encode_keys(image)
    infos, data = [], b""
    for tensor in image.tensors:
        infos.append(gt.encode_tensor_info(fmt.TENSOR_PREFIX + tensor.name, tensor.shape, tensor.ggml_type, len(data)))
        data += _padded(tensor.data, gt.DEFAULT_ALIGNMENT)
    head = gt.encode_header(gt.VERSION, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    return _padded(head, gt.DEFAULT_ALIGNMENT) + data


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(gt.pad_to(len(data), alignment) - len(data))

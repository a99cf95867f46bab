"""What is in a GGUF file, as rows of text for people.

Owns the table that ``autodeco-edge show`` prints, for a heads file, a single file, a
plain model or any other GGUF. Reads headers and heads, decides nothing.
"""

from __future__ import annotations

import math
import os
from collections import Counter

from ..gguf import types as gt
from ..gguf.reader import GGUFFile
from ..io.printing import safe_line
from .base import KEY_TOKENS
from .verify import HEADS_FILE, GgufHeads, kind_of, load_heads

Row = tuple[str, str]


def describe_file(path: str | os.PathLike[str]) -> list[Row]:
    """(what, value) rows of any GGUF file. Raises FormatError when it is damaged."""
    with GGUFFile(path) as file:
        kind = kind_of(file)
        rows = [("file", str(path)), ("kind", _kind_text(file, kind)), ("size", _size_text(file.size))]
        if kind != HEADS_FILE:
            rows += _model_rows(file)
        if kind is None:
            return [*rows, ("heads", "none")]
        return rows + _name_rows(file, kind) + _heads_rows(load_heads(file))


def format_rows(rows: list[Row]) -> str:
    """The rows as aligned lines; control characters of untrusted text made visible."""
    width = max(len(what) for what, _ in rows)
    return "\n".join(f"{what:<{width}}  {safe_line(value)}" for what, value in rows)


def _kind_text(file: GGUFFile, kind: str | None) -> str:
    if kind == HEADS_FILE:
        return "heads file (AutoDeco)"
    return "single file (model with AutoDeco heads)" if kind else (file.string("general.type") or "model")


def _size_text(n: int) -> str:
    return f"{n / 1e6:.1f} MB ({n} bytes)" if n >= 1e5 else f"{n} bytes"


def _model_rows(file: GGUFFile) -> list[Row]:
    arch = file.string("general.architecture") or ""
    tokens = file.kv.get(KEY_TOKENS)
    types = Counter(gt.type_name(tensor.ggml_type) for tensor in file.tensors.values())
    rows = [
        ("name", file.string("general.name")),
        ("architecture", arch),
        ("embedding length", file.integer(f"{arch}.embedding_length")),
        ("vocabulary", tokens.count if tokens else None),
        ("context length", file.integer(f"{arch}.context_length")),
        ("layers", file.integer(f"{arch}.block_count")),
        ("tensors", len(file.tensors)),
        ("parameters", sum(math.prod(t.shape) for t in file.tensors.values())),
        ("types", ", ".join(f"{name} x{n}" for name, n in types.most_common())),
    ]
    return [(what, str(value)) for what, value in rows if value not in (None, "")]


def _name_rows(file: GGUFFile, kind: str) -> list[Row]:
    if kind != HEADS_FILE:
        return []
    keys = (("name", "general.name"), ("base model", "general.base_model.0.name"), ("license", "general.license"))
    return [(what, file.display(key)) for what, key in keys if key in file.kv]


def _heads_rows(heads: GgufHeads) -> list[Row]:
    spec = heads.spec
    present = [name for name, there in (("temperature", spec.has_temp), ("top-p", spec.has_top_p)) if there]
    rows = [
        ("heads", " and ".join(present)),
        ("heads architecture", heads.arch),
        ("heads embedding", spec.n_embd),
        ("heads hidden units", spec.n_hidden),
        ("heads vocabulary", heads.n_vocab or "not recorded"),
        ("top-p features", ", ".join(spec.features) or None),
        ("heads parameters", sum(tensor.f32().size for tensor in heads.tensors.values())),
        ("mean temperature", _mean_text(heads.means.temperature)),
        ("mean top-p", _mean_text(heads.means.top_p)),
        ("source sha256", heads.source_sha256),
        ("base tokenizer sha256", heads.tokenizer_sha256),
        ("base output norm sha256", heads.norm_sha256),
    ]
    shapes = [(name, f"{t.dtype} {list(t.shape)}, {len(t.data)} bytes") for name, t in heads.tensors.items()]
    return [(what, str(value)) for what, value in rows if value is not None] + shapes


def _mean_text(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:.6g}"

"""Heads out of a Hugging Face checkpoint, in every layout that exists, bits kept.

Owns ``read_checkpoint`` and ``Checkpoint``: which tensors are heads, that each is there
once and of the right shape, and what follows from the shapes (docs/format.md section 10).
Layouts: model.safetensors or autodeco_heads.safetensors, sharded or not; NeMo exports
with prefixes and no config; full models merged with or without ``llm.`` names. Does not
know GGUF and does not import torch.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError, MismatchError, MissingInputError
from ..gguf.keys import (
    CHECKPOINT_PARAMS,
    CHECKPOINT_PREFIXES,
    CHECKPOINT_TEMP,
    CHECKPOINT_TOP_P,
    FEATURES_BASIC,
    FEATURES_ENHANCED,
    HeadSpec,
    features_of_width,
)
from ..gguf.types import MAX_HEADS_BYTES
from .checkpoint_config import CheckpointConfig, read_config
from .safetensors_reader import SafetensorsFile
from .sources import CheckpointFiles, index_of_heads, locate
from .tensors import RawTensor, require_float

FC1_WEIGHT, FC1_BIAS, FC2_WEIGHT, FC2_BIAS = CHECKPOINT_PARAMS
WIDTH_UNIT = 8  # every base model's hidden size is a multiple of this


@dataclass(frozen=True)
class Checkpoint:
    """Heads as they lie in the checkpoint.

    label    name of the folder or hub repository
    tensors  canonical name (``temp_head.mlp.0.weight``) -> raw bits
    files    every file that was read
    notes    remarks for the user, one line each
    """

    label: str
    spec: HeadSpec
    tensors: dict[str, RawTensor]
    config: CheckpointConfig
    license: str | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Fingerprint of the head tensors: name, dtype, shape and bytes, in order of name."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            shape = "x".join(map(str, tensor.shape))
            digest.update(f"{name} {tensor.dtype} {shape}\n".encode())
            digest.update(tensor.data)
        return digest.hexdigest()

    @property
    def n_params(self) -> int:
        """Number of weights in both heads."""
        return sum(tensor.f32().size for tensor in self.tensors.values())

    def head_tensors(self, head: str) -> dict[str, RawTensor] | None:
        """The tensors of ``temp_head`` or ``top_p_head`` by canonical part, None without that head."""
        found = {part: self.tensors.get(f"{head}.{part}") for part in CHECKPOINT_PARAMS}
        return None if found[FC1_WEIGHT] is None else found


def read_checkpoint(heads: str | os.PathLike[str], *, n_embd: int | None = None) -> Checkpoint:
    """Reads heads from a folder, a .safetensors file or a Hugging Face id.

    ``n_embd`` is the base model's width where the caller knows it; it is checked against
    the tensors. Raises MissingInputError, FormatError or MismatchError.
    """
    source = locate(heads)
    tensors = _collect(source)
    _check_complete(source, tensors)
    config = read_config(source.config)
    spec = _derive_spec(tensors, n_embd or config.n_embd, config.use_enhanced_features)
    for name, tensor in tensors.items():
        _check_shape(name, tensor, spec)
        if not tensor.is_finite():
            raise FormatError(f"{heads}: {name} holds a NaN or an infinity; these heads cannot be used")
    config.check(spec)
    if n_embd is not None and n_embd != spec.n_embd:
        raise MismatchError(f"{heads}: heads for a hidden size of {spec.n_embd}, but the base model has {n_embd}")
    return Checkpoint(source.label, spec, tensors, config, _license(source.readme), source.read, _notes(config))


# ---- which tensors ------------------------------------------------------------------


def canonical_name(key: str) -> str | None:
    """``temp_head.mlp.0.weight`` for any spelling of it, None for a tensor that is not of a head."""
    for prefix in CHECKPOINT_PREFIXES:
        if key.startswith(prefix):
            key = key[len(prefix) :]
            break
    return key if key.startswith((CHECKPOINT_TEMP + ".", CHECKPOINT_TOP_P + ".")) else None


def _collect(source: CheckpointFiles) -> dict[str, RawTensor]:
    """All head tensors of all files; the same tensor twice is an error unless the bits agree."""
    found: dict[str, RawTensor] = {}
    n_bytes = 0
    for path in source.files:
        with SafetensorsFile(path) as file:
            for key in sorted(file.entries):
                name = canonical_name(key)
                if name is None:
                    continue
                n_bytes += file.entries[key].end - file.entries[key].begin
                if n_bytes > MAX_HEADS_BYTES:
                    raise FormatError(
                        f"{path}: heads of {n_bytes} bytes up to {key!r}; allowed: {MAX_HEADS_BYTES} in all"
                    )
                tensor = _read_tensor(file, key, name)
                if found.setdefault(name, tensor) != tensor:
                    raise FormatError(
                        f"{path}: {key!r} appears twice with different data; keep one checkpoint a folder"
                    )
    return found


def _read_tensor(file: SafetensorsFile, key: str, name: str) -> RawTensor:
    entry = file.entries[key]
    head, _, part = name.partition(".")
    if part not in CHECKPOINT_PARAMS:
        raise FormatError(f"{file.path}: unknown tensor {key!r}; a head has only {', '.join(CHECKPOINT_PARAMS)}")
    require_float(entry.dtype, f"{file.path}: {key!r}")
    return RawTensor(entry.dtype, entry.shape, file.tensor_bytes(key))


def _check_complete(source: CheckpointFiles, tensors: dict[str, RawTensor]) -> None:
    """Both heads whole, or one of them absent altogether."""
    heads = sorted({name.partition(".")[0] for name in tensors})
    missing = [f"{head}.{part}" for head in heads for part in CHECKPOINT_PARAMS if f"{head}.{part}" not in tensors]
    if tensors and not missing:
        return
    for key, shard in sorted(index_of_heads(source.indexes).items()):
        if canonical_name(key) not in tensors:
            raise MissingInputError(
                f"{source.label}: the index places {key!r} in {shard!r}, which is not there; fetch it"
            )
    if missing:
        raise FormatError(f"{source.label}: the tensor {missing[0]!r} is missing; this head is incomplete")
    raise FormatError(
        f"{source.label}: no AutoDeco heads in {len(source.files)} .safetensors file(s); expected temp_head.* or top_p_head.*"
    )


# ---- what the shapes say ------------------------------------------------------------


def _derive_spec(tensors: dict[str, RawTensor], n_embd: int | None, enhanced: bool | None) -> HeadSpec:
    temp = tensors.get(f"{CHECKPOINT_TEMP}.{FC1_WEIGHT}")
    top_p = tensors.get(f"{CHECKPOINT_TOP_P}.{FC1_WEIGHT}")
    for name, tensor in ((CHECKPOINT_TEMP, temp), (CHECKPOINT_TOP_P, top_p)):
        if tensor is not None and (len(tensor.shape) != 2 or 0 in tensor.shape):
            raise FormatError(f"{name}.{FC1_WEIGHT}: shape {list(tensor.shape)}, expected [hidden units, inputs]")
    n_hidden = (temp or top_p).shape[0]
    width = temp.shape[1] if temp else _width_of_top_p_alone(top_p.shape[1], n_embd, enhanced)
    features = features_of_width(top_p.shape[1] - width) if top_p else ()
    return HeadSpec(width, n_hidden, features, temp is not None, top_p is not None)


def _width_of_top_p_alone(n_in: int, n_embd: int | None, enhanced: bool | None) -> int:
    """H of a lone top-p head of ``n_in`` = H + 5 or H + 1 inputs: as told, else the multiple of 8."""
    choices = {len(f): n_in - len(f) for f in (FEATURES_ENHANCED, FEATURES_BASIC)}
    if n_embd is not None:
        return n_embd
    if enhanced is not None:
        return choices[len(FEATURES_ENHANCED if enhanced else FEATURES_BASIC)]
    fitting = [width for width in choices.values() if width > 0 and width % WIDTH_UNIT == 0]
    if len(fitting) != 1:
        raise FormatError(
            f"top_p_head.mlp.0.weight: {n_in} inputs, hidden size unknown; give hidden_size in config.json"
        )
    return fitting[0]


def _check_shape(name: str, tensor: RawTensor, spec: HeadSpec) -> None:
    head, _, part = name.partition(".")
    n_in = spec.n_embd + (len(spec.features) if head == CHECKPOINT_TOP_P else 0)
    expected = {
        FC1_WEIGHT: (spec.n_hidden, n_in),
        FC1_BIAS: (spec.n_hidden,),
        FC2_WEIGHT: (1, spec.n_hidden),
        FC2_BIAS: (1,),
    }[part]
    if tensor.shape != expected:
        raise FormatError(f"{name}: shape {list(tensor.shape)}, expected {list(expected)}")


# ---- remarks ------------------------------------------------------------------------


def _license(readme: Path) -> str | None:
    """The ``license:`` line of a model card's front matter."""
    try:
        with readme.open("rb") if readme.is_file() else io.BytesIO() as file:
            lines = file.read(65536).decode("utf-8", "replace").splitlines()
    except OSError:  # a remark is not worth an error
        return None
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return None
    for line in lines[1 : lines.index("---", 1)]:
        if match := re.fullmatch(r"license:\s*([\w.+-]{1,64})\s*", line):
            return match.group(1)
    return None


def _notes(config: CheckpointConfig) -> tuple[str, ...]:
    return tuple(
        f"config.json says the {head} head was not trained in the last run; if it never was, leave it out with --heads-mode"
        for head in config.untrained
    )

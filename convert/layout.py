"""What goes into either GGUF file: the heads' tensors and keys, in their order.

Owns the mapping from a checkpoint to named GGUF tensors (the columns beyond the hidden
state split off) and to ``autodeco.*`` keys. Both writers take it from here, so the heads
file and the single file say the same. Knows nothing of files on disk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError
from ..gguf import keys as fmt
from ..gguf import types as gt
from .base import BaseInfo
from .checkpoint import FC1_BIAS, FC1_WEIGHT, FC2_BIAS, FC2_WEIGHT, Checkpoint
from .tensors import RawTensor, cast

OUTTYPES = {"auto": None, "f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in a file: ``name`` without prefix (``temp.fc1.weight``), ``shape`` ne0 first."""

    name: str
    ggml_type: int
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Means:
    """Mean T in (0, 2] and mean P in (0, 1] of the heads over some text; None when unknown."""

    temperature: float | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class HeadsImage:
    """Everything that a file says about the heads: keys as (name, value type, value), and tensors."""

    arch: str
    keys: tuple[tuple[str, int, object], ...]
    features: tuple[str, ...]
    tensors: tuple[StoredTensor, ...]
    means: Means


def build_image(checkpoint: Checkpoint, base: BaseInfo | None, outtype: str, means: Means) -> HeadsImage:
    """The heads of ``checkpoint`` as they will be written. ``base`` None: the architecture comes from config.json."""
    if outtype not in OUTTYPES:
        raise UsageError(f"--outtype {outtype}: not known; allowed: {', '.join(OUTTYPES)}")
    if base is not None:
        base.check(checkpoint)
    arch = base.arch if base else checkpoint.config.arch
    if arch is None:
        raise UsageError(_unknown_arch(checkpoint))
    means = means_of(checkpoint.spec, means, Means(checkpoint.config.mean_temperature, checkpoint.config.mean_top_p))
    tensors = tuple(_store(name, tensor, outtype) for name, tensor in split_heads(checkpoint).items())
    n_vocab = base.n_vocab if base and base.n_vocab is not None else checkpoint.config.n_vocab
    hashes = (checkpoint.sha256, base.tokenizer_sha256 if base else None, base.norm_sha256 if base else None)
    keys = heads_keys(checkpoint.spec, n_vocab, means, hashes)
    return HeadsImage(arch, keys, checkpoint.spec.features, tensors, means)


def encode_keys(image: HeadsImage) -> list[bytes]:
    """The ``autodeco.*`` pairs of an image, encoded, in order."""
    encoded = [gt.encode_kv(*key) for key in image.keys]
    return [*encoded, gt.encode_string_array(fmt.KEY_TOP_P_FEATURES, image.features)]


def _unknown_arch(checkpoint: Checkpoint) -> str:
    model_type = checkpoint.config.model_type
    said = f"config.json says {model_type!r}, which is not known here" if model_type else "config.json does not say"
    return f"{checkpoint.label}: the base architecture is not known ({said}); pass the base model with --base BASE.gguf"


def means_of(spec: fmt.HeadSpec, means: Means, own: Means) -> Means:
    """The caller's means before the heads' own; none for a head that is missing. Raises UsageError."""
    for option, value, limit in (("--mean-temperature", means.temperature, 2.0), ("--mean-top-p", means.top_p, 1.0)):
        if value is not None and not (math.isfinite(value) and 0 < value <= limit):
            raise UsageError(f"{option} {value}: allowed are values above 0, up to {limit:g}")
    temperature = means.temperature if means.temperature is not None else own.temperature
    top_p = means.top_p if means.top_p is not None else own.top_p
    return Means(temperature if spec.has_temp else None, top_p if spec.has_top_p else None)


def heads_keys(
    spec: fmt.HeadSpec, n_vocab: int | None, means: Means, hashes: tuple[str | None, str | None, str | None]
) -> tuple[tuple[str, int, object], ...]:
    """hashes: of the heads' source, the base's tokenizer and its output norm; what is None is left out."""
    source, tokenizer, norm = hashes
    keys = [
        (fmt.KEY_FORMAT_VERSION, gt.U32, fmt.FORMAT_VERSION),
        (fmt.KEY_N_EMBD, gt.U32, spec.n_embd),
        (fmt.KEY_N_HIDDEN, gt.U32, spec.n_hidden),
        (fmt.KEY_N_VOCAB, gt.U32, n_vocab),
        (fmt.KEY_TEMP_SCALE, gt.F32, fmt.TEMP_SCALE),
        (fmt.KEY_MEAN_TEMP, gt.F32, means.temperature),
        (fmt.KEY_MEAN_TOP_P, gt.F32, means.top_p),
        (fmt.KEY_SOURCE_SHA256, gt.STRING, source),
        (fmt.KEY_BASE_TOKENIZER_SHA256, gt.STRING, tokenizer),
        (fmt.KEY_BASE_NORM_SHA256, gt.STRING, norm),
    ]
    return tuple(key for key in keys if key[2] is not None)


def split_heads(checkpoint: Checkpoint) -> dict[str, RawTensor]:
    """The checkpoint's tensors under their GGUF names, bits kept, the extra columns split off."""
    temp = _split_head(checkpoint, fmt.CHECKPOINT_TEMP, "temp")
    return temp | _split_head(checkpoint, fmt.CHECKPOINT_TOP_P, "top_p")


def _split_head(checkpoint: Checkpoint, head: str, short: str) -> dict[str, RawTensor]:
    """The four or five tensors of one head, {} without it."""
    raw = checkpoint.head_tensors(head)
    if raw is None:
        return {}
    fc1, fc2, n_embd = raw[FC1_WEIGHT], raw[FC2_WEIGHT], checkpoint.spec.n_embd
    parts = {f"{short}.fc1.weight": fc1.columns(0, n_embd)}  # [n_hidden, n_embd]
    if fc1.shape[1] > n_embd:
        parts[f"{short}.{fmt.FC1_EXTRA}"] = fc1.columns(n_embd, fc1.shape[1])  # [n_hidden, n_extra]
    parts[f"{short}.fc1.bias"] = raw[FC1_BIAS]
    parts[f"{short}.fc2.weight"] = RawTensor(fc2.dtype, fc2.shape[1:], fc2.data)  # [1, n_hidden] -> [n_hidden]
    parts[f"{short}.fc2.bias"] = raw[FC2_BIAS]
    return parts


def _store(name: str, tensor: RawTensor, outtype: str) -> StoredTensor:
    """Only the wide fc1.weight takes the outtype; everything else is F32, which is exact."""
    wanted = (OUTTYPES[outtype] or tensor.dtype) if name.endswith(".fc1.weight") else "F32"
    stored = cast(tensor, wanted, name)
    return StoredTensor(name, gt.GGML_TYPE_OF_NAME[wanted], tuple(reversed(stored.shape)), stored.data)

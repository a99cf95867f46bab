"""What the heads need to know of their base model, read from its GGUF.

Owns ``BaseInfo``: architecture, width, vocabulary, names and the two fingerprints that
survive requantisation (docs/format.md). Refuses files that are not a whole base model.
Does not read the base model's weights, apart from the final norm.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import FormatError, MismatchError
from ..gguf import types as gt
from ..gguf.model_file import ModelFile
from ..paths import is_safe_name
from .checkpoint import Checkpoint

KEY_TOKENS = "tokenizer.ggml.tokens"
TENSOR_NORM = "output_norm.weight"
HASH_CHUNK = 1 << 22
MAX_ARCH = 64  # characters; the longest in llama.cpp has 15


@dataclass(frozen=True)
class BaseInfo:
    """A base model's identity; None where the file does not say.

    tokenizer_sha256  over the raw bytes of the items of tokenizer.ggml.tokens
    norm_sha256       over the raw bytes of output_norm.weight, which stays F32 in every quantisation
    files             all parts of the model
    """

    path: Path
    arch: str
    n_embd: int
    n_vocab: int | None
    name: str | None
    basename: str | None
    size_label: str | None
    tokenizer_sha256: str | None
    norm_sha256: str | None
    files: tuple[Path, ...] = ()

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises MismatchError when the heads are for another model."""
        config = checkpoint.config
        pairs = (
            ("hidden size", checkpoint.spec.n_embd, self.n_embd),
            ("architecture", config.arch, self.arch),
            ("vocabulary size", config.n_vocab, self.n_vocab),
        )
        for what, heads, base in pairs:
            if None not in (heads, base) and heads != base:
                raise MismatchError(
                    f"{self.path}: {what} {base!r}, but the heads in {checkpoint.label} are for {heads!r}; "
                    "use the base model that they were trained on"
                )


def open_base(path: str | os.PathLike[str]) -> tuple[ModelFile, BaseInfo]:
    """Opens a base model, the first part of a split one; the caller closes the file."""
    file = ModelFile(path)
    try:
        return file, read_base(file)
    except BaseException:
        file.close()
        raise


def read_base(file: ModelFile) -> BaseInfo:
    """Identity of an open base model. Raises FormatError when it is not a whole base model."""
    kind = file.string("general.type")
    if kind not in (None, "model"):
        raise FormatError(f"{file.path}: general.type is {kind!r}, not a model; give the base model's own GGUF")
    arch = file.string("general.architecture")
    if not arch:
        raise FormatError(f"{file.path}: key 'general.architecture' is missing; is this a language model?")
    if not is_safe_name(arch) or len(arch) > MAX_ARCH:
        raise FormatError(f"{file.path}: general.architecture is {arch[:MAX_ARCH]!r}, not the name of an architecture")
    n_embd = file.integer(f"{arch}.embedding_length")
    if n_embd is None:
        raise FormatError(f"{file.path}: key '{arch}.embedding_length' is missing; is this a language model?")
    tokens = file.kv.get(KEY_TOKENS)
    if tokens is not None and (not tokens.is_array or tokens.item_type != gt.STRING):
        raise FormatError(f"{file.path}: key '{KEY_TOKENS}' is of type {tokens.type_text}, expected array of string")
    return BaseInfo(
        path=file.path,
        arch=arch,
        n_embd=n_embd,
        n_vocab=tokens.count if tokens else None,
        name=file.string("general.name"),
        basename=file.string("general.basename"),
        size_label=file.string("general.size_label"),
        tokenizer_sha256=_sha256(file.read, tokens.offset, tokens.nbytes) if tokens else None,
        norm_sha256=_norm_sha256(file),
        files=file.files,
    )


def _norm_sha256(file: ModelFile) -> str | None:
    tensor = file.tensors.get(TENSOR_NORM)
    if tensor is None or gt.type_name(tensor.ggml_type) != "F32":
        return None
    return _sha256(partial(file.read_tensor, TENSOR_NORM), 0, tensor.nbytes)


def _sha256(read: Callable[[int, int], bytes], offset: int, nbytes: int) -> str:
    digest = hashlib.sha256()
    for begin in range(0, nbytes, HASH_CHUNK):
        digest.update(read(offset + begin, min(HASH_CHUNK, nbytes - begin)))
    return digest.hexdigest()

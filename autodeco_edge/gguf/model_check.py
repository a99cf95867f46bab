"""What would end the process if llama.cpp saw it, found before it does.

llama.cpp answers most damage with an error, and some with an assertion or an exception that nobody catches: both
abort. Owns ``check_model``: the structure of all parts, and the keys and tokens behind those assertions (of the
pinned llama.cpp; found by reading its loader and by changing every key of small models). What llama.cpp loads is
let pass. Knows nothing of heads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from ..errors import FormatError
from . import types as gt
from .model_file import ModelFile

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # llama-hparams.h
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
NO_VOCABULARY = ("no_vocab", "none")
DENSE_WITH_EXPERTS = ("hunyuan-dense", "hunyuan_vl")  # llama.cpp takes one expert for none there
KEY_MODEL, KEY_TOKENS = "tokenizer.ggml.model", "tokenizer.ggml.tokens"


def check_model(path: str | os.PathLike[str]) -> str | None:
    """Raises FormatError for a model that llama.cpp would abort on, MissingInputError for a part that is not there.

    Returns why no text can be made into tokens of this model, None where it can: llama.cpp loads a model without a
    vocabulary, or without tokens for single bytes, and aborts on the first text.
    """
    _check_kind(path)
    try:
        with ModelFile(path) as file:
            keys = _Keys(file)
            _check_purpose(keys)
            _check_layers(keys)
            _check_experts(keys)
            _check_numbers(keys)
            return _check_tokens(file, keys)
    except OtherKindError:
        raise
    except FormatError as error:
        if not _is_gguf(path):
            raise  # another kind of file: that is said, and it is whole for all we know
        raise FormatError(f"{error}; the file is damaged or incomplete: fetch it again") from None


class OtherKindError(FormatError):
    """Whole, for all we know, and no model."""


def _check_kind(path: str | os.PathLike[str]) -> None:
    """Raises OtherKindError for what people give for a GGUF model."""
    if os.path.isdir(path):
        raise OtherKindError(
            f"{path}: is a folder; give a GGUF file in it, or make one with llama.cpp's convert_hf_to_gguf.py"
        )
    with suppress(OSError):
        if is_safetensors(path):
            raise OtherKindError(
                f"{path}: holds safetensors; llama.cpp's convert_hf_to_gguf.py makes a GGUF of their folder"
            )


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """By its beginning: the length of a JSON header, and the header."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(10)[8:] == b'{"'


_OTHER_KINDS = {
    "lora": "a LoRA adapter; merge it into its model with llama.cpp's llama-export-lora",
    "autodeco": "AutoDeco heads; give them as --heads, and their model as -m",
    "mmproj": "the eyes of a model (mmproj); give the model itself",
    "imatrix": "an importance matrix; give the model that it was made for",
}


def _check_purpose(keys: _Keys) -> None:
    """Raises OtherKindError for a sound GGUF that is no model by its own word."""
    kind = keys.text("general.type")
    kind = keys.text("adapter.type") if kind == "adapter" else kind
    if kind in _OTHER_KINDS:
        raise OtherKindError(f"{keys.file.path}: holds {_OTHER_KINDS[kind]}")


def _is_gguf(path: str | os.PathLike[str]) -> bool:
    with suppress(OSError):
        if os.path.isfile(path):  # else opening it may wait for ever
            with open(path, "rb") as file:
                return file.read(4) == b"GGUF"
    return False


class _Keys:
    """Values of an architecture's keys where they have the type that llama.cpp reads; of another type it says so itself."""

    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.arch = file.string("general.architecture") if self._is("general.architecture", gt.STRING) else ""

    def _is(self, key: str, value_type: int) -> bool:
        value = self.file.kv.get(key)
        return value is not None and not value.is_array and value.item_type == value_type

    def text(self, key: str) -> str | None:
        if not self._is(key, gt.STRING):
            return None
        value = self.file.kv[key]
        return self.file.read(value.offset + 8, value.nbytes - 8).decode("utf-8", "replace")

    def number(self, name: str) -> int | None:
        key = f"{self.arch}.{name}"
        return self.file.u32(key) if self._is(key, gt.U32) else None

    def count(self, name: str) -> int:
        """Of a number; 0 where there is none."""
        return self.number(name) or 0

    def largest(self, name: str) -> int:
        """Of a number, or of an array with one for each layer; 0 where there is none."""
        value = self.file.kv.get(f"{self.arch}.{name}")
        if value is None or not value.is_array:
            return self.count(name)
        if value.item_type not in (gt.U32, gt.I32) or not 0 < value.count <= MAX_LAYERS:
            return 0
        return int(np.frombuffer(self.file.read(value.offset, value.nbytes), "<u4").max())

    def refuse(self, name: str, value: object, allowed: str) -> None:
        raise FormatError(f"{self.file.path}: key '{self.arch}.{name}' is {value}; allowed: {allowed}")


def _check_layers(keys: _Keys) -> None:
    n_layers = keys.number("block_count")
    if n_layers is None:
        return
    if not 1 <= n_layers <= MAX_LAYERS:
        keys.refuse("block_count", n_layers, f"1 to {MAX_LAYERS}")
    if (n_next := keys.count("nextn_predict_layers")) > n_layers:
        keys.refuse("nextn_predict_layers", n_next, f"up to the {n_layers} of block_count")


def _check_experts(keys: _Keys) -> None:
    n_experts, n_used = keys.count("expert_count"), keys.largest("expert_used_count")
    n_groups, n_groups_used = keys.count("expert_group_count"), keys.count("expert_group_used_count")
    if keys.arch in DENSE_WITH_EXPERTS and n_experts <= 1:
        n_experts = n_used = 0
    if n_experts > MAX_EXPERTS:
        keys.refuse("expert_count", n_experts, f"up to {MAX_EXPERTS}")
    if not min(n_experts, 1) <= n_used <= n_experts:
        keys.refuse("expert_used_count", n_used, f"{min(n_experts, 1)} to the {n_experts} of expert_count")
    if n_groups >= max(n_experts, 1) or (n_groups > 1 and n_experts % n_groups):
        keys.refuse("expert_group_count", n_groups, f"a divisor of the {n_experts} of expert_count, and less")
    if n_groups > 1 and not 0 < n_groups_used < n_groups:
        keys.refuse("expert_group_used_count", n_groups_used, f"1 to {n_groups - 1}")


def _check_numbers(keys: _Keys) -> None:
    scaling = keys.text(f"{keys.arch}.rope.scaling.type")
    if scaling is not None and scaling not in ROPE_SCALINGS:
        keys.refuse("rope.scaling.type", repr(scaling[:40]), ", ".join(ROPE_SCALINGS))
    for key, value in keys.file.kv.items():
        if key.endswith("_epsilon") and not value.is_array and value.item_type == gt.F32:
            (number,) = struct.unpack("<f", keys.file.read(value.offset, 4))
            if not 0 <= number < float("inf"):
                raise FormatError(f"{keys.file.path}: key {key!r} is {number}; allowed: 0 and above")


# ---- tokens -----------------------------------------------------------------------------------------


def _check_tokens(file: ModelFile, keys: _Keys) -> str | None:
    model, tokens = keys.text(KEY_MODEL), file.kv.get(KEY_TOKENS)
    if model in NO_VOCABULARY:
        return f"{file.path}: a model without a vocabulary ({KEY_MODEL} is {model!r}); give token ids instead of text"
    if tokens is None or not tokens.is_array or tokens.item_type != gt.STRING:
        return None  # llama.cpp refuses it
    texts = set(_split(file.read(tokens.offset, tokens.nbytes), tokens.count))
    if len(texts) < tokens.count:
        raise FormatError(f"{file.path}: key '{KEY_TOKENS}' holds {tokens.count - len(texts)} tokens more than once")
    if model == "llama" and (byte := _missing_byte(texts)) is not None:
        return f"{file.path}: the vocabulary has no token <0x{byte:02X}>, so texts of other characters cannot be read"
    return None


def _split(raw: bytes, count: int) -> Iterable[bytes]:
    """The items of an array of strings as llama.cpp has them: cut at a NUL, an empty one named by its place."""
    unpack, at = struct.Struct("<Q").unpack_from, 0
    for i in range(count):
        end = at + 8 + unpack(raw, at)[0]
        text = raw[at + 8 : end]
        if 0 in text:
            text = text[: text.index(0)]
        yield text or b"[EMPTY_%d]" % i
        at = end


def _missing_byte(texts: set[bytes]) -> int | None:
    return next((i for i in range(256) if b"<0x%02X>" % i not in texts and bytes([i]) not in texts), None)

"""Which heads go with which model: where they are found, and whether they belong to it.

Owns the meaning of ``heads=`` and the comparison of fingerprints (docs/format.md section 6). Does not run anything.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import FormatError, MismatchError, NoHeadsError
from ..gguf.model_check import is_safetensors
from .sampler import Heads


def demo_model() -> Path:
    """The bundled demo model: one GGUF with its heads inside."""
    return Path(__file__).parents[1] / "assets" / "autodeco-demo-q8_0.gguf"


def open_heads(heads: str | os.PathLike[str] | Heads | None, model_path: str | os.PathLike[str]) -> Heads | None:
    """What ``heads=`` means: a path, Heads, None, or "auto": those in the metadata of the model, if any."""
    if heads is None or isinstance(heads, Heads):
        return heads
    if heads != "auto":
        _check_kind(heads)
        return Heads(heads)
    try:
        return Heads(model_path)
    except NoHeadsError:
        return None


def _check_kind(heads: str | os.PathLike[str]) -> None:
    """Raises FormatError for a checkpoint that is to be converted first."""
    is_folder = os.path.isdir(heads)
    if is_folder or is_safetensors(heads):
        what = "a folder" if is_folder else "safetensors"
        raise FormatError(
            f"{heads}: is {what}, not a heads file; make one: autodeco-edge convert {heads} --base MODEL.gguf"
        )


def check_heads(heads: Heads, model: int, model_path: str | os.PathLike[str]) -> None:
    """Raises MismatchError unless the heads belong to ``model`` (a llama_model pointer) loaded from ``model_path``."""
    try:
        heads.check_model(model)
        if heads.path != Path(model_path):
            _check_fingerprints(heads, model_path)
    except MismatchError as error:
        raise MismatchError(f"{heads.path} does not fit {model_path}: {error}") from None


def _check_fingerprints(heads: Heads, model_path: str | os.PathLike[str]) -> None:
    """Same shapes, another model: told apart by the tokenizer and the output norm, where the heads file
    records them (docs/format.md section 6). Only then is the model's header read a second time."""
    from ..convert.base import open_base
    from ..convert.verify import check_base, read_heads_gguf

    loaded = read_heads_gguf(heads.path)
    if loaded.tokenizer_sha256 or loaded.norm_sha256:
        file, base = open_base(model_path)
        file.close()
        check_base(loaded, base)

"""Heads on disk in the official Hugging Face format: model.safetensors + config.json.

Owns config fields and the atomic write (docs/format.md section 10). Reading belongs to autodeco_edge.convert, which
needs no torch; here its tensors become modules. Knows nothing of training or of base weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes

from ..convert.checkpoint import read_checkpoint
from ..convert.checkpoint_config import MEAN_TEMPERATURE, MEAN_TOP_P, CheckpointConfig
from ..convert.safetensors_reader import SafetensorsFile
from ..convert.verify import GgufHeads, read_heads_gguf
from ..errors import FormatError, MismatchError, MissingInputError, UsageError
from ..gguf.keys import (
    ARCH_OF_MODEL_TYPE,
    CHECKPOINT_TEMP,
    CHECKPOINT_TOP_P,
    FC1_EXTRA,
    FEATURES_BASIC,
    HeadSpec,
)
from ..io.atomic import atomic_write, refuse_foreign, refuse_inputs
from ..io.folder import make_output_folder
from .modules import AutoDecoHeads

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


@dataclass
class HeadsCheckpoint:
    """Heads in float32, and what the config.json beside them says."""

    heads: AutoDecoHeads
    config: CheckpointConfig

    @property
    def enable_temperature(self) -> bool:
        """False if absent, or marked as never trained."""
        return self.heads.spec.has_temp and "temp" not in self.config.untrained

    @property
    def enable_top_p(self) -> bool:
        return self.heads.spec.has_top_p and "top-p" not in self.config.untrained


# ---- save --------------------------------------------------------------------------


def gguf_config(arch: str, n_embd: int, n_vocab: int | None) -> dict[str, Any]:
    """What stands for the config.json of a base that is a GGUF."""
    names = {arch: name for name, arch in reversed(ARCH_OF_MODEL_TYPE.items())}
    config = {"model_type": names.get(arch, arch), "hidden_size": n_embd, "vocab_size": n_vocab}
    return {name: value for name, value in config.items() if value is not None}


def autodeco_config(
    base_config: dict[str, Any],
    spec: HeadSpec,
    base_name_or_path: str,
    mean_temperature: float | None = None,
    mean_top_p: float | None = None,
    enable_temperature: bool = True,
    enable_top_p: bool = True,
) -> dict[str, Any]:
    """config.json of a heads checkpoint: the base config flattened, plus the fields of docs/format.md section 10."""
    config = dict(base_config)
    base_type = config.get("model_type")
    config.update(
        model_type="autodeco",
        architectures=["AutoDecoModelForCausalLM"],
        base_model_type=config.get("base_model_type") if base_type == "autodeco" else base_type,
        base_model_name_or_path=base_name_or_path,
        enable_temperature_head=spec.has_temp and enable_temperature,
        enable_top_p_head=spec.has_top_p and enable_top_p,
        use_enhanced_features=spec.features != FEATURES_BASIC,
        temperature_hidden_size=spec.n_embd,
        top_p_hidden_size=spec.n_embd,
    )
    means = {MEAN_TEMPERATURE: mean_temperature, MEAN_TOP_P: mean_top_p}
    config.update({key: float(value) for key, value in means.items() if value is not None})
    return config


def refuse_output(folder: str | Path, inputs: Iterable[str | Path | None]) -> None:
    """Raises UsageError where saving heads into ``folder`` would cost an input, or a model that lies there."""
    paths = [Path(i) for i in inputs if i is not None]
    refuse_inputs(folder, paths)
    for name in ("model.safetensors", "config.json"):
        refuse_inputs(Path(folder) / name, paths)
    refuse_foreign(Path(folder) / "model.safetensors", _is_heads, "a file of heads")


def _is_heads(path: Path) -> bool:
    with SafetensorsFile(path) as file:
        return all(name.startswith(("temp_head.", "top_p_head.")) for name in file.entries)


def save_heads(folder: str | Path, heads: AutoDecoHeads, config: dict[str, Any], dtype: str = "bf16") -> Path:
    """Write ``folder``/model.safetensors (metadata {"format": "pt"}) and config.json.

    dtype: bf16 (as the official releases), f16 or f32. Each file appears complete or not at
    all. Raises UsageError (dtype), FormatError (a value that is not finite), OutputError,
    StorageError.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype: expected one of {', '.join(DTYPES)}; got {dtype!r}")
    tensors = {k: v.detach().to("cpu", DTYPES[dtype]).contiguous() for k, v in heads.state_dict().items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise FormatError(f"the heads to be saved: {name} has values that are not finite; the run was damaged")
    folder = make_output_folder(folder)
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    weights = safetensors_bytes(tensors, metadata={"format": "pt"})
    for name, data in (("model.safetensors", weights), ("config.json", text.encode())):
        with atomic_write(folder / name) as out:
            out.write(data)
    return folder


# ---- load --------------------------------------------------------------------------


def load_heads(path: str | Path, n_embd: int | None = None) -> HeadsCheckpoint:
    """Read heads from a local folder or file, in every layout that convert/checkpoint.py knows, or from a GGUF.

    n_embd: hidden size of the base, if known; other heads raise MismatchError.
    Raises MissingInputError, FormatError, MismatchError.
    """
    if not os.path.exists(path):
        raise MissingInputError(f"{path}: no such file or folder; expected a heads checkpoint")
    if Path(path).suffix == ".gguf":
        return _load_gguf(Path(path), n_embd)
    found = read_checkpoint(path, n_embd=n_embd)
    heads = AutoDecoHeads(found.spec)
    heads.load_state_dict({name: torch.tensor(tensor.f32()) for name, tensor in found.tensors.items()})
    return HeadsCheckpoint(heads, found.config)


def _load_gguf(path: Path, n_embd: int | None) -> HeadsCheckpoint:
    found = read_heads_gguf(path)
    if n_embd not in (None, found.spec.n_embd):
        raise MismatchError(f"{path}: heads for a hidden size of {found.spec.n_embd}, the base has {n_embd}")
    heads = AutoDecoHeads(found.spec)
    heads.load_state_dict(dict(_official(found)))
    config = CheckpointConfig(path, found.spec.n_embd, found.n_vocab, found.arch, None, None, *astuple(found.means))
    return HeadsCheckpoint(heads, config)


def _official(found: GgufHeads) -> Iterator[tuple[str, torch.Tensor]]:
    """Under the names and in the shapes of a checkpoint: the top-p head's columns joined again."""
    values = {name: torch.tensor(tensor.f32()) for name, tensor in found.tensors.items()}
    for short, head in (("temp", CHECKPOINT_TEMP), ("top_p", CHECKPOINT_TOP_P)):
        if f"{short}.fc1.weight" not in values:
            continue
        columns = [values[name] for part in ("fc1.weight", FC1_EXTRA) if (name := f"{short}.{part}") in values]
        yield f"{head}.mlp.0.weight", torch.cat(columns, 1)
        yield f"{head}.mlp.0.bias", values[f"{short}.fc1.bias"]
        yield f"{head}.mlp.2.weight", values[f"{short}.fc2.weight"][None]
        yield f"{head}.mlp.2.bias", values[f"{short}.fc2.bias"]

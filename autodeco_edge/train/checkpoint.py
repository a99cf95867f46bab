"""Heads on disk in the official Hugging Face format: model.safetensors + config.json.

Owns names, shapes, config fields and the atomic write (docs/format.md section 10). Knows
nothing of training or of base weights. Pickle files are refused. Merged checkpoints and
GGUF belong to autodeco_edge.convert, which reads without torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from ..convert.safetensors_reader import SafetensorsFile
from ..errors import FormatError, MismatchError, MissingInputError, UsageError
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
from ..io.atomic import atomic_write, refuse_foreign, refuse_inputs
from ..io.folder import make_output_folder
from ..io.reading import read_json
from .modules import AutoDecoHeads

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
MEAN_TEMPERATURE = "autodeco_mean_temperature"  # ours: the converter turns them into default sampling values
MEAN_TOP_P = "autodeco_mean_top_p"


@dataclass
class HeadsCheckpoint:
    """Heads in float32 and the config.json that came with them ({} if there was none)."""

    heads: AutoDecoHeads
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def enable_temperature(self) -> bool:
        """False if absent, or marked as never trained (first-version configs say train_temp)."""
        return self.heads.spec.has_temp and _flag(self.config, "enable_temperature_head", "train_temp")

    @property
    def enable_top_p(self) -> bool:
        return self.heads.spec.has_top_p and _flag(self.config, "enable_top_p_head", "train_top_p")


def _flag(config: dict[str, Any], name: str, old_name: str) -> bool:
    value = config.get(name, config.get(old_name, True))
    return True if value is None else bool(value)


# ---- save --------------------------------------------------------------------------


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
        _check_finite(name, tensor, "the heads to be saved")
    folder = make_output_folder(folder)
    _write(folder / "model.safetensors", safetensors_bytes(tensors, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    _write(folder / "config.json", text.encode())
    return folder


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path) as out:
        out.write(data)


# ---- load --------------------------------------------------------------------------


def load_heads(path: str | Path, n_embd: int | None = None) -> HeadsCheckpoint:
    """Read heads from a folder (every *.safetensors in it) or from one safetensors file.

    n_embd: hidden size of the base, if known; other heads raise MismatchError.
    Shapes decide everything; config.json is advisory, but a contradiction is an error.
    Raises MissingInputError, FormatError, MismatchError.
    """
    path = Path(path)
    tensors = _collect(path)
    config = _read_config(path)
    spec = _spec_of(tensors, config, n_embd, path)
    if n_embd is not None and spec.n_embd != n_embd:
        raise MismatchError(
            f"{path}: heads for hidden size {spec.n_embd}, base has {n_embd}; use this base's own heads"
        )
    heads = AutoDecoHeads(spec)
    heads.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return HeadsCheckpoint(heads, config)


def _collect(path: Path) -> dict[str, Tensor]:
    """Head tensors of all files, under their official names."""
    tensors: dict[str, Tensor] = {}
    for file in _files(path):
        for name, tensor in _read_file(file):
            if name in tensors and not torch.equal(tensors[name], tensor):
                raise FormatError(f"{file}: {name} appears twice with different values; keep one heads file")
            tensors[name] = tensor
    if not tensors:
        raise FormatError(f"{path}: no temp_head.* or top_p_head.* tensors; is this a heads checkpoint?")
    return tensors


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise MissingInputError(f"{path}: no such file or folder; expected a heads checkpoint")
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.safetensors"))
    if not files and any(path.glob("*.bin")):
        raise FormatError(f"{path}: only pickle files (*.bin), which are refused; convert them to safetensors first")
    if not files:
        raise MissingInputError(f"{path}: no *.safetensors file; expected model.safetensors")
    return files


def _read_file(file: Path):
    try:
        with safe_open(file, framework="pt") as reader:
            for key in reader.keys():  # noqa: SIM118 - a reader, not a dict
                name = _strip_prefix(key)
                if name.startswith((CHECKPOINT_TEMP + ".", CHECKPOINT_TOP_P + ".")):
                    tensor = reader.get_tensor(key)
                    _check_tensor(name, tensor, file)
                    yield name, tensor
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file}: not a readable safetensors file ({error}); download it again") from error


def _strip_prefix(key: str) -> str:
    for prefix in CHECKPOINT_PREFIXES:
        if key.startswith(prefix):
            return key[len(prefix) :]
    return key


def _check_tensor(name: str, tensor: Tensor, file: Path) -> None:
    if name.split(".", 1)[1] not in CHECKPOINT_PARAMS:
        raise FormatError(f"{file}: unknown head tensor {name}; a head has {', '.join(CHECKPOINT_PARAMS)}")
    if tensor.dtype not in DTYPES.values():
        raise FormatError(f"{file}: {name} has dtype {tensor.dtype}; allowed: BF16, F16, F32")
    _check_finite(name, tensor, str(file))


def _check_finite(name: str, tensor: Tensor, where: str) -> None:
    if not tensor.float().isfinite().all():
        raise FormatError(f"{where}: {name} has values that are not finite; the training run was damaged")


def _read_config(path: Path) -> dict[str, Any]:
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    config = read_json(file, "remove it or download it again", lenient=True)
    if not isinstance(config, dict):
        raise FormatError(f"{file}: expected a JSON object, got {type(config).__name__}")
    return config


def _spec_of(tensors: dict[str, Tensor], config: dict[str, Any], n_embd: int | None, path: Path) -> HeadSpec:
    temp = _head_width(tensors, CHECKPOINT_TEMP, path)  # (n_in, n_hidden) or None
    top_p = _head_width(tensors, CHECKPOINT_TOP_P, path)
    if temp and top_p and temp[1] != top_p[1]:
        raise FormatError(f"{path}: hidden widths differ: temp_head {temp[1]}, top_p_head {top_p[1]}")
    width = temp[0] if temp else _width_without_temp(top_p[0], config, n_embd, path)
    features = features_of_width(top_p[0] - width) if top_p else ()
    claimed = config.get("use_enhanced_features")
    if top_p and claimed is not None and bool(claimed) != (features == FEATURES_ENHANCED):
        raise FormatError(f"{path}: config.json says use_enhanced_features={claimed}, the tensors have {len(features)}")
    return HeadSpec(width, (temp or top_p)[1], features, temp is not None, top_p is not None)


def _head_width(tensors: dict[str, Tensor], head: str, path: Path) -> tuple[int, int] | None:
    """(inputs, hidden units) of a complete head, None if it is absent; FormatError if it is half there."""
    missing = [f"{head}.{p}" for p in CHECKPOINT_PARAMS if f"{head}.{p}" not in tensors]
    if len(missing) == len(CHECKPOINT_PARAMS):
        return None
    if missing:
        raise FormatError(f"{path}: {', '.join(missing)} missing; a head has all of {', '.join(CHECKPOINT_PARAMS)}")
    shapes = [tuple(tensors[f"{head}.{p}"].shape) for p in CHECKPOINT_PARAMS]
    n_hidden, n_in = shapes[0] if len(shapes[0]) == 2 else (0, 0)
    if n_hidden < 1 or n_in < 1 or shapes[1:] != [(n_hidden,), (1, n_hidden), (1,)]:
        raise FormatError(f"{path}: {head} shapes {shapes}; expected [N, in], [N], [1, N], [1]")
    return n_in, n_hidden


def _width_without_temp(n_in: int, config: dict[str, Any], n_embd: int | None, path: Path) -> int:
    width = n_embd or config.get("top_p_hidden_size") or config.get("hidden_size")
    if not isinstance(width, int):
        raise FormatError(f"{path}: no temp_head and no hidden_size in config.json: cannot tell the hidden size")
    return width

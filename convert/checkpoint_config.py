"""What a checkpoint's config.json says, taken with a pinch of salt.

Owns the reading of ``config.json`` (docs/format.md section 10): it is advisory, may be absent, old or
odd, and never decides a shape. A field of the wrong type counts as absent; a field that
contradicts the tensors is an error. Does not read tensors.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import FormatError
from ..gguf.keys import ARCH_OF_MODEL_TYPE, FEATURES_BASIC, FEATURES_ENHANCED, HeadSpec
from ..io.regular import read_regular

MAX_CONFIG_BYTES = 1 << 22  # real ones have kilobytes
AUTODECO_MODEL_TYPE = "autodeco"
MEAN_TEMPERATURE = "autodeco_mean_temperature"  # written by our trainer; they become default sampling values
MEAN_TOP_P = "autodeco_mean_top_p"
WIDTH_FIELDS = ("hidden_size", "temperature_hidden_size", "top_p_hidden_size")


@dataclass(frozen=True)
class CheckpointConfig:
    """The fields of config.json that matter; None where absent.

    mean_temperature, mean_top_p   written by our trainer, in (0, 2] and (0, 1]
    """

    path: Path
    n_embd: int | None = None
    n_vocab: int | None = None
    model_type: str | None = None
    base_name: str | None = None
    use_enhanced_features: bool | None = None
    mean_temperature: float | None = None
    mean_top_p: float | None = None
    untrained: tuple[str, ...] = field(default=())

    @property
    def arch(self) -> str | None:
        """llama.cpp's name of the base architecture, None when unknown."""
        return ARCH_OF_MODEL_TYPE.get(self.model_type or "")

    def check(self, spec: HeadSpec) -> None:
        """Raises FormatError when config.json contradicts the shapes of the tensors."""
        if self.n_embd is not None and self.n_embd != spec.n_embd:
            raise FormatError(
                f"{self.path}: hidden size {self.n_embd}, but the head tensors are for {spec.n_embd}; "
                "remove config.json if it belongs to something else"
            )
        if not spec.has_top_p or self.use_enhanced_features is None:
            return
        expected = FEATURES_ENHANCED if self.use_enhanced_features else FEATURES_BASIC
        if spec.features != expected:
            raise FormatError(
                f"{self.path}: use_enhanced_features is {str(self.use_enhanced_features).lower()}, but "
                f"top_p_head.mlp.0.weight has {len(spec.features)} inputs beyond the hidden state (expected {len(expected)})"
            )


def read_config(path: Path) -> CheckpointConfig:
    """The config beside a checkpoint; all None when there is no such file."""
    if not path.exists():
        return CheckpointConfig(path)
    raw = _load(path)
    return CheckpointConfig(
        path,
        n_embd=_width(path, raw),
        n_vocab=_positive(raw.get("vocab_size")),
        model_type=_model_type(raw),
        base_name=_base_name(raw),
        use_enhanced_features=_typed(raw.get("use_enhanced_features"), bool),
        mean_temperature=_mean(path, raw, MEAN_TEMPERATURE, 2.0),
        mean_top_p=_mean(path, raw, MEAN_TOP_P, 1.0),
        untrained=_untrained(raw),
    )


def _load(path: Path) -> dict[str, object]:
    """A JSON object; Python's Infinity and NaN are let pass, transformers writes them."""
    try:
        raw = json.loads(read_regular(path, MAX_CONFIG_BYTES).decode("utf-8"))
    except (ValueError, RecursionError):
        raise FormatError(f"{path}: not valid JSON; mend it or remove it, it is not needed") from None
    if not isinstance(raw, dict):
        raise FormatError(f"{path}: not a JSON object; mend it or remove it, it is not needed")
    return raw


def _typed(value: object, kind: type) -> object:
    return value if type(value) is kind else None


def _positive(value: object) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 32 else None


def _width(path: Path, raw: dict[str, object]) -> int | None:
    widths = {name: _positive(raw.get(name)) for name in WIDTH_FIELDS}
    known = sorted({n for n in widths.values() if n is not None})
    if len(known) > 1:
        raise FormatError(f"{path}: hidden_size and the heads' hidden sizes contradict each other: {known}")
    return known[0] if known else None


def _model_type(raw: dict[str, object]) -> str | None:
    """The base's model type; "autodeco" and null say nothing (docs/format.md section 10)."""
    for name in ("base_model_type", "model_type"):
        value = raw.get(name)
        if isinstance(value, str) and value and value != AUTODECO_MODEL_TYPE:
            return value
    return None


def _base_name(raw: dict[str, object]) -> str | None:
    """Last part of base_model_name_or_path, which may be a path on the author's machine."""
    value = raw.get("base_model_name_or_path")
    if not isinstance(value, str):
        return None
    name = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return name if re.fullmatch(r"[\w][\w.+ -]{0,199}", name) else None


def _mean(path: Path, raw: dict[str, object], name: str, limit: float) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 < value <= limit:
        raise FormatError(f"{path}: {name} is {value!r}; allowed: above 0, up to {limit:g}")
    return float(value)


def _untrained(raw: dict[str, object]) -> tuple[str, ...]:
    """Heads that the config marks as not trained in the last run (enable_* or the older train_*)."""
    pairs = (("temp", ("enable_temperature_head", "train_temp")), ("top-p", ("enable_top_p_head", "train_top_p")))
    return tuple(head for head, names in pairs if any(raw.get(name) is False for name in names))

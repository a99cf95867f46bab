"""The base model: loaded, asked for its sizes and its config, and matched with heads.

Owns everything that depends on transformers' model classes, apart from the forward pass
(model.py). Knows nothing of losses, data or sampling.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ..convert.checkpoint_config import CheckpointConfig
from ..errors import FormatError, MismatchError, MissingInputError
from ..gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED, HeadSpec
from ..io.printing import first_line
from .modules import AutoDecoHeads


def load_base(base: str | Path, dtype: str | torch.dtype = "auto") -> nn.Module:
    """AutoModelForCausalLM of a folder or hub id. Raises MissingInputError, FormatError."""
    try:
        return AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype)
    except OSError as error:
        raise MissingInputError(f"{base}: base model not found or incomplete ({first_line(error)})") from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise FormatError(f"{base}: cannot be loaded as a causal LM ({first_line(error)})") from error


def load_tokenizer(base: str | Path) -> PreTrainedTokenizerBase:
    """The base's own tokenizer. Raises MissingInputError, FormatError."""
    try:
        return AutoTokenizer.from_pretrained(str(base))
    except OSError as error:
        raise MissingInputError(f"{base}: tokenizer not found ({first_line(error)})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{base}: tokenizer cannot be loaded ({first_line(error)})") from error


def base_config_of(base: str | Path, model: nn.Module) -> dict[str, Any]:
    """The base's config.json verbatim if ``base`` is a folder, else transformers' own rendering."""
    file = Path(base) / "config.json"
    text = file.read_text(encoding="utf-8") if file.is_file() else model.config.to_json_string(use_diff=False)
    return json.loads(text)


def hidden_size_of(base: nn.Module) -> int:
    return base.config.get_text_config().hidden_size


def default_spec(n_embd: int, has_temp: bool = True, has_top_p: bool = True, enhanced: bool = True) -> HeadSpec:
    """The spec of the official releases: 256 hidden units, enhanced features."""
    features = (FEATURES_ENHANCED if enhanced else FEATURES_BASIC) if has_top_p else ()
    return HeadSpec(n_embd, 256, features, has_temp, has_top_p)


def fresh_heads(spec: HeadSpec, seed: int) -> AutoDecoHeads:
    return AutoDecoHeads(spec).reset_parameters(torch.Generator().manual_seed(seed))


def check_base(claims: CheckpointConfig, base: nn.Module) -> None:
    """Raises MismatchError where the heads' config names another vocabulary or architecture."""
    check_claims(claims, base.config.get_text_config().vocab_size, base.config.model_type)


def check_claims(claims: CheckpointConfig, n_vocab: int, model_type: str) -> None:
    """The same from the base's two values. What the config does not say is not compared."""
    pairs = (("vocab_size", claims.n_vocab, n_vocab), ("base_model_type", claims.model_type, model_type))
    for name, claimed, actual in pairs:
        if claimed not in (None, actual):
            raise MismatchError(f"heads are for {name} {claimed}, the base has {actual}; use this base's own heads")

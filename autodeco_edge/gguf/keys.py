"""The names of the AutoDeco formats: checkpoint tensors, GGUF keys and tensors.

Owns the constants and ``HeadSpec``, the shape of a pair of heads. Does not read or
write any file. docs/format.md is the normative text; this module is its only spelling
in Python (native/autodeco-heads.c holds the C spelling).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FormatError

FORMAT_VERSION = 1

# ---- Hugging Face checkpoint ------------------------------------------------------
# A head is the container ``mlp``: 0 = Linear(in -> hidden), 2 = Linear(hidden -> 1);
# 1 = ReLU and 3 = Sigmoid carry no tensors.
CHECKPOINT_TEMP = "temp_head"
CHECKPOINT_TOP_P = "top_p_head"
CHECKPOINT_PARAMS = ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias")
CHECKPOINT_PREFIXES = ("module.adapter.", "adapter.")

# ---- GGUF ---------------------------------------------------------------------------
GENERAL_TYPE = "adapter"
ADAPTER_TYPE = "autodeco"

KEY_FORMAT_VERSION = "autodeco.format_version"  # u32
KEY_N_EMBD = "autodeco.embedding_length"  # u32
KEY_N_HIDDEN = "autodeco.hidden_length"  # u32
KEY_N_VOCAB = "autodeco.vocab_size"  # u32, absent when unknown
KEY_TEMP_SCALE = "autodeco.temperature.scale"  # f32, 2.0
KEY_TOP_P_FEATURES = "autodeco.top_p.features"  # array of string
KEY_MEAN_TEMP = "autodeco.mean_temperature"  # f32, absent when unknown
KEY_MEAN_TOP_P = "autodeco.mean_top_p"  # f32, absent when unknown
KEY_SOURCE_SHA256 = "autodeco.source.sha256"  # string
KEY_BASE_TOKENIZER_SHA256 = "autodeco.base.tokenizer.sha256"  # string, absent without --base
KEY_BASE_NORM_SHA256 = "autodeco.base.output_norm.sha256"  # string, absent without --base

# Only in a single file, where the heads' ``general.*`` keys would describe the base.
KEY_ARCH = "autodeco.architecture"  # string

KEY_SAMPLING_TEMP = "general.sampling.temp"  # f32, read by stock llama.cpp tools
KEY_SAMPLING_TOP_P = "general.sampling.top_p"  # f32

TENSOR_PREFIX = "autodeco."  # a tensor in a heads file: autodeco.temp.fc1.weight
META_TENSOR_PREFIX = "autodeco.tensor."  # a tensor as metadata: autodeco.tensor.<name>.{data,type,shape}

FC1_EXTRA = "fc1_extra.weight"

TEMP_SCALE = 2.0  # T = 2 * sigmoid(z), equations 2

# The inputs of the top-p head after the hidden state, in order (equations 3).
FEATURES_ENHANCED = ("temperature", "max_prob", "entropy", "prob_var", "top5_sum")
FEATURES_BASIC = ("temperature",)

# Hugging Face ``model_type`` -> llama.cpp ``general.architecture``
ARCH_OF_MODEL_TYPE = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "gpt_oss": "gpt-oss",
    "deepseek_v3": "deepseek2",
}


@dataclass(frozen=True)
class HeadSpec:
    """Shapes of a pair of heads.

    n_embd    H, width of the hidden state
    n_hidden  width of the hidden layer (256 in every release, not assumed)
    features  names of the top-p inputs after the hidden state, () without a top-p head
    has_temp, has_top_p   which heads there are; at least one
    """

    n_embd: int
    n_hidden: int
    features: tuple[str, ...]
    has_temp: bool
    has_top_p: bool

    def __post_init__(self) -> None:
        if not (self.has_temp or self.has_top_p):
            raise FormatError("no heads: expected temp_head.* or top_p_head.* tensors, found neither")


def features_of_width(n_extra: int) -> tuple[str, ...]:
    """Names of the ``n_extra`` inputs after the hidden state. Raises FormatError unless 1 or 5."""
    for features in (FEATURES_ENHANCED, FEATURES_BASIC):
        if len(features) == n_extra:
            return features
    raise FormatError(
        f"top_p_head.mlp.0.weight: {n_extra} inputs beyond the hidden state; allowed: 5 (enhanced) or 1 (basic)"
    )

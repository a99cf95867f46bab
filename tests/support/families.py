"""Tiny random models of the architectures that are tested, as Hugging Face folders and as GGUF.

Owns their configurations. The tokenizers are real ones, rebuilt from llama.cpp's vocabulary
files, and the GGUF is made by llama.cpp's own converter, so that everything but the weights
is what a user has.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest import mock

import numpy as np

from . import llama_source

# llama.cpp's name of the architecture, and which of its ggml-vocab files
VOCABULARY = {
    "llama": "llama-bpe",
    "qwen2": "qwen2",
    "qwen3moe": "qwen2",
    "gpt-oss": "llama-bpe",
    "deepseek2": "qwen2",
}

HIDDEN = 64
LAYER_GAIN = 0.7  # layers that amplify the rounding of llama.cpp's F16 key-value cache less than unit gain does


def _config(name: str, n_vocab: int):
    import transformers as t

    common = {
        "vocab_size": n_vocab,
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    moe = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    if name == "llama":
        return t.LlamaConfig(**common)
    if name == "qwen2":
        return t.Qwen2Config(**common)
    if name == "qwen3moe":
        return t.Qwen3MoeConfig(
            **common, **moe, head_dim=16, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True
        )
    if name == "gpt-oss":
        return t.GptOssConfig(
            **{**common, "intermediate_size": 64, "max_position_embeddings": 131072},  # YaRN is relative to it
            head_dim=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            # llama.cpp rounds the YaRN correction range; the released gpt-oss config does not, a
            # difference between the two runtimes that is not ours to test
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "original_max_position_embeddings": 4096,
                "truncate": True,
            },
        )
    assert name == "deepseek2", f"no configuration for {name}"
    return t.DeepseekV3Config(
        **{**common, "num_key_value_heads": 4},
        scoring_func="sigmoid",  # in the released config.json; the converter reads it
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=32,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=32,
        q_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=16,
        v_head_dim=16,
    )


def make(name: str, tokenizer: Path, hf: Path, gguf: Path) -> None:
    """A model and its tokenizer in a Hugging Face folder, and as an F32 GGUF."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(tokenizer, hf)
    n_vocab = len(AutoTokenizer.from_pretrained(hf))
    torch.manual_seed(1234)
    model = AutoModelForCausalLM.from_config(_config(name, n_vocab), dtype=torch.float32)
    _spread(model)
    model.save_pretrained(hf)
    llama_source.convert(hf, gguf)


def make_tokenizer(vocabulary: str, folder: Path) -> None:
    """In Hugging Face's form. gguf reads arrays of strings from a plain array three times faster than from a memmap."""
    from transformers import AutoTokenizer

    source, mapped = llama_source.vocabulary(vocabulary), np.memmap
    with mock.patch("numpy.memmap", lambda *args, **options: mapped(*args, **options).view(np.ndarray)):
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder)


def _spread(model) -> None:
    """Random weights large enough that logits are neither flat nor one-hot, and routers far from ties:
    a routing flip would compare two different models. DeepSeek's router is a sigmoid, where large
    logits would all become 1."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            router = "router" in name or name.endswith("gate.weight")
            gain = (
                (2.0 if model.config.model_type == "deepseek_v3" else 8.0)
                if router
                else LAYER_GAIN
                if "layers" in name
                else 1.0
            )
            parameter.copy_(torch.randn_like(parameter) * gain / parameter.shape[-1] ** 0.5)
        model.get_output_embeddings().weight.mul_(2.0)

"""Owns the way from the demo base's Hugging Face folder to GGUF (architecture qwen2), tokenizer included; the same bytes every time.

It handles this one architecture only, and knows no heads (`convert/` merges those).

    python -m demo.export HF_DIR OUT.gguf [--outtype f32|f16|q8_0]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from safetensors.numpy import load_file

OUTTYPES = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
MODEL_NAME = "AutoDeco Demo 5M"
LICENSE = "mit"

# Hugging Face name within a layer -> GGUF name within a block. Qwen2's rotary layout is the one llama.cpp uses
# for this architecture (NEOX), so Q and K rows keep their order.
LAYER_NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.k_proj.bias": "attn_k.bias",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
MODEL_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`."""
    if name in MODEL_NAMES:
        return MODEL_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest]}"


def export_gguf(hf_dir: str | Path, out_path: str | Path, outtype: str = "q8_0", name: str = MODEL_NAME) -> Path:
    """Write the checkpoint in `hf_dir` to `out_path`: complete or not at all."""
    if outtype not in OUTTYPES:
        raise ValueError(f"outtype {outtype!r} is unknown; use one of {', '.join(OUTTYPES)}")
    hf_dir, out_path = Path(hf_dir), Path(out_path)
    config = json.loads((hf_dir / "config.json").read_text())
    partial = out_path.with_name(f".{out_path.name}.partial")
    writer = GGUFWriter(partial, "qwen2")
    try:
        _write_general(writer, name, outtype)
        _write_sizes(writer, config)
        _write_tokenizer(writer, hf_dir)
        _write_tensors(writer, load_file(hf_dir / "model.safetensors"), outtype, config)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, out_path)
    finally:
        partial.unlink(missing_ok=True)
    return out_path


def _write_general(writer: GGUFWriter, name: str, outtype: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_size_label("5M")
    writer.add_license(LICENSE)
    writer.add_description("A toy model trained on generated text, to show per-token temperature and top-p.")
    writer.add_file_type(OUTTYPES[outtype][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _write_sizes(writer: GGUFWriter, config: dict) -> None:
    rope = config.get("rope_parameters") or config  # transformers 5 nests rope_theta, 4 does not
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])


def _write_tokenizer(writer: GGUFWriter, hf_dir: Path) -> None:
    """Tokens in id order. No BOS is ever added; the end-of-text token stands in for it, as in Qwen2's own files."""
    tokenizer = json.loads((hf_dir / "tokenizer.json").read_text())
    settings = json.loads((hf_dir / "tokenizer_config.json").read_text())
    ids = dict(tokenizer["model"]["vocab"])
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids.update(special)
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise ValueError("token ids are not 0 to n - 1")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(special[settings["pad_token"]])
    writer.add_eos_token_id(special[settings["eos_token"]])
    writer.add_pad_token_id(special[settings["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template(_chat_template(hf_dir, settings))


def _chat_template(hf_dir: Path, settings: dict) -> str:
    """transformers 5 keeps the template in a file of its own, 4 in the settings."""
    file = hf_dir / "chat_template.jinja"
    return file.read_text() if file.exists() else settings["chat_template"]


def _write_tensors(writer: GGUFWriter, tensors: dict[str, np.ndarray], outtype: str, config: dict) -> None:
    """Matrices in the asked type, vectors (norms, biases) in F32. Tied embeddings have no `output.weight`."""
    for name in sorted(tensors, key=_order):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        data = tensors[name].astype(np.float32)
        qtype = OUTTYPES[outtype][0] if data.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), gguf.quants.quantize(data, qtype), raw_dtype=qtype)


def _order(name: str) -> tuple[int, str]:
    """Embedding first, then the blocks by number, then the last norm."""
    parts = name.split(".")
    block = int(parts[2]) if parts[1] == "layers" else (-1 if "embed" in name else 1 << 30)
    return block, name


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo base as GGUF.")
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("out_path", type=Path)
    parser.add_argument("--outtype", choices=list(OUTTYPES), default="q8_0")
    args = parser.parse_args()
    path = export_gguf(args.hf_dir, args.out_path, args.outtype)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Real input files for the tests of convert/: checkpoints and tiny base models, all seeded."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import safetensors

N_EMBD, N_HIDDEN, N_VOCAB = 64, 16, 40
SAFETENSORS_DTYPE = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def to_bits(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values as the bit patterns of ``dtype`` (BF16 by truncation: any bits will do)."""
    if dtype == "BF16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype])


def make_heads(
    dtype: str = "BF16", n_extra: int = 5, heads=("temp_head", "top_p_head"), n_embd=N_EMBD, n_hidden=N_HIDDEN, seed=1
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """name -> (dtype, shape, bytes) of seeded random heads."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for head in heads:
        n_in = n_embd + (n_extra if head == "top_p_head" else 0)
        shapes = {"0.weight": (n_hidden, n_in), "0.bias": (n_hidden,), "2.weight": (1, n_hidden), "2.bias": (1,)}
        for part, shape in shapes.items():
            bits = to_bits(rng.normal(0, 0.1, shape).astype(np.float32), dtype)
            tensors[f"{head}.mlp.{part}"] = (dtype, shape, bits.tobytes())
    return tensors


def values_of(tensor: tuple[str, tuple[int, ...], bytes]) -> np.ndarray:
    """float32 values of a made tensor, decoded apart from the code under test."""
    dtype, shape, data = tensor
    if dtype == "BF16":
        words = struct.unpack(f"<{len(data) // 2}H", data)
        return np.array([struct.unpack("<f", struct.pack("<I", w << 16))[0] for w in words], np.float32).reshape(shape)
    return np.frombuffer(data, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float32).reshape(shape)


def save_safetensors(path: Path, tensors: dict) -> Path:
    """Written by the safetensors library itself, from raw bits (its numpy side has no BF16)."""
    buffers = {name: np.frombuffer(data, np.uint8) for name, (_, _, data) in tensors.items()}
    entries = {name: _spec(dtype, shape, buffers[name]) for name, (dtype, shape, _) in tensors.items()}
    safetensors.serialize_file(entries, str(path), {"format": "pt"})
    return path


def _spec(dtype: str, shape: tuple[int, ...], buffer: np.ndarray):
    name = SAFETENSORS_DTYPE[dtype]
    if hasattr(safetensors, "TensorSpec"):  # 0.8 takes addresses, older ones took bytes
        return safetensors.TensorSpec(
            dtype=name, shape=list(shape), data_ptr=buffer.ctypes.data, data_len=buffer.nbytes
        )
    return {"dtype": name, "shape": list(shape), "data": buffer.tobytes()}


def make_config(**changes) -> dict:
    """A saved AutoDeco config; None removes a field."""
    config = {
        "architectures": ["AutoDecoModelForCausalLM"],
        "model_type": "autodeco",
        "base_model_type": "llama",
        "base_model_name_or_path": "/home/author/models/Tiny-Llama-8B",
        "hidden_size": N_EMBD,
        "vocab_size": N_VOCAB,
        "enable_temperature_head": True,
        "enable_top_p_head": True,
        "use_enhanced_features": True,
        "temperature_hidden_size": N_EMBD,
        "top_p_hidden_size": N_EMBD,
    }
    return {k: v for k, v in (config | changes).items() if v is not None}


def make_folder(folder: Path, tensors: dict | None = None, config: dict | None | str = None) -> Path:
    """A checkpoint folder in the current layout."""
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / "model.safetensors", make_heads() if tensors is None else tensors)
    if isinstance(config, str):
        (folder / "config.json").write_text(config)
    elif config is not False:
        (folder / "config.json").write_text(json.dumps(make_config() if config is None else config))
    return folder


def make_base(
    path: Path, *, arch="llama", n_embd=N_EMBD, n_vocab=N_VOCAB, name="Tiny Llama 8B", seed=7, extra=None
) -> Path:
    """A one-layer llama model that stock llama.cpp loads; ``extra(writer)`` adds keys."""
    import gguf

    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type("model")
    writer.add_name(name)
    writer.add_context_length(128)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(n_embd // 2)
    writer.add_tokenizer_model("llama")
    specials = ["<unk>", "<s>", "</s>"]
    writer.add_token_list(specials + [f"t{i}" for i in range(n_vocab - 3)])
    writer.add_token_scores([0.0] * n_vocab)
    writer.add_token_types([2, 3, 3] + [1] * (n_vocab - 3))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if extra:
        extra(writer)
    shapes = {"token_embd": (n_vocab, n_embd), "output_norm": (n_embd,), "output": (n_vocab, n_embd)}
    shapes |= {f"blk.0.attn_{x}": (n_embd, n_embd) for x in ("q", "k", "v", "output")}
    shapes |= {"blk.0.attn_norm": (n_embd,), "blk.0.ffn_norm": (n_embd,)}
    shapes |= {"blk.0.ffn_gate": (32, n_embd), "blk.0.ffn_up": (32, n_embd), "blk.0.ffn_down": (n_embd, 32)}
    for tensor, shape in shapes.items():
        writer.add_tensor(f"{tensor}.weight", rng.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

"""Makes a model of the size of Qwen2-0.5B with random weights, and heads for it, to time decoding on.

    python bench/make_model.py --out build/bench

Writes model-q4_k_m.gguf and heads.gguf. Speed depends on shapes and types, not on what the weights say. The
embeddings are wide enough for logits of deviation 2.5, so that sorting them costs about what it costs in use. Without a
tokenizer: prompts are token ids.

Owns the shapes and the seed. Weights are made and written one tensor at a time; the quantisation is llama.cpp's.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

MODEL, HEADS = "model-q4_k_m.gguf", "heads.gguf"
N_CTX = 32768
N_HEAD, N_HEAD_KV = 14, 2
DEVIATION = 2.5  # of the logits
_CHUNK = 4096  # rows made at once in F32


@dataclass(frozen=True)
class Shape:
    """Of Qwen2-0.5B by default. n_embd is a multiple of 14 heads x 2."""

    n_layer: int = 24
    n_vocab: int = 151936
    n_embd: int = 896
    n_ff: int = 4864

    @property
    def n_embd_kv(self) -> int:
        return self.n_embd // N_HEAD * N_HEAD_KV


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Name, numpy shape and standard deviation; 0 = all ones. Biases are vectors, norms too."""
    n, kv, ff = shape.n_embd, shape.n_embd_kv, shape.n_ff
    yield "token_embd.weight", (shape.n_vocab, n), DEVIATION / n**0.5
    yield "output_norm.weight", (n,), 0
    for i in range(shape.n_layer):
        yield f"blk.{i}.attn_norm.weight", (n,), 0
        for name, rows in (("q", n), ("k", kv), ("v", kv)):
            yield f"blk.{i}.attn_{name}.weight", (rows, n), n**-0.5
            yield f"blk.{i}.attn_{name}.bias", (rows,), 0.1
        yield f"blk.{i}.attn_output.weight", (n, n), n**-0.5
        yield f"blk.{i}.ffn_norm.weight", (n,), 0
        yield f"blk.{i}.ffn_gate.weight", (ff, n), n**-0.5
        yield f"blk.{i}.ffn_up.weight", (ff, n), n**-0.5
        yield f"blk.{i}.ffn_down.weight", (n, ff), ff**-0.5


def values(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Matrices in F16, vectors in F32, as llama.cpp's converter has them."""
    array = np.ones(shape, dtype=np.float16 if len(shape) == 2 else np.float32)
    if deviation:
        for start in range(0, shape[0], _CHUNK):
            part = array[start : start + _CHUNK]
            part[...] = rng.standard_normal(part.shape, dtype=np.float32) * np.float32(deviation)
    return array


def write_model(path: Path, shape: Shape, seed: int) -> None:
    writer = GGUFWriter(path, "qwen2")
    writer.add_name(f"Random {shape.n_layer} x {shape.n_embd}")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_tokenizer_model("no_vocab")
    listed = list(tensors(shape))
    for name, dims, _ in listed:
        dtype = np.dtype(np.float16 if len(dims) == 2 else np.float32)
        kind = GGMLQuantizationType.F16 if len(dims) == 2 else GGMLQuantizationType.F32
        writer.add_tensor_info(name, dims, dtype, int(np.prod(dims)) * dtype.itemsize, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(seed)
    for _, dims, deviation in listed:
        writer.write_tensor_data(values(dims, deviation, rng))
    writer.close()


def quantise(source: Path, target: Path) -> None:
    import llama_cpp

    from autodeco_edge.engine import library as _lib

    _lib.library()  # takes over llama.cpp's log
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise SystemExit(f"{source}: llama.cpp could not quantise it ({_lib.log.last_error()})")


def write_heads(path: Path, model: Path, seed: int, scratch: Path) -> None:
    from autodeco_edge.bench.heads import write_random_heads
    from autodeco_edge.convert.base import open_base

    file, base = open_base(model)
    file.close()
    write_random_heads(path, scratch, base.n_embd, outtype="f16", seed=seed, base=base)


def make(out: Path, shape: Shape, seed: int = 1) -> tuple[Path, Path]:
    """The two files."""
    from tempfile import TemporaryDirectory

    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out) as folder:
        raw = Path(folder) / "model-f16.gguf"
        write_model(raw, shape, seed)
        quantise(raw, out / MODEL)
        write_heads(out / HEADS, out / MODEL, seed, Path(folder) / "heads")
    return out / MODEL, out / HEADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--n-layer", type=int, default=Shape.n_layer)
    parser.add_argument("--n-vocab", type=int, default=Shape.n_vocab)
    parser.add_argument("--n-embd", type=int, default=Shape.n_embd)
    parser.add_argument("--n-ff", type=int, default=Shape.n_ff)
    args = parser.parse_args()
    for path in make(args.out, Shape(args.n_layer, args.n_vocab, args.n_embd, args.n_ff), args.seed):
        print(f"wrote {path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""A very small llama model over single bytes, with heads: engines on it load in milliseconds.

Owns a GGUF written field by field, without torch and without a real tokenizer: 256 bytes, one merge
("ab"), two ChatML marks and an end-of-text token. A reply costs about 0.1 ms a token, so that a test
can draw tens of thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from gguf import GGUFWriter, TokenType

from autodeco_edge.text.chat import CHATML

from . import checkpoints

N_EMBD = 32
N_CTX = 512
END = "<|im_end|>"
BOS = "<|endoftext|>"
_SPECIAL = ["<|im_start|>", END, BOS]


@dataclass(frozen=True)
class Letters:
    """gguf, its heads file, the checkpoint they were made from."""

    gguf: Path
    heads: Path
    checkpoint: Path


def make_letters(folder: Path) -> Letters:
    from autodeco_edge.convert.base import open_base
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads

    gguf = write_model(folder / "letters.gguf", template=CHATML)
    checkpoint = checkpoints.random_heads(folder / "letters-heads", N_EMBD, seed=7)
    _, base = open_base(gguf)
    write_heads(read_checkpoint(checkpoint), folder / "letters-heads.gguf", base=base)
    return Letters(gguf, folder / "letters-heads.gguf", checkpoint)


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins of the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def write_model(
    path: Path,
    *,
    add_bos: bool = False,
    template: str | None = None,
    arch: str = "llama",
    extra: Sequence[str] = (),
    keys: Callable[[GGUFWriter], None] = lambda writer: None,
    tensors: Mapping[str, np.ndarray | None] = MappingProxyType({}),
) -> Path:
    """``keys`` adds metadata; ``extra`` tokens go behind the others; ``tensors`` go in beside the model's own or in their place, None leaves one out."""
    tokens = [*byte_letters(), "ab", *_SPECIAL, *extra]
    writer = GGUFWriter(path, arch)
    writer.add_name("letters")
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2 * N_EMBD)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * 257 + [TokenType.CONTROL] * len([*_SPECIAL, *extra]))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(tokens.index(BOS))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(add_bos)
    if template is not None:
        writer.add_chat_template(template)
    keys(writer)
    for name, tensor in {**_tensors(len(tokens)), **tensors}.items():
        if tensor is not None:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(n_vocab: int) -> dict[str, np.ndarray]:
    """Random weights whose logits are neither flat nor one-hot."""
    rng = np.random.default_rng(3)

    def linear(n_out: int, n_in: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((n_out, n_in)) * gain / np.sqrt(n_in)).astype(np.float32)

    ones = np.ones(N_EMBD, dtype=np.float32)
    return {
        "token_embd.weight": linear(n_vocab, N_EMBD, np.sqrt(N_EMBD)),
        "output.weight": linear(n_vocab, N_EMBD, 2.0),
        "output_norm.weight": ones,
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_q.weight": linear(N_EMBD, N_EMBD),
        "blk.0.attn_k.weight": linear(N_EMBD, N_EMBD),
        "blk.0.attn_v.weight": linear(N_EMBD, N_EMBD),
        "blk.0.attn_output.weight": linear(N_EMBD, N_EMBD),
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": linear(2 * N_EMBD, N_EMBD),
        "blk.0.ffn_up.weight": linear(2 * N_EMBD, N_EMBD),
        "blk.0.ffn_down.weight": linear(N_EMBD, 2 * N_EMBD),
    }

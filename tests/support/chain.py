"""A model that says what a test wants: every token has one successor.

Owns a GGUF of one block that adds nothing, one-hot embeddings and an output matrix that is the table of successors, so
that greedy decoding follows the chain. The tokenizer is byte-level; the words of a chain are tokens of their own, each
at most once in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

from .letters import byte_letters

END = "<|end_of_reply|>"
GAIN = 40.0  # logit of the successor, all others 0


def write_chain(
    path: Path,
    after: str,
    reply: Sequence[str],
    *,
    control: Sequence[str] = (),
    template: str | None = None,
    keys: Callable[[GGUFWriter], None] = lambda writer: None,
) -> Path:
    """After the token ``after`` (a character, or one of ``control``) greedy decoding says ``reply``, then END.

    control   tokens that are marks and no text; the reply's other parts are tokens of text
    """
    words = [part for part in reply if part not in control and len(part.encode()) > 1]
    tokens = [*byte_letters(), "ab", *words, *control, END]
    types = [TokenType.NORMAL] * 257 + [TokenType.USER_DEFINED] * len(words)
    types += [TokenType.CONTROL] * (len(control) + 1)
    n = len(tokens) + len(tokens) % 2
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(n)
    writer.add_block_count(1)
    writer.add_feed_forward_length(2)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(tokens.index(END))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    keys(writer)
    for name, tensor in _tensors(n, [tokens.index(_token(t)) for t in (after, *reply, END)], len(tokens)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _token(text: str) -> str:
    return byte_letters()[ord(text)] if len(text.encode()) == 1 else text


def _tensors(n: int, chain: list[int], n_vocab: int) -> dict[str, np.ndarray]:
    assert len(set(chain)) == len(chain), "a token has one successor"
    output = np.zeros((n_vocab, n), dtype=np.float32)
    for token, successor in zip(chain, chain[1:], strict=False):
        output[successor, token] = GAIN / np.sqrt(n)  # a normed one-hot state has the length sqrt(n)
    zeros, ones = np.zeros((n, n), dtype=np.float32), np.ones(n, dtype=np.float32)
    narrow = np.zeros((2, n), dtype=np.float32)
    return {
        "token_embd.weight": np.eye(n_vocab, n, dtype=np.float32),
        "output.weight": output,
        "output_norm.weight": ones,
        "blk.0.attn_norm.weight": ones,
        **{f"blk.0.attn_{name}.weight": zeros for name in ("q", "k", "v", "output")},
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": narrow,
        "blk.0.ffn_up.weight": narrow,
        "blk.0.ffn_down.weight": narrow.T.copy(),
    }

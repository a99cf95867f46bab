"""A Llama in plain torch, read from a GGUF: whole sequences, cached steps, logits.

Owns shapes, weights and the cache. Knows nothing of heads and of sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from autodeco_edge.gguf.reader import GGUFFile


@dataclass(frozen=True)
class Shape:
    n_layer: int = 30
    width: int = 576
    n_head: int = 9
    n_kv: int = 3
    inner: int = 1536
    vocab: int = 49152
    rope_base: float = 100000.0
    epsilon: float = 1e-5

    @property
    def d(self) -> int:
        return self.width // self.n_head

    @classmethod
    def of(cls, file: GGUFFile, vocab: int) -> Shape:
        return cls(
            file.u32("llama.block_count"),
            file.u32("llama.embedding_length"),
            file.u32("llama.attention.head_count"),
            file.u32("llama.attention.head_count_kv"),
            file.u32("llama.feed_forward_length"),
            vocab,
            file.f32("llama.rope.freq_base"),
            file.f32("llama.attention.layer_norm_rms_epsilon"),
        )


class Cache:
    """Keys and values of every layer: [L, B, n_kv, S, d] each; ``length`` columns are filled, ``pad`` [B] of them are none."""

    def __init__(self, shape: Shape, batch: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        size = (shape.n_layer, batch, shape.n_kv, length, shape.d)
        self.k, self.v = (torch.zeros(size, dtype=dtype, device=device) for _ in range(2))
        self.length = 0
        self.pad = torch.zeros(batch, dtype=torch.long, device=device)

    def rows(self, index: Tensor, length: int) -> Cache:
        """The rows of ``index``, with room for ``length`` columns: to spread prompts over samples, or to drop finished ones."""
        new = object.__new__(Cache)
        n_layer, _, n_kv, _, d = self.k.shape
        size = (n_layer, len(index), n_kv, length, d)
        new.k, new.v = (torch.zeros(size, dtype=self.k.dtype, device=self.k.device) for _ in range(2))
        for i in range(n_layer):
            new.k[i, :, :, : self.length] = self.k[i, :, :, : self.length].index_select(0, index)
            new.v[i, :, :, : self.length] = self.v[i, :, :, : self.length].index_select(0, index)
        new.length, new.pad = self.length, self.pad[index]
        return new


class Llama:
    """Weights as GGUF has them: rows of Q and K are permuted, so rope turns neighbours (2i, 2i + 1)."""

    def __init__(self, shape: Shape, weights: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        put = lambda t: t.to(device, dtype)  # noqa: E731
        self.embed = weights["token_embd.weight"].to(device, torch.float32)  # the output matrix too
        self.norm = weights["output_norm.weight"].to(device, torch.float32)
        self.layers = []
        for i in range(shape.n_layer):
            w = {name: weights[f"blk.{i}.{name}.weight"] for name in LAYER}
            self.layers.append(
                {
                    "attn_norm": w["attn_norm"].to(device, torch.float32),
                    "ffn_norm": w["ffn_norm"].to(device, torch.float32),
                    "qkv": put(torch.cat([w["attn_q"], w["attn_k"], w["attn_v"]])),
                    "out": put(w["attn_output"]),
                    "gate_up": put(torch.cat([w["ffn_gate"], w["ffn_up"]])),
                    "down": put(w["ffn_down"]),
                }
            )
        half = shape.d // 2
        self.frequency = shape.rope_base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
        self.cache_dtype = (
            torch.float32 if device.type == "cpu" else torch.bfloat16 if dtype == torch.bfloat16 else torch.float16
        )

    @classmethod
    def load(cls, path: str | Path, device: torch.device, dtype: torch.dtype) -> Llama:
        from autodeco_edge.gguf.reader import GGUFFile

        with GGUFFile(path) as file:
            weights = {name: torch.from_numpy(dequantised(file, name)) for name in file.tensors}
            return cls(Shape.of(file, len(weights["token_embd.weight"])), weights, device, dtype)

    @classmethod
    def random(cls, shape: Shape, device: torch.device, dtype: torch.dtype) -> Llama:
        torch.manual_seed(0)
        sizes = {
            "attn_norm": (shape.width,),
            "ffn_norm": (shape.width,),
            "attn_q": (shape.width, shape.width),
            "attn_k": (shape.n_kv * shape.d, shape.width),
            "attn_v": (shape.n_kv * shape.d, shape.width),
            "attn_output": (shape.width, shape.width),
            "ffn_gate": (shape.inner, shape.width),
            "ffn_up": (shape.inner, shape.width),
            "ffn_down": (shape.width, shape.inner),
        }
        weights = {f"blk.{i}.{n}.weight": torch.randn(s) * 0.05 for i in range(shape.n_layer) for n, s in sizes.items()}
        weights |= {
            "token_embd.weight": torch.randn(shape.vocab, shape.width) * 0.1,
            "output_norm.weight": torch.ones(shape.width),
        }
        return cls(shape, weights, device, dtype)

    # ---- forward -----------------------------------------------------------------------

    def prefill(self, ids: Tensor, pad: Tensor, cache: Cache) -> Tensor:
        """ids [B, n] padded on the left by ``pad`` [B] -> post-norm hidden states [B, H] of the last column, float32."""
        n = ids.shape[1]
        column = torch.arange(n, device=self.device)
        there = column[None, :] >= pad[:, None]  # [B, n]
        causal = column[None, :] <= column[:, None]  # [n, n]
        mask = causal[None] & there[:, None, :] | torch.eye(n, dtype=torch.bool, device=self.device)[None]  # [B, n, n]
        cache.pad = pad
        position = (column[None, :] - pad[:, None]).clamp(min=0)
        x = self.embed[ids]
        x = self._layers(x, position, cache, 0, mask)
        cache.length = n
        return self._rms(x[:, -1], self.norm)

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """The next token of every sequence, ids [B] -> hidden states [B, H]."""
        at = cache.length
        position = (at - cache.pad)[:, None]
        mask = (torch.arange(at + 1, device=self.device)[None, :] >= cache.pad[:, None])[:, None, :]  # [B, 1, at + 1]
        x = self._layers(self.embed[ids][:, None], position, cache, at, mask)
        cache.length = at + 1
        return self._rms(x[:, 0], self.norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [..., V] float32."""
        return hidden @ self.embed.T

    def hidden_of(self, ids: Tensor) -> Tensor:
        """Post-norm hidden states [B, n, H] of whole sequences without padding."""
        cache = Cache(self.shape, len(ids), ids.shape[1], self.cache_dtype, self.device)
        n = ids.shape[1]
        column = torch.arange(n, device=self.device)
        mask = (column[None, :] <= column[:, None])[None].expand(len(ids), n, n)
        x = self._layers(self.embed[ids], column[None].expand(len(ids), n), cache, 0, mask)
        return self._rms(x, self.norm)

    def _layers(self, x: Tensor, position: Tensor, cache: Cache, at: int, mask: Tensor) -> Tensor:
        s = self.shape
        b, n, _ = x.shape
        angle = position[..., None].float() * self.frequency  # [B, n, d / 2]
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]  # [B, 1, n, d / 2]
        bias = torch.zeros(mask.shape, device=x.device, dtype=torch.float32).masked_fill(~mask, -1e30)[:, None, None]
        for i, w in enumerate(self.layers):
            h = self._rms(x, w["attn_norm"]).to(self.dtype) @ w["qkv"].T
            q, k, v = h.split([s.width, s.n_kv * s.d, s.n_kv * s.d], dim=-1)
            q = self._rope(q.view(b, n, s.n_head, s.d).transpose(1, 2), cos, sin)  # [B, n_head, n, d]
            k = self._rope(k.view(b, n, s.n_kv, s.d).transpose(1, 2), cos, sin)
            cache.k[i, :, :, at : at + n] = k.to(cache.k.dtype)
            cache.v[i, :, :, at : at + n] = v.view(b, n, s.n_kv, s.d).transpose(1, 2).to(cache.v.dtype)
            keys, values = cache.k[i, :, :, : at + n], cache.v[i, :, :, : at + n]  # [B, n_kv, at + n, d]
            group = s.n_head // s.n_kv
            q = q.reshape(b, s.n_kv, group * n, s.d).to(keys.dtype)
            score = (q @ keys.transpose(-1, -2)).float().view(b, s.n_kv, group, n, -1) / math.sqrt(s.d) + bias
            share = torch.softmax(score, -1).to(values.dtype).view(b, s.n_kv, group * n, -1)
            mixed = (share @ values).view(b, s.n_head, n, s.d).transpose(1, 2).reshape(b, n, s.width)
            x = x + (mixed.to(self.dtype) @ w["out"].T).float()
            gate, up = (self._rms(x, w["ffn_norm"]).to(self.dtype) @ w["gate_up"].T).chunk(2, dim=-1)
            x = x + ((torch.nn.functional.silu(gate) * up) @ w["down"].T).float()
        return x

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.epsilon) * weight

    @staticmethod
    def _rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = x.float()[..., 0::2], x.float()[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def dequantised(file: GGUFFile, name: str) -> np.ndarray:
    """A tensor in float32, rows first: F32, F16, Q8_0 and Q4_1 (gguf, which knows the others, is not on that machine)."""
    tensor = file.tensors[name]
    raw = np.frombuffer(file.tensor_bytes(name), np.uint8)
    if tensor.ggml_type == 0:
        flat = raw.view("<f4")
    elif tensor.ggml_type == 1:
        flat = raw.view("<f2")
    elif tensor.ggml_type == 8:  # 32 values: scale f16, 32 x int8
        blocks = raw.reshape(-1, 34)
        flat = blocks[:, 2:].view(np.int8) * _f16(blocks[:, :2])
    elif tensor.ggml_type == 3:  # 32 values: scale f16, minimum f16, 16 bytes; low halves first
        blocks = raw.reshape(-1, 20)
        packed = blocks[:, 4:]
        flat = np.concatenate([packed & 15, packed >> 4], axis=1) * _f16(blocks[:, :2]) + _f16(blocks[:, 2:4])
    else:
        raise ValueError(f"{name}: type {tensor.ggml_type}")
    return np.array(flat, np.float32).reshape(tensor.shape[::-1])


def _f16(column: np.ndarray) -> np.ndarray:
    return column.copy().view("<f2").astype(np.float32)


LAYER = ("attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")

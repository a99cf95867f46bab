"""SmolLM2-135M on a graphics card for a quarter of an hour: draw, train heads, compare with constants.

    pack      here    the model in two parts, problems as token ids, this package's source: a folder to carry
    smoke     there   speed on random weights, and whether the verifiers run
    run       there   calibrate, likelihood, reward, test; each stage ends at its share of --minutes and can be resumed
    report    here    what came back -> bench/results/smollm2-lab.json and a table
    export    here    heads as checkpoints for `autodeco-edge convert`

There is neither network nor llama.cpp there, so the model is a plain Llama in torch, read from the GGUF, and texts are made from
the vocabulary that `pack` writes. Heads, losses, verifiers and credit are the project's own modules. Nothing else is shared
with the runtime: tests/bench/test_smollm2_lab.py holds the model to transformers', the draw to train/sampling.py and the
gradient to autograd.

The rule that chooses the families, fixed in advance: accuracy at T = 1, P = 1 between 10 and 80 % on the calibration split.

    B sequences, V vocabulary, H hidden width, L layers, S cache length, M tokens of a training step
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import struct
import sys
import time
import traceback
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

EOS = 2
GREEDY_BELOW = 1e-5
PART_BYTES = 47 << 20
BUNDLE = 4  # batches drawn before anything is judged
COMPACT = 0.8  # of the working set alive: finished sequences are dropped below it

# ======================================================================================
# The model
# ======================================================================================


class Gguf:
    """Metadata and dequantised tensors of a GGUF that nobody doubts: F32, F16, Q8_0 and Q4_1."""

    def __init__(self, path: str | Path) -> None:
        self._data = np.memmap(path, np.uint8, "r")
        self._at = 0
        magic, _, n_tensors, n_kv = struct.unpack("<4sIQQ", self._take(24))
        assert magic == b"GGUF", path
        self.kv = dict(self._pair() for _ in range(n_kv))
        table = [self._tensor() for _ in range(n_tensors)]
        align = self.kv.get("general.alignment", 32)
        start = -(-self._at // align) * align
        self.table = {name: (shape, kind, start + offset) for name, shape, kind, offset in table}

    def tensor(self, name: str) -> np.ndarray:
        """float32, rows first."""
        shape, kind, at = self.table[name]
        n = math.prod(shape)
        raw = self._data[at:]
        if kind == 0:
            flat = raw[: 4 * n].view("<f4")
        elif kind == 1:
            flat = raw[: 2 * n].view("<f2").astype(np.float32)
        elif kind == 8:  # 32 values: scale f16, 32 x int8
            blocks = raw[: n // 32 * 34].reshape(-1, 34)
            scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
            flat = blocks[:, 2:].view(np.int8).astype(np.float32) * scale
        elif kind == 3:  # 32 values: scale f16, minimum f16, 16 bytes; low halves first
            blocks = raw[: n // 32 * 20].reshape(-1, 20)
            scale, low = (blocks[:, i : i + 2].copy().view("<f2").astype(np.float32) for i in (0, 2))
            packed = blocks[:, 4:]
            flat = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) * scale + low
        else:
            raise ValueError(f"{name}: type {kind}")
        return np.array(flat, np.float32).reshape(shape[::-1])

    # ---- the header ------------------------------------------------------------------

    def _take(self, n: int) -> bytes:
        self._at += n
        return self._data[self._at - n : self._at].tobytes()

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        forms = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
        if kind == 8:
            return self._text()
        if kind == 9:
            of, n = self._number("<I"), self._number("<Q")
            return [self._value(of) for _ in range(n)]
        return self._number(forms[kind])

    def _pair(self) -> tuple[str, Any]:
        key = self._text()
        return key, self._value(self._number("<I"))

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        shape = tuple(self._number("<Q") for _ in range(self._number("<I")))
        return name, shape, self._number("<I"), self._number("<Q")


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
    def of(cls, kv: dict[str, Any], vocab: int) -> Shape:
        get = lambda name: kv[f"llama.{name}"]  # noqa: E731
        return cls(
            get("block_count"),
            get("embedding_length"),
            get("attention.head_count"),
            get("attention.head_count_kv"),
            get("feed_forward_length"),
            vocab,
            get("rope.freq_base"),
            get("attention.layer_norm_rms_epsilon"),
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
        file = Gguf(path)
        weights = {name: torch.from_numpy(file.tensor(name)) for name in file.table}
        return cls(Shape.of(file.kv, len(weights["token_embd.weight"])), weights, device, dtype)

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


LAYER = ("attn_norm", "ffn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")

# ======================================================================================
# The draw
# ======================================================================================


def uniform(seed: Tensor, index: int) -> Tensor:
    """Numbers in [0, 1), float64, of a sequence's seed [B] int64 and the place: splitmix64."""
    offset = (index + 1) * 0x9E3779B97F4A7C15 % (1 << 64)
    z = seed + (offset - (1 << 64) if offset >> 63 else offset)  # int64 wraps round
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((z >> 11) & ((1 << 53) - 1)).double() / (1 << 53)


def top5_sum(weights: Tensor) -> Tensor:
    """Sum of the five largest of each row [B, V] (V a multiple of 256): they lie in the five groups of largest maximum."""
    groups = weights.view(len(weights), -1, 256)
    best = groups.amax(-1).topk(min(5, groups.shape[1]), dim=-1).indices  # [B, 5]
    chosen = groups.gather(1, best[..., None].expand(-1, -1, 256)).flatten(1)
    return chosen.topk(5, dim=-1).values.sum(-1)


def statistics(logits: Tensor, temperature: Tensor) -> Tensor:
    """equations 3, [B, 4]: max_prob, entropy, prob_var, top5_sum of softmax(l / (T + 1e-8))."""
    n = logits.shape[1]
    q = torch.softmax(logits / (temperature[:, None] + 1e-8), -1)
    entropy = -(q * torch.log(q + 1e-8)).sum(-1)
    return torch.stack([q.amax(-1), entropy, (q - 1 / n).square().sum(-1) / (n - 1), top5_sum(q)], -1)


def threshold(weights: Tensor, top_p: Tensor, rounds: int = 40) -> Tensor:
    """[B, 1] the weight from which a row's tokens are in the nucleus (equations 5), by bisection of its logarithm.

    weights [B, V] with largest 1. Tokens closer than 2e-11 in their logarithm are in or out together.
    """
    wanted = top_p[:, None] * weights.sum(-1, keepdim=True)
    low = torch.full_like(wanted, -88.0)  # exp(-88) is the smallest there is: everything
    high = torch.zeros_like(wanted)
    for _ in range(rounds):
        middle = (low + high) / 2
        enough = torch.where(weights >= middle.exp(), weights, 0).sum(-1, keepdim=True) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return torch.where(top_p[:, None] >= 1, 0.0, torch.minimum(low.exp(), torch.ones_like(low)))


def pick(weights: Tensor, u: Tensor) -> Tensor:
    """A token of each row in proportion to its weight [B, V], by the number u [B]."""
    running = weights.cumsum(-1)
    target = (u.to(running.dtype)[:, None] * running[:, -1:]).clamp(max=running[:, -1:] * (1 - 1e-7))
    return torch.searchsorted(running, target, right=True).squeeze(1).clamp(max=weights.shape[1] - 1)


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, min_p: Tensor, seed: Tensor, index: int) -> Tensor:
    """Tokens [B] of the hard nucleus. By rejection: a token of the whole distribution is kept if the mass before it is below P.

    What four rounds leave over is drawn from the nucleus found by bisection. min_p cuts before top-p, as llama.cpp has it.
    """
    greedy = temperature < GREEDY_BELOW
    tau = torch.where(greedy, 1.0, temperature)
    weights = (logits - logits.amax(-1, keepdim=True)).div_(tau[:, None]).exp_()
    if bool((min_p > 0).any()):
        weights = torch.where(weights >= min_p[:, None], weights, 0)
    tokens = pick(weights, uniform(seed, 8 * index))
    if bool((top_p < 1).any()):
        rows = (top_p < 1).nonzero().squeeze(1)
        part = weights if len(rows) == len(weights) else weights[rows]
        for attempt in range(1, 5):
            chosen = part.gather(1, tokens[rows][:, None])
            before = torch.where(part > chosen, part, 0).sum(-1)
            refused = before >= top_p[rows] * part.sum(-1)
            if not bool(refused.any()):
                rows = rows[:0]
                break
            rows, part = rows[refused], part[refused]
            if attempt < 4:
                tokens[rows] = pick(part, uniform(seed[rows], 8 * index + attempt))
        if len(rows):
            kept = torch.where(part >= threshold(part, top_p[rows]), part, 0)
            tokens[rows] = pick(kept, uniform(seed[rows], 8 * index + 7))
    return torch.where(greedy, logits.argmax(-1), tokens)


# ======================================================================================
# What is drawn with
# ======================================================================================


@dataclass
class Policy:
    """How T and P of a token come about. Constants, llama.cpp's dynamic temperature, or heads.

    heads      AutoDecoHeads, or None
    use_t, use_p   which of them act; a head that does not counts as 1
    """

    name: str
    temperature: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    dynatemp: tuple[float, float] | None = None
    heads: Any = None
    use_t: bool = True
    use_p: bool = True

    @torch.no_grad()
    def __call__(self, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """T, P [b] of some rows."""
        one = torch.ones(len(hidden), device=hidden.device)
        if self.dynatemp:
            low, high = self.dynatemp
            q = torch.softmax(logits, -1)
            share = torch.special.entr(q).sum(-1) / math.log(logits.shape[1])
            return low + (high - low) * share, one
        if self.heads is None:
            return one * self.temperature, one * self.top_p
        t, p, _ = heads_values(self.heads, hidden, logits)
        return (t if self.use_t else one), (p if self.use_p else one)


def heads_values(heads: Any, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """T, P [b] and the features [b, 5] that P was made from."""
    t = heads.temp_head(hidden)
    features = torch.cat([t[:, None], statistics(logits, t)], -1)
    return t, heads.top_p_head(hidden, features), features


def constant(t: float, p: float = 1.0, name: str = "") -> Policy:
    return Policy(name or f"{t:g}/{p:g}", t, p)


@dataclass
class Job:
    """One reply to draw: prompt (number in the list of prompts), policy (number), seed, most tokens."""

    prompt: int
    policy: int
    seed: int
    limit: int


@dataclass
class Drawn:
    """tokens of each job in order, the end token included if it came; means of T, P and ln p (T = 1) over its tokens."""

    tokens: list[np.ndarray]
    ended: np.ndarray
    mean_t: np.ndarray
    mean_p: np.ndarray
    log_p: np.ndarray
    n_steps: int = 0

    def only(self, rows: list[int]) -> Drawn:
        return Drawn(
            [self.tokens[i] for i in rows], *(x[rows] for x in (self.ended, self.mean_t, self.mean_p, self.log_p))
        )


@dataclass
class Traces:
    """What training needs of every token drawn, [M] each, on the device. row: the job it belongs to."""

    row: list[Tensor] = field(default_factory=list)
    token: list[Tensor] = field(default_factory=list)
    hidden: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    slope_t: list[Tensor] = field(default_factory=list)  # d ln r(token) / dT, r the hard nucleus
    noise_p: list[Tensor] = field(default_factory=list)  # standard normal, added to z_P

    def joined(self) -> dict[str, Tensor]:
        return {name: torch.cat(values) for name, values in vars(self).items() if values}


class Sampler:
    """Draws many replies at once. prompts: token ids. batch: most sequences side by side."""

    def __init__(self, model: Llama, prompts: list[list[int]], batch: int) -> None:
        self.model, self.prompts, self.batch = model, prompts, batch
        self.cut_is_end = False  # for a dry run

    @torch.no_grad()
    def draw(
        self,
        jobs: list[Job],
        policies: list[Policy],
        deadline: float = math.inf,
        *,
        traces: Traces | None = None,
        sigma: float = 0.0,
    ) -> Drawn:
        """Replies to jobs. Jobs not begun at the deadline are given back empty.

        traces   filled with what training needs; then all jobs have one policy, of heads or constant
        sigma    of the noise on z_P (traces only)
        """
        n = len(jobs)
        out = Drawn([np.zeros(0, np.uint16)] * n, np.zeros(n, bool), *(np.zeros(n, np.float32) for _ in range(3)))
        order = sorted(range(n), key=lambda i: (jobs[i].limit, len(self.prompts[jobs[i].prompt]) // 8, jobs[i].policy))
        for start in range(0, n, self.batch):
            if time.monotonic() > deadline:
                break
            self._batch(
                [order[i] for i in range(start, min(n, start + self.batch))], jobs, policies, out, traces, sigma
            )
        return out

    def _batch(
        self,
        chosen: list[int],
        jobs: list[Job],
        policies: list[Policy],
        out: Drawn,
        traces: Traces | None,
        sigma: float,
    ) -> None:
        dev = self.model.device
        limit = max(jobs[i].limit for i in chosen)
        chosen = sorted(chosen, key=lambda i: jobs[i].policy)
        column = lambda name: torch.tensor([getattr(jobs[i], name) for i in chosen], device=dev)  # noqa: E731
        n, policy = len(chosen), np.array([jobs[i].policy for i in chosen])
        ids, seed, limits, slot = (
            torch.tensor(chosen, device=dev),
            column("seed"),
            column("limit"),
            torch.arange(n, device=dev),
        )
        tokens = torch.full((n, limit), EOS, dtype=torch.long, device=dev)
        sums, count = torch.zeros(n, 3, device=dev), torch.zeros(n, dtype=torch.long, device=dev)
        ended, alive = torch.zeros(n, dtype=torch.bool, device=dev), torch.ones(n, dtype=torch.bool, device=dev)
        cache, hidden = self._prompted([jobs[i].prompt for i in chosen], limit)
        for t in range(limit):
            logits = self.model.logits(hidden)
            if traces is None:
                temp, top_p, min_p = self._values(policies, policy, hidden, logits)
                token = draw(logits, temp, top_p, min_p, seed, t)
            else:
                token, temp, top_p = traced(
                    policies[policy[0]], hidden, logits, uniform(seed, 8 * t), ids, alive, traces, sigma
                )
            log_p = logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(-1)
            tokens[slot, t] = torch.where(alive, token, EOS)
            sums[slot] += torch.stack([temp, top_p, log_p], -1) * alive[:, None]
            count[slot] += alive
            ended[slot] |= alive & ((token == EOS) | self.cut_is_end)
            out.n_steps += len(token)
            alive = alive & (token != EOS) & (t + 1 < limits)
            n_alive = int(alive.sum())
            if not n_alive:
                break
            if n_alive < COMPACT * len(token):
                keep = alive.nonzero().squeeze(1)
                cache = cache.rows(keep, cache.k.shape[3])
                slot, seed, ids, limits, token, alive = (x[keep] for x in (slot, seed, ids, limits, token, alive))
                policy = policy[keep.cpu().numpy()]
            hidden = self.model.step(token, cache)
        self._store(out, chosen, tokens, sums, count, ended)

    def _store(self, out: Drawn, chosen: list[int], tokens: Tensor, sums: Tensor, count: Tensor, ended: Tensor) -> None:
        means = (sums / count[:, None]).cpu().numpy()
        tokens_, count_, ended_ = (
            tokens.to(torch.int32).cpu().numpy().astype(np.uint16),
            count.cpu().numpy(),
            ended.cpu().numpy(),
        )
        for row, i in enumerate(chosen):
            out.tokens[i] = tokens_[row, : count_[row]]
            out.ended[i] = ended_[row]
            out.mean_t[i], out.mean_p[i], out.log_p[i] = means[row]

    def _prompted(self, prompts: list[int], limit: int) -> tuple[Cache, Tensor]:
        """A cache with each job's prompt in it, and the hidden state behind it; a prompt is read once for all its samples."""
        dev, shape = self.model.device, self.model.shape
        unique = sorted(set(prompts))
        longest = max(len(self.prompts[p]) for p in unique)
        parts, states = [], []
        whole = Cache(shape, len(unique), longest, self.model.cache_dtype, dev)
        for start in range(0, len(unique), 128):
            some = [self.prompts[p] for p in unique[start : start + 128]]
            pad = torch.tensor([longest - len(p) for p in some], device=dev)
            ids = torch.tensor([[EOS] * (longest - len(p)) + list(p) for p in some], device=dev)
            cache = Cache(shape, len(some), longest, self.model.cache_dtype, dev)
            states.append(self.model.prefill(ids, pad, cache))
            whole.k[:, start : start + len(some)], whole.v[:, start : start + len(some)] = cache.k, cache.v
            parts.append(pad)
        whole.pad, whole.length = torch.cat(parts), longest
        place = {p: i for i, p in enumerate(unique)}
        index = torch.tensor([place[p] for p in prompts], device=dev)
        return whole.rows(index, longest + limit), torch.cat(states)[index]

    @staticmethod
    def _values(
        policies: list[Policy], policy: np.ndarray, hidden: Tensor, logits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """T, P and min-p of every row; rows of one policy lie together."""
        edges = [0, *(np.flatnonzero(np.diff(policy)) + 1).tolist(), len(policy)]
        columns = []
        for a, b in zip(edges, edges[1:], strict=False):
            of = policies[policy[a]]
            t, p = of(hidden[a:b], logits[a:b])
            columns.append((t, p, torch.full_like(t, of.min_p)))
        return tuple(torch.cat(c) for c in zip(*columns, strict=True))


@torch.no_grad()
def traced(
    of: Policy, hidden: Tensor, logits: Tensor, u: Tensor, ids: Tensor, alive: Tensor, traces: Traces, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A draw that keeps what its gradient needs: (token, T, P) [B]. z_P has noise; the nucleus is the hard one.

    d ln r(y) / dT = (E_r[l] - l_y) / T^2 with the nucleus held fast, which is exact wherever no token crosses its border.
    """
    features = slope = noise = None
    if of.heads is None:
        temp, top_p = of(hidden, logits)
    else:
        temp, top_p, features = heads_values(of.heads, hidden, logits)
        temp = temp if of.use_t else torch.ones_like(temp)
        noise = torch.randn_like(top_p) if of.use_p else torch.zeros_like(top_p)
        top_p = (
            torch.sigmoid(torch.logit(top_p.clamp(1e-6, 1 - 1e-6)) + sigma * noise)
            if of.use_p
            else torch.ones_like(top_p)
        )
    temp = temp.clamp(min=GREEDY_BELOW)
    weights = (logits - logits.amax(-1, keepdim=True)).div_(temp[:, None]).exp_()
    kept = torch.where(weights >= threshold(weights, top_p, 24), weights, 0) if bool((top_p < 1).any()) else weights
    token = pick(kept, u)
    if of.heads is not None:
        mean = (kept * logits).sum(-1) / kept.sum(-1)
        slope = (mean - logits.gather(1, token[:, None]).squeeze(1)) / temp.square()
    for name, value in (
        ("row", ids),
        ("token", token),
        ("hidden", hidden),
        ("features", features),
        ("slope_t", slope),
        ("noise_p", noise),
    ):
        if value is not None:
            getattr(traces, name).append(value[alive])
    return token, temp, top_p


# ======================================================================================
# Problems and verdicts
# ======================================================================================


class Pool:
    """Judges replies in processes that are forked before there is a device. problems: rows of `pack`; vocab: bytes of a token."""

    def __init__(self, problems: list[dict[str, Any]], vocab: list[bytes], n: int, dry: bool = False) -> None:
        _shared.update(problems=problems, vocab=vocab, known={}, judge=by_chance if dry else judge)
        self._pool = multiprocessing.get_context("fork").Pool(n) if n > 1 else None

    def keys(self, asked: list[tuple[int, np.ndarray, bool]]) -> list[str | None]:
        """The key of each reply (problem, tokens, whether it ended), None where it is wrong or was cut."""
        return [key for part in self._map(_keys, asked, 512) for key in part]

    def diversity(self, groups: list[list[np.ndarray]]) -> list[dict[str, float]]:
        """The measures of eval/diversity.py over the replies of each group."""
        return [found for part in self._map(_diversity, groups, 4) for found in part]

    def _map(self, function: Any, items: list, size: int) -> list:
        parts = [items[i : i + size] for i in range(0, len(items), size)]
        return self._pool.map(function, parts, chunksize=1) if self._pool else [function(part) for part in parts]


_shared: dict[str, Any] = {}


def text_of(tokens: np.ndarray) -> str:
    vocab = _shared["vocab"]
    return b"".join(vocab[t] for t in tokens.tolist() if t != EOS).decode("utf-8", "replace")


def _keys(asked: list[tuple[int, np.ndarray, bool]]) -> list[str | None]:
    return [_key(number, tokens.tobytes(), tokens) if ended else None for number, tokens, ended in asked]


def _key(number: int, raw: bytes, tokens: np.ndarray) -> str | None:
    known, row = _shared["known"], _shared["problems"][number]
    if (number, raw) not in known:
        if len(known) > 500_000:
            known.clear()
        right, key = _shared["judge"](row, text_of(tokens))
        known[number, raw] = key if right else None
    return known[number, raw]


def judge(row: dict[str, Any], text: str) -> tuple[bool, str]:
    """By the project's own verifier. reasoning-gym is not there: only families are packed whose right answer is one string."""
    from autodeco_edge.tasks import gym, sources
    from autodeco_edge.tasks.problem import Problem

    problem = Problem(row["id"], (), row["gt"], row["kind"])
    if not sources.is_gym(problem.kind):
        return sources.judge(problem, text)
    answer = gym.answer(text, row["reference"])
    return answer == row["reference"], answer


def by_chance(row: dict[str, Any], text: str) -> tuple[bool, str]:
    """For a dry run with a model that knows nothing: one in three is right."""
    number = seed_of(row["id"], text)
    return number % 3 == 0, str(number % 7)


def _diversity(groups: list[list[np.ndarray]]) -> list[dict[str, float]]:
    from autodeco_edge.eval.diversity import summary

    return [summary([text_of(tokens) for tokens in group]) for group in groups]


def group_of(kind: str) -> str:
    """ "exact", "many" or "write"."""
    return "exact" if kind.startswith("rg:") else kind.partition(":")[0]


LIMITS = {"exact": 48, "many": 40, "write": 200}
CUT = {"exact:story": 64}


def limit_of(kind: str) -> int:
    return CUT.get(kind, LIMITS[group_of(kind)])


def seed_of(*names: object) -> int:
    """63 bits."""
    return int.from_bytes(hashlib.sha256(" ".join(map(str, names)).encode()).digest()[:8], "big") >> 1


# ======================================================================================
# The lab: stages over a folder
# ======================================================================================

GRID_T, GRID_P = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), (0.8, 0.95, 1.0)
OTHERS = (
    Policy("greedy", 0.0),
    Policy("min-p 0.05", 1.0, 1.0, 0.05),
    Policy("min-p 0.1", 1.0, 1.0, 0.1),
    Policy("dynatemp 0.5-1.5", dynatemp=(0.5, 1.5)),
    Policy("dynatemp 0-1", dynatemp=(0.0, 1.0)),
    constant(0.1, 1.0),
    constant(1.2, 0.8),
    constant(0.2, 0.9),
    constant(1.0, 0.6),
)
BASE = (0.10, 0.80)  # accuracy at T = 1, P = 1 on calibration: the rule


def grid() -> list[Policy]:
    return [constant(t, p) for t in GRID_T for p in GRID_P] + list(OTHERS)


class Lab:
    """Everything a stage needs. Files: state/ of finished stages (JSON, npz, heads), each written whole or not at all."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, Path(options.folder)
        self.state = Path(options.out or self.folder / "state")
        self.state.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(self.folder / "source"))
        self.problems, self.vocab = load_problems(self.folder)
        self.pool = Pool(
            self.problems, self.vocab, options.processes, options.dry
        )  # before there is a device: it forks
        torch.backends.cuda.matmul.allow_tf32 = True
        self.device = torch.device(options.device)
        self.start = time.monotonic()
        dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
        self.model = Llama.load(join_parts(self.folder), self.device, dtype)
        self.sampler = Sampler(self.model, [row["ids"] for row in self.problems], options.batch)
        self.sampler.cut_is_end = options.dry
        if options.dry:
            LIMITS.update(exact=4, many=4, write=8)
            CUT.clear()
        self.say(f"model and {len(self.problems)} problems loaded; {self.device}, {options.dtype}")

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.start:6.1f} s] {text}"
        print(line, flush=True)
        with (self.state / "log.txt").open("a") as out:
            out.write(line + "\n")

    # ---- files -----------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return (self.state / name).exists()

    def write(self, name: str, value: Any) -> None:
        data = json.dumps(value).encode() if name.endswith(".json") else value
        part = self.state / f"{name}.part"
        part.write_bytes(data)
        os.replace(part, self.state / name)

    def read(self, name: str) -> Any:
        return json.loads((self.state / name).read_text())

    def save_heads(self, name: str, heads: Any, about: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({"heads": {k: v.detach().cpu() for k, v in heads.state_dict().items()}, "about": about}, buffer)
        self.write(f"{name}.heads", buffer.getvalue())

    def load_heads(self, name: str) -> Any:
        heads = self.new_heads(0)
        heads.load_state_dict(torch.load(self.state / f"{name}.heads", map_location=self.device)["heads"])
        return heads

    def new_heads(self, seed: int, at: tuple[float, float] | None = None) -> Any:
        """Fresh heads; ``at``: T and P that they give everywhere at first (the last layer's weights are zero)."""
        from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
        from autodeco_edge.train.modules import AutoDecoHeads

        heads = AutoDecoHeads(HeadSpec(self.model.shape.width, self.options.hidden, FEATURES_ENHANCED, True, True))
        heads.reset_parameters(torch.Generator().manual_seed(seed))
        if at:
            with torch.no_grad():
                for head, share in ((heads.temp_head, at[0] / 2), (heads.top_p_head, min(at[1], MOST_P))):
                    head.mlp[2].weight.zero_()
                    head.mlp[2].bias.fill_(math.log(share / (1 - share)))
        return heads.to(self.device)

    # ---- problems ----------------------------------------------------------------------

    def of(self, kind: str, split: str, most: int) -> list[int]:
        rows = [i for i, row in enumerate(self.problems) if row["kind"] == kind and row["split"] == split]
        return rows[: most * self.options.scale_percent // 100 or 1]

    def kinds(self, chosen: bool = True) -> list[str]:
        every = list(dict.fromkeys(row["kind"] for row in self.problems))
        return [k for k in every if k in self.read("chosen.json")["kinds"]] if chosen else every

    def groups(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for kind in self.kinds():
            found[group_of(kind)].append(kind)
        return dict(found)

    # ---- drawing ------------------------------------------------------------------------

    def measure(
        self,
        name: str,
        policies: list[Policy],
        problems: dict[str, list[int]],
        samples: dict[str, int],
        deadline: float,
    ) -> None:
        """Draws, judges, and writes NAME-POLICY.npz: of each kind the number of the key of every sample (0: wrong).

        Policies are drawn side by side, a few at a time, so that what is done when time ends stays.
        """
        waiting = [p for p in policies if not self.has(f"{name}-{slug(p.name)}.npz")]
        while waiting and time.monotonic() < deadline:
            bundle: list[Policy] = []
            jobs: list[Job] = []
            while waiting and len(jobs) < BUNDLE * self.options.batch:
                jobs += self._jobs(name, len(bundle), waiting[0], problems, samples)
                bundle.append(waiting.pop(0))
            drawn = self.sampler.draw(jobs, bundle)
            keys = self.pool.keys([(job.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, job in enumerate(jobs)])
            for number, policy in enumerate(bundle):
                rows = [i for i, job in enumerate(jobs) if job.policy == number]
                self._save(
                    f"{name}-{slug(policy.name)}.npz",
                    policy,
                    problems,
                    samples,
                    drawn.only(rows),
                    [keys[i] for i in rows],
                    name == "test",
                )

    def _jobs(
        self, name: str, number: int, policy: Policy, problems: dict[str, list[int]], samples: dict[str, int]
    ) -> list[Job]:
        """Kind by kind, problem by problem, sample by sample; the same seeds for every policy."""
        return [
            Job(row, number, seed_of(name, self.problems[row]["id"], k), limit_of(kind))
            for kind, rows in problems.items()
            for row in rows
            for k in range(1 if policy.temperature == 0 else samples[group_of(kind)])
        ]

    def _save(
        self,
        file: str,
        policy: Policy,
        problems: dict[str, list[int]],
        samples: dict[str, int],
        drawn: Drawn,
        keys: list[str | None],
        keep_tokens: bool,
    ) -> None:
        arrays: dict[str, np.ndarray] = {}
        means, at = {}, 0
        for kind in problems:
            n_rows = len(problems[kind]) * (1 if policy.temperature == 0 else samples[group_of(kind)])
            rows = list(range(at, at + n_rows))
            at += n_rows
            n = len(rows) // len(problems[kind])
            numbers: list[dict[str, int]] = [{} for _ in problems[kind]]
            found = np.zeros((len(problems[kind]), n), np.uint16)
            for place, i in enumerate(rows):
                if keys[i] is not None:
                    seen = numbers[place // n]
                    found[place // n, place % n] = seen.setdefault(keys[i], len(seen) + 1)
            arrays[f"{kind}|keys"] = found
            lengths = np.array([len(drawn.tokens[i]) for i in rows], np.uint16)
            weights = np.maximum(lengths, 1)
            means[kind] = {
                "accuracy": float((found > 0).mean()),
                "t": float(np.average(drawn.mean_t[rows], weights=weights)),
                "p": float(np.average(drawn.mean_p[rows], weights=weights)),
                "log_p": float(np.average(drawn.log_p[rows], weights=weights)),
                "tokens": float(lengths.mean()),
                "ended": float(drawn.ended[rows].mean()),
            }
            if group_of(kind) == "write" and n > 1:
                m = min(n, 16)
                groups = [[drawn.tokens[i] for i in rows[a * n : a * n + m]] for a in range(len(problems[kind]))]
                diverse = self.pool.diversity(groups)
                for measure in ("distinct_1", "distinct_2", "distinct_3", "self_bleu"):
                    arrays[f"{kind}|{measure}"] = np.array([d[measure] for d in diverse], np.float32)
                arrays[f"{kind}|log_p"] = drawn.log_p[rows].reshape(len(groups), n).mean(1)
            if keep_tokens and self.options.keep_tokens:
                few = [i for place, i in enumerate(rows) if place % n < self.options.keep_tokens]
                arrays[f"{kind}|tokens"] = np.concatenate([drawn.tokens[i] for i in few])
                arrays[f"{kind}|lengths"] = np.array([len(drawn.tokens[i]) for i in few], np.uint16)
            arrays[f"{kind}|problems"] = np.array(problems[kind], np.int32)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.array(json.dumps({"policy": policy.name, "means": means})), **arrays)
        self.write(file, buffer.getvalue())
        text = "  ".join(f"{k.split(',')[0]} {100 * m['accuracy']:.0f}" for k, m in means.items())
        self.say(f"{file}: {text}")


MOST_P = 0.98  # heads that begin at P = 1 would have no slope


def slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def keys_of(file: Path) -> dict[str, np.ndarray]:
    return dict(np.load(file))


def about_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return json.loads(str(arrays["about"]))


def coverage(keys: np.ndarray, m: int) -> float:
    """Expected distinct right answers among m of the samples, keys [n] (0: wrong): eval/statistics.distinct_of."""
    n = len(keys)
    counts = np.unique(keys[keys > 0], return_counts=True)[1].astype(float)
    missed = np.ones_like(counts)
    for i in range(min(m, n)):
        missed *= np.maximum(n - counts - i, 0) / (n - i)
    return float((1 - missed).sum())


# ---- calibrate -----------------------------------------------------------------------------


def calibrate(lab: Lab, minutes: float) -> None:
    """All constants on the calibration split; then the rule, and the best constant of each group."""
    end = time.monotonic() + 60 * minutes
    problems = {
        kind: lab.of(kind, "calibration", 12 if group_of(kind) == "write" else 40) for kind in lab.kinds(chosen=False)
    }
    samples = {"exact": 16, "many": 16, "write": 16}
    lab.measure("base", [constant(1.0)], problems, samples, math.inf)
    base = {kind: m["accuracy"] for kind, m in about_of(keys_of(lab.state / "base-1_1.npz"))["means"].items()}
    chosen = [kind for kind, accuracy in base.items() if BASE[0] <= accuracy <= BASE[1]]
    lab.say(f"accuracy at T = 1 { {k: round(100 * v, 1) for k, v in base.items()} }; chosen {chosen}")
    problems = {kind: problems[kind] for kind in chosen}
    policies = sorted(grid(), key=lambda p: p.name not in ("1/1", "0.4/1", "0.6/0.95", "0.8/0.95"))
    lab.measure("calibration", policies[:8], problems, samples, math.inf)  # without these there is no best
    lab.measure("calibration", policies, problems, samples, end)
    done = [p for p in policies if lab.has(f"calibration-{slug(p.name)}.npz")]
    found = {p.name: keys_of(lab.state / f"calibration-{slug(p.name)}.npz") for p in done}
    best = {}
    for group in ("exact", "many", "write"):
        kinds = [k for k in chosen if group_of(k) == group]
        if kinds:
            score = {name: utility(arrays, kinds, group) for name, arrays in found.items() if "/" in name}
            accuracy = {
                name: float(np.mean([about_of(a)["means"][k]["accuracy"] for k in kinds])) for name, a in found.items()
            }
            best[group] = {
                "utility": max(score, key=score.get),
                "accuracy": max((n for n in accuracy if "/" in n), key=accuracy.get),
            }
    lab.write("chosen.json", {"rule": BASE, "base": base, "kinds": chosen, "best": best})
    lab.say(f"best {best}")


def utility(arrays: dict[str, np.ndarray], kinds: list[str], group: str) -> float:
    """What the reward heads maximise: the share that is right, and distinct right answers (open writing: how different they are)."""
    values = []
    for kind in kinds:
        keys = arrays[f"{kind}|keys"]
        right = float((keys > 0).mean())
        if group == "write":
            values.append(right * (1 + 1 - float(arrays[f"{kind}|self_bleu"].mean())))
        else:
            spread = np.mean([coverage(row, 16) for row in keys]) / 16 if group == "many" else 0.0
            values.append(right + float(spread))
    return float(np.mean(values))


def parse(name: str) -> tuple[float, float]:
    t, p = name.split("/")
    return float(t), float(p)


# ---- likelihood ------------------------------------------------------------------------------


def collect(lab: Lab, minutes: float) -> dict[str, Tensor]:
    """Hidden states and tokens of right replies drawn at T = 1, P = 1 to training problems; a third of the tokens a group."""
    end, parts = time.monotonic() + 60 * minutes, []
    per_group = lab.options.tokens
    for group, kinds in lab.groups().items():
        n_tokens, turn = 0, 0
        while n_tokens < per_group and time.monotonic() < end and turn < 6:
            rows = [number for kind in kinds for number in lab.of(kind, "train", 400 if group != "write" else 60)]
            rows = [rows[i] for i in np.random.default_rng(turn).permutation(len(rows))[: lab.options.batch // 8]]
            jobs = [
                Job(r, 0, seed_of("collect", group, turn, r, k), limit_of(lab.problems[r]["kind"]))
                for r in rows
                for k in range(8)
            ]
            traces = Traces()
            drawn = lab.sampler.draw(jobs, [constant(1.0)], traces=traces)
            keys = lab.pool.keys([(j.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, j in enumerate(jobs)])
            right = torch.tensor([key is not None for key in keys], device=lab.device)
            joined = traces.joined()
            keep = right[joined["row"]]
            parts.append({"hidden": joined["hidden"][keep], "token": joined["token"][keep]})
            n_tokens += int(keep.sum())
            turn += 1
        lab.say(f"collected {n_tokens} tokens of right replies, {group}")
    return {name: torch.cat([part[name] for part in parts]) for name in ("hidden", "token")}


def likelihood(lab: Lab, minutes: float) -> None:
    """The official loss (equations 7, 8) on right replies, three seeds."""
    names = [f"likelihood-{seed}" for seed in range(lab.options.seeds)]
    if all(lab.has(f"{n}.heads") for n in names):
        return
    end = time.monotonic() + 60 * minutes
    data = collect(lab, minutes / 2)
    for seed, name in enumerate(names):
        if not lab.has(f"{name}.heads"):
            heads = lab.new_heads(seed)
            left = (end - time.monotonic()) / (len(names) - seed)
            record = train_likelihood(lab, heads, data, seed, time.monotonic() + left)
            lab.save_heads(name, heads, record)
            lab.say(f"{name}: {record}")


def train_likelihood(lab: Lab, heads: Any, data: dict[str, Tensor], seed: int, end: float) -> dict[str, Any]:
    from autodeco_edge.train.fast_losses import token_losses
    from autodeco_edge.train.losses import DROP_PROBABILITY

    rng = torch.Generator().manual_seed(seed)
    steps, size = lab.options.likelihood_steps, lab.options.step_tokens
    optimizer = torch.optim.AdamW(heads.parameters(), lab.options.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: max(0.02, 1 - s / steps))
    seen: list[tuple[float, float, float]] = []
    for _ in range(steps):
        if seen and time.monotonic() > end:
            break
        rows = torch.randint(len(data["token"]), (size,), generator=rng).to(lab.device)
        dropped = (torch.rand(size, generator=rng) < DROP_PROBABILITY).to(lab.device)
        total = torch.zeros(4, device=lab.device)
        for part, drop in zip(rows.split(lab.options.chunk), dropped.split(lab.options.chunk), strict=True):
            hidden, labels = data["hidden"][part], data["token"][part]
            with torch.no_grad():
                logits = lab.model.logits(hidden)
                keep = ~((logits.argmax(-1) == labels) & drop)
            t, p, _ = with_detached_features(heads, hidden, logits)
            temp, nucleus = token_losses(logits, t, p, labels, "hf")
            share = size * (1 - 0.6 * 0.7)  # kept, about: the mean's divisor has to be known before the last chunk
            ((temp * keep).sum() / share + nucleus.sum() / size).backward()
            total += torch.stack([(temp * keep).sum(), nucleus.sum(), t.sum(), p.sum()]).detach()
        torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        seen.append((float((total[0] + total[1]) / size), float(total[2] / size), float(total[3] / size)))
    last = np.mean(seen[-10:], axis=0)
    return {
        "steps": len(seen),
        "loss": float(last[0]),
        "mean_t": float(last[1]),
        "mean_p": float(last[2]),
        "n_tokens": len(data["token"]),
    }


def with_detached_features(heads: Any, hidden: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As heads_values with gradient: T and the statistics enter the top-p head as constants (equations 3)."""
    t = heads.temp_head(hidden)
    with torch.no_grad():
        features = torch.cat([t.detach()[:, None], statistics(logits, t.detach())], -1)
    return t, heads.top_p_head(hidden, features), features


# ---- reward -----------------------------------------------------------------------------------


@dataclass
class Recipe:
    """One run of training on reward. groups: whose problems; start: heads to go on from, or "" for the best constant of
    ``start_group``; use_p: False leaves P at 1; diversity: weight of distinct answers."""

    name: str
    groups: tuple[str, ...]
    start: str = ""
    use_p: bool = True
    diversity: float = 1.0
    share: float = 1.0  # of the stage's time


RECIPES = [
    Recipe("reward-many", ("many",)),
    Recipe("reward-write", ("write",), share=1.3),
    Recipe("reward-exact", ("exact",), diversity=0.0),
    Recipe("reward-all", ("exact", "many", "write"), share=1.5),
    Recipe("reward-all-from-likelihood", ("exact", "many", "write"), start="likelihood-0", share=1.2),
]


def reward(lab: Lab, minutes: float) -> None:
    """Every recipe with one seed, then the second and third seed while there is time."""
    end = time.monotonic() + 60 * minutes
    there = lab.groups()
    runs = [(seed, r) for seed in range(lab.options.reward_seeds) for r in RECIPES if set(r.groups) & set(there)]
    runs = [(seed, r) for seed, r in runs if not lab.has(f"{r.name}-{seed}.heads")]
    for i, (seed, recipe) in enumerate(runs):
        left = end - time.monotonic()
        if left < 5 * lab.options.scale_percent / 100:
            break
        share = recipe.share / sum(r.share for _, r in runs[i:])
        try:
            train_reward(lab, recipe, seed, time.monotonic() + left * share)
        except Exception:  # as in `run`
            lab.say(f"{recipe.name}-{seed}: {traceback.format_exc()}")


def train_reward(lab: Lab, recipe: Recipe, seed: int, end: float) -> None:
    """Policy gradient with a group baseline. T: through d ln r / dT of the hard nucleus. P: z_P is drawn around the head's value,
    so its gradient is that of a Gaussian policy, unbiased whatever the nucleus does."""
    options, there = lab.options, lab.groups()
    groups = [g for g in recipe.groups if g in there]
    if recipe.start and lab.has(f"{recipe.start}.heads"):
        heads = lab.load_heads(recipe.start)
    else:
        constants = [parse(lab.read("chosen.json")["best"][g]["utility"]) for g in groups]
        at = (
            tuple(np.mean(constants, axis=0))
            if recipe.use_p
            else (float(np.mean([c[0] for c in constants])) * 0.9, 1.0)
        )
        heads = lab.new_heads(100 + seed, at)
    policy = Policy(recipe.name, heads=heads, use_p=recipe.use_p)
    optimizer = torch.optim.AdamW(heads.parameters(), options.reward_lr, betas=(0.9, 0.98), weight_decay=0.0)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    record: list[list[float]] = []
    while not record or time.monotonic() < end and len(record) < options.reward_steps:
        began = time.monotonic()
        rows = problems_of_step(lab, groups, rng)
        jobs = [
            Job(r, 0, seed_of(recipe.name, seed, len(record), r, k), limit_of(lab.problems[r]["kind"]))
            for r in rows
            for k in range(options.samples)
        ]
        traces = Traces()
        drawn = lab.sampler.draw(jobs, [policy], traces=traces, sigma=options.sigma)
        credit, right, spread = credits_of(lab, jobs, drawn, recipe.diversity)
        step_on_reward(
            heads,
            optimizer,
            traces.joined(),
            torch.from_numpy(credit).float().to(lab.device),
            recipe.use_p,
            options.sigma,
        )
        record.append([right, spread, float(drawn.mean_t.mean()), float(drawn.mean_p.mean()), time.monotonic() - began])
        if len(record) % 10 == 1:
            lab.say(f"{recipe.name}-{seed} step {len(record)}: " + " ".join(f"{x:.3f}" for x in record[-1]))
    lab.save_heads(f"{recipe.name}-{seed}", heads, {"recipe": vars(recipe), "steps": record})
    first, last = (np.mean(part, axis=0) for part in (record[:5], record[-5:]))
    lab.say(
        f"{recipe.name}-{seed}: {len(record)} steps, right {first[0]:.3f} -> {last[0]:.3f}, spread {first[1]:.3f} -> {last[1]:.3f}, T {last[2]:.3f}, P {last[3]:.3f}"
    )


def problems_of_step(lab: Lab, groups: list[str], rng: np.random.Generator) -> list[int]:
    """As many of each group's tokens as of another's: open writing has long replies, so fewer of them."""
    n = max(1, lab.options.rollouts // lab.options.samples // len(groups))
    chosen: list[int] = []
    for group in groups:
        rows = [number for kind in lab.groups()[group] for number in lab.of(kind, "train", 400)]
        few = max(1, n // 4) if group == "write" and len(groups) > 1 else max(1, n // 2) if group == "write" else n
        chosen += [rows[i] for i in rng.permutation(len(rows))[:few]]
    return chosen


def credits_of(lab: Lab, jobs: list[Job], drawn: Drawn, diversity: float) -> tuple[np.ndarray, float, float]:
    """(credit of each reply, share that is right, what is gained by differing, both over the groups of samples).

    Credits are divided by the root of their mean square, so that the rate means the same for all tasks.
    """
    from autodeco_edge.train.advantages import advantages, n_distinct

    n = lab.options.samples
    keys = lab.pool.keys([(job.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, job in enumerate(jobs)])
    credit, spread = np.zeros(len(jobs)), []
    for start in range(0, len(jobs), n):
        group = keys[start : start + n]
        if group_of(lab.problems[jobs[start].prompt]["kind"]) == "write":
            new = novelty(drawn.tokens[start : start + n])
            gain = np.array([key is not None for key in group]) * (1 + 2 * diversity * new)
            credit[start : start + n] = (gain - gain.mean()) * n / (n - 1)
            spread.append(float(new.mean()))
        else:
            credit[start : start + n] = advantages(group, diversity)
            spread.append(n_distinct(group) / n)
    scale = float(np.sqrt(np.mean(credit**2)))
    return credit / max(scale, 1e-6), float(np.mean([k is not None for k in keys])), float(np.mean(spread))


def novelty(replies: list[np.ndarray]) -> np.ndarray:
    """Of each reply the share of its pairs of neighbouring tokens that no other reply has. It depends on the others too; that
    part of the gradient is left out."""
    pairs = [np.unique(r[:-1].astype(np.uint32) * 65536 + r[1:]) for r in replies]
    values, counts = np.unique(np.concatenate(pairs), return_counts=True)
    alone = values[counts == 1]
    return np.array([np.isin(p, alone).mean() if len(p) else 0.0 for p in pairs])


def step_on_reward(
    heads: Any, optimizer: Any, data: dict[str, Tensor], credit: Tensor, use_p: bool, sigma: float
) -> None:
    """One step up the gradient of the mean over replies of A ln r(reply). credit [jobs], data of every token."""
    weight = credit[data["row"]] / len(credit)  # [M]
    t = heads.temp_head(data["hidden"])
    loss = -(weight * data["slope_t"] * t).sum()
    if use_p:
        p = heads.top_p_head(data["hidden"], data["features"])
        z = torch.logit(p.clamp(1e-6, 1 - 1e-6))
        loss = loss - (weight * data["noise_p"] / sigma * z).sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


# ---- test ---------------------------------------------------------------------------------------


def test(lab: Lab, minutes: float) -> None:
    """Heads, their means as constants, and all constants on the test split: first what the table needs, then the grid, then the rest."""
    end = time.monotonic() + 60 * minutes
    n = lab.options.test_problems
    problems = {}
    for kinds in lab.groups().values():
        for kind in kinds:
            problems[kind] = lab.of(kind, "test", max(n // len(kinds), 30))
    samples = {
        "exact": lab.options.test_samples,
        "many": lab.options.test_samples,
        "write": max(4, lab.options.test_samples // 4),
    }
    names = sorted(path.stem for path in lab.state.glob("*.heads"))
    names.sort(key=lambda name: (int(name.rsplit("-", 1)[1]), name))
    best = lab.read("chosen.json")["best"]
    needed = ["1/1", "0.2/0.9", "0.8/0.95", "0.6/0.95", *{c for b in best.values() for c in b.values()}]
    first = [constant(*parse(name)) for name in dict.fromkeys(needed)] + [OTHERS[0]]
    policies = list(first)
    for name in names:
        recipe = next(
            (r for r in RECIPES if name.startswith(r.name + "-") and name.count("-") == r.name.count("-") + 1), None
        )
        policies.append(Policy(name, heads=lab.load_heads(name), use_p=recipe.use_p if recipe else True))
    lab.measure("test", policies, problems, samples, end)
    for group, policies in mean_shifts(lab, names).items():
        lab.measure("test", policies, {k: rows for k, rows in problems.items() if group_of(k) == group}, samples, end)
    done = {p.name for p in first}
    lab.measure("test", [p for p in grid() if p.name not in done], problems, samples, end)
    ablation = [
        Policy(f"{name} {part} only", heads=lab.load_heads(name), use_t=part == "T", use_p=part == "P")
        for name in names
        if name.endswith("-0")
        for part in "TP"
    ]
    lab.measure("test", ablation, problems, samples, end)
    lab.write("files.json", sorted(p.name for p in lab.state.glob("test-*.npz")))


def mean_shifts(lab: Lab, names: list[str]) -> dict[str, list[Policy]]:
    """Of each heads the constants equal to its own means, a group at a time, over replies to *calibration* problems."""
    found: dict[str, list[Policy]] = defaultdict(list)
    for name in names:
        file = f"means-{name}.json"
        if not lab.has(file):
            policy = Policy(name, heads=lab.load_heads(name), use_p="-T-" not in name)
            jobs, of_group = [], []
            for group, kinds in lab.groups().items():
                for kind in kinds:
                    for number in lab.of(kind, "calibration", 24 if group != "write" else 8):
                        jobs += [Job(number, 0, seed_of("means", number, k), limit_of(kind)) for k in range(8)]
                        of_group += [group] * 8
            drawn = lab.sampler.draw(jobs, [policy])
            weights = np.array([len(t) for t in drawn.tokens], float)
            rows = {g: np.array([x == g for x in of_group]) for g in dict.fromkeys(of_group)}
            lab.write(
                file,
                {
                    g: [float(np.average(m[r], weights=weights[r])) for m in (drawn.mean_t, drawn.mean_p)]
                    for g, r in rows.items()
                },
            )
        for group, (t, p) in lab.read(file).items():
            if name.endswith("-0"):
                found[group].append(constant(round(t, 3), round(min(p, 1.0), 3), f"mean-shift {name} {group}"))
    return found


# ======================================================================================
# Packing, smoke, reporting
# ======================================================================================


def load_problems(folder: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    data = json.loads(gzip.decompress((folder / "problems.json.gz").read_bytes()))
    return data["problems"], [bytes.fromhex(v) for v in data["vocab"]]


def join_parts(folder: Path) -> Path:
    """The model whole again."""
    whole = folder / "model.gguf"
    if not whole.exists():
        parts = sorted(folder.glob("model.part*"))
        if not parts:
            raise SystemExit(f"{folder}: no model.part*; carry both folders of `pack` and copy them together")
        with (folder / "model.joining").open("wb") as out:
            for part in parts:
                out.write(part.read_bytes())
        digest = hashlib.sha256((folder / "model.joining").read_bytes()).hexdigest()
        if digest != (folder / "model.sha256").read_text().strip():
            raise SystemExit(f"{folder}: the parts do not make the model that was packed ({len(parts)} parts)")
        os.replace(folder / "model.joining", whole)
    return whole


TASKS = (
    "exact:sum",
    "exact:chain",
    "exact:story",
    "exact:capital",
    "many:country",
    "many:neighbour",
    "many:thing",
    "many:other",
    "many:rhyme",
    "many:add",
    "many:multiply",
    "many:between",
    "many:bound",
    "write:story",
    "write:list",
    "write:advice",
    "write:describe",
    "write:letter",
)
RG = (
    "rg:chain_sum,min_terms=2,max_terms=2,max_digits=1",
    "rg:chain_sum,min_terms=2,max_terms=2,min_digits=1,max_digits=2",
    "rg:gcd,min_value=2,max_value=20",
    "rg:coin_flip,min_trials=1,max_trials=3",
    "rg:syllogism",
    "rg:calendar_arithmetic",
)  # each has one right answer, which the library compares as text


def pack(options: argparse.Namespace) -> None:
    """FOLDER/a (first part, all else) and FOLDER/b (second part)."""
    from autodeco_edge.engine.model import Model
    from autodeco_edge.tasks import load_task
    from autodeco_edge.text.chat import render

    folder = Path(options.folder)
    (folder / "a").mkdir(parents=True, exist_ok=True)
    (folder / "b").mkdir(exist_ok=True)
    model = Model(options.model)
    rows = []
    for task in (*TASKS, *options.rg):
        for split, count in (("test", options.count), ("calibration", 40), ("train", 3 * options.count)):
            for p in load_task(task, count=count, split=split).problems:
                ids = list(map(int, render(model, list(p.messages))))
                row = {"id": p.id, "kind": p.kind, "gt": p.gt, "split": split, "ids": ids}
                rows.append(row | ({"reference": reference(p)} if p.kind.startswith("rg:") else {}))
    vocab = vocabulary(Gguf(options.model).kv)
    data = json.dumps({"problems": rows, "vocab": [v.hex() for v in vocab]}).encode()
    (folder / "a" / "problems.json.gz").write_bytes(gzip.compress(data, 6, mtime=0))
    whole = Path(options.model).read_bytes()
    for name, part in (("a/model.part0", whole[:PART_BYTES]), ("b/model.part1", whole[PART_BYTES:])):
        (folder / name).write_bytes(part)
    (folder / "a" / "model.sha256").write_text(hashlib.sha256(whole).hexdigest())
    copy_source(folder / "a" / "source")
    (folder / "a" / "lab.py").write_bytes(Path(__file__).read_bytes())
    model.close()
    print(f"{len(rows)} problems, {sum(len(r['ids']) for r in rows) / len(rows):.0f} tokens a prompt")


def reference(problem: Any) -> str:
    """reasoning-gym's own answer."""
    from autodeco_edge.tasks import gym

    family, settings = gym.parse(problem.kind)
    return gym.entry(family, settings, int(problem.gt))["answer"]


def vocabulary(kv: dict[str, Any]) -> list[bytes]:
    """Bytes of every token of a byte-level BPE; control tokens (type 3) have none in a reply."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    texts, types = kv["tokenizer.ggml.tokens"], kv["tokenizer.ggml.token_type"]
    return [t.encode() if kind != 1 else bytes(byte_of[c] for c in t) for t, kind in zip(texts, types, strict=True)]


def copy_source(folder: Path) -> None:
    """The package's Python files and data, without what is compiled."""
    root = Path(__file__).resolve().parents[1]
    for top, inside in (("autodeco_edge", "autodeco_edge"), ("convert", "autodeco_edge/convert")):
        for path in sorted((root / top).rglob("*")):
            if (
                path.suffix in (".py", ".txt", ".json", ".jinja")
                and "__pycache__" not in path.parts
                and path.stat().st_size < 1 << 20
            ):
                to = folder / inside / path.relative_to(root / top)
                to.parent.mkdir(parents=True, exist_ok=True)
                to.write_bytes(path.read_bytes())


def smoke(options: argparse.Namespace) -> None:
    """Whether everything runs, and how fast, on random weights of the true shape: the model is only half there yet."""
    folder = Path(options.folder)
    sys.path.insert(0, str(folder / "source"))
    problems, vocab = load_problems(folder)
    pool = Pool(problems, vocab, options.processes)
    some = [(i, np.array([1, 2, 3], np.uint16), True) for i in range(0, len(problems), max(1, len(problems) // 2000))]
    began = time.monotonic()
    pool.keys(some)
    print(f"{len(some)} verdicts in {time.monotonic() - began:.1f} s")
    pool.diversity([[np.arange(50, dtype=np.uint16)] * 4] * 8)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = torch.device(options.device)
    shape = Shape() if options.scale_percent >= 100 else Shape(n_layer=2)
    for dtype in (torch.float32, torch.bfloat16):
        model = Llama.random(shape, device, dtype)
        sampler = Sampler(model, [row["ids"] for row in problems], options.batch)
        for kind, policy in (
            ("constant", constant(1.0)),
            ("nucleus", constant(1.0, 0.9)),
            ("heads", None),
            ("traced", None),
        ):
            heads = fresh(shape.width, options.hidden, device)
            of = policy or Policy("heads", heads=heads)
            jobs = [Job(i % len(problems), 0, i, 24) for i in range(options.batch)]
            for attempt in ("first", "again"):
                began, traces = time.monotonic(), Traces()
                drawn = sampler.draw(jobs, [of], traces=traces if kind == "traced" else None, sigma=0.5)
                seconds = time.monotonic() - began
                memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0
                print(
                    f"{dtype} {kind} {attempt}: {drawn.n_steps / seconds:.0f} tokens/s, {seconds:.2f} s, {memory:.1f} GiB",
                    flush=True,
                )
        if kind == "traced":
            optimizer = torch.optim.AdamW(heads.parameters(), 1e-3)
            step_on_reward(heads, optimizer, traces.joined(), torch.randn(len(jobs), device=device), True, 0.5)
        del model, sampler


def fresh(width: int, hidden: int, device: torch.device) -> Any:
    from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
    from autodeco_edge.train.modules import AutoDecoHeads

    return AutoDecoHeads(HeadSpec(width, hidden, FEATURES_ENHANCED, True, True)).to(device)


STAGES = {"calibrate": calibrate, "likelihood": likelihood, "reward": reward, "test": test}
SHARES = {"calibrate": 0.13, "likelihood": 0.09, "reward": 0.44, "test": 0.34}


def run(options: argparse.Namespace) -> None:
    """The stages asked for; each gets its share of what is left, so what one saves the later ones have."""
    lab = Lab(options)
    end = lab.start + 60 * options.minutes
    chosen = [s for s in STAGES if s in options.stages.split(",")]
    for i, name in enumerate(chosen):
        left = (end - time.monotonic()) / 60
        share = SHARES[name] / sum(SHARES[s] for s in chosen[i:])
        lab.say(f"stage {name}: {60 * left * share:.0f} s of {60 * left:.0f} s")
        try:
            STAGES[name](lab, left * share)
        except Exception:  # the machine is lent for minutes: what the other stages can still do is worth having
            lab.say(traceback.format_exc())
    lab.say("done")


def collect_files(options: argparse.Namespace) -> None:
    """state/ -> OUT/results-*.tar, none above 15 MiB: at most eight files come back."""
    import tarfile

    state, out = Path(options.out or Path(options.folder) / "state"), Path(options.to)
    files = sorted(p for p in state.iterdir() if p.suffix in (".json", ".heads", ".txt", ".npz"))
    files.sort(key=lambda p: (p.suffix == ".npz", p.name.startswith("calibration"), p.name))
    number, size, tar = 0, 0, None
    for path in files:
        if tar is None or size + path.stat().st_size > 15 << 20:
            if tar:
                tar.close()
            tar = tarfile.open(out / f"results-{number}.tar", "w")  # noqa: SIM115
            size, number = 0, number + 1
        tar.add(path, path.name)
        size += path.stat().st_size + 1024
    if tar:
        tar.close()
    print(f"{len(files)} files in {number} archives")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("pack", "smoke", "run", "gather", "report", "export"))
    parser.add_argument("folder", help="what `pack` made")
    parser.add_argument("--model", help="GGUF (pack)")
    parser.add_argument("--rg", nargs="*", default=list(RG), help="reasoning-gym tasks to pack")
    parser.add_argument("--count", type=int, default=150, help="test problems a family to pack")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="fp32 uses tf32 products on a card")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--out", help="folder of the state [default: FOLDER/state]")
    parser.add_argument("--to", help="folder of the archives (gather), of the results (report)")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=2048, help="positions whose logits exist at once in training")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=60_000, help="of right replies a group (likelihood)")
    parser.add_argument("--likelihood-steps", type=int, default=60)
    parser.add_argument("--step-tokens", type=int, default=8192)
    parser.add_argument("--reward-lr", type=float, default=2e-3)
    parser.add_argument("--reward-steps", type=int, default=300)
    parser.add_argument("--reward-seeds", type=int, default=1)
    parser.add_argument("--rollouts", type=int, default=2048, help="replies of a step")
    parser.add_argument("--samples", type=int, default=32, help="replies a problem in a step")
    parser.add_argument("--sigma", type=float, default=0.5, help="noise on z_P while training")
    parser.add_argument("--test-problems", type=int, default=160, help="of a group, about")
    parser.add_argument("--test-samples", type=int, default=64)
    parser.add_argument("--keep-tokens", type=int, default=4, help="samples a problem whose tokens are kept")
    parser.add_argument("--dry", action="store_true", help="verdicts by chance, and replies need not end")
    parser.add_argument("--scale-percent", type=int, default=100, help="of all numbers of problems: for a dry run")
    options = parser.parse_args(arguments)
    {"pack": pack, "smoke": smoke, "run": run, "gather": collect_files, "report": report, "export": export}[
        options.command
    ](options)


def report(options: argparse.Namespace) -> None:
    """Summarises the results of `run` that came back: a table a group, and everything as JSON in TO/smollm2-lab.json."""
    state = Path(options.out or Path(options.folder) / "state")
    chosen = json.loads((state / "chosen.json").read_text())
    files = {about_of(arrays)["policy"]: arrays for arrays in map(keys_of, sorted(state.glob("test-*.npz")))}
    result: dict[str, Any] = {"chosen": chosen, "groups": {}}
    for group in ("exact", "many", "write"):
        kinds = [k for k in chosen["kinds"] if group_of(k) == group]
        if kinds and any(f"{kinds[0]}|keys" in arrays for arrays in files.values()):
            result["groups"][group] = summarise(files, kinds, group)
            print_table(group, kinds, result["groups"][group])
    heads = {p.stem: torch.load(p, map_location="cpu")["about"] for p in sorted(state.glob("*.heads"))}
    result["training"] = heads
    if options.to:
        Path(options.to).mkdir(parents=True, exist_ok=True)
        (Path(options.to) / "smollm2-lab.json").write_text(json.dumps(result, indent=1) + "\n")


def export(options: argparse.Namespace) -> None:
    """Heads of state/ as checkpoints TO/NAME, which `autodeco-edge convert` takes; their means are those over the test."""
    from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
    from autodeco_edge.train.checkpoint import autodeco_config, save_heads
    from autodeco_edge.train.modules import AutoDecoHeads

    state = Path(options.out or Path(options.folder) / "state")
    shape = Shape()
    for path in sorted(state.glob("*.heads")):
        if not (state / f"test-{slug(path.stem)}.npz").exists():
            print(f"{path.stem}: not tested, so without means: left out", file=sys.stderr)
            continue
        tensors = torch.load(path, map_location="cpu")["heads"]
        n_hidden, width = tensors["temp_head.mlp.0.weight"].shape
        heads = AutoDecoHeads(HeadSpec(width, n_hidden, FEATURES_ENHANCED, True, True))
        heads.load_state_dict(tensors)
        base = {"model_type": "llama", "hidden_size": width, "vocab_size": shape.vocab}
        config = autodeco_config(base, heads.spec, "SmolLM2-135M-Instruct", *_means(state, path.stem))
        save_heads(Path(options.to) / path.stem, heads, config, "f32")
        print(Path(options.to) / path.stem)


def _means(state: Path, name: str) -> tuple[float, float]:
    """Mean T and P over the kinds of the test, each weighing as many tokens as it has."""
    means = about_of(keys_of(state / f"test-{slug(name)}.npz"))["means"].values()
    weights = [m["tokens"] for m in means]
    return tuple(float(np.average([m[k] for m in means], weights=weights)) for k in ("t", "p"))


def scores(arrays: dict[str, np.ndarray], kinds: list[str], group: str) -> dict[str, np.ndarray]:
    """Per problem: accuracy, and distinct right answers among 16 (open writing: 1 - self-BLEU, and ln p of a token)."""
    keys = [arrays[f"{kind}|keys"] for kind in kinds]
    found = {"accuracy": np.concatenate([(k > 0).mean(1) for k in keys])}
    half = [k.shape[1] // 2 for k in keys]
    if min(half):
        found["first seeds"] = np.concatenate([(k[:, :h] > 0).mean(1) for k, h in zip(keys, half, strict=True)])
        found["second seeds"] = np.concatenate([(k[:, h:] > 0).mean(1) for k, h in zip(keys, half, strict=True)])
    if group == "write":
        if f"{kinds[0]}|self_bleu" in arrays:
            found["coverage"] = np.concatenate([1 - arrays[f"{kind}|self_bleu"] for kind in kinds])
            found["distinct_2"] = np.concatenate([arrays[f"{kind}|distinct_2"] for kind in kinds])
            found["log_p"] = np.concatenate([arrays[f"{kind}|log_p"] for kind in kinds])
    else:
        found["coverage"] = np.concatenate([[coverage(row, 16) / 16 for row in k] for k in keys])
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def summarise(files: dict[str, dict[str, np.ndarray]], kinds: list[str], group: str) -> dict[str, Any]:
    """Of every method its means with intervals, its place against the frontier of the constants, and differences from heads."""
    from autodeco_edge.eval.statistics import bootstrap, outside, outside_interval, paired_bootstrap

    of = {
        name: scores(arrays, kinds, group)
        for name, arrays in files.items()
        if all(f"{k}|keys" in arrays for k in kinds)
    }
    points = {n: np.stack([s["accuracy"], s["coverage"]], 1) for n, s in of.items() if "coverage" in s}  # [problems, 2]
    constants = [p for n, p in points.items() if is_constant(n)]
    methods: dict[str, Any] = {}
    for name, s in of.items():
        row: dict[str, Any] = {m: vars(bootstrap(v)) for m, v in s.items()}
        if constants and name in points:
            row["outside"] = outside(points[name].mean(0), [p.mean(0) for p in constants])
            if is_heads(name):
                row["outside_interval"] = vars(outside_interval(points[name], np.stack(constants)))
        methods[name] = row | {"means": {k: about_of(files[name])["means"][k] for k in kinds}}
    heads = [n for n in of if is_heads(n)]
    differences = {
        h: {
            o: {
                m: vars(paired_bootstrap(of[h][m], of[o][m]))
                for m in ("accuracy", "coverage")
                if m in of[o] and m in of[h]
            }
            for o in of
            if o != h
        }
        for h in heads
    }
    return {
        "kinds": kinds,
        "n_problems": len(next(iter(of.values()))["accuracy"]),
        "methods": methods,
        "differences": differences,
    }


def is_constant(name: str) -> bool:
    return name.replace(".", "").replace("/", "").isdigit() and "/" in name or name.startswith("mean-shift")


def is_heads(name: str) -> bool:
    return name.startswith(("likelihood", "reward"))


def print_table(group: str, kinds: list[str], found: dict[str, Any]) -> None:
    print(f"\n{group}: {', '.join(kinds)}; {found['n_problems']} problems")
    rows = sorted(found["methods"].items(), key=lambda item: -item[1]["accuracy"]["mean"])
    for name, m in rows:
        a, c = m["accuracy"], m.get("coverage", {"mean": math.nan})
        of = m.get("outside_interval")
        between = f" [{of['low']:+.4f}, {of['high']:+.4f}]" if of else ""
        print(
            f"  {name:45s} {100 * a['mean']:5.1f} [{100 * a['low']:5.1f}, {100 * a['high']:5.1f}]  {c['mean']:.3f}  {m.get('outside', math.nan):+.4f}{between}"
        )


if __name__ == "__main__":
    main()

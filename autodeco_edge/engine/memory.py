"""How much memory a model will need, said before it is loaded.

Owns the forecast from a GGUF's metadata and what this machine has left. Knows nothing of the engine; a
forecast is an estimate (about a tenth), made to refuse what is hopeless and to choose a context that fits.

    weights  the file, or all parts of a split one, as far as it stays off the GPU
    cache    n_ctx x (key + value) x 2 bytes (F16), summed over the layers
    compute  the largest activations of a batch of 512: logits of one row, feed-forward, attention scores
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import AutodecoError, OutOfMemoryError
from ..gguf import types as gt
from ..gguf.model_file import part_paths
from ..gguf.reader import GGUFFile

BATCH = 512
SMALLEST_CONTEXT = 512
MAX_LAYERS = 4096  # llama.cpp takes 512
MAX_WIDTH = 1 << 20  # of a hidden state, or heads; the widest there is has 16,384
MAX_VOCAB = 1 << 24  # tokens, or hidden units
_SPARE = 0.95  # of what is free: something else will want a little
_F16, _F32 = 2, 4


@dataclass(frozen=True)
class Forecast:
    """Bytes. cache_per_token times the context is the key-value cache."""

    weights: int
    cache_per_token: int
    compute: int
    n_ctx_train: int

    def __add__(self, beside: Forecast) -> Forecast:
        """Of two models in one process, each with a context of so many tokens."""
        return Forecast(
            self.weights + beside.weights,
            self.cache_per_token + beside.cache_per_token,
            self.compute + beside.compute,
            self.n_ctx_train,
        )

    def total(self, n_ctx: int) -> int:
        return self.weights + self.cache_per_token * n_ctx + self.compute

    def largest_context(self, n_bytes: int) -> int:
        """Tokens that fit into so many bytes, a multiple of 256; may be 0 or less."""
        left = n_bytes - self.weights - self.compute
        return left // max(self.cache_per_token, 1) // 256 * 256


def forecast(path: str | os.PathLike[str], gpu_share: float = 0.0) -> Forecast | None:
    """From the metadata of a GGUF; None where it does not say enough (the loader will find the words for that).

    gpu_share  of the layers that go to a GPU, 0 to 1
    """
    try:
        with GGUFFile(path) as file:
            return _read(file, gpu_share)
    except (AutodecoError, OSError):  # OSError: a part that is not there
        return None


def _read(file: GGUFFile, gpu_share: float) -> Forecast | None:
    arch = file.string("general.architecture")

    def number(key: str) -> int:
        return file.integer(f"{arch}.{key}") or 0

    n_layer, n_embd = number("block_count"), number("embedding_length")
    n_head = int(_mean(file, f"{arch}.attention.head_count") or 0)
    n_head_kv = _mean(file, f"{arch}.attention.head_count_kv") or n_head
    width = number("attention.key_length") or n_embd // max(n_head, 1)
    width_v = number("attention.value_length") or width
    tokens = file.kv.get("tokenizer.ggml.tokens")
    n_vocab = tokens.count if tokens else number("vocab_size")
    widest = max(int(_mean(file, f"{arch}.feed_forward_length") or 0), n_embd, n_head * width)
    if not (
        n_layer <= MAX_LAYERS and all(0 < n <= MAX_WIDTH for n in (n_layer, n_embd, n_head, n_head_kv, width, width_v))
    ):
        return None  # no model, or a damaged one: no forecast of terabytes from a file of kilobytes
    if max(n_vocab, widest) > MAX_VOCAB:
        return None
    keep = 1.0 - gpu_share
    n_bytes = sum(path.stat().st_size for path in part_paths(file))  # the first part may hold metadata only
    return Forecast(
        weights=int(n_bytes * keep),
        cache_per_token=int(n_layer * n_head_kv * (width + width_v) * _F16 * keep),
        compute=BATCH * (3 * n_embd + 2 * widest) * _F32 + 3 * n_vocab * _F32,
        n_ctx_train=number("context_length"),
    )


def _mean(file: GGUFFile, key: str) -> float | None:
    """A number, or the mean of an array of integers with one for each layer."""
    value = file.kv.get(key)
    if value is None or not value.is_array:
        return file.integer(key)
    if value.item_type not in gt.INTEGERS or not 0 < value.count <= MAX_LAYERS:
        return None
    dtype = "<" + gt.SCALARS[value.item_type][0]
    return max(0.0, float(np.frombuffer(file.read(value.offset, value.nbytes), dtype=dtype).mean()))


def free_memory() -> int | None:
    """Bytes this process can still have: the machine's and its control group's; None where nobody says."""
    limits = [n for n in (_linux_available(), _cgroup_left(), _darwin_total()) if n is not None]
    return min(limits) if limits else None


def _linux_available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_left(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Limit less what is used and cannot be dropped (version 2; a container sees its own group at the root)."""
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _darwin_total() -> int | None:
    if sys.platform != "darwin":
        return None
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def fit_context(
    path: str | os.PathLike[str], n_ctx: int, default: int, gpu_share: float = 0.0, draft: Forecast | None = None
) -> tuple[int, str | None]:
    """(context to ask for, a remark or None). 0 in and 0 out: the engine's own choice fits.

    A context asked for is refused where it cannot fit (OutOfMemoryError, with the numbers); one not asked for
    is made smaller, and that is said. draft: of a model that is loaded beside this one.
    """
    estimate, free = forecast(path, gpu_share), free_memory()
    if estimate is None or free is None:
        return n_ctx, None
    if draft is not None:
        estimate += draft
    wanted = n_ctx or min(estimate.n_ctx_train or default, default)
    usable = int(free * _SPARE)
    if estimate.total(wanted) <= usable:
        return n_ctx, None
    largest = estimate.largest_context(usable)
    if n_ctx or largest < min(SMALLEST_CONTEXT, wanted):
        fits = largest >= SMALLEST_CONTEXT
        advice = f"pass -c {largest} (n_ctx)" if fits else "use a smaller quantisation or a smaller model"
        raise OutOfMemoryError(
            f"{Path(path).name}{' with its draft model' if draft else ''} needs {_size(estimate.total(wanted))} for a context of {wanted} tokens (weights "
            f"{_size(estimate.weights)}, cache {_size(estimate.cache_per_token * wanted)}, work {_size(estimate.compute)}), "
            f"{_size(free)} is free; {advice}"
        )
    return largest, f"context of {largest} tokens instead of {wanted}: {_size(free)} of memory is free"


def _size(n: int) -> str:
    return f"{n / 2**30:.1f} GiB" if n >= 2**30 else f"{n / 2**20:.0f} MiB"

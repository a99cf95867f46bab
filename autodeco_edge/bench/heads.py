"""Random heads whose T and P lie where trained heads put them.

Owns the weights that make T about 0.8 and P about 0.95, give or take a few hundredths. The files are
written by the project's own converter. Does not know what they are timed on.
"""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import numpy as np

from ..convert.checkpoint import read_checkpoint
from ..convert.export import Written, write_heads
from ..gguf.keys import CHECKPOINT_TEMP, CHECKPOINT_TOP_P, FEATURES_ENHANCED, TEMP_SCALE

TEMPERATURE, TOP_P = 0.8, 0.95
N_HIDDEN = 256  # of every released pair of heads
_SPREAD = 0.1  # standard deviation of the logit of T and of P over hidden states


def write_random_heads(path: Path, scratch: Path, n_embd: int, *, outtype: str, seed: int, base=None) -> Written:
    """Heads for a hidden size, or for ``base`` (a BaseInfo), as a heads file.

    scratch   a folder that is not there yet; keeps the checkpoint that the file is converted from
    """
    from safetensors.numpy import save_file

    scratch.mkdir(parents=True)
    save_file(_tensors(n_embd, np.random.default_rng(seed)), scratch / "model.safetensors")
    config = {"base_model_type": base.arch if base else "qwen2", "hidden_size": n_embd}
    (scratch / "config.json").write_text(json.dumps(config))
    return write_heads(read_checkpoint(scratch), path, base=base, outtype=outtype)


def _tensors(n_embd: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    temp = _head(rng, n_embd, n_embd, TEMPERATURE / TEMP_SCALE)
    top_p = _head(rng, n_embd, n_embd + len(FEATURES_ENHANCED), TOP_P)
    return {
        **{f"{CHECKPOINT_TEMP}.{name}": tensor for name, tensor in temp.items()},
        **{f"{CHECKPOINT_TOP_P}.{name}": tensor for name, tensor in top_p.items()},
    }


def _head(rng: np.random.Generator, n_embd: int, n_in: int, output: float) -> dict[str, np.ndarray]:
    """Hidden units of mean square 1/2 for hidden states of mean square 1; a sigmoid of mean about ``output``."""
    first = rng.standard_normal((N_HIDDEN, n_in), dtype=np.float32) / np.float32(n_embd**0.5)
    first[:, n_embd:] *= 0.1  # the entropy reaches 12
    last = rng.standard_normal((1, N_HIDDEN)).astype(np.float32)
    last -= last.mean()  # the units are never negative: a mean would shift the output
    last *= np.float32(_SPREAD * (2 / N_HIDDEN) ** 0.5)
    return {
        "mlp.0.weight": first,
        "mlp.0.bias": np.zeros(N_HIDDEN, dtype=np.float32),
        "mlp.2.weight": last,
        "mlp.2.bias": np.array([log(output / (1 - output))], dtype=np.float32),
    }

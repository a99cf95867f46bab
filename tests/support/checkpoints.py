"""Random AutoDeco checkpoints in the official layout, written with the safetensors library.

Owns weights that move: T and P of such heads spread over most of their range, so that a test
sees a wrong feature, order or sign.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HIDDEN_UNITS = 256


def random_tensors(n_embd: int, seed: int, *, n_extra: int = 5, gain: float = 1.0) -> dict[str, np.ndarray]:
    """Official names to float32 arrays; n_extra 0 leaves the top-p head out."""
    rng = np.random.default_rng(seed)

    def linear(n_out: int, n_in: int, scale: float) -> np.ndarray:
        return (rng.standard_normal((n_out, n_in)) * scale / np.sqrt(n_in)).astype(np.float32)

    tensors = {}
    for head, extra in (("temp_head", 0), ("top_p_head", n_extra)):
        if head == "top_p_head" and n_extra == 0:
            continue
        tensors[f"{head}.mlp.0.weight"] = linear(HIDDEN_UNITS, n_embd + extra, 1.0)
        tensors[f"{head}.mlp.0.bias"] = linear(1, HIDDEN_UNITS, 1.0)[0]
        tensors[f"{head}.mlp.2.weight"] = linear(1, HIDDEN_UNITS, 0.7 * gain)
        tensors[f"{head}.mlp.2.bias"] = np.array([0.2], dtype=np.float32)
    return tensors


def random_heads(folder: Path, n_embd: int, seed: int, *, bf16: bool = False, n_extra: int = 5) -> Path:
    """An official checkpoint folder (model.safetensors and config.json)."""
    folder.mkdir(parents=True)
    tensors = random_tensors(n_embd, seed, n_extra=n_extra)
    if bf16:
        import torch
        from safetensors.torch import save_file

        save_file(
            {k: torch.from_numpy(v).to(torch.bfloat16) for k, v in tensors.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )
    else:
        from safetensors.numpy import save_file

        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(
        json.dumps({"model_type": "autodeco", "hidden_size": n_embd, "use_enhanced_features": n_extra != 1})
    )
    return folder

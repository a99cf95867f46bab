"""Heads as the engine loads them, out of folders of the trainer, and a constant in their form.

Owns the two conversions, which need the base's identity. Knows no run.
"""

from __future__ import annotations

from pathlib import Path

from ..convert.base import open_base
from ..convert.checkpoint import read_checkpoint
from ..convert.export import write_heads
from ..gguf.keys import FEATURES_ENHANCED
from ..train import constant_heads
from ..train.checkpoint import autodeco_config, gguf_config, save_heads


class HeadsMaker:
    """For the GGUF at ``base``. Raises what open_base raises."""

    def __init__(self, base: Path) -> None:
        file, self._info = open_base(base)
        file.close()

    def convert(self, folder: Path, target: Path) -> Path:
        """The checkpoint in ``folder`` as a heads file."""
        write_heads(read_checkpoint(folder, n_embd=self._info.n_embd), target, base=self._info)
        return target

    def start(self, folder: Path, temperature: float, top_p: float, seed: int) -> Path:
        """A checkpoint of heads that say T and P everywhere and can learn."""
        heads = constant_heads.learning(self._info.n_embd, FEATURES_ENHANCED, temperature, top_p, seed)
        return self._save(folder, heads, temperature, top_p)

    def constant(self, folder: Path, temperature: float, top_p: float) -> Path:
        """A checkpoint of heads that never say anything else."""
        heads = constant_heads.constant(self._info.n_embd, temperature, top_p)
        return self._save(folder, heads, temperature, top_p)

    def _save(self, folder: Path, heads: constant_heads.AutoDecoHeads, temperature: float, top_p: float) -> Path:
        info = self._info
        base = gguf_config(info.arch, info.n_embd, info.n_vocab)
        name = info.name or info.path.stem
        return save_heads(folder, heads, autodeco_config(base, heads.spec, name, temperature, top_p), "f32")

"""The heads of a training run, under either trainer.

Owns where they come from, which of them learn and with what optimiser, and how they are saved. Knows neither
objective nor data.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import MismatchError
from .backbone import Backbone
from .base import default_spec, fresh_heads
from .checkpoint import autodeco_config, load_heads, save_heads

BETAS, ADAM_EPSILON, WEIGHT_DECAY = (0.9, 0.999), 1e-8, 0.0


class HeadRun:
    """
    backbone  loaded: what the heads are for
    learning  both | temp | top-p: which of them learn
    init      heads to start from (folder or file), else fresh ones from ``seed``, ``enhanced`` or not

    heads, parameters, optimizer   float32 on ``device``; those that learn alone; AdamW, whose rate is the trainer's
    Raises what load_heads raises, MismatchError for heads of another base or without a head that shall learn.
    """

    def __init__(
        self,
        backbone: Backbone,
        learning: str,
        init: str | None,
        *,
        seed: int = 0,
        enhanced: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self._backbone, self._learning = backbone, learning
        self._trained_before = {"temp": False, "top-p": False}
        if init is None:
            shape = default_spec(backbone.n_embd, self.learns("temp"), self.learns("top-p"), enhanced)
            heads = fresh_heads(shape, seed)
        else:
            start = load_heads(init, n_embd=backbone.n_embd)
            backbone.check_heads(start.config)
            heads = start.heads
            self._trained_before = {"temp": start.enable_temperature, "top-p": start.enable_top_p}
        self.heads = heads.to(device)
        self._freeze_others(init)
        self.parameters = [p for p in self.heads.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, 0.0, BETAS, ADAM_EPSILON, weight_decay=WEIGHT_DECAY)

    def _freeze_others(self, init: str | None) -> None:
        spec = self.heads.spec
        for head, name, there in (("temp", "temp_head", spec.has_temp), ("top-p", "top_p_head", spec.has_top_p)):
            if self.learns(head) and not there:
                raise MismatchError(f"{init}: has no {name}; train the other head only, or start afresh")
            if there:
                getattr(self.heads, name).requires_grad_(self.learns(head))

    def learns(self, head: str) -> bool:
        """head: temp or top-p."""
        return self._learning in ("both", head)

    @property
    def is_finite(self) -> bool:
        return all(bool(p.isfinite().all()) for p in self.parameters)

    def clip(self, max_norm: float) -> Tensor:
        """The norm of the gradient [], which is at most ``max_norm`` afterwards."""
        return torch.nn.utils.clip_grad_norm_(self.parameters, max_norm)

    def step(self, rate: float) -> None:
        """One step of AdamW along the gradient, which is then gone."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def save(self, folder: str | Path, dtype: str, mean_temperature: float, mean_top_p: float) -> None:
        """In the official format, with the means over some text. Raises what save_heads raises."""
        spec = self.heads.spec
        config = autodeco_config(
            self._backbone.config(),
            spec,
            self._backbone.name,
            mean_temperature if spec.has_temp else None,
            mean_top_p if spec.has_top_p else None,
            self.learns("temp") or self._trained_before["temp"],
            self.learns("top-p") or self._trained_before["top-p"],
        )
        save_heads(folder, self.heads, config, dtype)

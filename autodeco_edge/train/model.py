"""AutoDeco around any transformers causal LM: forward with T and P, and a generate() that uses them.

Owns the forward pass with heads and the decoding loop. Where hidden state and logits are
taken is in tap.py; the heads, the nucleus and the files are in modules.py, sampling.py and
checkpoint.py. Knows nothing of training data or losses.

The official generate() ignores the heads (equations 15); this one applies them at every
step.

    B sequences, S positions, H hidden width, V logits width
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..convert.checkpoint_config import CheckpointConfig
from ..errors import MismatchError, UsageError
from ..gguf.keys import HeadSpec
from .base import check_base, default_spec, fresh_heads, hidden_size_of, load_base
from .checkpoint import load_heads
from .modules import AutoDecoHeads
from .sampling import check_user_parameters, draw_token, effective_values, sampling_probs
from .tap import hidden_states, raw_logits, tap


@dataclass
class AutoDecoOutput:
    """logits [B, S, V] raw, hidden [B, S, H] post-norm, temperature [B, S], top_p [B, S], past_key_values."""

    logits: Tensor
    hidden: Tensor
    temperature: Tensor
    top_p: Tensor
    past_key_values: Any = None


@dataclass
class GenerateStep:
    """One token of every sequence, all [B]: T and P of the heads, T* and P* after user parameters.

    active is False for a sequence that had ended before: its token is the pad id.
    """

    token: Tensor
    temperature: Tensor
    top_p: Tensor
    temperature_eff: Tensor
    top_p_eff: Tensor
    active: Tensor


@dataclass
class GenerateOutput:
    """sequences [B, S + n] int64; tokens, temperature, top_p, temperature_eff, top_p_eff, active, all [B, n]."""

    sequences: Tensor
    tokens: Tensor
    temperature: Tensor
    top_p: Tensor
    temperature_eff: Tensor
    top_p_eff: Tensor
    active: Tensor

    def completions(self) -> list[list[int]]:
        """Token ids of each reply, the stop token included, padding left out."""
        return [row[mask].tolist() for row, mask in zip(self.tokens, self.active, strict=True)]


class AutoDecoForCausalLM(nn.Module):
    """A frozen base model and its heads.

    base     any transformers causal LM with an output embedding
    heads    AutoDecoHeads of the same hidden size; kept in their own dtype (float32)
    enable_temperature, enable_top_p   False for a head that was never trained: it is
             still evaluated (T is a feature of the top-p head) but never acts
    Raises MismatchError if hidden sizes differ.
    """

    def __init__(
        self,
        base: nn.Module,
        heads: AutoDecoHeads,
        config: CheckpointConfig | None = None,
        enable_temperature: bool = True,
        enable_top_p: bool = True,
    ) -> None:
        super().__init__()
        n_embd = hidden_size_of(base)
        if heads.spec.n_embd != n_embd:
            raise MismatchError(f"heads are for hidden size {heads.spec.n_embd}, the base has {n_embd}")
        self.base = base.requires_grad_(False).eval()
        self.heads = heads.to(self.device)
        self.heads_config = config
        self.enable_temperature = enable_temperature and heads.spec.has_temp
        self.enable_top_p = enable_top_p and heads.spec.has_top_p

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path,
        heads: str | Path | Callable[[int], HeadSpec] | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "cpu",
        seed: int = 42,
    ) -> AutoDecoForCausalLM:
        """Load a base (folder or hub id) and its heads (folder or file).

        heads: folder or file; or a function hidden size -> HeadSpec, or None (the official
        shape): fresh heads, initialised from ``seed``.
        Raises MissingInputError, FormatError, MismatchError (hidden or vocabulary size, architecture).
        """
        model = load_base(base, dtype).to(device)
        if heads is None or callable(heads):
            spec_of = heads or default_spec
            return cls(model, fresh_heads(spec_of(hidden_size_of(model)), seed))
        checkpoint = load_heads(heads, n_embd=hidden_size_of(model))
        check_base(checkpoint.config, model)
        return cls(model, checkpoint.heads, checkpoint.config, checkpoint.enable_temperature, checkpoint.enable_top_p)

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def train(self, mode: bool = True) -> AutoDecoForCausalLM:
        """Only the heads have a training mode; the base stays frozen in eval mode."""
        super().train(mode)
        self.base.eval()
        return self

    def lm_head(self, hidden: Tensor) -> Tensor:
        """Raw logits of the bare output matrix. [..., H] -> [..., V]."""
        return raw_logits(self.base, hidden)

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Post-norm hidden states [B, S, H] of ids [B, S]."""
        return hidden_states(self.base, input_ids, attention_mask, **kwargs)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = False, **kwargs: Any
    ) -> AutoDecoOutput:
        """T and P for the token after each position. input_ids [B, S] int64; gradient reaches the heads only.

        ``logits_to_keep=k`` (passed to the base) limits every output to the last k positions.
        """
        with torch.no_grad(), tap(self.base) as seen:
            output = self.base(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **kwargs)
        temperature, top_p = self.heads(seen["hidden"], seen["logits"])
        past = getattr(output, "past_key_values", None)
        return AutoDecoOutput(seen["logits"], seen["hidden"], temperature, top_p, past)

    # ---- generation ----------------------------------------------------------------

    @torch.no_grad()
    def generate(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> GenerateOutput:
        """Collect ``generate_steps`` (same arguments). T, P are NaN where a sequence had ended."""
        steps = list(self.generate_steps(input_ids, *args, **kwargs))
        names = ("token", "temperature", "top_p", "temperature_eff", "top_p_eff", "active")
        columns = {name: torch.stack([getattr(step, name) for step in steps], dim=1) for name in names}
        tokens = columns.pop("token")
        return GenerateOutput(torch.cat([input_ids.to(tokens.device), tokens], dim=1), tokens, **columns)

    @torch.no_grad()
    def generate_steps(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        top_p: float = 1.0,
        heads_mode: str = "both",
        do_sample: bool = True,
        generator: torch.Generator | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int = 0,
    ) -> Iterator[GenerateStep]:
        """Decode a left-padded batch with the heads, one GenerateStep a token.

        input_ids, attention_mask  [B, S], padding on the left, mask 0 there
        temperature, top_p   multiply T and P (equations 4); temperature 0 is greedy
        heads_mode           both | temp | top-p | none: which heads act; "both" means every
                             head that is there and enabled. With neither: plain sampling
        do_sample            False: argmax at each step
        eos_token_id         one id or several; None: the base's own; (): never stop
        Raises UsageError for arguments out of range.
        """
        check_user_parameters(temperature, top_p, heads_mode)
        mask = self._checked_mask(input_ids, attention_mask, max_new_tokens)
        stops = self._stop_ids(eos_token_id)
        user_temperature = temperature if do_sample else 0.0
        mode = self._acting(heads_mode)
        ids, past = input_ids.to(self.device), None
        active = torch.ones(len(ids), dtype=torch.bool, device=self.device)
        for _ in range(max_new_tokens):
            out = self._decode(ids, mask, past)
            t, p = out.temperature[:, -1].float(), out.top_p[:, -1].float()  # [B]
            t_eff, p_eff = effective_values(t, p, user_temperature, top_p, mode)  # [B]
            token = draw_token(sampling_probs(out.logits[:, -1], t_eff, p_eff), generator)  # [B]
            token = torch.where(active, token, pad_token_id)
            values = [v.masked_fill(~active, float("nan")) for v in (t, p, t_eff, p_eff)]
            yield GenerateStep(token, *values, active=active)
            active = active & ~torch.isin(token, stops)
            if not active.any():
                return
            ids, past = token[:, None], out.past_key_values
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)  # [B, S + 1]

    def _decode(self, ids: Tensor, mask: Tensor, past: Any) -> AutoDecoOutput:
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]  # [B, S], padding not counted
        return self.forward(ids, mask, use_cache=True, past_key_values=past, position_ids=positions, logits_to_keep=1)

    def _checked_mask(self, ids: Tensor, mask: Tensor | None, n_new: int) -> Tensor:
        if ids.dim() != 2 or ids.shape[1] < 1:
            raise UsageError(f"input_ids: expected shape [batch, at least 1], got {list(ids.shape)}")
        if n_new < 1:
            raise UsageError(f"max_new_tokens: expected at least 1, got {n_new}")
        mask = (torch.ones_like(ids) if mask is None else mask).to(self.device).long()
        if mask.shape != ids.shape or not mask[:, -1].all() or (mask.diff(dim=1) < 0).any():
            raise UsageError("attention_mask: expected zeros (padding) only on the left; pad with padding_side='left'")
        return mask

    def _stop_ids(self, eos: int | Sequence[int] | None) -> Tensor:
        if eos is None:
            own = getattr(self.base, "generation_config", None)
            eos = getattr(own, "eos_token_id", None)
            eos = getattr(self.base.config, "eos_token_id", None) if eos is None else eos
        ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def _acting(self, mode: str) -> str:
        temp = self.enable_temperature and mode in ("both", "temp")
        nucleus = self.enable_top_p and mode in ("both", "top-p")
        return {(True, True): "both", (True, False): "temp", (False, True): "top-p"}.get((temp, nucleus), "none")

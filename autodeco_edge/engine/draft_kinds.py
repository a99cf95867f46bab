"""What ``draft=`` of an engine means. Owns the choice of a kind, and its refusal."""

from __future__ import annotations

import os

from ..errors import UsageError
from .draft_model import DraftModel
from .drafts import DraftParams, Drafts, check_draft, check_target
from .model import Model
from .prompt_lookup import PromptLookup


def open_drafts(
    draft: str | os.PathLike[str] | Drafts | None,
    params: DraftParams,
    model: Model,
    *,
    n_slots: int,
    n_ctx: int,
    n_threads: int,
    n_gpu_layers: int = 0,
) -> Drafts | None:
    """ "ngram", the path of a GGUF, "off" or None, or Drafts. Raises what they raise, UsageError for anything else."""
    if draft is None or draft == "off":
        return None
    if not isinstance(draft, Drafts | str | os.PathLike):
        raise UsageError(f"draft: allowed ngram, off, a path or Drafts; got {type(draft).__name__}")
    if not isinstance(draft, Drafts):
        check_draft(os.fspath(draft))
    check_target(params, model, n_ctx)
    if isinstance(draft, Drafts):
        return draft
    if draft == "ngram":
        return PromptLookup(params)
    return DraftModel(
        draft, model, params, n_slots=n_slots, n_ctx=n_ctx, n_threads=n_threads, n_gpu_layers=n_gpu_layers
    )

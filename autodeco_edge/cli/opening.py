"""An engine of what the options name: the model, its heads and a context that fits.

Owns what a user should know on the way: notes on stderr, and a bar while a model loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..io.printing import say
from .arguments import Files
from .bar import Bar
from .options import RunOptions

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.model import Model
    from .serve import ServeOptions


def open_engine(
    files: Files,
    options: RunOptions | ServeOptions,
    *,
    plain: bool,
    n_slots: int = 1,
    weights: Model | None = None,
    **how: Any,
) -> Engine:
    """plain: no heads are wanted, so none are missed. weights: of the same model, loaded before. how: as in Engine."""
    from ..engine.context import check_limits
    from ..engine.devices import endpoints_of
    from ..engine.engine import Engine
    from ..engine.library import log

    log.set_verbose(options.verbose)
    check_limits(options.n_ctx, options.threads)
    workers = endpoints_of(options.rpc) if options.rpc is not None else []
    if files.note:
        say(f"note: {files.note}")
    if options.gpu_layers and not workers and not _has_gpu():
        say(
            f"note: -ngl {options.gpu_layers} is without effect: this llama.cpp was built without a GPU"
            " (docs/install.md says how to get one that was)"
        )
    n_ctx = _context(files, options, n_slots)
    engine = Engine(
        weights or _load(files, options, workers),
        files.heads,
        n_slots=n_slots,
        n_ctx=n_ctx // n_slots,
        n_threads=options.threads,
        n_gpu_layers=options.gpu_layers,
        draft=options.draft,
        draft_max=options.draft_max,
        draft_cost=options.draft_cost,
        **how,
    )
    if engine.heads is None and not plain:
        say(f"note: {engine.model.path.name} has no AutoDeco heads inside; plain sampling (give --heads FILE)")
    return engine


def _context(files: Files, options: RunOptions | ServeOptions, n_slots: int) -> int:
    """Tokens of all slots together: as asked for, or as many as fit the memory."""
    from ..engine.drafts import KINDS
    from ..engine.engine import DEFAULT_CONTEXT
    from ..engine.memory import fit_context, forecast

    # All layers or none: how many of them fit a GPU is llama.cpp's to know, and -ngl the user's to say.
    on_gpu = 1.0 if options.gpu_layers and _has_gpu() else 0.0
    elsewhere = 1.0 if options.rpc is not None else on_gpu
    draft = None if options.draft in KINDS else forecast(options.draft, on_gpu)
    n_ctx, remark = fit_context(files.model, options.n_ctx * n_slots, DEFAULT_CONTEXT * n_slots, elsewhere, draft)
    if remark:
        say(f"note: {remark}")
    return n_ctx


def _load(files: Files, options: RunOptions | ServeOptions, workers: list[str]) -> Model:
    from ..engine.model import Model

    with Bar("loading") as bar:
        return Model(
            files.model,
            n_gpu_layers=options.gpu_layers,
            workers=workers,
            on_progress=lambda share: bar.show(share, 1.0),
        )


def _has_gpu() -> bool:
    import llama_cpp

    return llama_cpp.llama_supports_gpu_offload()

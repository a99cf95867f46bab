"""`autodeco-edge run`: a reply, or a conversation, with a temperature and a top-p per token.

Owns the order of things: read the options, find the files, load, reply or converse. What each step does
lies in the modules beside this one.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from ..io.printing import say
from .arguments import STDIN, Files, check_model, find_files, read_prompt, split_words
from .bar import Bar
from .config_file import config_path
from .interrupts import Interrupts
from .options import RunOptions
from .session import Session
from .settings import takes

PROMPT_PIECE = 64  # tokens of a prompt between two looks at the keyboard: no slower than 512 (docs/performance.md)

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.model import Model
    from .serve import ServeOptions


@takes(RunOptions)
def run(ctx: Any, **values: Any) -> None:
    """Reply to PROMPT, or chat when there is none.

    Every option can also be set in the configuration file and by an environment variable: `autodeco-edge
    config` shows them.

    Example: autodeco-edge run "Find two numbers that make 83." --seed 1
    """
    options = RunOptions(**values)
    options.check()
    model, prompt = split_words(options)
    check_model(model, options.words)
    options.sampling()  # out of range is said before the model is loaded
    options.filters()
    text = read_prompt(prompt, STDIN in (options.words or ()))
    options = replace(options, model=model, hf=None, words=None)
    _spare_inputs(find_files(model, options), options)
    engine = _open(options)
    with engine, Interrupts() as interrupts, closing(Session(engine, options, interrupts, _open)) as session:
        if text is None:
            from .conversation import converse

            converse(session)
            return
        with interrupts.working():
            session.reply(session.prompt_ids(text, options.system))
        if session.shortfall:
            raise FormatError(session.shortfall)  # the next program in a pipe must not take it for what was asked for


def _open(options: RunOptions, weights: Model | None = None) -> Engine:
    """Of the model that the options name; weights: of the same one, loaded before."""
    files = find_files(options.model, options)
    plain = files.heads is None or options.heads_mode == "none"
    how = {"cpu_draw": options.cpu_draw, "n_batch": PROMPT_PIECE}
    return open_engine(files, options, plain=plain, weights=weights, **how)


def _spare_inputs(files: Files, options: RunOptions) -> None:
    """Raises UsageError for a --trace that would take the place of a file it is made from, or of no trace."""
    from ..engine.drafts import KINDS
    from ..io.atomic import refuse_foreign, refuse_inputs
    from ..text.trace import is_trace

    if options.trace is not None:
        draft = None if options.draft in KINDS else options.draft
        own = (
            files.model,
            files.heads,
            options.grammar,
            options.json_schema,
            options.chat_template,
            draft,
            config_path(),
        )
        refuse_inputs(options.trace, own, "--trace")
        refuse_foreign(options.trace, is_trace, "a trace")


def open_engine(
    files: Files,
    options: RunOptions | ServeOptions,
    *,
    plain: bool,
    n_slots: int = 1,
    weights: Model | None = None,
    **how: Any,
) -> Engine:
    """With what a user should know said on the way. plain: no heads are wanted, so none are missed. how: as in Engine."""
    import llama_cpp

    from ..engine.context import check_limits
    from ..engine.devices import endpoints_of
    from ..engine.drafts import KINDS
    from ..engine.engine import DEFAULT_CONTEXT, Engine
    from ..engine.library import log
    from ..engine.memory import fit_context, forecast
    from ..engine.model import Model

    log.set_verbose(options.verbose)
    check_limits(options.n_ctx, options.threads)
    workers = endpoints_of(options.rpc) if options.rpc is not None else []
    if files.note:
        say(f"note: {files.note}")
    if options.gpu_layers and not workers and not llama_cpp.llama_supports_gpu_offload():
        say(
            f"note: -ngl {options.gpu_layers} is without effect: this llama.cpp was built without a GPU"
            " (docs/install.md says how to get one that was)"
        )
    on_gpu = _gpu_share(options.gpu_layers)
    n_ctx, remark = fit_context(
        files.model,
        options.n_ctx * n_slots,
        DEFAULT_CONTEXT * n_slots,
        1.0 if workers else on_gpu,
        None if options.draft in KINDS else forecast(options.draft, on_gpu),
    )
    if remark:
        say(f"note: {remark}")
    with Bar("loading") as bar:
        model = weights or Model(
            files.model,
            n_gpu_layers=options.gpu_layers,
            workers=workers,
            on_progress=lambda share: bar.show(share, 1.0),
        )
    engine = Engine(
        model,
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


def _gpu_share(gpu_layers: int) -> float:
    """All or nothing: how many layers of a model fit a GPU is llama.cpp's to know, and -ngl the user's to say."""
    if gpu_layers == 0:
        return 0.0
    import llama_cpp

    return 1.0 if llama_cpp.llama_supports_gpu_offload() else 0.0

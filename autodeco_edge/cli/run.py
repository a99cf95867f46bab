"""`autodeco-edge run`: a reply, or a conversation, with a temperature and a top-p per token.

Owns the order of things: read the options, find the files, load, reply or converse. What each step does
lies in the modules beside this one.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import FormatError
from .arguments import STDIN, Files, check_model, find_files, read_prompt, split_words
from .config_file import config_path
from .interrupts import Interrupts
from .opening import open_engine
from .options import RunOptions
from .session import Session
from .settings import takes

PROMPT_PIECE = 64  # tokens of a prompt between two looks at the keyboard: no slower than 512 (docs/performance.md)

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.model import Model


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

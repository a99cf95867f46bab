"""`autodeco-edge run`: a reply, or a conversation, with a temperature and a top-p per token.

Owns what goes to which stream: stdout carries the reply or JSON and nothing else, all
chatter goes to stderr.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError

if TYPE_CHECKING:
    from ..chat import Conversation
    from ..runtime import Engine
    from ..sampler import SamplingParams
    from ..trace import Trace, TraceFile

_HELP_CHAT = "/exit or Ctrl-D ends, /clear forgets the conversation, Ctrl-C stops a reply."


def run(
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt; text piped to stdin is put before it.", show_default=False)
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m", "--model", help="Model in GGUF format. [default: the bundled demo model]", show_default=False
        ),
    ] = None,
    heads: Annotated[
        Path | None, typer.Option("--heads", help="Heads file. [default: those inside the model]", show_default=False)
    ] = None,
    heads_mode: Annotated[
        str, typer.Option("--heads-mode", help="Which heads apply: both, temp, top-p or none.")
    ] = "both",
    n: Annotated[int, typer.Option("-n", "--max-tokens", help="Tokens to generate; -1 = until the end.")] = -1,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of the draw. [default: random]", show_default=False)
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System message.", show_default=False)] = None,
    temp: Annotated[float, typer.Option("--temp", help="Multiplies the predicted temperature; 0 = greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option("--top-p", help="Multiplies the predicted top-p.")] = 1.0,
    n_ctx: Annotated[
        int, typer.Option("-c", "--ctx-size", help="Context in tokens; 0 = the model's, at most 4096.")
    ] = 0,
    threads: Annotated[int, typer.Option("-t", "--threads", help="Threads; 0 = one a physical core.")] = 0,
    gpu_layers: Annotated[int, typer.Option("-ngl", "--gpu-layers", help="Layers on the GPU; -1 = all.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="No chat template: the prompt as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a token, then a summary.")] = False,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Also write the JSON lines to this file.", show_default=False)
    ] = None,
    cpu_draw: Annotated[
        bool, typer.Option("--cpu-draw", help="Cut and draw outside the graph: same tokens, slower.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show llama.cpp's log.")] = False,
) -> None:
    """Reply to PROMPT, or chat when there is none.

    Example: autodeco-edge run "Find two numbers that make 83." --seed 1
    """
    if as_json and as_jsonl:
        raise UsageError("--json and --jsonl exclude each other; choose one")
    if trace is not None and trace.is_dir():
        raise UsageError(f"--trace {trace}: is a folder; give a file name")
    text = _read_prompt(prompt)
    records = as_json or as_jsonl or trace is not None
    params = _sampling(seed, temp, top_p, heads_mode, logprobs=records)

    from .. import runtime
    from .._lib import log

    log.set_verbose(verbose)
    engine = runtime.Engine(
        model or runtime.demo_model(),
        heads if heads is not None else "auto",
        n_ctx=n_ctx,
        n_threads=threads,
        n_gpu_layers=gpu_layers,
        cpu_draw=cpu_draw,
    )
    if engine.heads is None and heads_mode != "none":
        _say(f"note: {engine.model.path.name} has no AutoDeco heads inside; plain sampling (give --heads FILE)")
    form = "json" if as_json else "jsonl" if as_jsonl else "text"
    with engine, closing(_Session(engine, params, n, raw, form, trace)) as session:
        if text is None:
            _chat(session, system)
        else:
            session.reply(session.prompt_ids(text, system))


def _read_prompt(prompt: str | None) -> str | None:
    """PROMPT with piped stdin before it; None = a conversation on a terminal."""
    piped = "" if sys.stdin is None or sys.stdin.isatty() else _read_stdin()
    if prompt is None and not piped and sys.stdin is not None and sys.stdin.isatty():
        return None
    text = "\n".join(part for part in (piped.rstrip("\n"), prompt or "") if part)
    if not text.strip():
        raise UsageError("the prompt is empty; give one as an argument or on stdin")
    if any("\ud800" <= c <= "\udfff" for c in text):  # how Python carries bytes of an argument that are no UTF-8
        raise UsageError("the prompt is not UTF-8 text; convert it first")
    return text


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the text on stdin is not UTF-8; convert it first") from None


def _sampling(seed: int | None, temp: float, top_p: float, heads_mode: str, *, logprobs: bool) -> SamplingParams:
    from ..sampler import SamplingParams

    return SamplingParams(
        seed=secrets.randbits(32) if seed is None else seed,
        temperature=temp,
        top_p=top_p,
        heads_mode=heads_mode,
        logprobs=logprobs,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _open_trace(path: Path | None) -> TraceFile | None:
    from ..trace import TraceFile

    return TraceFile(path) if path else None


class _Session:
    """One engine and how its replies are shown."""

    def __init__(
        self, engine: Engine, params: SamplingParams, n: int, raw: bool, form: str, trace: Path | None
    ) -> None:
        self.engine = engine
        self.params = params
        self.n = n
        self.raw = raw
        self.form = form
        self._trace_file = _open_trace(trace)
        self._has_reply = False
        self._warned = False

    def prompt_ids(self, text: str, system: str | None) -> list[int]:
        """Ids of a single prompt."""
        if self.raw:
            return self.engine.model.tokenize(text)
        from ..chat import Conversation

        conversation = Conversation()
        if system:
            conversation.add("system", system)
        conversation.add("user", text)
        return self.conversation_ids(conversation)

    def conversation_ids(self, conversation: Conversation) -> list[int]:
        from ..chat import render

        return render(self.engine.model, conversation.messages)

    def reply(self, ids: list[int], reuse_prefix: bool = False) -> Trace:
        """Generate, show, and write the trace. Ctrl-C keeps what there is, then goes on upwards."""
        from ..trace import Trace

        trace = Trace(prompt_ids=list(ids), seed=self.params.seed)
        try:
            self._stream(trace, ids, reuse_prefix)
        except (KeyboardInterrupt, BrokenPipeError):
            self._record(trace.summary("interrupt", self.engine.timings.as_dict()))
            raise
        summary = trace.summary(self.engine.finish_reason, self.engine.timings.as_dict())
        self._record(summary)
        self._finish(trace, summary)
        return trace

    def _record(self, summary: dict) -> None:
        if self._trace_file:
            self._trace_file.write(summary)
            self._has_reply = True

    def close(self) -> None:
        """The trace of a session keeps its whole replies; without one it leaves no file."""
        if self._trace_file:
            self._trace_file.close(keep=self._has_reply)

    def _stream(self, trace: Trace, ids: list[int], reuse_prefix: bool) -> None:
        from ..trace import TextStream, dumps

        stream = TextStream()
        model = self.engine.model
        for step in self.engine.generate(ids, self.params, max_tokens=self.n, reuse_prefix=reuse_prefix):
            data = model.token_bytes(step.id)
            record = trace.add(step, data, stream.feed(data))
            if self._trace_file:
                self._trace_file.write(record)  # first: the reader of stdout may have gone
            if self.form == "text":
                self._print(record["text"])
            elif self.form == "jsonl":
                self._print(dumps(record) + "\n")
        trace.rest = stream.finish()
        if self.form == "text":
            self._print(trace.rest)

    def _finish(self, trace: Trace, summary: dict) -> None:
        from ..trace import dumps

        if self.form == "text":
            self._print("\n")
            _say(_stats_line(self.engine, summary))
        elif self.form == "jsonl":
            self._print(dumps(summary) + "\n")
        else:
            self._print(dumps({"text": trace.text, "tokens": trace.records, **summary}) + "\n")
        if self.engine.sampler.n_fallbacks and not self._warned:
            self._warned = True
            _say(
                "warning: a head gave a value that is not finite; T = 1 or P = 1 was used instead (are the heads damaged?)"
            )

    @staticmethod
    def _print(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _stats_line(engine: Engine, summary: dict) -> str:
    timings = summary["timings"]
    parts = [
        f"prompt {timings['prompt_n']} tokens at {timings['prompt_per_second'] or 0:.0f}/s",
        f"reply {timings['predicted_n']} at {timings['predicted_per_second'] or 0:.0f}/s",
        f"context {len(summary['prompt_ids']) + summary['n_tokens']}/{engine.n_ctx}",
    ]
    if summary["mean_temperature"] is not None:
        parts.append(f"mean T {summary['mean_temperature']:.2f}")
    if summary["mean_top_p"] is not None:
        parts.append(f"mean P {summary['mean_top_p']:.2f}")
    parts.append(f"seed {summary['seed']}")
    return "[" + " · ".join(parts) + "]"


# ---- conversation -----------------------------------------------------------------------


def _chat(session: _Session, system: str | None) -> None:
    """Read, reply, repeat. Ctrl-C stops the reply; at an empty prompt it leaves with 130."""
    from prompt_toolkit import PromptSession

    from ..chat import Conversation
    from ..errors import ContextOverflowError

    conversation = Conversation()
    if system:
        conversation.add("system", system)
    _say(f"{session.engine.model.description} · {_heads_line(session.engine)}\n{_HELP_CHAT}")
    reader = PromptSession()
    while True:
        try:
            line = reader.prompt("> ").strip()
        except EOFError:
            return
        if line == "/exit":
            return
        if line == "/clear":
            conversation.clear()
        elif line.startswith("/"):
            _say(_HELP_CHAT)
        elif line:
            try:
                _turn(session, conversation, line)
            except ContextOverflowError as error:
                conversation.messages.pop()
                _say(f"{error} (or /clear)")


def _turn(session: _Session, conversation: Conversation, line: str) -> None:
    conversation.add("user", line)
    try:
        if session.raw:
            trace = session.reply(session.engine.model.tokenize(line))
        else:
            trace = session.reply(session.conversation_ids(conversation), reuse_prefix=True)
    except KeyboardInterrupt:
        conversation.messages.pop()
        _say("\n[stopped]")
        return
    conversation.add("assistant", trace.text)
    session.params = _next_seed(session.params)


def _next_seed(params: SamplingParams) -> SamplingParams:
    """A reply's random numbers start at 0, so each turn takes the next seed."""
    from dataclasses import replace

    return replace(params, seed=(params.seed + 1) % 2**64)


def _heads_line(engine: Engine) -> str:
    return f"heads: {engine.heads.description}" if engine.heads else "no heads"

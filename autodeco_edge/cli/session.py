"""One engine, the options in force, and how its replies are shown and written down.

Owns what goes to which stream: stdout carries the reply or JSON and nothing else, all chatter goes to
stderr. Knows nothing of lines typed (conversation.py).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..io.printing import say, shows_unicode
from ..io.reading import read_text
from .bar import Bar
from .interrupts import Interrupts
from .screen import Screen, say_legend, spark, write
from .status import MEANS, device_line, mean_words, plain_words

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..engine.generation import Generation
    from ..engine.model import Model
    from ..engine.plain import PlainSampling
    from ..engine.sampler import Step
    from ..text.reply import ReplyText
    from ..text.trace import Trace
    from .options import RunOptions


MORE_CONTEXT = "-c, or /set ctx-size in a conversation"


class Session:
    """
    engine      the model with its heads; the session sets its filters
    options     in force; change them with ``set_options``
    interrupts  asked between two tokens
    opener      makes an engine of options, and of weights where it is the same model: what a conversation switches to
    """

    def __init__(
        self,
        engine: Engine,
        options: RunOptions,
        interrupts: Interrupts,
        opener: Callable[[RunOptions, Model | None], Engine] | None = None,
    ) -> None:
        from ..text.trace import TraceFile

        self.interrupts = interrupts
        self._opener = opener
        path = options.chat_template
        hint = "give a Jinja template to --chat-template-file"
        self.template = None if path is None else read_text(path, hint, streams=True)
        self._adopt(engine, options)
        self._remarks: set[str] = set()
        self.last: Trace | None = None
        self.generation: Generation | None = None
        self.last_summary: dict[str, Any] | None = None
        self.shortfall: str | None = None  # of the last reply
        self.n_used = 0  # tokens of the context that the conversation takes
        self.options: RunOptions | None = None
        self.set_options(options)
        self._trace_file = TraceFile(options.trace) if options.trace else None
        self._has_reply = False
        self._warned = False

    def _adopt(self, engine: Engine, options: RunOptions) -> None:
        from ..text.chat import template_of
        from ..text.reasoning import Reasoning

        self.engine = engine
        self._continues = self.template is None and engine.model.chat_template is None
        if self._continues and not options.raw:
            say(
                f"note: {engine.model.path.name} has no chat template, so it goes on with your text instead of answering it"
                " (--chat-template-file gives it one)"
            )
        self.reasoning = Reasoning.of(engine.model, template_of(engine.model, self.template))

    def reopen(self, options: RunOptions, same_model: bool = True) -> None:
        """Go on with another engine; nothing changes where it, or one of the options with it, is refused."""
        options.check()
        before, kept = self.engine, self.options
        engine = self._opener(options, before.model if same_model else None)
        self._adopt(engine, options)
        try:
            self.set_options(options)
        except BaseException:
            self._adopt(before, kept)
            engine.close()
            raise
        self.generation = None
        before.close()

    def set_options(self, options: RunOptions) -> None:
        """Takes effect with the next reply; nothing changes where one of them is refused."""
        options.check()
        plain = self._plain_sampling(options)
        in_force = options.filled(plain.values) if plain else options.filled()
        params = in_force.sampling()
        filters = in_force.filters()
        self.filters = filters.build(self.engine.model)
        if self.options is not None and options.seed == self.options.seed:
            params = replace(params, seed=self.params.seed)  # the turns go on counting
        self.options = options
        self.in_force, self.plain = in_force, plain
        self.params = params
        self.grammar = filters.grammar

    def _plain_sampling(self, options: RunOptions) -> PlainSampling | None:
        """Where no head is in force: what the model, or else llama.cpp, wants."""
        from ..engine.plain import recommended

        if self.engine.heads is not None and options.heads_mode != "none":
            return None
        plain = recommended(self.engine.model)
        if plain.not_followed and self.options is None:
            say(f"note: this model asks for {', '.join(plain.not_followed)} as well, which is not applied here")
        return plain

    @property
    def is_raw(self) -> bool:
        """Whether a prompt goes in as it is: asked for, or the model has no template, and one made up would be babble."""
        return self.options.raw or self._continues

    def next_seed(self) -> None:
        """A reply's random numbers start at 0, so each turn takes the next seed."""
        self.params = replace(self.params, seed=(self.params.seed + 1) % 2**64)

    # ---- prompts -----------------------------------------------------------------------------

    def prompt_ids(self, text: str, system: str | None) -> list[int]:
        """Ids of a single prompt."""
        if self.is_raw:
            return self.engine.model.tokenize(text)
        from ..text.chat import Conversation

        conversation = Conversation()
        conversation.system = system
        conversation.add("user", text)
        return self.conversation_ids(conversation.messages)

    def conversation_ids(self, messages: list[dict[str, str]]) -> list[int]:
        from ..text.chat import prompt_of

        prompt = prompt_of(self.engine.model, messages, self.template)
        if prompt.remark and prompt.remark not in self._remarks:
            self._remarks.add(prompt.remark)
            say(f"note: {prompt.remark}")
        return prompt.ids

    def draw(self, ids: list[int], **changes: Any) -> Trace:
        """A reply that is neither shown nor kept, with some of the sampling changed."""
        from ..text.reply import ReplyText
        from ..text.trace import Trace

        params = replace(self.params, **changes)
        trace, text = Trace(prompt_ids=list(ids), seed=params.seed), ReplyText(self.options.stop or ())
        limit = {"max_tokens": self.options.n, "spelt": False, "reuse_prefix": True, "filters": self.filters}
        self.generation = self.engine.generate(ids, params, **limit)
        for step in self._read(self.generation):
            self.interrupts.check()
            record = trace.add(step, data := self.reasoning.token_bytes(self.engine.model, step.id), "")
            record["text"] = "".join(piece for piece, _ in text.feed(data))
            if text.stopped:
                self.generation.close()
                break
        trace.rest = "".join(piece for piece, _ in text.finish())
        return trace

    # ---- a reply -----------------------------------------------------------------------------

    def reply(self, ids: list[int], reuse_prefix: bool = False) -> Trace:
        """Generate, show, and write the trace. Ctrl-C keeps what there is, then goes on upwards."""
        from ..text.reply import ReplyText
        from ..text.trace import Trace

        trace = self.last = Trace(prompt_ids=list(ids), seed=self.params.seed)
        text = ReplyText(self.options.stop or ())
        try:
            self._stream(trace, text, ids, reuse_prefix)
        except (KeyboardInterrupt, BrokenPipeError):
            if self.generation:
                self.generation.cancel()
            self._record(trace.summary("interrupt", self._timings()))
            raise
        reason = "stop" if text.stopped else self.generation.finish_reason
        summary = trace.summary(reason, self._timings())
        self._record(summary)
        self._finish(trace, summary)
        return trace

    def _timings(self) -> dict[str, Any]:
        return self.generation.timings.as_dict() if self.generation else {}

    def _record(self, summary: dict[str, Any]) -> None:
        self.last_summary = summary
        self.n_used = len(self.last.prompt_ids) + len(self.last.records)
        if self._trace_file:
            self._trace_file.write(summary)
            self._has_reply = True

    def close(self) -> None:
        """The trace of a session keeps its whole replies; without one it leaves no file."""
        self.engine.close()
        if self._trace_file:
            self._trace_file.close(keep=self._has_reply)

    def _stream(self, trace: Trace, text: ReplyText, ids: list[int], reuse_prefix: bool) -> None:
        from ..text.reasoning import prompt_end

        screen = Screen(self.options.color_by, self.options.hide_thinking)
        thinking = self.reasoning.stream(prompt_end(self.engine.model, ids), self.is_raw)
        for record, pieces in self._tokens(trace, text, ids, reuse_prefix):
            if record is not None and self._trace_file:
                self._trace_file.write(record)  # first: the reader of stdout may have gone
            if self.options.form == "text":
                screen.show([p for piece, owner in pieces for p in thinking.feed(piece, owner)])
            elif self.options.form == "jsonl" and record is not None:
                write(_line(record))
        if self.options.form == "text":
            screen.show(thinking.finish())
            screen.end()

    def _tokens(
        self, trace: Trace, text: ReplyText, ids: list[int], reuse_prefix: bool
    ) -> Iterator[tuple[dict[str, Any] | None, list[tuple[str, Any]]]]:
        """(record, text that may be shown with it, in pieces); at the end (None, what was held back)."""
        record = None
        steps = self.generation = self.engine.generate(
            ids, self.params, max_tokens=self.options.n, spelt=False, reuse_prefix=reuse_prefix, filters=self.filters
        )
        for step in self._read(steps):
            self.interrupts.check()
            data = self.reasoning.token_bytes(self.engine.model, step.id)
            top = [self.engine.model.token_bytes(i, special=True).decode("utf-8", "replace") for i, _ in step.top]
            record = trace.add(step, data, "", top)
            pieces = text.feed(data, record)
            record["text"] = "".join(piece for piece, _ in pieces)
            yield record, pieces
            if text.stopped:
                steps.close()
                break
        rest = text.finish(record)
        trace.rest = "".join(piece for piece, _ in rest)
        yield None, rest

    def _read(self, steps: Generation) -> Iterator[Step]:
        """The steps, with a bar until the first of a long prompt."""
        with Bar("reading") as bar:
            while not (first := steps.read()) and not steps.ended and self.engine.tick():
                self.interrupts.check()
                bar.show(steps.timings.prompt_done, steps.timings.prompt_n)
        yield from first
        yield from steps

    def answer(self, trace: Trace) -> tuple[str, str]:
        """(answer, thought) of a reply, as a conversation keeps them: without the model's marks."""
        from ..text.reasoning import prompt_end

        if self.is_raw:
            return trace.text, ""
        return self.reasoning.split(trace.text, prompt_end(self.engine.model, trace.prompt_ids))

    def _finish(self, trace: Trace, summary: dict[str, Any]) -> None:
        if self.options.form == "text":
            say_legend(self.options.color_by)
            bars = spark(trace.records)
            if bars:
                say(bars)
            say(self.stats_line())
        elif self.options.form == "jsonl":
            write(_line(summary))
        else:
            write(_line({"text": trace.text, "tokens": trace.records, **summary}))
        self._warn(trace, summary)

    def _warn(self, trace: Trace, summary: dict[str, Any]) -> None:
        if self.engine.n_fallbacks and not self._warned:
            self._warned = True
            say(
                "warning: a head gave a value that is not finite; T = 1 or P = 1 was used instead (are the heads damaged?)"
            )
        self.shortfall = self._shortfall(trace, summary["finish_reason"] == "length")
        if self.shortfall or summary["finish_reason"] != "length":
            return
        if len(trace.prompt_ids) + len(trace.records) >= self.engine.n_ctx:
            say(
                f"note: the context of {self.engine.n_ctx} tokens is full, which ended the reply; a larger one: {MORE_CONTEXT}"
            )

    def _shortfall(self, trace: Trace, is_cut: bool) -> str | None:
        """What a reply lacks of what --json-schema, --grammar or --regex asks for."""
        from ..engine.json_schema import Unchecked
        from ..engine.mask import GrammarMask

        more = "; it was cut: allow more tokens (-n, -c)" if is_cut else ""
        if self.grammar is None:
            return None
        if self.grammar.schema is None:
            is_whole = all(guide.is_complete for guide in self.filters if isinstance(guide, GrammarMask))
            return f"the reply ended before its grammar did{more}" if is_cut and not is_whole else None
        try:
            complaint = self.grammar.schema.complaint(trace.text)
        except Unchecked as why:
            say(f"note: whether the reply satisfies --json-schema was not checked: {why}")
            return None
        return f"the reply does not satisfy --json-schema: {complaint}{more}" if complaint else None

    # ---- in words ----------------------------------------------------------------------------

    def stats_line(self) -> str:
        """Speed, context, means and seed of the last reply."""
        summary = self.last_summary
        if summary is None:
            return "[no reply yet]"
        timings = summary["timings"]
        parts = [
            f"prompt {timings['prompt_n']} tokens at {timings['prompt_per_second'] or 0:.0f}/s",
            f"reply {timings['predicted_n']} at {timings['predicted_per_second'] or 0:.0f}/s",
            f"context {self.n_used}/{self.engine.n_ctx}",
        ]
        if timings["draft_n"]:
            parts.append(f"{timings['draft_n_accepted']} of {timings['draft_n']} guesses right")
        parts += [words for each in MEANS if (words := mean_words(self.last, *each))]
        parts += self._without_heads()
        parts += [f"on {device_line(self.options)}", f"seed {summary['seed']}"]
        return "[" + " · ".join(parts) + "]"

    def _without_heads(self) -> list[str]:
        """What was sampled with where a head is missing or switched off."""
        if self.plain:
            return [f"plain: {plain_words(self.in_force, self.options, self.plain)}"]
        values = {"temp": f"T {self.params.temperature:.4g}", "top-p": f"P {self.params.top_p:.4g}"}
        return [f"{values[name]} (no head applied)" for name in self.fixed]

    @property
    def fixed(self) -> list[str]:
        """Of "temp" and "top-p", what no head sets."""
        heads, mode = self.engine.heads, self.options.heads_mode
        has = {"temp": heads and heads.has_temp, "top-p": heads and heads.has_top_p}
        return [name for name, there in has.items() if not (there and mode in ("both", name))]


def _line(record: dict[str, Any]) -> str:
    from ..text.trace import dumps

    return dumps(record, ascii_only=not shows_unicode(sys.stdout)) + "\n"

"""How a model marks what it thinks and what it answers: the formats, and which of them a model writes.

A format is known by what the chat template itself writes, or by marks that the vocabulary holds as tokens. Owns the
table of marks and the division of a whole reply; the division of a stream is streaming.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import llama_cpp

from ..engine.model import Model
from .streaming import THINK_CLOSE, THINK_OPEN, Channels, Thinking

TAIL = 32  # last tokens of a prompt: what a template may write after the user's last word


@dataclass(frozen=True)
class Tag:
    """open ... close; wrappers: marks that may stand around the answer; sign: what in a template tells of it."""

    open: str
    close: str
    wrappers: tuple[str, ...] = ()
    sign: str = ""


TAGS = (
    Tag(THINK_OPEN, THINK_CLOSE, ("<response>", "</response>", "<answer>", "</answer>")),  # R1, Qwen3, GLM; Granite 3.3
    Tag("[THINK]", "[/THINK]"),  # Magistral, Ministral
    Tag(
        "<|START_THINKING|>",  # Command R7B, A and later
        "<|END_THINKING|>",
        ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Tag("<seed:think>", "</seed:think>"),
    Tag("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Tag("<think:opensource>", "</think:opensource>", sign="'<think{}>'.format(HYTK)"),  # Hunyuan
    Tag("<thought>", "</thought>"),  # EXAONE Deep
    Tag("<thinking>", "</thinking>"),
    Tag("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Tag("◁think▷", "◁/think▷"),  # Kimi-VL
    Tag("<|channel>thought", "<channel|>", sign="<|channel>"),  # Gemma 4
    Tag("<|think|>", "<|end|>", ("<|begin|>assistant", "<|content|>"), "<|begin|>assistant<|think|>"),  # Solar
    Tag(
        "<|open|>think<|sep|>",  # Kimi-K3
        "<|close|>think<|sep|>",
        ("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
        "<|open|>",
    ),
    Tag(
        "Here are my reasoning steps:",  # Apriel
        "[BEGIN FINAL RESPONSE]",
        ("[END FINAL RESPONSE]",),
        "[BEGIN FINAL RESPONSE]",
    ),
    Tag("Here is my thought process:", "Here is my response:"),  # Granite 3.2
)


@dataclass(frozen=True)
class Reasoning:
    """
    tags      the formats that a model may write; empty where it writes channels (gpt-oss, Muse)
    wrappers  the marks around its answers
    shown     control tokens that are marks: read as text, unlike others
    """

    tags: tuple[Tag, ...]
    wrappers: tuple[str, ...]
    shown: frozenset[int]

    @classmethod
    def of(cls, model: Model, template: str) -> Reasoning:
        """The format of a model with this chat template ('' for none)."""
        if _writes_channels(model, template):
            return cls((), (), _control_ids(model, Channels.MARKS))
        tags = tuple(t for t in TAGS if t.open == THINK_OPEN or _is_known(model, template, t.sign or t.open))
        wrappers = tuple(w for t in tags for w in t.wrappers if t.sign or _is_known(model, template, w))
        marks = [mark for t in tags for mark in (t.open, t.close)]
        return cls(tags, wrappers, _control_ids(model, [*marks, *wrappers]))

    def token_bytes(self, model: Model, token: int) -> bytes:
        """As the model's own, and a control token that is a mark as it is written."""
        return model.token_bytes(token, special=token in self.shown)

    def stream(self, prompt_end: str, raw: bool = False, marks: bool = True) -> Thinking | Channels:
        """What divides a reply to a prompt with this end; raw: no template has opened anything; marks: give them out."""
        if not self.tags:
            return Channels(begun=not raw, marks=marks)
        return self._thinking(None if raw else self._opened(prompt_end), marks)

    def split(self, text: str, prompt_end: str) -> tuple[str, str]:
        """(answer, thought) of a whole reply, without marks. A reply that is all thought is its own answer."""
        stream = self.stream(prompt_end)
        if self.tags and (close := self._closed_first(text)):
            stream = self._thinking(close)
        pieces = [*stream.feed(text), *stream.finish()]
        thought = self.without_marks("".join(text for text, _, is_thought in pieces if is_thought)).strip()
        answer = "".join(text for text, _, is_thought in pieces if not is_thought)
        if not thought:
            return answer, ""
        return (answer.strip(), thought) if answer.strip() else (thought, "")

    def _thinking(self, inside: str | None, marks: bool = True) -> Thinking:
        return Thinking([(t.open, t.close) for t in self.tags], self.wrappers, inside, marks)

    def _opened(self, prompt_end: str) -> str | None:
        """The closing mark of the block that the prompt ended in."""
        return next((t.close for t in self.tags if prompt_end.rstrip().endswith(t.open)), None)

    def _closed_first(self, text: str) -> str | None:
        """The closing mark of a block that is closed and was never opened: some templates leave the opening out."""
        for t in self.tags:
            before, found, _ = text.partition(t.close)
            if found and t.open not in before:
                return t.close
        return None

    def without_marks(self, thought: str) -> str:
        marks = [mark for t in self.tags for mark in (t.open, t.close)] or [THINK_OPEN, THINK_CLOSE]
        for mark in (*marks, *self.wrappers):
            thought = thought.replace(mark, "")
        return thought


def prompt_end(model: Model, ids: Sequence[int]) -> str:
    return model.detokenize(ids[-TAIL:], special=True).decode("utf-8", "replace")


def _writes_channels(model: Model, template: str) -> bool:
    """`<|start|>assistant<|channel|>final<|message|>` and, without a channel's name, `<|start|>assistant to=user<|message|>`."""
    if "<|message|>" in template and ("<|channel|>" in template or "to=self" in template):
        return True
    return _is_token(model, "<|channel|>") and _is_token(model, "<|message|>")


def _is_known(model: Model, template: str, mark: str) -> bool:
    return mark in template or _is_token(model, mark)


def _is_token(model: Model, mark: str) -> bool:
    return len(model.tokenize(mark, add_special=False, parse_special=True)) == 1


def _control_ids(model: Model, marks: Sequence[str]) -> frozenset[int]:
    ids = {i for mark in marks for i in model.tokenize(mark, add_special=False, parse_special=True)}
    return frozenset(i for i in ids if llama_cpp.llama_vocab_is_control(model.vocab, i))

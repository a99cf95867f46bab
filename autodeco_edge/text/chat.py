"""Messages to prompt: a conversation and the chat template of its model.

Owns the conversation, its rendering and its file (`/save`, `/load`). Does not generate and does not
print; the template runs in a process of its own (template.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp

from ..engine.model import Model
from ..errors import FormatError, UsageError
from ..io.atomic import atomic_write
from ..io.reading import read_json
from .shapes import Shape, absent, lost, probe, shapes, surely_arrived
from .template import TemplateError, TemplateStopped, render_template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROLES = ("system", "user", "assistant")
REASONING = "reasoning_content"


@dataclass
class Conversation:
    """Messages in order, OpenAI style: {"role": "system" | "user" | "assistant", "content": text}.

    What an assistant thought before its answer lies beside it as "reasoning_content", where templates look for it."""

    messages: list[dict[str, str]] = field(default_factory=list)

    def add(self, role: str, content: str, reasoning: str = "") -> None:
        self.messages.append({"role": role, "content": content, **({REASONING: reasoning} if reasoning else {})})

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.messages = [m for m in self.messages if m["role"] == "system"]

    @property
    def system(self) -> str | None:
        return next((m["content"] for m in self.messages if m["role"] == "system"), None)

    @system.setter
    def system(self, text: str | None) -> None:
        """Set, replace or (None, '') remove the system message."""
        self.messages = [m for m in self.messages if m["role"] != "system"]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def take_back(self) -> str | None:
        """Removes the last user message and what followed it; returns its text, None where there is none."""
        for i in reversed(range(len(self.messages))):
            if self.messages[i]["role"] == "user":
                text = self.messages[i]["content"]
                del self.messages[i:]
                return text
        return None

    def save(self, path: str | os.PathLike[str]) -> None:
        """One JSON object, {"messages": [...]}, written at once. Raises OutputError, StorageError."""
        with atomic_write(Path(path)) as out:
            out.write((json.dumps({"messages": self.messages}, ensure_ascii=False, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Conversation:
        """What ``save`` wrote, or a bare list of messages. Raises MissingInputError, FormatError."""
        data = read_json(path, "give a file that /save wrote")
        messages = data.get("messages") if isinstance(data, dict) else data
        if not isinstance(messages, list) or not all(_is_message(m) for m in messages):
            raise FormatError(
                f'{path}: no conversation; expected {{"messages": [{{"role": {" | ".join(ROLES)}, "content": text}}]}}'
            )
        return cls([{name: m[name] for name in ("role", "content", REASONING) if name in m} for m in messages])


def _is_message(m: object) -> bool:
    if not isinstance(m, dict) or m.get("role") not in ROLES:
        return False
    return isinstance(m.get("content"), str) and isinstance(m.get(REASONING, ""), str)


@dataclass(frozen=True)
class Prompt:
    """ids and text of a prompt that ends where the assistant speaks; remark: what the user should know, or None."""

    ids: list[int]
    text: str
    remark: str | None = None


def render(
    model: Model,
    messages: list[dict[str, Any]],
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """The ids of ``prompt_of``."""
    return prompt_of(model, messages, template, variables).ids


def prompt_of(
    model: Model,
    messages: list[dict[str, Any]],
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Prompt:
    """The prompt of a conversation.

    template   Jinja text; None = the GGUF's own, ChatML where it has none
    variables  more names for the template, such as {"enable_thinking": False}

    Control tokens written by the template are read as such; of the tokenizer's own, BOS is added where the template
    did not write it, and none at the end. Raises FormatError for a template that fails, does not end, or does not
    print what the user said.
    """
    with _as_format_error():
        return template_prompt(model, messages, template, variables)


def template_prompt(
    model: Model,
    messages: list[dict[str, Any]],
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Prompt:
    """``prompt_of``, but raises TemplateError, with the template's own words."""
    marks = special_texts(model)
    bos, eos = marks.get("bos_token", ""), marks.get("eos_token", "")
    variables = {**marks, **(variables or {})}
    filled = fill(template_of(model, template), messages, bos, eos, True, variables)
    return Prompt(without_double_bos(model, _tokens(model, filled.text, messages)), filled.text, filled.remark)


def _tokens(model: Model, text: str, messages: list[dict[str, Any]]) -> list[int]:
    """Of a template's text. Raises UsageError for messages that are no text for a tokenizer, TemplateError where the
    template alone made the text one."""
    try:
        return model.tokenize(text, add_special=True, parse_special=True)
    except UsageError as error:
        model.tokenize(json.dumps(messages, ensure_ascii=False))
        raise TemplateError(f"what it made is no prompt; {error}") from None


def without_double_bos(model: Model, ids: list[int]) -> list[int]:
    """Where the text had BOS itself (equations 14: the double BOS of the official runner)."""
    return ids[1:] if len(ids) > 1 and ids[0] == ids[1] == model.bos else ids


def template_of(model: Model, template: str | None = None) -> str:
    """The template in use: the one given, else the GGUF's own, else ChatML."""
    return template if template is not None else model.chat_template or CHATML


SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # as GGUF spells it
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}


def special_texts(model: Model) -> dict[str, str]:
    """The special tokens under the names that transformers gives them; a token that a model lacks has no name.

    llama.cpp falls back to a fixed id for a BOS or EOS that a file does not name: taken only for a control token."""
    texts = {name: model.metadata(f"tokenizer.ggml.{key}") for name, key in SPECIAL.items()}
    ids = {name: int(text) for name, text in texts.items() if text is not None and text.isdecimal()}
    for name, default in (("bos_token", model.bos), ("eos_token", model.eos)):
        if default >= 0 and llama_cpp.llama_vocab_is_control(model.vocab, default):
            ids.setdefault(name, default)
    return {name: model.token_text(i) for name, i in ids.items() if i < model.n_vocab}


def render_text(
    template: str,
    messages: list[dict[str, Any]],
    bos: str,
    eos: str,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The template's text, ending where the assistant speaks. Raises FormatError for a template that fails."""
    with _as_format_error():
        return fill(template, messages, bos, eos, True, variables).text


@contextmanager
def _as_format_error() -> Iterator[None]:
    try:
        yield
    except TemplateError as error:
        raise FormatError(f"the model's chat template failed ({error}); use --raw to go without it") from None


def fill_template(
    template: str,
    messages: list[dict[str, Any]],
    bos: str,
    eos: str,
    *,
    add_generation_prompt: bool,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The template's text. Raises TemplateError, with the template's own words."""
    return fill(template, messages, bos, eos, add_generation_prompt, variables).text


# ---- filling a template -------------------------------------------------------------------------


@dataclass(frozen=True)
class Filled:
    """A template's text, and what the user should know about it."""

    text: str
    remark: str | None


def fill(
    template: str,
    messages: list[dict[str, Any]],
    bos: str,
    eos: str,
    add_generation_prompt: bool,
    variables: Mapping[str, Any] | None = None,
) -> Filled:
    """The text of the first shape of the messages that the template takes and prints. Raises TemplateError."""
    marks = {name: text for name, text in (("bos_token", bos), ("eos_token", eos)) if text}
    fixed = {**marks, **(variables or {}), "add_generation_prompt": add_generation_prompt}
    failure = None
    for always in (ALWAYS, {}):  # templates meant for calls with tools loop over what is None without them

        def rendered(messages: list[dict[str, Any]], names: Mapping[str, Any] = always) -> str:
            return render_template(template, {**names, **fixed, "messages": messages})

        for shape in shapes([_message(m) for m in messages]):
            try:
                return Filled(_arrived(shape, rendered), shape.remark)
            except TemplateStopped:
                raise
            except TemplateError as error:
                if failure is None or (shape.plain and always):  # the usual shape's reason, not that of a guess
                    failure = error
    raise failure


ALWAYS = {"tools": None, "documents": None}  # as transformers' renderer defines them


def _arrived(shape: Shape, rendered: Callable[[list[dict[str, Any]]], str]) -> str:
    """The shape's text. Raises TemplateError where the template fails, or does not print a message that matters."""
    text = rendered(shape.messages)
    if surely_arrived(shape, text):
        return text
    try:
        role = lost(shape, rendered(probe(shape.messages)))
    except TemplateStopped:
        raise
    except TemplateError:  # a template that looks into the messages, and wants no numbers there
        role = absent(shape, text)
    if role:
        raise TemplateError(f"it does not print the {role}'s message")
    return text


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """As transformers hands a message on: no None, and the reasoning under each name that templates read."""
    message = {key: value for key, value in message.items() if value is not None}
    reasoning = next((message[name] for name in (REASONING, "thinking", "reasoning") if name in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, REASONING: reasoning}

"""Messages to prompt: a conversation and the chat template of its model.

Owns the conversation, its rendering and its file (`/save`, `/load`). Does not generate and does not
print; the template runs in a process of its own (template.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine.model import Model
from ..errors import FormatError
from ..io.atomic import atomic_write
from ..io.reading import read_json
from .template import TemplateError, render_template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROLES = ("system", "user", "assistant")


@dataclass
class Conversation:
    """Messages in order, OpenAI style: {"role": "system" | "user" | "assistant", "content": text}."""

    messages: list[dict[str, str]] = field(default_factory=list)

    def add(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})

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
        return cls([{"role": m["role"], "content": m["content"]} for m in messages])


def _is_message(m: object) -> bool:
    return isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str)


def render(
    model: Model,
    messages: list[dict[str, Any]],
    template: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """Prompt ids of a conversation, ending where the assistant speaks.

    template   Jinja text; None = the GGUF's own, ChatML where it has none
    variables  more names for the template, such as {"enable_thinking": False}

    Control tokens written by the template are read as such; the tokenizer's own BOS is added only where
    the template did not write it. Raises FormatError for a template that fails or does not end.
    """
    bos, eos = model.token_text(model.bos), model.token_text(model.eos)
    text = render_text(template or model.chat_template or CHATML, messages, bos, eos, variables)
    ids = model.tokenize(text, add_special=True, parse_special=True)
    if len(ids) > 1 and ids[0] == ids[1] == model.bos:
        return ids[1:]  # the template had written BOS itself (semantics 5.2: the double BOS of the official runner)
    return ids


def render_text(
    template: str,
    messages: list[dict[str, Any]],
    bos: str,
    eos: str,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The template's text, ending where the assistant speaks. Raises FormatError for a template that fails."""
    try:
        return fill_template(template, messages, bos, eos, add_generation_prompt=True, variables=variables)
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
    return render_template(
        template,
        {
            **(variables or {}),
            "messages": messages,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": bos,
            "eos_token": eos,
        },
    )

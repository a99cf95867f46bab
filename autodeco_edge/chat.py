"""Messages to prompt: the chat template of a model, rendered in a sandbox.

Owns the conversation and its rendering. Does not generate and does not print.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from .errors import FormatError
from .model import Model

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Conversation:
    """Messages in order, OpenAI style: {"role": "system" | "user" | "assistant", "content": text}."""

    messages: list[dict[str, str]] = field(default_factory=list)

    def add(self, role: str, content: str) -> None:
        self.messages.append({"role": role, "content": content})

    def clear(self) -> None:
        """Forget everything but the system message."""
        self.messages = [m for m in self.messages if m["role"] == "system"]


def render(model: Model, messages: list[dict[str, str]]) -> list[int]:
    """Prompt ids of a conversation, ending where the assistant speaks.

    Uses the GGUF's own template, ChatML where it has none. Control tokens written by the
    template are read as such; the tokenizer's own BOS is added only where the template did
    not write it. Raises FormatError for a template that fails.
    """
    text = render_text(
        model.chat_template or CHATML, messages, model.token_text(model.bos), model.token_text(model.eos)
    )
    ids = model.tokenize(text, add_special=True, parse_special=True)
    if len(ids) > 1 and ids[0] == ids[1] == model.bos:
        return ids[1:]  # the template had written BOS itself (semantics 5.2: the double BOS of the official runner)
    return ids


def render_text(template: str, messages: list[dict[str, str]], bos: str, eos: str) -> str:
    """The template's text, ending where the assistant speaks. Raises FormatError for a template that fails."""
    try:
        return fill_template(template, messages, bos, eos, add_generation_prompt=True)
    except Exception as error:  # whatever a foreign template does, RecursionError included
        raise FormatError(f"the model's chat template failed ({error}); use --raw to go without it") from None


def fill_template(
    template: str, messages: list[dict[str, str]], bos: str, eos: str, *, add_generation_prompt: bool
) -> str:
    """The template's text; raises whatever the template does. The sandbox forbids attribute tricks, and a
    template comes from the model file only."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt, bos_token=bos, eos_token=eos
    )


def _refuse(message: str) -> None:
    raise ValueError(message)

"""An engine to talk to: messages in, Steps with their text out.

Owns ``chat``. What a template does with messages is chat.py; everything else is the engine's.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..engine.engine import Engine
from ..engine.generation import Generation
from ..engine.sampler import SamplingParams
from ..errors import UsageError
from .chat import prompt_of

_CONTENT = str | list | None  # parts are a list; a message of tool calls may have none


class ChatEngine(Engine):
    """``autodeco_edge.Engine``: as engine/engine.py has it, and ``chat``."""

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        params: SamplingParams | None = None,
        *,
        max_tokens: int = -1,
        template: str | None = None,
        **options: Any,
    ) -> Generation:
        """A reply to messages ({"role", "content"}), or to one text, through the model's own chat template.

        template  Jinja text in its place; options as in Request

        Raises what ``generate`` raises, UsageError for what is no list of messages, and FormatError for a template that
        fails.

        >>> from autodeco_edge import Engine
        >>> engine = Engine("model.gguf", heads="heads.gguf")
        >>> for step in engine.chat("Find two numbers that make 83.", max_tokens=16):
        ...     print(step.text, step.temperature, step.top_p)
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        ids = prompt_of(self.model, _checked(messages), template).ids
        return self.generate(ids, params, max_tokens=max_tokens, **{"reuse_prefix": True, **options})


def _checked(messages: object) -> list[dict[str, Any]]:
    """Raises UsageError for what is no list of messages."""
    is_list = isinstance(messages, Iterable) and not isinstance(messages, bytes | Mapping)
    found = list(messages) if is_list else [messages]
    wrong = [m for m in found if not (is_list and _is_message(m))]
    if wrong:
        raise UsageError(
            f'messages: allowed a text, or a list of {{"role": "user", "content": "..."}}; got {reprlib.repr(wrong[0])}'
        )
    return [dict(m) for m in found]


def _is_message(m: object) -> bool:
    return isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), _CONTENT)

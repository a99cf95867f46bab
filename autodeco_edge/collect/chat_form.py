"""The text of a prompt, as training data spell it: a chat template filled in, up to the assistant's header.

Owns where the template comes from: a GGUF, or a Hugging Face folder, of which only the tokenizer's configuration is
read. Knows no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..engine.model import Model
from ..errors import FormatError
from ..io.reading import read_json, read_text
from ..tasks import Problem
from ..text.chat import CHATML, render_text

CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"


@dataclass(frozen=True)
class ChatForm:
    """A Jinja template and the two marks that it may write."""

    template: str
    bos: str
    eos: str

    @classmethod
    def of_model(cls, model: Model) -> ChatForm:
        """The GGUF's own, ChatML where it has none, as everywhere in this package."""
        return cls(model.chat_template or CHATML, model.token_text(model.bos), model.token_text(model.eos))

    @classmethod
    def of_folder(cls, folder: str | Path) -> ChatForm:
        """A Hugging Face tokenizer's. Raises MissingInputError, and FormatError where it has no template."""
        path = Path(folder) / CONFIG
        config = _config(path)
        file = Path(folder) / TEMPLATE
        template = read_text(file) if file.is_file() else config.get("chat_template")
        if isinstance(template, list):  # several by name
            named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
            template = named[0].get("template") if named else None
        if not isinstance(template, str):
            raise FormatError(f"{path}: holds no chat template; give --template-from MODEL.gguf, or neither of the two")
        return cls(template, _mark(config.get("bos_token")), _mark(config.get("eos_token")))

    def prompt(self, problem: Problem) -> str:
        """Raises FormatError for a template that fails."""
        return render_text(self.template, list(problem.messages), self.bos, self.eos)


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path, "give a Hugging Face folder", lenient=True)
    if not isinstance(config, dict):
        raise FormatError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config


def _mark(value: Any) -> str:
    """A special token is written as text, or as an object with its text; '' for none."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""

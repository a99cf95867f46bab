"""A GGUF's tokenizer as the training data want one.

Owns the names of transformers that data.py uses. Needs no torch.
"""

from __future__ import annotations

from typing import Any

from ..engine.model import Model
from ..text.chat import fill_template, special_texts, template_of


class GgufTokenizer:
    """llama.cpp's tokenizer and the GGUF's chat template, with the few names of transformers that data.py uses.

    ChatML where the GGUF has no template, as everywhere in this package.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.bos_token_id = model.bos if model.bos >= 0 else None
        self.eos_token = model.token_text(model.eos)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        return {"input_ids": self._model.tokenize(text, add_special=add_special_tokens, parse_special=True)}

    def apply_chat_template(
        self, messages: list[dict[str, Any]], tokenize: bool = False, add_generation_prompt: bool = False
    ) -> str:
        model = self._model
        return fill_template(
            template_of(model),
            messages,
            "",
            "",
            add_generation_prompt=add_generation_prompt,
            variables=special_texts(model),
        )

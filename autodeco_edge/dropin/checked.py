"""llama-cpp-python's model and batch, which check ids and texts before llama.cpp sees them.

Owns the guards of the objects below ``Llama``. Knows neither sampling nor chats.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from llama_cpp import _internals as internals

from ..engine.handle import Handle
from ..engine.model import check_id, check_iterable, metadata, token_bytes
from ..engine.tokenizer import Tokenizer
from ..errors import FormatError, UsageError

_shown: ContextVar[frozenset[int]] = ContextVar("shown", default=frozenset())
TEMPLATE = "tokenizer.chat_template"
_PLACEHOLDER = "{# filled by autodeco_edge #}"


@contextlib.contextmanager
def shown(marks: frozenset[int]) -> Iterator[None]:
    """In this thread, until the block ends, these control tokens have a text."""
    before = _shown.set(marks)
    try:
        yield
    finally:
        _shown.reset(before)


class CheckedModel(internals.LlamaModel):
    """llama-cpp-python's model, which checks ids and texts before llama.cpp sees them.

    no_text    why no text can be made into tokens of it, or None
    templates  its chat templates, by their keys in ``metadata``
    """

    no_text: str | None = None

    def protect(self, native: Handle) -> None:
        """Make a LlamaModel one of these."""
        self.__class__ = CheckedModel
        self._native, self._n_vocab = native, self.n_vocab()
        self._tokenizer = Tokenizer(native, self.vocab, metadata(self.model, "tokenizer.ggml.pre"))
        self.templates: dict[str, str] = {}

    def metadata(self) -> dict[str, str]:
        """As inherited, with a comment for each chat template: llama_cpp.Llama compiles what stands there in this process."""
        found: dict[str, str] = super().metadata()
        self.templates = {k: v for k, v in found.items() if k == TEMPLATE or k.startswith(f"{TEMPLATE}.")}
        return {**found, **dict.fromkeys(self.templates, _PLACEHOLDER)}

    def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
        if self.no_text:
            raise FormatError(self.no_text)
        return self._tokenizer.encode(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> bytes:
        """As inherited, with tokens of more than 32 bytes in full; without the blank that a leading BOS brings."""
        ids = [check_id(t, self._n_vocab) for t in check_iterable(tokens)]
        marks = _shown.get()
        with self._native.call(shared=True):
            text = b"".join(token_bytes(self.vocab, t, special or t in marks) for t in ids)
            return text[1:] if ids and ids[0] == self.token_bos() and text[:1] == b" " else text

    def add_eos_token(self) -> bool:
        """Never: behind a prompt it leaves a model nothing to say (as Model.tokenize)."""
        return False

    def token_sep(self) -> int:
        """None, likewise."""
        return -1

    def token_to_piece(self, token: int, special: bool = False) -> bytes:
        return self._checked(super().token_to_piece, token, special)

    def token_get_text(self, token: int) -> str:
        return self._checked(super().token_get_text, token)

    def token_get_score(self, token: int) -> float:
        return self._checked(super().token_get_score, token)

    def token_get_attr(self, token: int) -> int:
        return self._checked(super().token_get_attr, token)

    def _checked(self, method: Callable[..., Any], token: int, *args: Any) -> Any:
        with self._native.call(shared=True):
            return method(check_id(token, self._n_vocab), *args)


class CheckedBatch(internals.LlamaBatch):
    """llama-cpp-python's batch, which writes into its arrays only where they are."""

    def set_batch(self, batch: Sequence[int], *args: Any, **kwargs: Any) -> None:
        self._check(0, len(batch))
        super().set_batch(batch, *args, **kwargs)

    def add_sequence(self, batch: Sequence[int], *args: Any, **kwargs: Any) -> None:
        self._check(self.batch.n_tokens, len(batch))
        super().add_sequence(batch, *args, **kwargs)

    def _check(self, n_before: int, n: int) -> None:
        if not 0 < n <= self._n_tokens - n_before:
            raise UsageError(f"a batch of {n} tokens: allowed 1 to {self._n_tokens - n_before}; give other text")

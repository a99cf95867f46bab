"""A GGUF model in memory: its weights and its vocabulary.

Owns the llama_model, tokenisation and metadata. Does not own a context, so it cannot generate
(see engine.py), and knows nothing of heads. Any number of threads may use one Model.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp

from ..errors import FormatError, MissingInputError, OutOfMemoryError
from ..gguf.model_check import check_model
from .cpu import extra_buffers_safe
from .handle import Handle, Owner
from .library import log


class Model(Owner):
    """
    path           GGUF file
    n_gpu_layers   layers to offload; -1 = all that llama.cpp can
    extra_buffers  allow repacked weights (AMX and the like); None = when a probe found it safe

    ``close`` ends its use; the weights stay in memory until the last context made from it is closed.

    Raises MissingInputError, FormatError (with llama.cpp's own last words).
    """

    def __init__(
        self, path: str | os.PathLike[str], *, n_gpu_layers: int = 0, extra_buffers: bool | None = None
    ) -> None:
        self.path = Path(path)
        if not os.path.exists(self.path):
            raise MissingInputError(f"{self.path}: no such model file; check the path given to -m")
        self._no_text = check_model(self.path)  # raises what llama.cpp would end the process for
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        params.use_extra_bufts = extra_buffers_safe() if extra_buffers is None else extra_buffers
        log.clear()
        with deferred_interrupt() as interrupted:
            progress = llama_cpp.llama_progress_callback(lambda _fraction, _data: not interrupted)
            params.progress_callback = progress  # False stops the load
            pointer = llama_cpp.llama_model_load_from_file(os.fsencode(self.path), params)
        if not pointer:
            raise FormatError(
                f"{self.path}: llama.cpp cannot load this model ({log.last_error() or 'no reason given'}); "
                "the file is damaged, or its architecture is unknown to this version"
            )
        self.native = Handle("the model", pointer, llama_cpp.llama_model_free)
        self._vocab = llama_cpp.llama_model_get_vocab(pointer)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.n_embd = llama_cpp.llama_model_n_embd(pointer)
        self.n_ctx_train = llama_cpp.llama_model_n_ctx_train(pointer)

    @property
    def handle(self) -> int:
        """The llama_model pointer, for a caller that keeps this Model open. Raises UsageError after close."""
        return self.native.pointer

    @property
    def vocab(self) -> int:
        """The llama_vocab pointer, likewise."""
        self.native.check()
        return self._vocab

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    # ---- metadata ------------------------------------------------------------------

    def metadata(self, key: str) -> str | None:
        """A metadata value as text, or None."""
        buf = ctypes.create_string_buffer(65536)
        n = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buf, len(buf))
        return buf.value.decode("utf-8", "replace") if n >= 0 else None

    @property
    def description(self) -> str:
        buf = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buf, len(buf))
        return buf.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template inside the GGUF."""
        text = llama_cpp.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    # ---- vocabulary ----------------------------------------------------------------

    def tokenize(self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        add_special    add what the tokenizer's own rule adds (BOS for some models)
        parse_special  read control tokens written out in the text
        """
        if self._no_text:
            raise FormatError(self._no_text)
        data = text.encode() if isinstance(text, str) else text
        size = len(data) + 8
        for _ in range(2):
            tokens = (llama_cpp.llama_token * size)()
            n = llama_cpp.llama_tokenize(self.vocab, data, len(data), tokens, size, add_special, parse_special)
            if n >= 0:
                return list(tokens[:n])
            size = -n
        raise FormatError(f"{self.path}: the tokenizer failed on a text of {len(data)} bytes")

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """Bytes of one token; control tokens are empty unless ``special``."""
        size = 64
        for _ in range(2):
            buf = ctypes.create_string_buffer(size)
            n = llama_cpp.llama_token_to_piece(self.vocab, token, buf, size, 0, special)
            if n >= 0:
                return buf.raw[:n]
            size = -n
        return b""

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> bytes:
        return b"".join(self.token_bytes(t, special=special) for t in tokens)

    def is_end(self, token: int) -> bool:
        """Whether a token ends the generation (EOS, EOT and the like)."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    def token_text(self, token: int) -> str:
        """A control token as it is written in a chat template; '' for none."""
        if token < 0:
            return ""
        return llama_cpp.llama_vocab_get_text(self.vocab, token).decode("utf-8", "replace")

    @property
    def bos(self) -> int:
        return llama_cpp.llama_vocab_bos(self.vocab)

    @property
    def eos(self) -> int:
        return llama_cpp.llama_vocab_eos(self.vocab)


@contextmanager
def deferred_interrupt() -> Iterator[list[int]]:
    """Holds Ctrl-C back until the end of the block; yields a list that is not empty once it came.

    llama.cpp calls back into Python (log, progress) while it works, and an exception raised in a ctypes
    callback is printed and lost.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield caught
        return
    before = signal.signal(signal.SIGINT, lambda number, _frame: caught.append(number))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        signal.raise_signal(signal.SIGINT)


def open_context(name: str, model: Model, params, needs: Iterable[Handle], what: str, advice: str) -> Handle:
    """An exclusive Handle of a llama.cpp context that outlives nothing it uses: ``model``, and the samplers ``needs``.

    name  how messages call it: "the engine". Raises as ``new_context``.
    """
    with model.native.call():
        ctx = new_context(model, params, what, advice)
        return Handle(name, ctx, llama_cpp.llama_free, needs=[model.native, *needs], exclusive=True)


def new_context(model: Model, params, what: str, advice: str):
    """A llama.cpp context of ``model``. Raises OutOfMemoryError: no memory for ``what``; ``advice``."""
    log.clear()
    with deferred_interrupt():
        ctx = llama_cpp.llama_init_from_model(model.handle, params)
    if not ctx:
        raise OutOfMemoryError(f"no memory for {what} ({log.last_error() or 'no reason given'}); {advice}")
    return ctx

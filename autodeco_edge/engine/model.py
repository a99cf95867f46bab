"""A GGUF model in memory: its weights and its vocabulary.

Owns the llama_model, tokenisation and metadata. Does not own a context, so it cannot generate
(see engine.py), and knows nothing of heads. Any number of threads may use one Model.
"""

from __future__ import annotations

import ctypes
import operator
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp

from ..errors import FormatError, MissingInputError, OutOfMemoryError, UsageError
from ..gguf.model_check import check_model
from .cpu import extra_buffers_safe
from .devices import add_workers, cpu_buffer_type
from .handle import Handle, Owner
from .library import log
from .tokenizer import Tokenizer, as_bytes

_UNITS = {"B": 10**9, "M": 10**6, "K": 10**3}
_SIZE = re.compile(r" (\?|[\d.]+)([BMK]) ")  # in llama.cpp's words: "llama 7B Q4_0"


class Model(Owner):
    """
    path           GGUF file
    n_gpu_layers   layers to offload; -1 = all that llama.cpp can
    extra_buffers  allow repacked weights (AMX and the like); None = when a probe found it safe
    workers        "host:port" of machines that compute layers, too (devices.py)
    on_progress    called with the share that is loaded, again and again

    ``close`` ends its use; the weights stay in memory until the last context made from it is closed.

    Raises MissingInputError, FormatError (with llama.cpp's own last words), and what add_workers raises.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_gpu_layers: int = 0,
        extra_buffers: bool | None = None,
        workers: Sequence[str] = (),
        on_progress: Callable[[float], object] = lambda _share: None,
    ) -> None:
        self.path = Path(path)
        if not os.path.exists(self.path):
            raise MissingInputError(f"{self.path}: no such model file; give the path of a GGUF file")
        self._no_text = check_model(self.path)  # raises what llama.cpp would end the process for
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        if workers:
            add_workers(workers)
            params.n_gpu_layers = n_gpu_layers or -1
            kept_here = _kept_here()
            params.tensor_buft_overrides = ctypes.addressof(kept_here)
        params.use_extra_bufts = extra_buffers_safe() if extra_buffers is None else extra_buffers
        log.clear()
        with deferred_interrupt() as interrupted:
            progress = llama_cpp.llama_progress_callback(lambda share, _data: (on_progress(share), not interrupted)[1])
            params.progress_callback = progress  # False stops the load
            pointer = llama_cpp.llama_model_load_from_file(os.fsencode(self.path), params)
        if not pointer:
            raise FormatError(
                f"{self.path}: llama.cpp cannot load this model ({log.last_error() or 'no reason given'}); "
                "the file is damaged, or its architecture is unknown to this version"
            )
        self._adopt(Handle("the model", pointer, llama_cpp.llama_model_free))

    def _adopt(self, native: Handle) -> None:
        self.native, pointer = native, native.pointer
        self._vocab = llama_cpp.llama_model_get_vocab(pointer)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._ends: dict[int, bool] = {}  # asked for with every token that is drawn
        self._metadata: dict[str, str | None] = {}  # asked for with every prompt
        self._tokenizer = Tokenizer(native, self._vocab, metadata(pointer, "tokenizer.ggml.pre"))
        self.n_embd = llama_cpp.llama_model_n_embd(pointer)
        self.n_ctx_train = llama_cpp.llama_model_n_ctx_train(pointer)

    @classmethod
    def borrowed(cls, path: str | os.PathLike[str], pointer: int) -> Model:
        """A llama_model that somebody else frees, and keeps open while this is used."""
        self = cls.__new__(cls)
        self.path, self._no_text = Path(path), None
        self._adopt(Handle("the model", pointer, lambda _pointer: None))
        return self

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
        """A metadata value as text, or None. Raises UsageError for a key that is not text."""
        if not isinstance(key, str):
            raise UsageError(f"metadata key: allowed str; got {type(key).__name__}")
        self.native.check()
        if key not in self._metadata:
            with self.native.call() as model:
                self._metadata[key] = metadata(model, key)
        return self._metadata[key]

    @property
    def description(self) -> str:
        """llama.cpp's own words; where its size is none, or the name of another (it goes by the number of layers), the
        number of parameters: "qwen2 5.3M Q8_0"."""
        with self.native.call() as model:
            text = _text(lambda buf, n: llama_cpp.llama_model_desc(model, buf, n)) or ""
            n = llama_cpp.llama_model_n_params(model)
        size = _SIZE.search(text)
        if n and size and not n / 1.5 < float(size[1].replace("?", "0")) * _UNITS[size[2]] < 1.5 * n:
            return text.replace(size[0], f" {_short(n)} ", 1)
        return text

    @property
    def is_recurrent(self) -> bool:
        """Whether some of what it remembers is a state, from which single tokens cannot be taken back."""
        with self.native.call() as model:
            return bool(llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template inside the GGUF."""
        with self.native.call() as model:
            text = llama_cpp.llama_model_chat_template(model, None)
        return text.decode("utf-8", "replace") if text else None

    # ---- vocabulary ----------------------------------------------------------------

    def tokenize(self, text: str | bytes, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text that goes on.

        add_special    BOS in front where the tokenizer's own rule adds one; never the EOS or SEP that some rules add
                       behind, after which a model has nothing more to say
        parse_special  read control tokens written out in the text

        Raises UsageError for what is not text, and for a run of characters that the tokenizer would not survive.
        """
        if self._no_text:
            raise FormatError(self._no_text)
        opening = [self.bos] if add_special and llama_cpp.llama_vocab_get_add_bos(self.vocab) and self.bos >= 0 else []
        return opening + self._tokenizer.encode(text, False, parse_special)

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """Bytes of one token; control tokens are empty unless ``special``. Raises UsageError for an id outside
        the vocabulary, as all that follow do, and FormatError for a model whose tokens have no text."""
        self._check_text()
        token = self._id(token)
        with self.native.call():
            return token_bytes(self._vocab, token, special)

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> bytes:
        self._check_text()
        ids = [self._id(t) for t in check_iterable(tokens)]
        with self.native.call():
            return b"".join(token_bytes(self._vocab, t, special) for t in ids)

    def is_end(self, token: int) -> bool:
        """Whether a token ends the generation (EOS, EOT and the like)."""
        token = self._id(token)
        self.native.check()
        if (is_end := self._ends.get(token)) is None:
            with self.native.call():
                is_end = self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))
        return is_end

    def token_text(self, token: int) -> str:
        """A control token as it is written in a chat template; '' for -1, which is "none"."""
        if isinstance(token, int) and token == -1:
            return ""
        self._check_text()
        token = self._id(token)
        with self.native.call():
            return llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")

    @property
    def has_text(self) -> bool:
        """Whether its tokens have texts: a file may come without a vocabulary."""
        return llama_cpp.llama_vocab_type(self._vocab) != llama_cpp.LLAMA_VOCAB_TYPE_NONE

    def _check_text(self) -> None:
        """llama.cpp ends the process that asks for what is not there."""
        if not self.has_text:
            raise FormatError(f"{self.path}: a model without a vocabulary; its tokens have no text")

    def _id(self, token: int) -> int:
        return check_id(token, self._n_vocab)

    @property
    def bos(self) -> int:
        with self.native.call():
            return llama_cpp.llama_vocab_bos(self._vocab)

    @property
    def eos(self) -> int:
        with self.native.call():
            return llama_cpp.llama_vocab_eos(self._vocab)


def check_id(token: int, n_vocab: int) -> int:
    """The id as an int, whatever integer type it came in. Raises UsageError for one outside the vocabulary."""
    try:
        if isinstance(token, bool):
            raise TypeError
        number = operator.index(token)
    except TypeError:
        raise UsageError(f"token id: allowed 0 to {n_vocab - 1}; got {type(token).__name__}") from None
    if not 0 <= number < n_vocab:
        raise UsageError(f"token id: allowed 0 to {n_vocab - 1}; got {number}")
    return number


def check_iterable(tokens: Iterable[int]) -> Iterable[int]:
    if isinstance(tokens, str | bytes) or not isinstance(tokens, Iterable):
        raise UsageError(f"token ids: allowed a sequence of int; got {type(tokens).__name__}")
    return tokens


def _short(n: int) -> str:
    """ "5.3M" of 5_300_000."""
    for name, size in _UNITS.items():
        if n >= size:
            return f"{n / size:.3g}{name}" if n < 100 * size else f"{n / size:.0f}{name}"
    return str(n)


def metadata(model: int, key: str) -> str | None:
    """A metadata value of a llama_model pointer as text, or None."""
    name = as_bytes(key)
    return _text(lambda buf, n: llama_cpp.llama_model_meta_val_str(model, name, buf, n))


def token_bytes(vocab: int, token: int, special: bool) -> bytes:
    """Bytes of a token that is known to be in the vocabulary."""
    size = 64
    for _ in range(2):
        buf = ctypes.create_string_buffer(size)
        n = llama_cpp.llama_token_to_piece(vocab, token, buf, size, 0, bool(special))
        if n >= 0:
            return buf.raw[:n]
        size = -n
    return b""


def _text(read: Callable[[ctypes.Array[ctypes.c_char], int], int]) -> str | None:
    """What ``read`` writes into a buffer, as snprintf does: the length of the whole, or below 0 for nothing."""
    size = 256
    while True:
        buf = ctypes.create_string_buffer(size)
        n = read(buf, size)
        if n < size:
            return buf.value.decode("utf-8", "replace") if n >= 0 else None
        size = n + 1


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


class _Placing(ctypes.Structure):
    """llama_model_tensor_buft_override"""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def _kept_here() -> ctypes.Array[_Placing]:
    """The output matrix lies on this machine, and so the heads and the draw behind it run here: a worker is sent
    whatever follows its layers, nodes of another process's functions too."""
    return (_Placing * 2)(_Placing(rb"^(output|output_norm|token_embd)\.weight$", cpu_buffer_type()), _Placing())


def new_context(
    model: Model, params: llama_cpp.llama_context_params, what: str, advice: str
) -> llama_cpp.llama_context_p:
    """A llama.cpp context of ``model``. Raises OutOfMemoryError: no memory for ``what``; ``advice``."""
    log.clear()
    with deferred_interrupt():
        ctx = llama_cpp.llama_init_from_model(model.handle, params)
    if not ctx:
        raise OutOfMemoryError(f"no memory for {what} ({log.last_error() or 'no reason given'}); {advice}")
    return ctx

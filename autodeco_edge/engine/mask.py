"""A grammar at work on a vocabulary: the tokens it allows next, as a mask over the logits.

Owns the vocabulary as llguidance wants it (made once a model), and the order of a draw: the mask is written before
it, the token that came is accepted after it. The mask itself is applied in C, in the sampler chain. Knows nothing of
schemas and syntaxes (grammar.py).
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import llama_cpp
import numpy as np

from ..errors import AutodecoError, FormatError, OutOfMemoryError
from .grammar import Grammar
from .native import lib

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_tokenizers: WeakKeyDictionary[Any, LLTokenizer] = WeakKeyDictionary()

# Sets of tokens that llguidance keeps ready: insides of JSON strings, also of those with few characters left.
_SLICES = [r"[\x20\x0A\x0D\x09]+", *(rf'[^"\\\x00-\x1F\x7F]{{1,{n}}}' for n in (3, 10, 30)), r'[^"\\\x00-\x1F\x7F]+']


def append_mask(chain: Any, words: np.ndarray) -> None:
    """Append a mask to a llama_sampler chain, which borrows ``words`` [ceil(V / 32)] uint32: a bit for each token that is
    allowed, read at every draw. Raises OutOfMemoryError."""
    smpl = lib.autodeco_mask_init()
    if not smpl:
        raise OutOfMemoryError("no memory for a sampler")
    lib.autodeco_mask_set(smpl, words.ctypes.data, len(words))
    llama_cpp.llama_sampler_chain_add(chain, ctypes.cast(smpl, llama_cpp.llama_sampler_p_ctypes))


class GrammarMask:
    """A filter for ``Sampler``: a callable that adds to a chain, and is told of each draw.

    grammar  what the replies may be
    owner    the model, by which the vocabulary is remembered; vocab: its llama_vocab pointer

    Belongs to one chain. Raises FormatError for a grammar that llguidance refuses, or a model without an end token.
    """

    def __init__(self, grammar: Grammar, owner: Any, vocab: Any) -> None:
        self._tokenizer = tokenizer = tokenizer_of(owner, vocab)
        self._grammar = grammar
        self._matcher = grammar.matcher(tokenizer)
        self._reply: list[int] = []  # tokens accepted
        self._words = np.zeros((tokenizer.vocab_size + 31) // 32, dtype=np.uint32)  # borrowed by the chain
        self.prepare()  # what is too large for a first mask is refused here, not in the middle of a reply

    def __call__(self, chain: Any) -> None:
        """Append to a llama_sampler chain, which must not outlive this object."""
        append_mask(chain, self._words)

    def prepare(self) -> None:
        """Before a draw: write the mask. Raises FormatError where the grammar grew too complex."""
        self._write_mask()
        if self._matcher.is_error():
            self._begin_again()

    def _write_mask(self) -> None:
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)

    def _begin_again(self) -> None:
        """llguidance gives up where it remembers too much: the reply so far again with a new memory, or more slowly."""
        words = self._matcher.get_error()
        refusal = self._grammar.refusal(words)
        is_row = "Current row has" in words  # of what may follow here, whatever is remembered
        for grammar in (None if is_row else self._grammar, self._grammar.slower()):
            if grammar is None:
                continue
            self._grammar, self._matcher = grammar, grammar.matcher(self._tokenizer)
            if self._matcher.consume_tokens(self._reply):
                self._write_mask()
                if not self._matcher.is_error():
                    return
        raise refusal

    def accept(self, token: int) -> None:
        """After a draw."""
        if self._matcher.is_stopped():
            return
        self._reply.append(token)
        if self._matcher.consume_token(token):
            return
        if not self._matcher.is_error():
            raise AutodecoError(f"token {token} does not follow the grammar; this is a fault of autodeco-edge")
        self._begin_again()

    def reset(self) -> None:
        """A reply begins."""
        self._matcher.reset()
        self._reply.clear()

    def rollback(self, n: int) -> None:
        """Forget the last n tokens accepted."""
        self._matcher.rollback(n)
        del self._reply[len(self._reply) - n :]

    def allowed(self, n_vocab: int) -> np.ndarray:
        """bool [n_vocab]: the mask that was written last."""
        bits = np.unpackbits(self._words.view(np.uint8), bitorder="little")[:n_vocab].astype(bool)
        return np.pad(bits, (0, n_vocab - len(bits)))

    @property
    def is_complete(self) -> bool:
        """Whether the reply so far is a whole one."""
        return self._matcher.is_accepting()


def tokenizer_of(owner: Any, vocab: Any) -> LLTokenizer:
    """The vocabulary of ``owner``, made on first use: a second for 150,000 tokens. Raises FormatError without an end token."""
    if owner not in _tokenizers:
        _tokenizers[owner] = _make_tokenizer(vocab)
    return _tokenizers[owner]


def _make_tokenizer(vocab: Any) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    tokens = [_piece(vocab, token) for token in range(llama_cpp.llama_vocab_n_tokens(vocab))]
    ends = [token for token in range(len(tokens)) if llama_cpp.llama_vocab_is_eog(vocab, token)]
    if not ends:
        raise FormatError("this model has no end token, by which a reply that follows a grammar could end")
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokens, ends)), eos_token=ends, slices=_SLICES)


class _Vocabulary:
    """tokens: bytes as they are shown; those that are not shown, and the end tokens, begin with FF and can only be meant
    by a grammar that names them."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], ends: list[int]) -> None:
        self.tokens, self.eos_token_id = tokens, ends[0]
        self.special_token_ids = [i for i, data in enumerate(tokens) if data.startswith(b"\xff<")]

    def __call__(self, text: bytes | str) -> list[int]:
        """llguidance asks for ids of a text only where it forces tokens, which grammar.py forbids."""
        raise NotImplementedError


def _piece(vocab: Any, token: int) -> bytes:
    data = b"" if llama_cpp.llama_vocab_is_eog(vocab, token) else _bytes(vocab, token, False)
    return data or b"\xff" + (_bytes(vocab, token, True) or b"<%d>" % token)


def _bytes(vocab: Any, token: int, special: bool) -> bytes:
    size = 128
    while True:
        buffer = ctypes.create_string_buffer(size)
        n = llama_cpp.llama_token_to_piece(vocab, token, buffer, size, 0, special)
        if n >= 0:
            return buffer.raw[:n]
        size = -n

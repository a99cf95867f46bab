"""Text to token ids by llama.cpp's tokenizer, which some texts would make overflow the stack.

Owns the call, the room it gets, and the bound beyond which a text is refused. Does not own a vocabulary.

For most pre-tokenizers llama.cpp matches a regular expression of libstdc++, which recurses at every character of
a match: 332 bytes of stack each, measured over every pre-tokenizer it knows (docs/decisions/0026-tokenizer-stack.md). A match lies
within a run without blanks, or a run of blanks, and the character or newlines beside it. So the tokenizer runs in a
thread whose stack holds two of the longest run, and the ids are its own.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable

import llama_cpp

from ..errors import FormatError, OutOfMemoryError, UsageError
from .handle import Handle

LONGEST_RUN = 100_000  # characters; its match takes 33 MB of stack, and SentencePiece is quadratic: 5 s at most
LONGEST_NUMBER = 6_000  # digits, where the expression looks ahead over all of them at every digit
_SMALL = 512  # bytes that any thread's stack has room for
_STACK_PER_CHARACTER = 400
_STACK_BESIDES = 1 << 20
_BLANKS = re.compile(
    r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
)  # all that llama.cpp takes for one
_NEWLINES = re.compile(r"[\r\n]+")
_NUMBER = re.compile(rf"\d{{{LONGEST_NUMBER + 1}}}")
_start = threading.Lock()  # the size of a stack is a setting of the process


class Tokenizer:
    """
    native  the Handle that the vocabulary lives and dies with
    vocab   llama_vocab pointer
    pre     name of the pre-tokenizer ("tokenizer.ggml.pre"): two of them match more than a run
    """

    def __init__(self, native: Handle, vocab: int, pre: str | None) -> None:
        self._native, self._vocab = native, vocab
        self._ends = (_BLANKS, _NEWLINES) if pre == "exaone-moe" else (_BLANKS,)  # its words go on over single blanks
        self._number = _NUMBER if pre == "superbpe" else None

    def encode(self, text: str | bytes, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids. Raises UsageError for a run of more than LONGEST_RUN characters without a blank, or of blanks."""
        data = as_bytes(text)

        def call() -> list[int]:
            with self._native.call(shared=True):
                return _tokenize(self._vocab, data, bool(add_special), bool(parse_special))

        if len(data) <= _SMALL:
            return call()
        if self._number and self._number.search(data.decode("utf-8", "replace")):
            raise UsageError(f"text: this model's tokenizer takes numbers of {LONGEST_NUMBER} digits at most; split it")
        return _on_a_stack(_STACK_BESIDES + _STACK_PER_CHARACTER * self._longest_match(data), call)

    def _longest_match(self, data: bytes) -> int:
        """Characters that one match may span, at most."""
        if len(data) <= LONGEST_RUN:
            return len(data)
        text = data.decode("utf-8", "replace")
        longest = max(_longest_run(text, end) for end in self._ends)
        if longest > LONGEST_RUN:
            raise UsageError(
                f"text: allowed {LONGEST_RUN} characters in a row without a blank, or blanks in a row; got {longest}; "
                "break it up"
            )
        return 2 * longest + 2


def _longest_run(text: str, ends: re.Pattern[str]) -> int:
    """Of characters between ``ends``, or of ``ends``."""
    return max(*map(len, ends.split(text)), *(len(run) for run in ends.findall(text)), 0)


def as_bytes(text: str | bytes) -> bytes:
    """UTF-8. Raises UsageError for anything but text, and for half a surrogate pair."""
    if isinstance(text, str):
        try:
            return text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"text: character {error.start} is half a surrogate pair; give valid Unicode") from None
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    raise UsageError(f"text: allowed str or bytes; got {type(text).__name__}")


def _on_a_stack(size: int, call: Callable[[], list[int]]) -> list[int]:
    """The result of ``call`` in a thread with ``size`` bytes of stack; a daemon, so that Ctrl-C need not wait for it."""
    results: list[list[int]] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="autodeco tokenizer", daemon=True)
    with _start:
        before = threading.stack_size((size // 4096 + 1) * 4096)
        try:
            thread.start()
        except RuntimeError as error:
            raise OutOfMemoryError(f"no thread with {size >> 20} MiB of stack for the tokenizer ({error})") from None
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _tokenize(vocab: int, data: bytes, add_special: bool, parse_special: bool) -> list[int]:
    size = len(data) + 8
    for _ in range(2):
        tokens = (llama_cpp.llama_token * size)()
        n = llama_cpp.llama_tokenize(vocab, data, len(data), tokens, size, add_special, parse_special)
        if n >= 0:
            return list(tokens[:n])
        size = -n
    raise FormatError(f"the tokenizer failed on a text of {len(data)} bytes")


def _after_fork() -> None:
    global _start
    _start = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

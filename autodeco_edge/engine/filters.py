"""What a user puts between the logits and the learned cut: grammar, bias, penalties and top-k.

Owns their order and limits. They are llama.cpp's own
samplers, appended to the chain behind the heads (``Sampler(filters=...)``); the heads never see what
they do to the logits (semantics 3.2). Does not generate.

Official order: grammar, logit bias, penalties, temperature, min-p, top-k, top-p. Here top-k comes before
the temperature and min-p, which is the same set: none of the three changes the order of the tokens, and
min-p looks at the largest one only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import llama_cpp

from ..errors import FormatError, UsageError, check_range
from ..io.reading import check_text, read_text
from .model import Model
from .schema import schema_grammar

Filter = Callable[[int], None]

_WHOLE_REPLY = 2**20  # llama.cpp itself takes -1 for no window at all


@dataclass(frozen=True)
class FilterParams:
    """
    grammar            GBNF text, or None
    logit_bias         token id to a number added to its logit
    repeat_penalty     > 1 divides the logits of tokens in the window (multiplies negative ones)
    frequency_penalty  subtracted once for every time a token stands in the window
    presence_penalty   subtracted once
    repeat_last_n      tokens of the window, 0 = off, -1 = the whole reply; the prompt is not in it
    top_k              most likely tokens kept, 0 = all

    Raises UsageError outside the ranges.
    """

    grammar: str | None = None
    logit_bias: dict[int, float] = field(default_factory=dict)
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    top_k: int = 0

    def __post_init__(self) -> None:
        check_range("repeat penalty", self.repeat_penalty, 0.01, 10.0, "1 = off")
        check_range("frequency penalty", self.frequency_penalty, -2.0, 2.0, "0 = off")
        check_range("presence penalty", self.presence_penalty, -2.0, 2.0, "0 = off")
        check_range("repeat window", self.repeat_last_n, -1, 2**20, "0 = off, -1 = the whole reply")
        check_range("top-k", self.top_k, 0, 2**31 - 1, "0 = off")
        for bias in self.logit_bias.values():
            check_range("logit bias", bias, -100.0, 100.0)

    @property
    def _penalised(self) -> bool:
        penalties = self.repeat_penalty, self.frequency_penalty, self.presence_penalty
        return penalties != (1.0, 0.0, 0.0) and self.repeat_last_n != 0

    def build(self, model: Model) -> tuple[Filter, ...]:
        """The filters for a Sampler, none where everything is off. Raises FormatError for a wrong grammar,
        UsageError for a token that the vocabulary does not have."""
        filters = []
        if self.grammar is not None:
            check_grammar(model, self.grammar)
            filters.append(_adder(lambda: _grammar(model, self.grammar)))
        if self.logit_bias:
            filters.append(_bias(model, self.logit_bias))
        if self._penalised:
            window = self.repeat_last_n if self.repeat_last_n >= 0 else _WHOLE_REPLY
            penalties = self.repeat_penalty, self.frequency_penalty, self.presence_penalty
            filters.append(_adder(lambda: llama_cpp.llama_sampler_init_penalties(model.n_vocab, window, *penalties)))
        if 0 < self.top_k < model.n_vocab:  # llama.cpp may put it into the graph, where a larger k aborts
            filters.append(_adder(lambda: llama_cpp.llama_sampler_init_top_k(self.top_k)))
        return tuple(filters)


def _adder(make: Callable[[], object]) -> Filter:
    def add(chain: int) -> None:
        llama_cpp.llama_sampler_chain_add(chain, make())

    return add


def _bias(model: Model, biases: dict[int, float]) -> Filter:
    for token in biases:
        check_range("logit bias, token id", token, 0, model.n_vocab - 1)
    array = (llama_cpp.llama_logit_bias * len(biases))()
    for entry, (token, bias) in zip(array, biases.items(), strict=True):
        entry.token, entry.bias = token, bias
    return _adder(lambda: llama_cpp.llama_sampler_init_logit_bias(model.n_vocab, len(array), array))


# ---- grammars -------------------------------------------------------------------------------


def _grammar(model: Model, text: str):
    return llama_cpp.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")


def check_grammar(model: Model, text: str) -> None:
    """Raises FormatError, with llama.cpp's own words, unless ``text`` is GBNF with a rule named root."""
    with _captured_stderr() as words:
        sampler = _grammar(model, text)
    if not sampler:
        reason = " ".join("".join(words).split()) or "llama.cpp gave no reason"
        raise FormatError(f"the grammar was refused ({reason}); it needs GBNF with a rule named root")
    llama_cpp.llama_sampler_free(ctypes.cast(sampler, llama_cpp.llama_sampler_p_ctypes))


@contextlib.contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """What C code prints to stderr, as text in the list once the block ends: llama.cpp's grammar parser knows
    no other way to say what is wrong."""
    words: list[str] = []
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield words
        finally:
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            words.append(file.read().decode("utf-8", "replace"))


def read_text_or_file(value: str, is_text: Callable[[str], bool], what: str) -> str:
    """``value`` itself where it looks like the text, else the file of that name. Raises MissingInputError."""
    value = value.removeprefix("\ufeff")
    if is_text(value):
        return check_text(value, what)
    return read_text(value, f"give {what} a file or the text itself", limit=2**24, streams=True)


def read_grammar(grammar: str | os.PathLike[str] | None, json_schema: str | os.PathLike[str] | None) -> str | None:
    """GBNF of --grammar or --json-schema, each a file or the text itself; None without either. Raises UsageError for both."""
    if grammar is not None and json_schema is not None:
        raise UsageError("--grammar and --json-schema exclude each other; choose one")
    if grammar is not None:
        return read_text_or_file(str(grammar), lambda s: "::=" in s, "--grammar")
    if json_schema is not None:
        return schema_grammar(
            read_text_or_file(str(json_schema), lambda s: s.lstrip().startswith("{"), "--json-schema")
        )
    return None

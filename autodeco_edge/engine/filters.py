"""What a user puts between the logits and the learned cut: grammar, bias, penalties and top-k.

Owns their order and limits. They are llama.cpp's own samplers, and the mask of a grammar (mask.py), appended to the
chain behind the heads (``Sampler(filters=...)``); the heads never see what they do to the logits (equations 4).
Does not generate.

Official order: grammar, logit bias, penalties, temperature, min-p, top-k, top-p. Here top-k comes before
the temperature and min-p, which is the same set: none of the three changes the order of the tokens, and
min-p looks at the largest one only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import llama_cpp

from ..errors import UsageError, check_range
from ..io.reading import check_text, read_text
from .grammar import Grammar, is_lark
from .mask import GrammarMask
from .model import Model

Filter = Callable[[int], None]

_WHOLE_REPLY = 2**20  # llama.cpp itself takes -1 for no window at all


@dataclass(frozen=True)
class FilterParams:
    """
    grammar            a Grammar, GBNF or Lark text, or None
    logit_bias         token id to a number added to its logit
    repeat_penalty     > 1 divides the logits of tokens in the window (multiplies negative ones)
    frequency_penalty  subtracted once for every time a token stands in the window
    presence_penalty   subtracted once
    repeat_last_n      tokens of the window, 0 = off, -1 = the whole reply; the prompt is not in it
    top_k              most likely tokens kept, 0 = all

    Raises UsageError outside the ranges.
    """

    grammar: Grammar | str | None = None
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

    def build(self, model: Model) -> tuple[Filter, ...]:
        """The filters for one Sampler, none where everything is off. Raises FormatError for a grammar that is
        refused, UsageError for a token that the vocabulary does not have."""
        filters: list[Filter] = []
        if self.grammar is not None:
            grammar = Grammar.from_text(self.grammar) if isinstance(self.grammar, str) else self.grammar
            filters.append(GrammarMask(grammar, model, model.vocab))
        if self.logit_bias:
            filters.append(_bias(model, self.logit_bias))
        window = self.repeat_last_n if self.repeat_last_n >= 0 else _WHOLE_REPLY
        penalties = self.repeat_penalty, self.frequency_penalty, self.presence_penalty
        return (*filters, *penalties_and_top_k(model.n_vocab, window, penalties, self.top_k))


def penalties_and_top_k(
    n_vocab: int, window: int, penalties: tuple[float, float, float], top_k: int
) -> Iterator[Filter]:
    """Those that change anything. penalties: repeat, frequency and presence, over the last ``window`` tokens."""
    if window and penalties != (1.0, 0.0, 0.0):
        yield _adder(lambda: llama_cpp.llama_sampler_init_penalties(n_vocab, window, *penalties))
    if 0 < top_k < n_vocab:  # llama.cpp may put it into the graph, where a larger k aborts
        yield _adder(lambda: llama_cpp.llama_sampler_init_top_k(top_k))


def _adder(make: Callable[[], object]) -> Filter:
    def add(chain: int) -> None:
        sampler = make()
        if not sampler:
            raise UsageError("a penalty was refused by llama.cpp; check its range")
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    return add


def _bias(model: Model, biases: dict[int, float]) -> Filter:
    for token in biases:
        check_range("logit bias, token id", token, 0, model.n_vocab - 1)
    array = (llama_cpp.llama_logit_bias * len(biases))()
    for entry, (token, bias) in zip(array, biases.items(), strict=True):
        entry.token, entry.bias = token, bias
    return _adder(lambda: llama_cpp.llama_sampler_init_logit_bias(model.n_vocab, len(array), array))


# ---- grammars -------------------------------------------------------------------------------


def read_text_or_file(value: str, is_text: Callable[[str], bool], what: str) -> str:
    """``value`` itself where it looks like the text, else the file of that name. Raises MissingInputError."""
    value = value.removeprefix("\ufeff")
    if not value.strip():
        raise UsageError(f"{what}: the text is empty; give a file or the text itself")
    if is_text(value):
        return check_text(value, what)
    return read_text(value, f"give {what} a file or the text itself", limit=2**24, streams=True)


def read_grammar(
    grammar: str | os.PathLike[str] | None, json_schema: str | os.PathLike[str] | None, regex: str | None = None
) -> Grammar | None:
    """The grammar of --grammar or --json-schema, each a file or the text itself, or of --regex; None without any.

    Raises UsageError for more than one, FormatError for what is refused.
    """
    if sum(given is not None for given in (grammar, json_schema, regex)) > 1:
        raise UsageError("--grammar, --json-schema and --regex exclude each other; choose one")
    if grammar is not None:
        return Grammar.from_text(read_text_or_file(str(grammar), lambda s: "::=" in s or is_lark(s), "--grammar"))
    if json_schema is not None:
        return Grammar.from_schema(read_text_or_file(str(json_schema), _is_json, "--json-schema"))
    return None if regex is None else Grammar.from_regex(regex)


def _is_json(text: str) -> bool:
    return text.lstrip().startswith(("{", "[", '"')) or text.strip() in ("true", "false", "null", "")

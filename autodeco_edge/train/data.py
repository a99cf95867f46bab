"""Training data: a JSONL file becomes token ids with a completion mask.

Owns the record formats and tokenisation (equations 6). Knows nothing of models, and needs no torch.

    {"prompt": "...", "completion": "..."}        text, already in chat form
    {"messages": [{"role": ..., "content": ...}]} the last message is the completion
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ..errors import FormatError, MissingInputError
from ..io.reading import is_text, parse_json


class TokenizerLike(Protocol):
    """What this file asks of a tokenizer: a transformers one as it is, or GgufTokenizer.

    Control tokens written out in the text are read as such.
    """

    bos_token_id: int | None
    eos_token: str | None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """{"input_ids": ids}"""

    def apply_chat_template(
        self, messages: list[dict[str, Any]], tokenize: bool = True, add_generation_prompt: bool = False
    ) -> str:
        """The template's text (tokenize is always False here)."""


@dataclass(frozen=True)
class TrainingSample:
    """ids: prompt, then completion; the first n_prompt ids carry no loss. index: its place in the data set."""

    ids: list[int]
    n_prompt: int
    index: int = 0

    @property
    def first(self) -> int:
        """Index of the first id with a loss; position 0 is predicted by nothing."""
        return max(self.n_prompt, 1)


# (record, "file:line", its number in the file from 0) -> records that have its completion and another prompt
Variants = Callable[[dict[str, Any], str, int], Sequence[dict[str, Any]]]


@dataclass
class Dataset:
    """Samples, and how many records were cut at max_length, or had an empty answer or none left after the cut.

    variants: by a sample's index, those of its record, if variants were asked for; they have indices of their own.
    """

    samples: list[TrainingSample]
    n_truncated: int = 0
    n_dropped: int = 0
    variants: dict[int, tuple[TrainingSample, ...]] = field(default_factory=dict)

    @property
    def all(self) -> list[TrainingSample]:
        """The samples, then their variants."""
        return [*self.samples, *(variant for group in self.variants.values() for variant in group)]


def load_dataset(
    path: str | Path, tokenizer: TokenizerLike, max_length: int, variants: Variants | None = None
) -> Dataset:
    """Read and tokenise a JSONL file; ``max_length`` in tokens, the first ones are kept.

    A sample and its variants keep equally many tokens of the completion: what fits after the longest prompt.

    Raises MissingInputError, and FormatError naming file:line for a bad record.
    """
    encode = Encoder(tokenizer)
    data = Dataset([])
    for number, (where, record) in enumerate(read_records(path)):
        records = [record, *(variants(record, where, number) if variants else ())]
        group = [_sample_of(r, where, tokenizer, encode) for r in records]
        data.n_truncated += any(len(sample.ids) > max_length for sample in group)
        group = _cut(group, max_length, first_index=len(data.samples) * len(group))
        if all(sample.first < len(sample.ids) for sample in group):
            data.samples.append(group[0])
            data.variants |= {group[0].index: tuple(group[1:])} if variants else {}
        else:
            data.n_dropped += 1
    if not data.samples:
        raise FormatError(
            f"{path}: no completion left within {max_length} tokens, {data.n_dropped} records dropped; "
            "add records with an answer or raise --max-length"
        )
    return data


def _sample_of(record: dict[str, Any], where: str, tokenizer: TokenizerLike, encode: Encoder) -> TrainingSample:
    """Without ids where the completion is empty."""
    if "messages" in record:
        prompt, completion = _chat_texts(_messages(record["messages"], where), where, tokenizer)
    else:
        prompt, completion = _text(record, "prompt", where), _text(record, "completion", where)
    return encode(prompt, completion) if completion else TrainingSample([], 0)


def _cut(group: list[TrainingSample], max_length: int, first_index: int) -> list[TrainingSample]:
    room = min(max_length - sample.n_prompt for sample in group)  # for the completion
    return [
        replace(sample, ids=sample.ids[: max(0, sample.n_prompt + room)], index=first_index + i)
        for i, sample in enumerate(group)
    ]


# ---- records -----------------------------------------------------------------------


def read_records(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", object) of each non-empty line. Raises MissingInputError, FormatError."""
    path = Path(path)
    if not os.path.isfile(path):
        raise MissingInputError(f"{path}: no such file; expected JSONL with prompt and completion, or messages")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    record = parse_json(line, where, "expected one object a line", lenient=True)
    if not isinstance(record, dict):
        raise FormatError(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def _text(record: dict[str, Any], name: str, where: str, may_be_empty: bool = True) -> str:
    if name not in record:
        raise FormatError(f'{where}: field "{name}" missing; expected prompt and completion, or messages')
    value = record[name]
    if not isinstance(value, str):
        raise FormatError(f'{where}: "{name}" must be a string, got {type(value).__name__}')
    if not (value or may_be_empty):
        raise FormatError(f'{where}: "{name}" is empty; expected a name such as user or assistant')
    if not is_text(value):
        raise FormatError(f'{where}: "{name}" is not valid Unicode (surrogates not allowed); write the text again')
    return value


def _messages(messages: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise FormatError(f'{where}: "messages" must be a list of objects with role and content')
    if len(messages) < 2 or messages[-1].get("role") != "assistant":
        raise FormatError(f'{where}: "messages" must be at least two, the last with role "assistant"')
    for message in messages:
        _text(message, "role", where, may_be_empty=False)
        _text(message, "content", where)
    return messages


def _chat_texts(messages: list[dict[str, Any]], where: str, tokenizer: TokenizerLike) -> tuple[str, str]:
    """The template's text before and of the last message; only that message is the completion."""
    try:
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        full = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # a template is a program: it may raise anything
        raise FormatError(f"{where}: the base's chat template failed ({error}); use prompt and completion") from error
    if not full.startswith(prompt):  # a template that rewrites history
        return prompt, messages[-1]["content"]
    if not messages[-1]["content"]:  # what the template writes around it is no answer
        return prompt, ""
    eos, completion = tokenizer.eos_token, full[len(prompt) :]
    return prompt, completion.rstrip() if eos and completion.rstrip().endswith(eos) else completion


# ---- tokens ------------------------------------------------------------------------


class Encoder:
    """prompt, completion -> TrainingSample, as in equations 6.

    The official code drops the first id of every text, meant for a BOS that the tokenizer
    adds before a text that spells its own. Here exactly that BOS is left out, nothing else.
    """

    def __init__(self, tokenizer: TokenizerLike) -> None:
        self._tokenizer = tokenizer
        self._bos = tokenizer.bos_token_id
        first = tokenizer("a")["input_ids"][:1]
        self._adds_bos = self._bos is not None and first == [self._bos]

    def __call__(self, prompt: str, completion: str) -> TrainingSample:
        eos = self._tokenizer.eos_token or ""
        if not completion.endswith(eos):
            completion += eos
        n_prompt = len(self._ids(prompt))
        return TrainingSample(self._ids(prompt + completion), n_prompt)

    def _ids(self, text: str) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self._bos, *ids] if self._adds_bos and ids[:1] != [self._bos] else ids

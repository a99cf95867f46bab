"""Teacher forcing: heads and constants on text that is given, and how a quantised model drifts from another.

Owns the pass over texts and what is measured at a position. A measure without generation is cheap, and two
models can be compared on the very same tokens.

    soft nucleus   r as in training (paper section 3, equations 8): the log-probability of a token outside the
                   nucleus is finite, so that a mean over tokens exists
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.model import Model
from ..engine.pairing import check_heads, open_heads
from ..engine.sampler import SamplingParams, Step
from ..errors import MismatchError, NoHeadsError, UsageError
from ..io.reading import user_path
from ..spec.heads import softmax
from ..spec.soft_nucleus import EPSILON, MIN_TEMPERATURE, soft_nucleus
from ..train.data import load_dataset
from ..train.gguf_states import HiddenStates
from ..train.gguf_tokenizer import GgufTokenizer
from .methods import CARD
from .statistics import bootstrap, paired_bootstrap


@dataclass(frozen=True)
class Text:
    """ids: prompt, then completion; first: index of the completion's first id, at least 1."""

    ids: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class ModelVariant:
    """A model with its heads. heads: file, or None for those inside the model."""

    name: str
    model: Path
    heads: Path | None = None


def parse_variant(text: str) -> ModelVariant:
    """From NAME=MODEL.gguf[,HEADS.gguf]. Raises UsageError."""
    name, equals, files = text.partition("=")
    model, _, heads = files.partition(",")
    if not (name and equals and model):
        raise UsageError(f"variant: expected NAME=MODEL.gguf[,HEADS.gguf]; got {text!r}")
    return ModelVariant(name, user_path(model), user_path(heads) if heads else None)


def read_texts(path: Path, variant: ModelVariant, limit: int, max_length: int) -> list[Text]:
    """The first ``limit`` texts of a training file, in the tokens of one model. Raises what load_dataset raises."""
    with closing(Model(variant.model)) as model:
        samples = load_dataset(path, GgufTokenizer(model), min(max_length, model.n_ctx_train)).samples
    return [Text(tuple(sample.ids), sample.first) for sample in samples[:limit]]


@dataclass
class Forced:
    """What one variant makes of one text of m completion tokens.

    temperature, top_p  [m] of the heads        drawn, likeliest  [m] ids: drawn with fixed random numbers, argmax
    logprob             {setting: [m]} nats under the soft nucleus
    outside             {setting: [m]} the given token lies outside the hard nucleus
    """

    temperature: np.ndarray
    top_p: np.ndarray
    drawn: np.ndarray
    likeliest: np.ndarray
    logprob: dict[str, np.ndarray]
    outside: dict[str, np.ndarray]


def soft_logprob(logits: np.ndarray, label: int, temperature: float, top_p: float) -> tuple[float, bool]:
    """(ln r_label, label outside the hard nucleus) for raw logits [n_vocab] at T and P (equations 5, 8)."""
    r = soft_nucleus(logits, temperature, top_p)[label]
    q = softmax(logits.astype(np.float64) / max(temperature, MIN_TEMPERATURE))
    before = logits > logits[label]
    before[:label] |= logits[:label] == logits[label]  # of equal ones the lower id comes first
    outside = before.any() and top_p < 1.0 and q[before].sum() >= top_p
    return float(np.log(r + EPSILON)), bool(outside)


class Reader:
    """One variant, ready to read texts."""

    def __init__(self, variant: ModelVariant, n_ctx: int, n_threads: int = 0) -> None:
        self.model = Model(variant.model)
        self.heads = open_heads(variant.heads or "auto", variant.model)
        if self.heads is None:
            raise NoHeadsError(f"{variant.model}: has no heads inside; name them as {variant.name}=MODEL,HEADS")
        check_heads(self.heads, self.model.handle, variant.model)
        self.states = HiddenStates(self.model, n_ctx, n_threads)

    def read(self, text: Text, constants: dict[str, tuple[float, float]]) -> Forced:
        steps: list[Step] = []
        names = ("heads", *constants)
        found: dict[str, list[tuple[float, bool]]] = {name: [] for name in names}
        likeliest: list[int] = []
        for position, (hidden, logits) in self._positions(text):
            step = self.heads.step(hidden, logits, SamplingParams(seed=0), position)
            steps.append(step)
            likeliest.append(int(np.argmax(logits)))
            settings = {"heads": (step.temperature_eff, step.top_p_eff), **constants}
            for name in names:
                found[name].append(soft_logprob(logits, text.ids[position + 1], *settings[name]))
        return Forced(
            temperature=np.array([s.temperature_eff for s in steps]),
            top_p=np.array([s.top_p_eff for s in steps]),
            drawn=np.array([s.id for s in steps]),
            likeliest=np.array(likeliest),
            logprob={name: np.array([x for x, _ in found[name]]) for name in names},
            outside={name: np.array([x for _, x in found[name]]) for name in names},
        )

    def _positions(self, text: Text) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        """(position, (hidden [H], logits [V])) of every position that predicts a completion token."""
        position = 0
        for hidden, logits in self.states.with_logits(text.ids[:-1]):
            for row in range(len(hidden)):
                if position >= text.first - 1:
                    yield position, (hidden[row], logits[row])
                position += 1

    def close(self) -> None:
        self.states.close()
        self.model.close()


# ---- several variants on the same texts ----------------------------------------------------


def compare(variants: Sequence[ModelVariant], texts: Sequence[Text], *, n_threads: int = 0) -> dict[str, Any]:
    """Every variant on every text, and each against the first.

    The constants beside the heads are T = 1 / P = 1, the model card's, and the mean T and P that the variant's own
    heads give to the other half of the texts (each half is the other's calibration). Raises UsageError (no or
    doubled variants, no text), MismatchError (models of different vocabularies), what Model and Heads raise.
    """
    _check(variants, texts)
    forced = {v.name: _read_all(v, texts, n_threads) for v in variants}
    first = forced[variants[0].name]
    return {
        "n_texts": len(texts),
        "n_tokens": int(sum(len(f.temperature) for f in first)),
        "variants": {name: _likelihood(found) for name, found in forced.items()},
        "drift": {v.name: _drift(first, forced[v.name]) for v in variants[1:]},
        "reference": variants[0].name,
    }


def _check(variants: Sequence[ModelVariant], texts: Sequence[Text]) -> None:
    if not variants:
        raise UsageError("give at least one model as --variant NAME=MODEL.gguf[,HEADS.gguf]")
    if len({v.name for v in variants}) < len(variants):
        raise UsageError(f"variants: each name once; got {', '.join(v.name for v in variants)}")
    if len(texts) < 2:
        raise UsageError(f"texts: at least 2 are needed for an interval; got {len(texts)}")


def _read_all(variant: ModelVariant, texts: Sequence[Text], n_threads: int) -> list[Forced]:
    """Means of T and P on either half become the constants of the other."""
    with closing(Reader(variant, max(len(t.ids) for t in texts), n_threads)) as reader:
        top = max(max(t.ids) for t in texts)
        if top >= reader.model.n_vocab:
            raise MismatchError(
                f"{variant.model}: token {top} of the texts is beyond its vocabulary of {reader.model.n_vocab}"
            )
        means = [_means(reader, texts[half::2]) for half in (0, 1)]
        fixed = {"default": (1.0, 1.0), "card": CARD}
        return [reader.read(text, {**fixed, "mean-shift": means[1 - i % 2]}) for i, text in enumerate(texts)]


def _means(reader: Reader, texts: Sequence[Text]) -> tuple[float, float]:
    found = [reader.read(text, {}) for text in texts]
    return tuple(float(np.concatenate([getattr(f, name) for f in found]).mean()) for name in ("temperature", "top_p"))


def _likelihood(found: Sequence[Forced]) -> dict[str, Any]:
    """Nats a token by setting, a text at a time, with 95 % intervals over texts."""
    means = {name: np.array([f.logprob[name].mean() for f in found]) for name in found[0].logprob}
    return {
        "mean_temperature": float(np.concatenate([f.temperature for f in found]).mean()),
        "mean_top_p": float(np.concatenate([f.top_p for f in found]).mean()),
        "settings": {
            name: {
                "logprob": asdict(bootstrap(values)),
                "heads_minus_it": asdict(paired_bootstrap(means["heads"], values)),
                "outside": float(np.concatenate([f.outside[name] for f in found]).mean()),
            }
            for name, values in means.items()
        },
    }


def _drift(first: Sequence[Forced], other: Sequence[Forced]) -> dict[str, float]:
    """How far T, P and tokens lie apart on the same prefix, over all positions."""

    def column(found: Sequence[Forced], name: str) -> np.ndarray:
        return np.concatenate([getattr(f, name) for f in found])

    d_t = np.abs(column(first, "temperature") - column(other, "temperature"))
    d_p = np.abs(column(first, "top_p") - column(other, "top_p"))
    return {
        "mean_abs_dT": float(d_t.mean()),
        "p99_abs_dT": float(np.quantile(d_t, 0.99)),
        "mean_abs_dP": float(d_p.mean()),
        "p99_abs_dP": float(np.quantile(d_p, 0.99)),
        "same_likeliest": float((column(first, "likeliest") == column(other, "likeliest")).mean()),
        "same_drawn": float((column(first, "drawn") == column(other, "drawn")).mean()),
    }

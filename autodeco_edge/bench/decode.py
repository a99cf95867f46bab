"""Whole decoding on a model: AutoDeco against stock samplers, and the Python runtime against a loop in C.

Owns the schedule (who runs when, on which tokens) and the report. The loop in C and its timing are in
native/bench/bench-decode.c. Two measurements:

    round robin   a context a sampler, one token each in turn, all fed what greedy draws
    runtime       autodeco_edge.engine.engine.Engine and the loop in C, both with AutoDeco and the same seed, one token
                  each in turn; they draw the same tokens, which is checked
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import asdict, dataclass

import numpy as np

from ..engine import native as core
from ..engine.engine import Engine
from ..engine.model import Model
from ..engine.sampler import Heads, SamplingParams
from ..errors import AutodecoError, ContextOverflowError, NoHeadsError, UsageError
from . import _native as native
from .heads import TEMPERATURE, TOP_P
from .machine import describe_machine
from .stats import paired_ratio, summarise

_BATCH = 512  # as in engine.py
_SAMPLERS = native.SAMPLERS[: native.lib.autodeco_bench_decode_n_samplers()]
_RATIOS = {"ratio_vs_greedy": "greedy", "ratio_vs_default": "default_chain", "ratio_vs_temp_top_p": "temp_top_p"}


@dataclass(frozen=True)
class DecodeSetup:
    """What to time.

    n_prompt, n_tokens   of every round
    n_rounds             repetitions of prompt and tokens
    n_threads            0 = one a physical core
    """

    n_prompt: int = 64
    n_tokens: int = 64
    n_rounds: int = 3
    n_threads: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        for name, value in (("prompt tokens", self.n_prompt), ("tokens", self.n_tokens), ("rounds", self.n_rounds)):
            if value < 1:
                raise UsageError(f"{name}: allowed 1 or more; got {value}")

    @property
    def n_ctx(self) -> int:
        return self.n_prompt + self.n_tokens + 1


def run_decode(
    model_path: str | os.PathLike[str], heads: str | os.PathLike[str] = "auto", setup: DecodeSetup | None = None
) -> dict:
    """The whole benchmark; a JSON-ready report. ``heads``: a heads file, or "auto": those inside the model."""
    setup = setup or DecodeSetup()
    model = Model(model_path)
    _check_fits(model, setup)
    with Engine(model, heads=heads, n_ctx=setup.n_ctx, n_threads=setup.n_threads) as engine:
        if engine.heads is None:
            raise NoHeadsError(f"{model_path}: no AutoDeco heads inside; give a heads file with --heads")
        prompt = random_prompt(model, setup)
        with Loop(model, engine.heads, setup, engine.n_threads) as loop:
            stock = time_round_robin(loop, prompt, setup)
            runtime = time_runtime(engine, loop, prompt, setup)
            n_row_bytes = native.lib.autodeco_bench_decode_n_sampler_bytes(loop.handle)
        return _report(model, engine, setup, stock, runtime, n_row_bytes)


def _check_fits(model: Model, setup: DecodeSetup) -> None:
    if setup.n_ctx > model.n_ctx_train:
        raise ContextOverflowError(
            f"{setup.n_prompt} prompt tokens and {setup.n_tokens} more do not fit this model's context of "
            f"{model.n_ctx_train}; pass a smaller --prompt-tokens or --tokens"
        )


def random_prompt(model: Model, setup: DecodeSetup) -> np.ndarray:
    return np.random.default_rng(setup.seed).integers(0, model.n_vocab, setup.n_prompt, dtype=np.int32)


# ---- the loop in C -------------------------------------------------------------------------------


class Loop:
    """Owner of the contexts of native/bench/bench-decode.c; keeps model and heads alive."""

    def __init__(self, model: Model, heads: Heads, setup: DecodeSetup, n_threads: int) -> None:
        self.model, self.heads = model, heads
        self.handle = ctypes.c_void_p()
        params = native.DecodeParams(setup.seed, setup.n_ctx, _BATCH, n_threads, TEMPERATURE, TOP_P)
        self._call("init", model.handle, heads.handle, params, ctypes.byref(self.handle), handle=False)

    def _call(self, name: str, *args, handle: bool = True) -> None:
        err = ctypes.create_string_buffer(512)
        first = (self.handle,) if handle else ()
        native.check(getattr(native.lib, f"autodeco_bench_decode_{name}")(*first, *args, err, len(err)), err)

    def round(self, prompt: np.ndarray, n_tokens: int, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """prompt_us [samplers], token_us [n_tokens, samplers], tokens [n_tokens, samplers]."""
        prompt_us = np.zeros(len(_SAMPLERS))
        token_us = np.zeros((n_tokens, len(_SAMPLERS)))
        tokens = np.full(token_us.shape, -1, dtype=np.int32)
        self._call(
            "round", _ints(prompt), len(prompt), n_tokens, first, _doubles(prompt_us), _doubles(token_us), _ints(tokens)
        )
        return prompt_us, token_us, tokens

    def prompt(self, prompt: np.ndarray) -> tuple[float, int]:
        """Microseconds, and AutoDeco's first token."""
        us, sampled = ctypes.c_double(), ctypes.c_int32()
        self._call("prompt", native.AUTODECO, _ints(prompt), len(prompt), ctypes.byref(us), ctypes.byref(sampled))
        return us.value, sampled.value

    def token(self, token: int) -> tuple[float, int]:
        """Microseconds, and AutoDeco's next token."""
        us, sampled = ctypes.c_double(), ctypes.c_int32()
        self._call("token", native.AUTODECO, token, ctypes.byref(us), ctypes.byref(sampled))
        return us.value, sampled.value

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *exc) -> None:
        native.lib.autodeco_bench_decode_free(self.handle)
        self.handle = None


def _ints(array: np.ndarray):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))


def _doubles(array: np.ndarray):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimedDecode:
    """prompt_us [n_rounds, contenders], token_us [n, contenders], tokens like token_us."""

    prompt_us: np.ndarray
    token_us: np.ndarray
    tokens: np.ndarray


def time_round_robin(loop: Loop, prompt: np.ndarray, setup: DecodeSetup) -> TimedDecode:
    loop.round(prompt, 1, 0)  # warm-up
    rounds = [loop.round(prompt, setup.n_tokens, i) for i in range(setup.n_rounds)]
    prompt_us, token_us, tokens = zip(*rounds, strict=True)
    return TimedDecode(np.stack(prompt_us), np.concatenate(token_us), np.concatenate(tokens))


def time_runtime(engine: Engine, loop: Loop, prompt: np.ndarray, setup: DecodeSetup) -> TimedDecode:
    """Columns: the engine, the loop in C."""
    ids = prompt.tolist()
    prompt_us, token_us, tokens = [], [], []
    for i in range(setup.n_rounds):
        prompt_us.append(_time_prompts(engine, loop, ids, prompt, i))
        for us, drawn in _time_reply(engine, loop, ids, prompt, setup, i):
            token_us.append(us)
            tokens.append(drawn)
    tokens = np.array(tokens, dtype=np.int32).reshape(-1, 2)
    if (tokens[:, 0] != tokens[:, 1]).any():
        raise AutodecoError("the engine and the loop in C drew different tokens from the same seed")
    return TimedDecode(np.array(prompt_us), np.array(token_us).reshape(-1, 2), tokens)


def _time_prompts(engine: Engine, loop: Loop, ids: list[int], prompt: np.ndarray, turn: int) -> tuple[float, float]:
    def ours() -> float:
        start = time.perf_counter()
        engine.prefill(ids)
        return 1e6 * (time.perf_counter() - start)

    return _in_turn(turn, ours, lambda: loop.prompt(prompt)[0])


def _time_reply(engine: Engine, loop: Loop, ids: list[int], prompt: np.ndarray, setup: DecodeSetup, turn: int):
    """Yields ((us, us), (id, id)) a token. The first token of a reply comes from the prompt and is not timed."""
    params = SamplingParams(seed=setup.seed)
    steps = engine.generate(ids, params, max_tokens=setup.n_tokens + 1, spelt=False, stop_at_end=False)
    token = next(steps).id
    if loop.prompt(prompt)[1] != token:
        raise AutodecoError("the engine and the loop in C drew different tokens from the same seed")

    def ours() -> tuple[float, int]:
        start = time.perf_counter()
        step = next(steps)
        return 1e6 * (time.perf_counter() - start), step.id

    for i in range(setup.n_tokens):
        (a, mine), (b, theirs) = _in_turn(turn + i, ours, lambda fed=token: loop.token(fed))
        yield (a, b), (mine, theirs)
        token = mine
    steps.close()


def _in_turn(turn: int, ours, theirs):
    """Both results, in this order, whoever ran first."""
    if turn % 2:
        second = theirs()
        return ours(), second
    return ours(), theirs()


# ---- report --------------------------------------------------------------------------------------


def _report(
    model: Model, engine: Engine, setup: DecodeSetup, stock: TimedDecode, runtime: TimedDecode, n_row_bytes: int
) -> dict:
    token_us = dict(zip(_SAMPLERS, stock.token_us.T, strict=True))
    prompt_us = dict(zip(_SAMPLERS, stock.prompt_us.T, strict=True))
    pairs = {name: (token_us["autodeco"], token_us[other]) for name, other in _RATIOS.items()}
    pairs["prompt_ratio"] = (prompt_us["autodeco"], prompt_us["greedy"])
    pairs["runtime_ratio"] = tuple(runtime.token_us.T)
    pairs["prompt_runtime_ratio"] = tuple(runtime.prompt_us.T)
    token_us["runtime"], token_us["runtime_c_loop"] = runtime.token_us.T
    prompt_us["runtime"], prompt_us["runtime_c_loop"] = runtime.prompt_us.T
    return {
        "benchmark": "decode",
        "machine": describe_machine(),
        "model": {"description": model.description, "n_vocab": model.n_vocab, "n_embd": model.n_embd},
        "heads": engine.heads.description,
        "setup": {**asdict(setup), "n_threads": engine.n_threads},
        "stock": {"temperature": TEMPERATURE, "top_p": TOP_P},
        "memory_bytes": {
            "heads": core.lib.autodeco_heads_memory(engine.heads.handle),
            "per_row": n_row_bytes,
            "per_vocab_entry": round(n_row_bytes / model.n_vocab, 3),
        },
        **{name: round(float(np.median(a) / np.median(b)), 5) for name, (a, b) in pairs.items()},
        "paired": {name: paired_ratio(a, b).as_dict() for name, (a, b) in pairs.items()},
        "token_us": {name: summarise(values).as_dict() for name, values in token_us.items()},
        "prompt_us": {name: summarise(values).as_dict() for name, values in prompt_us.items()},
        "tokens_per_second": _rates(token_us, 1),
        "prompt_tokens_per_second": _rates(prompt_us, setup.n_prompt),
    }


def _rates(us: dict[str, np.ndarray], n: int) -> dict[str, float]:
    return {name: round(1e6 * n / float(np.median(values)), 2) for name, values in us.items()}

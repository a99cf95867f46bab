"""One sampling step: AutoDeco against stock llama.cpp chains on the same logits.

Owns the cases of logits, the set-up and the report. The timing is in native/bench/bench-step.c; what is
made of it in stats.py.
"""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path

import numpy as np

from ..convert.export import Written
from ..engine import native as core
from ..engine.sampler import Heads
from ..errors import UsageError, check_range
from ..gguf import types as gt
from . import _native as native
from .heads import TEMPERATURE, TOP_P, write_random_heads
from .machine import describe_machine
from .stats import paired_ratio, summarise

OUTTYPES = ("f32", "f16", "bf16", "q8_0")
_BLOCK = 32  # of Q8_0
_SURE = (0.9, 0.04, 0.02, 0.01)  # probabilities of the first tokens of a peaked row
_RATIOS = {"ratio_vs_greedy": "greedy", "ratio_vs_default": "default_chain", "ratio_vs_temp_top_p": "temp_top_p"}


@dataclass(frozen=True)
class StepSetup:
    """What to time.

    n_vocab, n_embd   of the model that the logits and hidden states could come from
    n_threads         of the graph; stock sampling has one
    outtype           of the heads' wide weights
    n_rows            sequences in one graph
    n_rounds          each runs every contender once
    """

    n_vocab: int = 151936
    n_embd: int = 3584
    n_threads: int = 1
    outtype: str = "f16"
    n_rows: int = 1
    n_rounds: int = 200
    n_warmup: int = 5
    seed: int = 1

    def __post_init__(self) -> None:
        check_range("vocabulary", self.n_vocab, 2, 2**24)
        check_range("hidden size", self.n_embd, 1, 2**17)
        check_range("threads", self.n_threads, 1, 512)
        check_range("rows", self.n_rows, 1, 256)
        check_range("rounds", self.n_rounds, 1, 10**6)
        if self.outtype not in OUTTYPES:
            raise UsageError(f"type: allowed {', '.join(OUTTYPES)}; got '{self.outtype}'")
        if self.outtype == "q8_0" and self.n_embd % _BLOCK:
            raise UsageError(f"hidden size: a multiple of {_BLOCK} for q8_0 (its block); got {self.n_embd}")


@dataclass(frozen=True)
class TimedStep:
    """us [n_rounds, CONTENDERS], tokens [n_rounds, SAMPLERS, n_rows], a last step a row, bytes of the samplers."""

    us: np.ndarray
    tokens: np.ndarray
    steps: list[core.Step]
    n_sampler_bytes: int


def run_step(setup: StepSetup) -> dict:
    """The whole benchmark; a JSON-ready report."""
    rng = np.random.default_rng((setup.seed, 1))  # not the numbers the heads are made of
    with tempfile.TemporaryDirectory() as folder:
        written = write_random_heads(
            Path(folder) / "heads.gguf", Path(folder) / "heads", setup.n_embd, outtype=setup.outtype, seed=setup.seed
        )
        heads = Heads(written.path)
        n_weight_bytes = tensor_bytes(written)
    hidden = rng.standard_normal((setup.n_rows, setup.n_embd), dtype=np.float32)
    cases = {}
    for name, make in CASES.items():
        timed = time_step(setup, heads, n_weight_bytes, hidden, make(rng, setup.n_rows, setup.n_vocab))
        cases[name] = report_case(timed)
    return {
        "benchmark": "step",
        "machine": describe_machine(),
        "setup": asdict(setup),
        "stock": {"temperature": TEMPERATURE, "top_p": TOP_P},
        "memory_bytes": {
            "heads": core.lib.autodeco_heads_memory(heads.handle),
            "head_weights_read": n_weight_bytes,
            "per_row": timed.n_sampler_bytes // setup.n_rows,
            "per_vocab_entry": round(timed.n_sampler_bytes / setup.n_rows / setup.n_vocab, 3),
        },
        "cases": cases,
    }


def tensor_bytes(written: Written) -> int:
    """Bytes of all head tensors: what a step has to read besides the logits."""
    return sum(gt.tensor_nbytes(shape, gt.GGML_TYPE_OF_NAME[kind]) for _, kind, shape in written.tensors)


# ---- cases ---------------------------------------------------------------------------------------


def peaked_logits(rng: np.random.Generator, n_rows: int, n_vocab: int) -> np.ndarray:
    """Normal, deviation 2.5, with a few tokens raised to the probabilities of a model that is sure."""
    logits = rng.standard_normal((n_rows, n_vocab), dtype=np.float32) * np.float32(2.5)
    raised = _SURE[: n_vocab - 1]
    for row in logits:
        ids = rng.choice(n_vocab, len(raised), replace=False)
        row[ids] = -np.inf
        rest = np.logaddexp.reduce(row.astype(np.float64)) - log(1 - sum(raised))
        row[ids] = rest + np.log(raised)
    return logits


def flat_logits(rng: np.random.Generator, n_rows: int, n_vocab: int) -> np.ndarray:
    """Normal, deviation 0.5: nearly every token is in the nucleus."""
    return rng.standard_normal((n_rows, n_vocab), dtype=np.float32) * np.float32(0.5)


CASES = {"peaked": peaked_logits, "flat": flat_logits}


# ---- timing --------------------------------------------------------------------------------------


def _pointer(array: np.ndarray, kind):
    return array.ctypes.data_as(ctypes.POINTER(kind))


def time_step(setup: StepSetup, heads: Heads, n_weight_bytes: int, hidden: np.ndarray, logits: np.ndarray) -> TimedStep:
    """hidden [n_rows, n_embd], logits [n_rows, n_vocab], both float32."""
    us = np.zeros((setup.n_rounds, len(native.CONTENDERS)))
    tokens = np.full((setup.n_rounds, len(native.SAMPLERS), setup.n_rows), -1, dtype=np.int32)
    steps = (core.Step * setup.n_rows)()
    n_bytes = ctypes.c_size_t()
    err = ctypes.create_string_buffer(512)
    params = native.StepParams(
        setup.seed, n_weight_bytes, setup.n_vocab, setup.n_rows, setup.n_rounds, setup.n_warmup, setup.n_threads,
        TEMPERATURE, TOP_P,
    )  # fmt: skip
    status = native.lib.autodeco_bench_step(
        heads.handle,
        params,
        _pointer(hidden, ctypes.c_float),
        _pointer(logits, ctypes.c_float),
        _pointer(us, ctypes.c_double),
        _pointer(tokens, ctypes.c_int32),
        steps,
        ctypes.byref(n_bytes),
        err,
        len(err),
    )
    native.check(status, err)
    return TimedStep(us, tokens, list(steps), n_bytes.value)


# ---- report --------------------------------------------------------------------------------------


def report_case(timed: TimedStep) -> dict:
    """Medians as ``<contender>_us``, their quartiles, ratios of medians, and paired ratios."""
    us = dict(zip(native.CONTENDERS, timed.us.T, strict=True))
    us["sweep"] = us["logits_sweep"] + us["weights_sweep"]
    summaries = {f"{name}_us": summarise(values) for name, values in us.items()}
    medians = {name: round(summary.median, 3) for name, summary in summaries.items() if name != "sweep_us"}
    sweep = medians["logits_sweep_us"] + medians["weights_sweep_us"]
    ratios = {name: medians["autodeco_us"] / medians[f"{other}_us"] for name, other in _RATIOS.items()}
    ratios["ratio_vs_sweep"] = medians["autodeco_us"] / sweep
    others = {**_RATIOS, "ratio_vs_sweep": "sweep"}
    return {
        **medians,
        **{name: round(ratio, 4) for name, ratio in ratios.items()},
        "paired": {name: paired_ratio(us["autodeco"], us[other]).as_dict() for name, other in others.items()},
        "quartiles": {name: [round(s.q1, 3), round(s.q3, 3)] for name, s in summaries.items() if name in medians},
        "min": {name: round(s.min, 3) for name, s in summaries.items() if name in medians},
        "steps": [
            {"temperature": round(s.temp, 4), "top_p": round(s.top_p, 4), "n_kept": s.n_kept} for s in timed.steps
        ],
        "n_distinct_tokens": int(np.unique(timed.tokens[:, native.AUTODECO]).size),
    }

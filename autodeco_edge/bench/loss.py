"""The losses of a training step: the fast form against the plain one, in time, memory and error.

Owns the cases, the measurements and the report. The forms are in autodeco_edge.train (torch is imported there, and
only when this benchmark runs). ``python -m autodeco_edge.bench.loss FORM CASE SETUP`` prints the extra memory of one
form in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from ..errors import AutodecoError, check_range
from ..io.interpreter import interpreter
from .machine import describe_machine
from .stats import paired_ratio, summarise
from .step import flat_logits, peaked_logits

FORMS = ("plain", "fast")
_LOSSES = slice(0, 2)  # of compare.evaluate
_SLOPES = slice(2, 5)
_TINY = 1e-30  # values below it count as this: float32 ends at 1e-38
_SMALL = 2048  # vocabulary of the first call, which loads code


@dataclass(frozen=True)
class LossSetup:
    """What to measure.

    n_vocab, n_tokens   logits [n_tokens, n_vocab], float32
    n_threads           of torch; the fast form has one
    n_rounds            each times both forms once
    nemo                the NeMo losses (equations 10) instead of the Hugging Face ones (equations 7, 8)
    """

    n_vocab: int = 151936
    n_tokens: int = 32
    n_threads: int = 1
    n_rounds: int = 5
    nemo: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        check_range("vocabulary", self.n_vocab, 2, 2**24)
        check_range("tokens", self.n_tokens, 1, 4096)
        check_range("threads", self.n_threads, 1, 512)
        check_range("rounds", self.n_rounds, 1, 10**6)


@dataclass(frozen=True)
class LossInputs:
    """logits [M, V], temperature, top_p [M] float32, labels [M] int64."""

    logits: np.ndarray
    temperature: np.ndarray
    top_p: np.ndarray
    labels: np.ndarray

    def rows(self, rows: slice, dtype: type = np.float32) -> tuple[np.ndarray, ...]:
        """The arguments of compare.evaluate."""
        floats = (x[rows].astype(dtype, copy=False) for x in (self.logits, self.temperature, self.top_p))
        return (*floats, self.labels[rows])


def run_loss(setup: LossSetup) -> dict:
    """The whole benchmark; a JSON-ready report."""
    cases = {name: run_case(setup, name) for name in CASES}
    worst = {"speedup": min, "mem_ratio": max, "max_rel_err_loss": max, "max_rel_err_grad": max}
    return {
        "benchmark": "loss",
        "machine": describe_machine(),
        "setup": asdict(setup),
        **{key: choose(case[key] for case in cases.values()) for key, choose in worst.items()},
        "cases": cases,
    }


def run_case(setup: LossSetup, name: str) -> dict:
    """Time, memory and error of one case.

    speedup            median of the plain form's time divided by that of the fast form
    mem_ratio          extra memory of the fast form divided by that of the plain form
    max_rel_err_*      largest |fast - plain in float64| / |plain in float64| of any token, either term
    """
    make = make_inputs(setup, name)
    ms = time_forms(setup, make)
    extra = {form: extra_memory(form, name, setup) for form in FORMS}
    loss, grad = relative_errors(setup, make)
    summaries = {form: summarise(ms[form]) for form in FORMS}
    per_entry = setup.n_tokens * setup.n_vocab
    return {
        "speedup": round(summaries["plain"].median / summaries["fast"].median, 3),
        "mem_ratio": round(extra["fast"] / extra["plain"], 5),
        "max_rel_err_loss": float(f"{loss:.3g}"),
        "max_rel_err_grad": float(f"{grad:.3g}"),
        "paired_speedup": paired_ratio(ms["plain"], ms["fast"]).as_dict(),
        "token_ms": {form: summaries[form].as_dict() for form in FORMS},
        "extra_bytes": extra,
        "extra_bytes_per_logit": {form: round(extra[form] / per_entry, 3) for form in FORMS},
    }


# ---- cases ---------------------------------------------------------------------------------------


def tied_logits(rng: np.random.Generator, n_rows: int, n_vocab: int) -> np.ndarray:
    """Normal, deviation 2.5, rounded to integers: some twenty values, thousands of tokens each."""
    return np.round(rng.standard_normal((n_rows, n_vocab), dtype=np.float32) * np.float32(2.5))


CASES: dict[str, Callable[..., np.ndarray]] = {"peaked": peaked_logits, "flat": flat_logits, "tied": tied_logits}


def make_inputs(setup: LossSetup, name: str) -> LossInputs:
    """T in 0.3 to 1.7, P in 0.05 to 0.99; labels drawn from the distribution in even rows, from anywhere in odd ones."""
    rng = np.random.default_rng((setup.seed, list(CASES).index(name)))
    n = setup.n_tokens
    logits = CASES[name](rng, n, setup.n_vocab)
    labels = rng.integers(0, setup.n_vocab, n)
    for i in range(0, n, 2):
        labels[i] = np.argmax(logits[i] + rng.gumbel(size=setup.n_vocab))
    temperature, top_p = rng.uniform(0.3, 1.7, n), rng.uniform(0.05, 0.99, n)
    return LossInputs(logits, temperature.astype(np.float32), top_p.astype(np.float32), labels)


# ---- measurements --------------------------------------------------------------------------------


def time_forms(setup: LossSetup, inputs: LossInputs) -> dict[str, list[float]]:
    """Milliseconds a token, losses and slopes, the forms in turn: [n_rounds] each."""
    from ..train.compare import evaluate, set_threads

    set_threads(setup.n_threads)
    ms: dict[str, list[float]] = {form: [] for form in FORMS}
    for i in range(setup.n_rounds + 1):
        for form in FORMS:
            start = perf_counter()
            evaluate(form, *inputs.rows(slice(None)), setup.nemo)
            if i:  # the first warms up
                ms[form].append((perf_counter() - start) * 1e3 / setup.n_tokens)
    return ms


def relative_errors(setup: LossSetup, inputs: LossInputs) -> tuple[float, float]:
    """Largest of the losses, and of the slopes: fast form in float32 against plain form in float64, by token."""
    from ..train.compare import evaluate

    got = evaluate("fast", *inputs.rows(slice(None)), setup.nemo).astype(np.float64)  # [5, M]
    ones = [slice(i, i + 1) for i in range(setup.n_tokens)]
    want = np.concatenate([evaluate("plain", *inputs.rows(one, np.float64), setup.nemo) for one in ones], axis=1)
    error = np.abs(got - want) / np.maximum(np.abs(want), _TINY)
    return float(error[_LOSSES].max()), float(error[_SLOPES].max())


def extra_memory(form: str, name: str, setup: LossSetup) -> int:
    """Bytes by which one evaluation raises the peak resident set of a fresh process that holds the inputs."""
    command = interpreter("-m", __name__, form, name, json.dumps(asdict(setup)))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise AutodecoError(f"memory of the {form} form: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout)


def _measure_memory(form: str, name: str, setup: LossSetup) -> int:
    from dataclasses import replace

    from ..train.compare import evaluate, set_threads

    set_threads(setup.n_threads)
    small = make_inputs(replace(setup, n_vocab=_SMALL, n_tokens=1), name)
    evaluate(form, *small.rows(slice(None)), setup.nemo)
    inputs = make_inputs(setup, name)
    _reset_peak()
    before = _peak()
    evaluate(form, *inputs.rows(slice(None)), setup.nemo)
    return max(_peak() - before, 1)


def _reset_peak() -> None:
    """Peak resident set := the present one. Where that cannot be done, earlier peaks hide small ones."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> int:
    """Peak resident set of this process in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(_measure_memory(sys.argv[1], sys.argv[2], LossSetup(**json.loads(sys.argv[3]))))

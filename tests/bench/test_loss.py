"""The benchmark of the losses: its report, its measurements, its errors. Times are not asserted."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")

from autodeco_edge.bench import loss
from autodeco_edge.bench.loss import CASES, LossSetup, make_inputs, relative_errors, run_loss
from autodeco_edge.errors import UsageError
from tests.support import warm

SMALL = LossSetup(n_vocab=5000, n_tokens=6, n_rounds=1)
FIELDS = {"speedup", "mem_ratio", "max_rel_err_loss", "max_rel_err_grad"}


def cli(*args: str) -> subprocess.CompletedProcess:
    return warm.run("bench", "loss", *args, modules=warm.TORCH, text=True)


def test_report(monkeypatch):
    """The overall figures are the worst of the cases; memory is measured for real below."""
    monkeypatch.setattr(loss, "extra_memory", lambda form, name, setup: {"plain": 1000, "fast": 10}[form])
    report = json.loads(json.dumps(run_loss(SMALL)))
    cases = report["cases"].values()
    assert set(report["cases"]) == {"peaked", "flat", "tied"} and set(report) >= FIELDS
    for key, worst in (("speedup", min), ("mem_ratio", max), ("max_rel_err_loss", max), ("max_rel_err_grad", max)):
        assert report[key] == worst(case[key] for case in cases)
    for case in cases:
        ms = case["token_ms"]
        assert case["speedup"] == pytest.approx(ms["plain"]["median"] / ms["fast"]["median"], rel=0.05)
        assert case["mem_ratio"] == 0.01


@pytest.mark.parametrize("nemo", (False, True))
@pytest.mark.parametrize("name", CASES)
def test_errors_are_within_the_bound(name, nemo):
    setup = LossSetup(n_vocab=20_000, n_tokens=8, nemo=nemo)
    loss_error, grad_error = relative_errors(setup, make_inputs(setup, name))
    assert 0 < loss_error < 1e-4 and 0 < grad_error < 1e-4


def test_an_error_is_seen(monkeypatch):
    """A fast form that is off by a thousandth in its last slope."""
    from autodeco_edge.train import compare

    plain = compare.FORMS["plain"]
    monkeypatch.setitem(compare.FORMS, "fast", lambda *args: [*(x := plain(*args))[:4], x[4] * 1.001])
    _, grad_error = relative_errors(SMALL, make_inputs(SMALL, "flat"))
    assert grad_error > 0.9e-3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_is_that_of_the_vocabulary():
    """The plain form holds at least ten float32 numbers a logit; a third is the issue's bound for the fast form."""
    setup = LossSetup(n_tokens=8)
    extra = {form: loss.extra_memory(form, "flat", setup) for form in loss.FORMS}
    assert extra["plain"] > 40 * setup.n_tokens * setup.n_vocab
    assert extra["fast"] < extra["plain"] / 3


def test_cases_are_what_they_are_called():
    inputs = {name: make_inputs(SMALL, name) for name in CASES}
    assert len(np.unique(inputs["tied"].logits[0])) < 40
    q = {
        name: np.exp(x.logits[0].astype(float)) / np.exp(x.logits[0].astype(float)).sum() for name, x in inputs.items()
    }
    assert q["peaked"].max() == pytest.approx(0.9, abs=1e-4) and q["flat"].max() < 0.01
    for x in inputs.values():
        assert x.logits.dtype == x.temperature.dtype == x.top_p.dtype == np.float32
        assert x.logits.shape == (6, 5000) and ((x.labels >= 0) & (x.labels < 5000)).all()


def test_command():
    done = cli("--n-vocab", "3000", "--n-tokens", "2", "--rounds", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert set(report["cases"]) >= {"peaked", "flat", "tied"} and set(report["cases"]["tied"]) >= FIELDS


def test_table(monkeypatch, capsys):
    from autodeco_edge.cli import bench

    monkeypatch.setattr(loss, "extra_memory", lambda form, name, setup: {"plain": 1000, "fast": 10}[form])
    print(bench._loss_table(run_loss(SMALL)))
    printed = capsys.readouterr().out
    for words in ("peaked", "flat", "tied", "worst", "speedup", "Hugging Face losses", "0.0100"):
        assert words in printed


def test_errors_are_one_line():
    done = cli("--n-tokens", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("autodeco-edge: error: tokens: allowed") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("field", ("n_vocab", "n_tokens", "n_threads", "n_rounds"))
def test_out_of_range(field):
    with pytest.raises(UsageError, match="allowed"):
        LossSetup(**{field: 0})

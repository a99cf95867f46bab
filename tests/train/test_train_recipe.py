"""Settings that train, the best constant beside the heads, and what is said of heads that learnt nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import UsageError
from autodeco_edge.train import losses
from autodeco_edge.train import trainer as training
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.constant_baseline import TEMPERATURES, TOP_PS, Constant, ConstantLosses, grid_losses
from autodeco_edge.train.diagnostics import warnings
from autodeco_edge.train.hyperparameters import TrainConfig, schedule
from autodeco_edge.train.metrics import Metrics
from autodeco_edge.train.objective import NEMO, OBJECTIVES, Objective, Terms
from autodeco_edge.train.recipe import RECIPES
from autodeco_edge.train.record import Record
from autodeco_edge.train.state import FILE as STATE

DATA = Path(__file__).parent / "demo_replies.jsonl"


# ---- the best constant -------------------------------------------------------------


@pytest.mark.parametrize("terms", (*OBJECTIVES.values(), NEMO, Terms("hf", temp=False), Terms("hf", top_p=False)))
def test_grid_is_the_plain_losses(terms):
    """Every T and P of the grid, ties and a masked token included, against losses.py in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(30, 50, generator=generator, dtype=torch.float64)
    logits[:5, 10:20] = logits[:5, 9:10]
    logits[5, 3] = -torch.inf
    labels = torch.randint(0, 50, (30,), generator=generator)
    labels[0], labels[5] = 15, 4
    found = grid_losses(logits, labels, terms)
    for i, t in enumerate(TEMPERATURES):
        for j, p in enumerate(TOP_PS):
            constant = torch.full((30,), t, dtype=torch.float64), torch.full((30,), p, dtype=torch.float64)
            want = torch.zeros(30, dtype=torch.float64)
            if terms.temp:
                want += losses.temperature_token_loss(logits, constant[0], labels, terms.variant)
            if terms.top_p:
                want += losses.top_p_token_loss(logits, *constant, labels, terms.variant)
            torch.testing.assert_close(found[i, j], want, rtol=1e-7, atol=1e-9)


class _Constant(torch.nn.Module):
    def forward(self, hidden, logits):
        return torch.full(hidden.shape[:1], self.t), torch.full(hidden.shape[:1], self.p)


def test_best_constant_is_the_objectives_lowest():
    """The loss is that of heads that say the same everywhere, by the code that measures heads; no other pair has less."""
    generator = torch.Generator().manual_seed(1)
    hidden, matrix = torch.randn(64, 8, generator=generator), 2 * torch.randn(40, 8, generator=generator)
    labels = torch.multinomial(torch.softmax(hidden @ matrix.T / 0.6, -1), 1, generator=generator)[:, 0]

    def lm_head(h):
        return h @ matrix.T

    sums = ConstantLosses(OBJECTIVES["likelihood"])
    sums.add(hidden[:20], labels[:20], lm_head)
    sums.add(hidden[20:], labels[20:], lm_head)
    best, heads = sums.best(), _Constant()
    objective = Objective(heads, lm_head, OBJECTIVES["likelihood"])
    measured = {}
    for heads.t in TEMPERATURES:
        for heads.p in TOP_PS:
            measured[heads.t, heads.p] = objective(hidden, labels).loss.item()
    assert min(measured, key=measured.get) == (best.temperature, best.top_p)
    assert measured[best.temperature, best.top_p] == pytest.approx(best.loss, rel=1e-5)
    assert 0.4 <= best.temperature <= 0.8  # the labels were drawn at 0.6


# ---- what is said ------------------------------------------------------------------


def metrics(loss: float, t: float, p: float) -> Metrics:
    return Metrics(loss, loss / 2, loss / 2, t, p, 100)


@pytest.mark.parametrize(
    "changes, before, after, said",
    (
        ({}, (1.0, 1.01, 0.5), (0.4, 0.7, 0.8), []),
        ({}, (1.0, 1.01, 0.5), (0.6, 0.7, 0.8), ["no better than T 0.5, P 0.9"]),
        ({}, (1.0, 1.01, 0.5), (0.4, 0.7, 0.999), ["P has run to 0.999"]),
        ({"heads": "temp"}, (1.0, 1.01, 0.5), (0.4, 0.7, 0.999), []),
        ({}, (1.0, 0.778, 0.5), (0.6, 0.791, 0.6), ["no better", "T has hardly moved (0.778 to 0.791)"]),
        ({}, (1.0, 0.778, 0.5), (0.6, 0.791, 0.6), ["train longer (--epochs), collect", "train longer (--epochs) or"]),
        ({"minutes": 2}, (1.0, 1.0, 0.5), (0.6, 1.0, 0.6), ["longer (--minutes), collect", "longer (--minutes) or"]),
        ({"init": "x"}, (1.0, 0.778, 0.5), (0.4, 0.791, 0.6), []),
        ({"heads": "top-p"}, (1.0, 1.0, 0.5), (0.4, 1.0, 0.6), []),
    ),
)
def test_warnings(changes, before, after, said):
    config = TrainConfig("b", "d", "o", **changes)
    lines = list(warnings(config, metrics(*before), metrics(*after), Constant(0.5, 0.9, 0.5)))
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))
    assert all(line.startswith("warning: ") and "\n" not in line for line in lines)


# ---- recipes -----------------------------------------------------------------------


def test_official_recipe_is_the_official_one():
    """Equations 13."""
    config = TrainConfig("b", "d", "o", recipe="official")
    assert (RECIPES["official"].learning_rate, config.schedule, config.n_warmup(933)) == (5e-6, "linear", 0)
    assert config.batch_size * config.accumulation == 32 and config.n_steps(933) == 933
    assert config.steps_to_eval(933) == 0 and config.validation == 0.05


def test_what_is_given_holds_in_every_recipe():
    for name in RECIPES:
        config = TrainConfig("b", "d", "o", recipe=name, epochs=2, warmup_steps=3, eval_every=7, schedule="constant",
                             accumulation=2, validation=0.2)  # fmt: skip
        assert (config.n_steps(10), config.n_warmup(20), config.steps_to_eval(20)) == (20, 3, 7)
        assert (config.schedule, config.accumulation, config.validation) == ("constant", 2, 0.2)
        assert schedule(config, 19, 20) == 1.0
    with pytest.raises(UsageError, match="recipe: expected one of auto, official; got 'fast'"):
        TrainConfig("b", "d", "o", recipe="fast")


@pytest.mark.parametrize("per_epoch, n_steps", ((1, 30), (7, 210), (40, 320), (299, 598), (300, 300), (3750, 3750)))
def test_steps_suffice_and_end(per_epoch, n_steps):
    assert TrainConfig("b", "d", "o").n_steps(per_epoch) == n_steps


def test_rate_is_by_the_size_of_the_hidden_states():
    rule = RECIPES["auto"]
    assert rule.rate(100.0) == pytest.approx(10 * rule.rate(1000.0)) and rule.rate(1000.0) > 0
    assert rule.rate(0.0) <= 1.0 and rule.rate(1e-9) == 1.0


# ---- runs --------------------------------------------------------------------------


@pytest.fixture
def config(base_dir, data_file, tmp_path) -> TrainConfig:
    return TrainConfig(str(base_dir), str(data_file), str(tmp_path / "heads"), validation=0.2, log_every=0,
                       save_dtype="f32", max_steps=60)  # fmt: skip


def record_of(config: TrainConfig) -> dict:
    return json.loads((Path(config.output) / "training.json").read_text())


def test_heads_of_the_lowest_loss_are_saved(config):
    """With a rate that is far too high the loss goes up again: the last heads are not the best."""
    result = training.train(replace(config, learning_rate=0.3, warmup_steps=0, schedule="constant", eval_every=5))
    record = record_of(config)
    seen = {0: record["before"]["loss"]} | {v["step"]: v["loss"] for v in record["validation"]}
    assert record["best"]["loss"] == min(seen.values()) == result.after.loss
    assert len(result.history) < 60 and record["n_worse"] >= 4, "patience"
    again = training.train(
        replace(config, init=config.output, output=config.output + "-2", max_steps=1, learning_rate=1e-9)
    )
    assert again.before.loss == pytest.approx(result.after.loss, rel=1e-5), "what is on disk has that loss"


@pytest.mark.parametrize("at", (4, 9, 13))
def test_resumes_to_the_same_bits(config, tmp_path, monkeypatch, at):
    """Rate, best heads and patience come back too."""
    config = replace(config, learning_rate=None, save_every=3, eval_every=4, max_steps=40)
    training.train(config)
    broken, real = replace(config, output=str(tmp_path / "broken")), training.schedule
    with monkeypatch.context() as patch:
        patch.setattr(training, "schedule", lambda c, step, n: 1 / 0 if step == at else real(c, step, n))
        with pytest.raises(ZeroDivisionError):
            training.train(broken)
    assert (Path(broken.output) / STATE).exists()
    training.train(replace(broken, resume=True))
    ours, theirs = record_of(broken), record_of(config)
    for name in ("before", "after", "validation", "steps", "best", "n_worse", "constant"):
        assert ours[name] == theirs[name], name
    one, other = (load_heads(c.output).heads.state_dict() for c in (config, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_ended_is_complete(config, capfd):
    config = replace(config, max_steps=2, log_every=1)
    first = training.train(config)
    before = {p.name: p.read_bytes() for p in Path(config.output).iterdir()}
    again = training.train(replace(config, resume=True))
    assert again == first and "is complete; nothing to resume" in capfd.readouterr().err
    assert {p.name: p.read_bytes() for p in Path(config.output).iterdir()} == before
    with pytest.raises(UsageError, match=r"training.json was written with max_steps 2, now 3"):
        training.train(replace(config, resume=True, max_steps=3))


def test_killed_before_the_first_state_starts_again(config, capfd):
    training.train(replace(config, max_steps=2, log_every=1, resume=True))
    assert "starting from the beginning" in capfd.readouterr().err and Record.load(config.output)


def test_defaults_train_on_the_demo_model(tmp_path, capfd):
    """120 replies that `collect` drew at T = 1, P = 1: no option but the files, and the heads beat every constant."""
    config = TrainConfig(None, str(DATA), str(tmp_path / "heads"), model=str(demo_model()), threads=1, log_every=50)
    result = training.train(config)
    record, err = record_of(config), capfd.readouterr().err
    assert result.after.loss < 0.7 * result.before.loss
    assert result.after.loss < record["constant"]["loss"]
    assert abs(result.after.mean_temperature - result.before.mean_temperature) > 0.1
    assert f"held out: heads {result.after.loss:.4f}, best constant" in err and "warning" not in err


def test_a_rate_that_does_not_train_is_said(tmp_path, capfd):
    """The official rate and 60 steps on a small base: heads as they began, and no longer without a word."""
    config = TrainConfig(None, str(DATA), str(tmp_path / "heads"), model=str(demo_model()), threads=1, log_every=0,
                         recipe="official", max_steps=6, validation=0.1)  # fmt: skip
    training.train(config)
    err = capfd.readouterr().err
    assert "warning: the heads are no better than T" in err and "warning: T has hardly moved" in err

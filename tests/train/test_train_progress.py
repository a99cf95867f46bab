"""What a run shows and logs: lines, a bar on a terminal, a tracker, training.json."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from autodeco_edge.errors import UsageError
from autodeco_edge.train import progress
from autodeco_edge.train import trainer as training
from autodeco_edge.train.hyperparameters import TrainConfig


@pytest.fixture
def config(base_dir, data_file, tmp_path) -> TrainConfig:
    return TrainConfig(
        str(base_dir), str(data_file), str(tmp_path / "heads"), recipe="official", learning_rate=3e-3, accumulation=1, max_steps=6,
        validation=0.2, log_every=2, eval_every=2,
    )  # fmt: skip


def test_lines_where_there_is_no_terminal(config, capfd):
    result = training.train(config)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and "\x1b" not in err
    assert [x.split()[1] for x in lines if re.match(r"step \d+/6  loss", x)] == ["2/6", "4/6", "6/6"]
    assert [x.split(" (")[0] for x in lines if "held out, " in x and "mean T" in x] == [
        "before",
        "step 2",
        "step 4",
        "after",
    ]
    assert f"loss {result.history[3]:.4f}" in next(x for x in lines if x.startswith("step 4/6"))
    assert lines[-1].startswith(f"saved {config.output} after 6 steps")


def test_silent(config, capfd):
    training.train(replace(config, log_every=0))
    assert "step" not in capfd.readouterr().err


def test_training_json(config):
    result = training.train(config)
    record = json.loads((Path(config.output) / "training.json").read_text())
    assert record["settings"] == asdict(config)
    assert record["before"] == asdict(result.before) and record["after"] == asdict(result.after)
    assert record["steps"]["loss"] == result.history
    assert {len(column) for column in record["steps"].values()} == {6}
    assert record["steps"]["learning_rate"] == pytest.approx([3e-3 * (6 - i) / 6 for i in range(6)])
    assert [x["step"] for x in record["validation"]] == [2, 4]
    assert record["data"]["samples"] == 38 and record["data"]["held_out"] == 10 and record["data"]["processes"] == 1
    assert record["seconds"] > 0 and record["tokens_per_second"] == pytest.approx(
        record["n_tokens"] / record["seconds"], rel=0.01
    )
    for term in ("loss", "mean_temperature", "mean_top_p"):
        assert record["validation"][0][term] != record["before"][term], "measured anew"


@pytest.mark.parametrize("objective", ("likelihood", "joint"))
def test_every_objective_lowers_its_own_loss(config, objective):
    result = training.train(replace(config, objective=objective, max_steps=20, eval_every=0))
    assert result.after.loss < result.before.loss - 0.001
    assert result.after.loss == pytest.approx(result.after.temp_loss + result.after.top_p_loss)
    assert (result.after.temp_loss == 0.0) == (objective == "joint")
    assert result.after.mean_temperature != pytest.approx(result.before.mean_temperature, abs=1e-3)
    assert result.after.mean_top_p != pytest.approx(result.before.mean_top_p, abs=1e-3)


# ---- a terminal --------------------------------------------------------------------


def test_a_bar_on_a_terminal(config):
    """The command on a pseudo-terminal: a bar with step and loss, redrawn in place."""
    here, there = pty.openpty()
    command = [sys.executable, "-m", "autodeco_edge", "train", "--recipe", "official", "--base", config.base, "--data", config.data, "-o", config.output,
               "--max-steps", "6", "--lr", "1e-3"]  # fmt: skip
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TERM": "xterm-256color",
        "COLUMNS": "160",
        "HF_HUB_OFFLINE": "1",
    }
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=there, env=environment
    ) as process:
        os.close(there)
        shown = b""
        while True:
            try:
                piece = os.read(here, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.stdout.read() == b""
    os.close(here)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "\x1b[" in text and "6/6" in text and "tok/s" in text and "mean T" in text and "saved" in text
    assert not re.search(r"step \d/6", text), "no lines beside the bar"


# ---- trackers ----------------------------------------------------------------------


def test_unknown_tracker(config):
    with pytest.raises(UsageError, match="tracker: expected one of .*tensorboard.*; got 'paper'"):
        training.train(replace(config, tracker="paper"))
    assert not Path(config.output).exists()


def test_missing_package_of_a_tracker(config):
    available = {str(getattr(x, "value", x)) for x in get_available_trackers()}
    missing = next(str(x.value) for x in LoggerType if x.value != "all" and x.value not in available)
    with pytest.raises(UsageError, match=f"the package of {missing} is not installed: run  pip install"):
        training.train(replace(config, tracker=missing))


class Notes(GeneralTracker):
    """A tracker as accelerate wants them, that keeps what it is given."""

    name, requires_logging_directory = "notes", False
    given: list = []

    def __init__(self, run_name: str, **_: object) -> None:
        super().__init__()

    @property
    def tracker(self):
        return self.given

    def store_init_configuration(self, values):
        self.given.append(("settings", values))

    def log(self, values, step=None, **_):
        self.given.append((step, values))

    def finish(self):
        self.given.append(("end", None))


def test_a_tracker_gets_every_step_and_every_validation(config, monkeypatch):
    """Through accelerate, with a tracker registered under its extension point."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "notes", Notes)
    monkeypatch.setattr(progress, "check_tracker", lambda name: None)
    monkeypatch.setattr(training, "check_tracker", lambda name: None)
    Notes.given.clear()
    result = training.train(replace(config, tracker="notes"))
    (first, settings), *middle, (last, _) = Notes.given
    assert (first, last) == ("settings", "end")
    assert settings["learning_rate"] == 3e-3 and all(isinstance(x, (int, float, str, bool)) for x in settings.values())
    steps = [(step, values) for step, values in middle if "train/loss" in values]
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert [values["train/loss"] for _, values in steps] == result.history
    assert set(steps[0][1]) == {
        f"train/{x}"
        for x in ("loss", "temp_loss", "top_p_loss", "rank_loss", "mean_temperature", "mean_top_p", "learning_rate")
    }
    validations = [(step, values["validation/loss"]) for step, values in middle if "validation/loss" in values]
    assert [step for step, _ in validations] == [0, 2, 4, 6]
    assert validations[-1][1] == result.after.loss


def test_tensorboard(config):
    """The real one where it is installed: an event file with the losses."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = training.train(replace(config, tracker="tensorboard"))
    (folder,) = (Path(config.output) / "logs").iterdir()
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(result.history, rel=1e-6)

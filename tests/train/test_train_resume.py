"""An interrupted run goes on to the same bits; a state that does not fit is refused; a full disk loses nothing."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autodeco_edge.errors import AutodecoError, FormatError, MissingInputError, StorageError, UsageError
from autodeco_edge.io import atomic
from autodeco_edge.train import trainer as training
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.hidden_cache import HiddenCache
from autodeco_edge.train.hyperparameters import TrainConfig
from autodeco_edge.train.record import FILE as RECORD
from autodeco_edge.train.state import FILE as STATE
from tests.support import letters, warm

N_STEPS = 14  # more than three epochs of 5 batches


@pytest.fixture
def config(base_dir, data_file, tmp_path) -> TrainConfig:
    return TrainConfig(
        str(base_dir), str(data_file), str(tmp_path / "heads"), recipe="official", learning_rate=3e-3, batch_size=8, accumulation=2,
        max_steps=N_STEPS, validation=0.2, save_dtype="f32", save_every=3, eval_every=5, log_every=0,
    )  # fmt: skip


@pytest.fixture
def gguf_config(config, tmp_path) -> TrainConfig:
    path = letters.write_model(tmp_path / "tiny.gguf")
    data = tmp_path / "sums.jsonl"
    lines = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}." * (1 + a)} for a in range(6) for b in range(5)]
    data.write_text("".join(json.dumps(x) + "\n" for x in lines))
    return replace(config, base=None, model=str(path), data=str(data), batch_size=4, threads=1)


class Stop(Exception):
    pass


def interrupt_at(monkeypatch, step: int) -> None:
    real = training.schedule

    def stop(config, at, n_steps):
        if at == step:
            raise Stop
        return real(config, at, n_steps)

    monkeypatch.setattr(training, "schedule", stop)


def outcome(config: TrainConfig) -> tuple[dict, dict]:
    """(tensors, training.json without what the clock says)."""
    record = json.loads((Path(config.output) / RECORD).read_text())
    return load_heads(config.output).heads.state_dict(), {
        k: record[k] for k in ("before", "after", "validation", "steps")
    }


def assert_same(one: TrainConfig, other: TrainConfig) -> None:
    (tensors, record), (same_tensors, same_record) = outcome(one), outcome(other)
    assert record == same_record
    assert len(record["steps"]["loss"]) == N_STEPS
    for name, tensor in tensors.items():
        assert torch.equal(tensor, same_tensors[name]), name
    assert not (Path(other.output) / STATE).exists()


def test_killed_process_resumes_to_the_same_bits(config, tmp_path):
    """SIGKILL after step 7 is reported; the resumed run is a process of its own too."""
    config = replace(config, log_every=1)
    killed = replace(config, output=str(tmp_path / "killed"))
    with start(killed) as process:
        for line in process.stderr:
            if line.startswith(f"step 7/{N_STEPS}"):
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    folder = Path(killed.output)
    assert (folder / STATE).is_file() and not (folder / "model.safetensors").exists()
    done = warm.run(*words(killed, "--resume"), modules=warm.TORCH, text=True, timeout=120)
    assert done.returncode == 0 and "resumed after step " in done.stderr, done.stderr
    done = warm.run(*words(config), modules=warm.TORCH, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert_same(config, killed)


def words(config: TrainConfig, *more: str) -> list:
    return ["train", "--recipe", "official", "--base", config.base, "--data", config.data, "-o", config.output, "--lr", config.learning_rate,
                 "--batch-size", config.batch_size, "--accumulation", config.accumulation, "--max-steps", config.max_steps,
                 "--validation", config.validation, "--save-dtype", config.save_dtype, "--save-every", config.save_every,
                 "--eval-every", config.eval_every, "--log-every", config.log_every, *more]  # fmt: skip


def start(config: TrainConfig, **options) -> subprocess.Popen:
    return subprocess.Popen(
        warm.command(*words(config)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("at", (3, 8, N_STEPS - 1))
def test_interrupted_run_resumes_to_the_same_bits(config, tmp_path, monkeypatch, at):
    training.train(config)
    check_resumed(config, tmp_path, monkeypatch, at)


@pytest.mark.parametrize("objective", ("official", "joint"))
def test_resumes_on_a_gguf(gguf_config, tmp_path, monkeypatch, objective):
    config = replace(gguf_config, objective=objective)
    training.train(config)
    check_resumed(config, tmp_path, monkeypatch, 8)


def test_resumes_with_a_cache_that_holds_some_samples(config, tmp_path, monkeypatch):
    """Hidden states computed in other batches differ in their last bits: the cache must bring back the very same."""
    monkeypatch.setattr(training, "HiddenCache", lambda budget: HiddenCache(30_000))
    training.train(config)
    check_resumed(config, tmp_path, monkeypatch, 10)


def check_resumed(config, tmp_path, monkeypatch, at: int) -> None:
    broken = replace(config, output=str(tmp_path / "broken"))
    with monkeypatch.context() as patch:
        interrupt_at(patch, at)
        with pytest.raises(Stop):
            training.train(broken)
    result = training.train(replace(broken, resume=True))
    assert_same(config, broken)
    assert result.history == outcome(config)[1]["steps"]["loss"]


# ---- what may not be resumed -------------------------------------------------------


@pytest.fixture
def unfinished(config, monkeypatch) -> TrainConfig:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        with pytest.raises(Stop):
            training.train(config)
    return replace(config, resume=True)


@pytest.mark.parametrize(
    "name, value, message",
    (("learning_rate", 1e-3, "learning_rate 0.003, now 0.001"), ("batch_size", 4, "batch_size 8, now 4"),
     ("objective", "joint", "objective official, now joint"), ("seed", 1, "seed 42, now 1"), ("max_steps", 20, "max_steps 14, now 20")),
)  # fmt: skip
def test_other_settings_are_refused(unfinished, name, value, message):
    before = (Path(unfinished.output) / STATE).read_bytes()
    with pytest.raises(UsageError, match=message) as caught:
        training.train(replace(unfinished, **{name: value}))
    assert "\n" not in str(caught.value)
    assert (Path(unfinished.output) / STATE).read_bytes() == before


def test_other_data_are_refused(unfinished, tmp_path):
    lines = Path(unfinished.data).read_text().splitlines()
    same, other = tmp_path / "same.jsonl", tmp_path / "other.jsonl"
    same.write_text("\n".join(lines) + "\n\n")
    other.write_text("\n".join([*lines[:-1], lines[0]]) + "\n")
    with pytest.raises(UsageError, match="other training data"):
        training.train(replace(unfinished, data=str(other)))
    training.train(replace(unfinished, data=str(same)))


def test_an_unfinished_run_is_not_overwritten_by_accident(unfinished):
    with pytest.raises(UsageError, match="--resume to go on"):
        training.train(replace(unfinished, resume=False))


def test_nothing_to_resume_and_a_damaged_state(config, unfinished, tmp_path):
    (tmp_path / "heads-only").mkdir()
    (tmp_path / "heads-only" / "model.safetensors").write_bytes(b"somebody's")
    with pytest.raises(MissingInputError, match="nothing to resume"):
        training.train(replace(config, resume=True, output=str(tmp_path / "heads-only")))
    assert (tmp_path / "heads-only" / "model.safetensors").read_bytes() == b"somebody's"
    path = Path(unfinished.output) / STATE
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FormatError, match="not a readable training state"):
        training.train(unfinished)


@pytest.mark.parametrize("at", (3, 4, 5), ids=("loss", "validation", "weights"))
def test_divergence_keeps_the_last_state(config, tmp_path, monkeypatch, at):
    """A rate of NaN breaks the heads; the next step, validation or state finds out. The state after step 3 stays."""
    training.train(config)
    broken, real = replace(config, output=str(tmp_path / "broken")), training.schedule
    with monkeypatch.context() as patch:
        patch.setattr(training, "schedule", lambda c, step, n: math.nan if step == at else real(c, step, n))
        with pytest.raises(AutodecoError, match=f"diverged, the state in .*{STATE} stays") as caught:
            training.train(broken)
    assert "\n" not in str(caught.value)
    training.train(replace(broken, resume=True))
    assert_same(config, broken)


# ---- a full disk -------------------------------------------------------------------


class FullDisk:
    """Stands in for os.write: no space left from the ``fail_at``-th call on."""

    def __init__(self, fail_at: int) -> None:
        self.fail_at, self.calls = fail_at, 0

    def __call__(self, fd, data):
        self.calls += 1
        if self.calls >= self.fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(fd, data[:100_000])


def test_full_disk_at_any_write_keeps_the_state_before(config, tmp_path, monkeypatch):
    """States after steps 3, 6, 9 and 12, heads, config.json, training.json; every write of them fails once."""
    training.train(config)
    n_failed, steps = 0, set()
    for fail_at in range(1, 100):
        c = replace(config, output=str(tmp_path / f"full{fail_at}"))
        folder = Path(c.output)
        with monkeypatch.context() as patch:
            patch.setattr(atomic, "_os_write", FullDisk(fail_at))
            try:
                training.train(c)
                break
            except StorageError as failed:
                assert "No space left" in str(failed) and "\n" not in str(failed)
                n_failed += 1
        left = {p.name for p in folder.iterdir()} if folder.exists() else set()
        assert left <= {STATE, "model.safetensors", "config.json"}, "no part of a file stays"
        if STATE in left and fail_at % 4 == 0:  # a run is a second: one in four is resumed
            training.train(replace(c, resume=True))
            assert_same(config, c)
            steps.add(fail_at)
    assert n_failed >= 8 and len(steps) >= 2


def test_full_disk_in_a_child_gives_one_line(config):
    """A real refusal of the operating system: RLIMIT_FSIZE stands in for the full disk."""
    limit = (50_000, 50_000)
    with start(config, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 74, err
    assert err.count("\n") == 1 and "writing failed: File too large" in err
    assert not Path(config.output).exists()

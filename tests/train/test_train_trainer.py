"""Whole runs on a tiny base: the loss falls, a seed repeats, files and errors are right."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autodeco_edge.errors import AutodecoError, FormatError, MismatchError, OutputError, UsageError
from autodeco_edge.train import trainer as training
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.hidden_cache import HiddenCache
from autodeco_edge.train.hyperparameters import TrainConfig, schedule
from autodeco_edge.train.model import AutoDecoForCausalLM


@pytest.fixture
def config(base_dir, data_file, tmp_path) -> TrainConfig:
    return TrainConfig(
        str(base_dir), str(data_file), str(tmp_path / "heads"), recipe="official", learning_rate=3e-3, batch_size=8, accumulation=1,
        max_steps=30, validation=0.2, save_dtype="f32", log_every=0,
    )  # fmt: skip


@pytest.mark.parametrize("loss", ("hf", "nemo"))
def test_loss_falls_and_means_are_saved(config, loss):
    result = training.train(replace(config, loss=loss))
    assert result.after.loss < result.before.loss - 0.001
    assert len(result.history) == 30
    saved = json.loads(load_path(config).read_text())
    assert saved["autodeco_mean_temperature"] == pytest.approx(result.after.mean_temperature)
    assert saved["autodeco_mean_top_p"] == pytest.approx(result.after.mean_top_p)
    assert saved["base_model_type"] == "llama"


def load_path(config: TrainConfig) -> Path:
    return Path(config.output) / "config.json"


def test_saved_heads_give_the_reported_means(config, base_dir):
    """Mean T and P of the saved heads over the same held-out tokens, recomputed by teacher forcing."""
    result = training.train(config)
    trainer = training.Trainer(replace(config, init=config.output))
    model = AutoDecoForCausalLM.from_pretrained(base_dir, config.output, dtype=torch.float32)
    t, p = [], []
    for sample in trainer.held_out:
        out = model(torch.tensor([sample.ids]))
        t.append(out.temperature[0, sample.n_prompt - 1 : -1])
        p.append(out.top_p[0, sample.n_prompt - 1 : -1])
    assert torch.cat(t).mean().item() == pytest.approx(result.after.mean_temperature, abs=1e-5)
    assert torch.cat(p).mean().item() == pytest.approx(result.after.mean_top_p, abs=1e-5)
    assert len(torch.cat(t)) == result.after.n_tokens


def test_a_seed_repeats_and_another_differs(config, tmp_path):
    def run(name, **changes):
        c = replace(config, output=str(tmp_path / name), max_steps=6, **changes)
        return training.train(c).history, load_heads(c.output).heads.state_dict()

    (first, heads), (again, same_heads), (other, _) = run("a"), run("b"), run("c", seed=7)
    assert first == again and first != other
    assert all(torch.equal(heads[name], same_heads[name]) for name in heads)


@pytest.mark.parametrize("which", ("temp", "top-p"))
def test_one_head_alone(config, which):
    training.train(replace(config, heads=which, max_steps=3))
    checkpoint = load_heads(config.output)
    assert (checkpoint.enable_temperature, checkpoint.enable_top_p) == (which == "temp", which == "top-p")
    saved = json.loads(load_path(config).read_text())
    assert ("autodeco_mean_temperature" in saved) == (which == "temp")


def test_warm_start_trains_one_head_and_keeps_the_other(config, tmp_path):
    training.train(replace(config, max_steps=3))
    before = load_heads(config.output).heads.state_dict()
    training.train(replace(config, init=config.output, heads="top-p", output=str(tmp_path / "second"), max_steps=3))
    after = load_heads(tmp_path / "second").heads.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"top_p_head"}


def test_warm_start_without_the_head_to_train(config, tmp_path):
    training.train(replace(config, heads="temp", max_steps=1))
    with pytest.raises(MismatchError, match="no top_p_head"):
        training.train(replace(config, init=config.output, output=str(tmp_path / "second")))


def test_accumulated_batches_are_averaged(config):
    """Four batches of 2 and one of 8 give the same gradient where all have equal token counts."""
    trainer = training.Trainer(replace(config, drop_probability=0.0))
    samples = trainer.train_samples[:8]
    samples = [replace(s, ids=s.ids[: s.n_prompt + 3]) for s in samples]
    gradients = []
    for groups in ([samples], [samples[i : i + 2] for i in range(0, 8, 2)]):
        trainer._gradient(0, groups)
        gradients.append([p.grad.clone() for p in trainer.heads.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_the_cache_changes_nothing_but_the_time(config):
    """Also a cache that holds only some samples. Other batch shapes round otherwise: float32, 5 steps of 3 epochs."""
    runs = [training.Trainer(replace(config, cache_mb=mb, max_steps=15)) for mb in (0, 1, 1)]
    runs[2].cache = HiddenCache(20_000)
    histories = [run.run().history for run in runs]
    assert len(runs[0].cache._kept) == 0 < len(runs[2].cache._kept) < len(runs[1].cache._kept) == 48
    assert histories[1] == pytest.approx(histories[0], rel=1e-3)
    assert histories[2] == pytest.approx(histories[0], rel=1e-3)


def test_epochs_accumulation_bf16_and_basic(config):
    result = training.train(
        replace(config, max_steps=0, epochs=2, accumulation=2, validation=0.0, precision="bf16", enhanced=False,
                base_dtype="bfloat16", schedule="cosine", save_dtype="bf16")
    )  # fmt: skip
    assert len(result.history) == 2 * 3  # 48 samples, batches of 8, two a step
    assert not load_heads(config.output).heads.use_enhanced_features


def test_divergence_saves_nothing_over(config, monkeypatch):
    training.train(replace(config, max_steps=1))
    folder = load_path(config).parent
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr(training, "schedule", lambda *_: 1e34)
    with pytest.raises(AutodecoError, match="diverged|finite"):
        training.train(replace(config, max_steps=5))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_the_base_stays_as_it_was(config, base_dir):
    from safetensors.torch import load_file

    trainer = training.Trainer(replace(config, max_steps=2))
    trainer.run()
    for name, tensor in load_file(base_dir / "model.safetensors").items():
        assert torch.equal(trainer.model.base.state_dict()[name], tensor)


def test_progress_goes_to_stderr(config, capfd):
    training.train(replace(config, max_steps=2, log_every=1))
    out, err = capfd.readouterr()
    assert out == "" and "step 2/2" in err and "mean T" in err and "saved" in err


@pytest.mark.parametrize(
    "name, value",
    (("heads", "all"), ("loss", "mse"), ("epochs", 0), ("learning_rate", 0.0), ("validation", 1.0), ("batch_size", 0),
     ("schedule", "step"), ("precision", "fp8"), ("save_dtype", "q8_0"), ("drop_probability", 1.5), ("clip_norm", -1.0)),
)  # fmt: skip
def test_settings_out_of_range(config, name, value):
    with pytest.raises(UsageError, match=name):
        training.train(replace(config, **{name: value}))


def test_bad_data_and_bad_output(config, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "x"}\n')
    with pytest.raises(FormatError, match="bad.jsonl:1"):
        training.train(replace(config, data=str(bad)))
    with pytest.raises(OutputError):
        training.train(replace(config, output=str(bad / "x")))


def test_schedules():
    linear = TrainConfig("b", "d", "o", recipe="official", warmup_steps=2)
    assert [schedule(linear, s, 6) for s in range(6)] == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    cosine = TrainConfig("b", "d", "o", recipe="official", schedule="cosine")
    assert [round(schedule(cosine, s, 4), 4) for s in range(4)] == [1.0, 0.8536, 0.5, 0.1464]
    assert schedule(TrainConfig("b", "d", "o", recipe="official", schedule="constant"), 3, 4) == 1.0


# ---- the command -------------------------------------------------------------------


def test_command(config):
    import typer
    from typer.testing import CliRunner

    from autodeco_edge.cli.train import train

    app = typer.Typer()
    app.command()(train)
    arguments = ["--base", config.base, "--data", config.data, "-o", config.output, "--max-steps", "2", "--lr", "1e-3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert load_path(config).is_file()
    failed = CliRunner().invoke(app, [*arguments, "--epochs", "0"])
    assert isinstance(failed.exception, UsageError)


def test_command_without_the_extra(monkeypatch):
    from autodeco_edge.cli import train as command

    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(UsageError, match=r"fit needs torch: run .*\[train\]"):
        command.check_packages("fit")


def test_importing_the_command_loads_no_torch():
    code = "import sys, autodeco_edge.cli.train, autodeco_edge.train; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Where a value comes from: flag, environment, preset, file, default."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.cli.config_file import example_path, read_config
from tests.support import warm

FILE = """
temp = 0.5
max-tokens = 3
stop = ["zz"]
[presets.support]
temp = 0.25
top-p = 0.75
"""


def cli(*args, **options) -> subprocess.CompletedProcess:
    return warm.run(*args, text=True, **options)


@pytest.fixture
def config_file(home):
    home.mkdir()
    (home / "config.toml").write_text(FILE)
    return home / "config.toml"


def rows(*args) -> dict[str, list[str]]:
    done = cli("config", *args)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}


def test_sources_in_their_order(config_file, monkeypatch):
    found = rows()
    assert (found["temp"], found["top-p"], found["max-tokens"]) == (["0.5", "file"], ["-", "default"], ["3", "file"])
    assert found["stop"] == ["zz", "file"]
    found = rows("--preset", "support")
    assert (found["temp"], found["top-p"]) == (["0.25", "preset", "support"], ["0.75", "preset", "support"])
    assert found["preset"] == ["support", "flag"]
    monkeypatch.setenv("AUTODECO_TEMP", "0.125")
    assert rows("--preset", "support")["temp"] == ["0.125", "AUTODECO_TEMP"]
    assert rows("--env")["ctx-size"] == ["0", "default", "AUTODECO_CTX_SIZE"]


def test_run_takes_the_values_and_the_flag_wins(config_file, letters, monkeypatch):
    import json

    def steps(*args) -> list[dict]:
        done = cli("run", "hi", "-m", letters.gguf, "--heads", letters.heads, "-t", "1", "--jsonl", *args)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()][:-1]

    def factor(*args) -> set[float]:
        return {round(s["temperature_eff"] / s["temperature"], 5) for s in steps(*args)}

    assert len(steps()) == 3 and factor() == {0.5}
    assert factor("--preset", "support") == {0.25}
    monkeypatch.setenv("AUTODECO_PRESET", "support")
    assert factor() == {0.25}
    monkeypatch.setenv("AUTODECO_TEMP", "0.125")
    assert factor() == {0.125}
    assert factor("--temp", "2") == {2.0}


@pytest.mark.parametrize(
    "text, code, says",
    [
        ("temp = ", 65, "not valid TOML"),
        ("tmep = 1", 2, "'tmep' is no option of run; did you mean temp?"),
        ("temp = 'warm'", 2, "temp: "),
        ("presets = 3", 65, "holds tables"),
        ("[presets.support]\nnothing = 1", 2, "preset support: 'nothing' is no option"),
        ("preset = 'suport'\n[presets.support]", 2, "did you mean 'support'?"),
    ],
)
def test_wrong_file_is_one_line(home, letters, text, code, says):
    home.mkdir()
    (home / "config.toml").write_text(text)
    done = cli("run", "hi", "-m", letters.gguf, *([] if "preset = " in text else ["--preset", "support"]))
    assert done.returncode == code
    assert says in done.stderr and done.stderr.count("\n") == 1 and str(home) in done.stderr


def test_preset_that_nobody_wrote(home, letters):
    done = cli("run", "hi", "-m", letters.gguf, "--preset", "support")
    assert done.returncode == 2 and "config --example" in done.stderr


def test_example_is_sound(home):
    done = cli("config", "--example")
    path = cli("config", "--path").stdout.strip()
    assert path == str(home / "config.toml")
    (home / "config.toml").write_text(done.stdout)
    assert done.stdout == example_path().read_text()
    assert set(read_config(home / "config.toml").presets) == {"support", "brainstorm"}
    assert rows("--preset", "brainstorm")["min-p"] == ["0.02", "preset", "brainstorm"]
    assert rows("--preset", "support")["temp-range"] == ["0:0.8", "preset", "support"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_shown_for_the_shell_that_asks(shell, home, tmp_path):
    """Found by its name among the ancestors, so one of that name is put there, whichever started the tests."""
    (tmp_path / shell).symlink_to(shutil.which("sh"))
    program = Path(sys.executable).with_name("autodeco-edge")
    line = [tmp_path / shell, "-c", '"$0" --show-completion; exit $?', program]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"_AUTODECO_EDGE_COMPLETE=complete_{shell}" in done.stdout, done

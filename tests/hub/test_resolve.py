"""Names to files: what is downloaded, what is not asked for twice, and whose heads they are."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.verify import read_heads_gguf, verify_file
from autodeco_edge.engine.engine import Engine
from autodeco_edge.errors import FormatError, MismatchError, MissingInputError, UsageError
from autodeco_edge.hub import resolve
from tests.support import checkpoints
from tests.support.letters import write_model
from tests.support.split_model import split_model

from .conftest import BASE, GGUF_NAME, HEADS


def quiet(*args, **options):
    return resolve(*args, progress=False, **options)


def test_a_name_gives_model_and_heads_that_generate(hub, letters):
    found = quiet("letters")
    assert found.name == "letters:Q8_0" and found.note is None
    assert found.model.read_bytes() == letters.gguf.read_bytes()
    verify_file(read_checkpoint(letters.checkpoint), found.heads)
    means = read_heads_gguf(found.heads).means
    assert (means.temperature, means.top_p) == (0.5, 0.25)  # those of the registry entry
    with Engine(found.model, found.heads, n_threads=1) as engine:
        steps = list(engine.generate(engine.model.tokenize("ab"), max_tokens=4))
    with Engine(letters.gguf, letters.heads, n_threads=1) as engine:
        assert steps == list(engine.generate(engine.model.tokenize("ab"), max_tokens=4))


def test_only_heads_are_fetched_from_a_heads_repository(hub):
    quiet("letters")
    fetched = {
        r.path.rpartition("/resolve/")[2].partition("/")[2] for r in hub.requests if HEADS + "/resolve" in r.path
    }
    assert fetched == {"config.json", "model.safetensors"}


def test_second_time_asks_nobody(hub, home):
    first = quiet("letters")
    n_requests, heads_written = len(hub.requests), first.heads.stat().st_mtime_ns
    assert quiet("letters") == first and len(hub.requests) == n_requests
    hub.close()
    assert quiet("letters") == first and quiet("letters", offline=True) == first
    assert first.heads.stat().st_mtime_ns == heads_written
    assert quiet(BASE).model == first.model


def test_offline_without_a_download_says_what_to_do(hub, home):
    with pytest.raises(MissingInputError, match="letters: not on this disk; run `autodeco-edge pull letters`"):
        quiet("letters", offline=True)
    assert hub.requests == []
    resolve("letters", "none", progress=False)
    with pytest.raises(MissingInputError, match=f"{HEADS}: these heads are not on this disk"):
        quiet("letters", offline=True)


def test_refresh_takes_the_new_commit(hub, letters, tmp_path):
    old = quiet("letters")
    newer = write_model(tmp_path / "newer.gguf", template="new").read_bytes()
    hub.add(BASE, GGUF_NAME, newer)
    assert quiet("letters").model == old.model  # nobody asked for it
    assert quiet("letters", refresh=True).model.read_bytes() == newer
    assert quiet("letters", offline=True).model.read_bytes() == newer


def test_the_token_goes_to_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_letters")
    quiet(BASE)
    assert {r.authorization for r in hub.requests} == {"Bearer hf_letters"}


def test_a_path_is_taken_as_it_is_and_imports_no_hub(letters):
    code = (
        "import sys; from autodeco_edge.hub import resolve; found = resolve(sys.argv[1], sys.argv[2])\n"
        "assert str(found.model) == sys.argv[1] and str(found.heads) == sys.argv[2], found\n"
        "assert resolve(sys.argv[1]).heads is None\n"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, letters.gguf, letters.heads]).returncode == 0


@pytest.mark.parametrize(
    "model, heads, error, words",
    [
        ("letter", None, MissingInputError, "did you mean letters"),
        ("gpt-oss", None, MissingInputError, "did you mean gpt-oss-20b or gpt-oss-120b"),
        ("%%%", None, MissingInputError, "`autodeco-edge list` shows the names"),
        ("models/absent.gguf", None, MissingInputError, "no such file, name or repository"),
        (".", None, MissingInputError, "is a folder"),
        ("letters:Q2_K", None, UsageError, "no quantisation 'Q2_K' in it; there are Q8_0"),
        ("letters", "nothing", MissingInputError, "no such heads"),
        ("letters", BASE, MissingInputError, "no AutoDeco heads in it"),
        (HEADS, None, UsageError, "no GGUF model in it"),
        ("x" * 5000, None, MissingInputError, "no such file, name"),
    ],
)
def test_one_line_for_a_wrong_argument(hub, model, heads, error, words):
    with pytest.raises(error) as caught:
        quiet(model, heads)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_first_repository_without_it_is_passed_over_for_the_quantisation(hub, home, letters):
    (home.config / "models.toml").write_text(f'[two]\nbase = ["{BASE}", "someone/more-GGUF"]\n')
    hub.add("someone/more-GGUF", "m-Q4_K_M.gguf", letters.gguf.read_bytes())
    found = quiet("two:q4_k_m")
    assert found.name == "two:Q4_K_M" and "no heads are published" in found.note


def test_a_split_model_comes_whole_and_takes_heads(hub, letters, tmp_path):
    """llama.cpp is given the first part; the others must lie beside it."""
    files = split_model(letters.gguf, tmp_path, [[], ["token_embd.weight"], []], stem="letters-F32")
    parts = [f"big/{path.name}" for path in files]
    for name, path in zip(parts, files, strict=True):
        hub.add("someone/split-GGUF", name, path.read_bytes())
    found = quiet("someone/split-GGUF:F32", HEADS)
    assert found.model.name == parts[0].rpartition("/")[2]
    assert sorted(path.name for path in found.model.parent.iterdir()) == [name.rpartition("/")[2] for name in parts]
    heads = read_heads_gguf(found.heads)
    assert heads.arch == "llama" and heads.tokenizer_sha256 and heads.norm_sha256
    assert found.heads == quiet("letters", HEADS).heads  # the whole model has the same fingerprint
    assert quiet("someone/split-GGUF", HEADS, offline=True) == found
    found.model.unlink()
    with pytest.raises(MissingInputError):  # a part missing is no model
        quiet("someone/split-GGUF", offline=True)


# ---- heads --------------------------------------------------------------------------------------


def test_heads_of_another_base_are_refused_and_not_kept(hub, home, tmp_path):
    other = checkpoints.random_heads(tmp_path / "other", 64, seed=1)
    for path in other.iterdir():
        hub.add("someone/AutoDeco-other", path.name, path.read_bytes())
    with pytest.raises(MismatchError, match="64"):
        quiet("letters", "someone/AutoDeco-other")
    assert list(home.cache.rglob("*.gguf")) == []


def test_each_base_gets_its_own_file_and_all_its_quantisations_share_it(hub, letters, tmp_path):
    import numpy as np

    requantised = write_model(tmp_path / "q.gguf", tensors={"output.weight": np.ones((260, 32), np.float32)})
    other = write_model(tmp_path / "o.gguf", tensors={"output_norm.weight": np.full(32, 2, np.float32)})
    hub.add(BASE, "letters-F16.gguf", requantised.read_bytes())
    hub.add("someone/other-GGUF", "other-F16.gguf", other.read_bytes())
    heads = quiet("letters:Q8_0").heads
    assert quiet("letters:F16").heads == heads
    assert quiet("someone/other-GGUF", HEADS).heads != heads


def test_shards_with_heads_are_found_by_the_index(hub, letters):
    import json

    index = {
        "weight_map": {"model.embed": "model-00001.safetensors", "temp_head.mlp.0.weight": "model-00002.safetensors"}
    }
    for name, data in (
        ("model.safetensors.index.json", json.dumps(index).encode()),
        ("model-00001.safetensors", b"base" * 1000),
        ("model-00002.safetensors", (letters.checkpoint / "model.safetensors").read_bytes()),
        ("config.json", (letters.checkpoint / "config.json").read_bytes()),
    ):
        hub.add("someone/AutoDeco-merged", name, data)
    verify_file(read_checkpoint(letters.checkpoint), quiet("letters", "someone/AutoDeco-merged").heads)
    assert hub.gets("model-00001.safetensors") == []


def test_a_whole_model_is_no_heads_repository(hub):
    hub.add("someone/whole", "model.safetensors", b"x", size=15_000_000_000)
    with pytest.raises(FormatError, match="15 GB, so this is a whole model"):
        quiet("letters", "someone/whole")
    assert hub.gets("model.safetensors") == []


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, headers, code, words",
    [
        (401, {}, 66, "not there, or private (401); check the name, or set HF_TOKEN"),
        (403, {"X-Error-Code": "GatedRepo"}, 66, "accept its terms"),
        (404, {"X-Error-Code": "RepoNotFound"}, 66, "no such repository"),
        (429, {"Retry-After": "7"}, 75, "rate limit is reached (429); wait 7 s"),
        (200, {"Content-Type": "text/html"}, 66, "the answer is not that of a hub; check HF_ENDPOINT"),
        (503, {}, 75, "the hub is out of order (503)"),
    ],
)
def test_refusals_are_one_line_with_a_next_step(hub, status, headers, code, words):
    hub.refusals[BASE] = (status, headers)
    with pytest.raises(Exception) as caught:
        quiet(BASE)
    assert caught.value.exit_code == code and words in str(caught.value) and "\n" not in str(caught.value)


def test_no_network(hub, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(
            MissingInputError, match=r"cannot be reached \(it refuses the connection\); check the network"
        ):
            quiet(BASE)

"""What a newcomer meets before the first reply: which word is a model, wrong files, the bare command, the list."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from autodeco_edge.cli.arguments import is_model
from autodeco_edge.engine.pairing import demo_model
from tests.support import warm

HEADS = demo_model().parent / "heads" / "autodeco-smollm2-135m-f16.gguf"
MODELS = [
    "llama3.2", "llama3", "llama", "Llama-3.2-1B-Instruct", "qwen3", "qwen3:4b", "qwen2.5-coder", "gemma3:4b",
    "gemma-2-2b-it", "mistral", "Mistral-7B-Instruct-v0.3", "mixtral:8x7b", "phi4", "phi-3-mini", "deepseek-r1:7b",
    "gpt-oss", "gpt-oss:20b", "smollm2", "tinyllama", "codellama:7b-code", "yi:34b", "command-r", "granite3.3",
    "falcon3:1b", "nomic-embed-text:latest", "model.gguf", "./nosuch.gguf", "/nowhere/m.gguf", "foo.safetensors",
    "my-model-Q4_K_M",
]  # fmt: skip
PROMPTS = [
    "hello", "hi", "Hi!", "thanks", "42", "2+2", "why?", "test", "tell me", "good morning", "mp3", "H2O", "python3",
    "COVID-19", "B2B", "catch-22", "falcon", "Solar power", "mistral?", "what's up", "résumé", "日本", "x=1", "U2",
    "10:30", "AC/DC lyrics", "iPhone 15", "phi", "Orca", "utf-8",
]  # fmt: skip


@pytest.fixture
def run(home, monkeypatch):
    """``run(arguments...)`` -> (exit code, stdout, stderr), without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*args: object) -> tuple[int, str, str]:
        done = warm.run(*args, text=True, input="")
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def screen(home, monkeypatch):
    """``screen(arguments...)`` is what a person sees of a command that ends by itself, and its exit code."""
    if sys.platform == "win32":
        pytest.skip("no pseudo-terminal")
    pytest.importorskip("pexpect")
    from tests.support.terminal import Terminal

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*args: object) -> tuple[str, int]:
        terminal = Terminal(*args)
        return (lambda code: (terminal.child.before, code))(terminal.ended())

    return call


def test_words_that_are_meant_as_models_are_not_answered(run):
    assert len(MODELS) == len(PROMPTS) == 30
    assert [word for word in MODELS if not is_model(word)] == []
    for word in ("llama3.2", "qwen3:4b", "./nosuch.gguf", "my-model-Q4_K_M"):
        code, out, err = run("run", word)
        assert (code, out) == (66, "") and err.count("error:") == 1, word


def test_prompts_of_one_or_two_words_are_not_refused(run):
    assert [word for word in PROMPTS if is_model(word)] == []
    for words in (["hello"], ["good morning"], ["good", "morning"], ["tell", "me", "more"]):
        assert run("run", *words, "-n", "2", "-t", "1")[0] == 0


def test_a_name_that_is_none_on_a_terminal(screen):
    shown, code = screen("run", "llama3.2")
    assert code == 66 and "did you mean" in shown and "-m demo llama3.2" in shown
    shown, code = screen("run", "mymodel", "Say hi.")
    assert code == 66 and "mymodel: no such file, name or repository" in shown


def test_near_names_of_files(run, tmp_path):
    (tmp_path / "my-model-q8_0.gguf").touch()
    code, _, err = run("run", tmp_path / "my-model.gguf", "hi")
    assert code == 66 and f"did you mean {tmp_path / 'my-model-q8_0.gguf'}?" in err


def test_addresses_of_the_hub_are_repositories():
    from autodeco_edge.hub.resolve import find_entry

    for word in ("hf.co/user/repo", "https://huggingface.co/user/repo", "user/repo"):
        assert find_entry(f"{word}:Q8_0") == (find_entry("user/repo")[0], "Q8_0")
        assert is_model(word)


def test_the_bare_command_is_its_help(screen):
    for words in ((), ("bench",)):
        shown, code = screen(*words)
        assert code == 0 and shown.lstrip().startswith("Usage: autodeco-edge") and "error" not in shown
        assert len(shown.splitlines()) > 8


def test_the_demo_is_a_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder of that name hides nothing
    code, out, err = run("run", "demo", "Find two numbers that make 83.", "-t", "1", "--seed", "1")
    assert code == 0 and "83" in out and "mean T" in err
    _, out, _ = run("list")
    assert [line.split()[:5] for line in out.splitlines()][1] == ["demo", "Q8_0", "5.93", "MB", "ready"]
    code, out, err = run("pull", "demo", "--offline")
    assert code == 0 and out.splitlines()[0] == str(demo_model()) and "nothing to download" in err
    code, _, err = run("rm", "demo", "-y")
    assert code == 66 and "belongs to this package" in err and demo_model().exists()


def test_pull_of_a_file_says_so(run, letters):
    code, out, err = run("pull", letters.gguf)
    assert (code, out) == (0, f"{letters.gguf}\n") and "is here already; nothing to download" in err


WRONG = [
    (("-m", HEADS), "holds AutoDeco heads; give them as --heads, and their model as -m"),
    (("-m", "FOLDER"), "is a folder; give a GGUF file in it"),
    (("-m", "SAFETENSORS"), "holds safetensors"),
    (("-m", "LORA"), "holds a LoRA adapter"),
    (("-m", "EYES"), "mmproj"),
    (("--heads", "FOLDER"), "is a folder, not a heads file; make one: autodeco-edge convert"),
    (("--heads", "SAFETENSORS"), "is safetensors, not a heads file; make one: autodeco-edge convert"),
]


@pytest.mark.parametrize("args, says", WRONG, ids=lambda a: " ".join(map(str, a))[:20] if isinstance(a, tuple) else "")
def test_the_wrong_object_is_named(run, letters, tmp_path, args, says):
    from tests.support.letters import write_model

    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "SAFETENSORS").write_bytes((9).to_bytes(8, "little") + b'{"a": {}}')
    write_model(tmp_path / "LORA", keys=lambda w: (w.add_type("adapter"), w.add_string("adapter.type", "lora")))
    write_model(tmp_path / "EYES", keys=lambda w: w.add_type("mmproj"))
    model = () if args[0] == "-m" else ("-m", letters.gguf)
    code, _, err = run("run", "hi", args[0], tmp_path / args[1], *model)
    assert code in (65, 66) and says in err and err.count("error:") == 1, err


@pytest.mark.parametrize("model", ["demo", str(demo_model())])
def test_heads_none_leaves_them_out(run, model):
    """By whichever way the model came, and nobody misses heads that were not wanted."""
    code, _, err = run("run", model, "Say hi.", "-n", "2", "-t", "1", "--heads", "none")
    assert code == 0 and "plain: temp" in err and "mean T" not in err and "note:" not in err


def test_an_empty_grammar_is_named(run):
    for option in ("--grammar", "--json-schema"):
        code, _, err = run("run", "hi", option, "")
        assert code == 2 and f"{option}: the text is empty; give a file or the text itself" in err


def test_a_trace_over_an_input_names_its_own_option(run, tmp_path):
    shutil.copy(demo_model(), tmp_path / "m.gguf")
    code, _, err = run("run", "hi", "-m", tmp_path / "m.gguf", "--trace", tmp_path / "m.gguf")
    assert code == 2 and "this is an input file; choose another output with --trace" in err


def test_an_unknown_way_to_wait_is_refused(home):
    for words in (("run", "hi"), ("list",), ("bench", "step")):
        done = warm.run(*words, text=True, env={**os.environ, "AUTODECO_THREAD_WAIT": "zz"})
        assert done.returncode == 2 and done.stdout == ""
        assert "AUTODECO_THREAD_WAIT: allowed short, spin, sleep or a number of spins; got 'zz'" in done.stderr


def test_the_command_that_installs_an_extra_works_where_it_is_said(tmp_path, monkeypatch):
    """From a checkout it names the folder, from an index the package."""
    from importlib import metadata

    from autodeco_edge.io import extras

    class Installed:
        def __init__(self, record):
            self.read_text = lambda name: record

    def said(record):
        monkeypatch.setattr(extras, "distribution", lambda name: Installed(record))
        return extras.how_to_install("server").partition(" install ")[2]

    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    assert said(f'{{"url": "{checkout.as_uri()}"}}') == f"'{checkout}[server]'"
    monkeypatch.chdir(checkout)
    assert said(f'{{"url": "{checkout.as_uri()}"}}') == "'.[server]'"
    for record in (None, "{", '{"url": "https://index/x.whl"}', f'{{"url": "{(tmp_path / "gone").as_uri()}"}}'):
        assert said(record) == "'autodeco-edge[server]'"
    assert metadata.distribution("autodeco-edge")


def test_the_device_that_was_asked_for_and_is_not_there(run):
    import llama_cpp

    if llama_cpp.llama_supports_gpu_offload():
        pytest.skip("this llama.cpp can offload")
    code, _, err = run("run", "hi", "-n", "1", "-t", "1", "-ngl", "99")
    assert code == 0 and "-ngl 99 is without effect: this llama.cpp was built without a GPU" in err and "on CPU" in err

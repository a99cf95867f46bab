"""A name longer than a file system takes, wherever a command takes one: one line and a code, no error of ours."""

from __future__ import annotations

import pytest

from tests.support import warm

LONG = "x" * 300
DEMO = ("-m", "demo")
COMMANDS = {
    "model": ("run", f"./{LONG}", "hi"),
    "-m": ("run", "-m", f"./{LONG}", "hi"),
    "--heads": ("run", "hi", "--heads", f"./{LONG}"),
    "--trace": ("run", "hi", "-n", "1", "--trace", f"./{LONG}"),
    "--draft": ("run", "hi", "--draft", f"./{LONG}.gguf"),
    "--grammar": ("run", "hi", "--grammar", f"./{LONG}"),
    "plot": ("plot", LONG),
    "pull": ("pull", f"./{LONG}.gguf"),
    "rm": ("rm", f"./{LONG}"),
    "verify": ("verify", LONG),
    "convert": ("convert", LONG, *("--base", LONG, "-o", LONG)),
    "eval --task": ("eval", *DEMO, "--task", f"./{LONG}.jsonl"),
    "eval -o": ("eval", *DEMO, "--task", "demo", "--limit", "1", "-o", LONG),
    "collect": ("collect", *DEMO, "-o", LONG, "--prompts", LONG),
    "bench": ("bench", "decode", "-m", f"./{LONG}"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_name_too_long(words, tmp_path):
    done = warm.run(*words, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode in (2, 65, 66, 73), done.stderr
    assert "internal error" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir()), "and nothing is left behind"

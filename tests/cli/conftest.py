"""Fixtures of the command line's tests: a small model, and `run` on a pseudo-terminal of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.letters import Letters, make_letters


@pytest.fixture(scope="session")
def letters(tmp_path_factory) -> Letters:
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Configuration, state and cache of nobody else."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "AUTODECO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    return tmp_path / "home"


@pytest.fixture
def chat(home, letters):
    """``chat(arguments...)`` starts a conversation with the small model; what is left running ends with the test."""
    if sys.platform == "win32":
        pytest.skip("no pseudo-terminal")
    pytest.importorskip("pexpect")
    from tests.support.terminal import Terminal

    running = []

    def start(*args, hint="", **options) -> Terminal:
        if "-m" not in args:
            args = ("-m", letters.gguf, "--heads", letters.heads, *args)
        terminal = Terminal("run", "-t", "1", "--seed", "1", *args, **options)
        running.append(terminal)
        terminal.wait_for(hint)
        terminal.wait_for("/help lists the commands")
        terminal.wait_for_prompt()
        return terminal

    yield start
    for terminal in running:
        terminal.kill()

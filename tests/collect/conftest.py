"""Fixtures of the collector's tests: the command in a process of its own, and a server that answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.engine.pairing import demo_model
from tests.support import warm

COMMAND = [sys.executable, "-m", "autodeco_edge", "collect"]
ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
LOCAL = ("-m", demo_model(), "-t", "1", "--max-tokens", "120")


def run(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return warm.run("collect", *args, text=True, timeout=120, env={**ENVIRONMENT, **variables})


def start(*args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def refuse(monkeypatch, capfd):
    """``refuse(arguments...)`` -> (exit code, last line of stderr), in this process: starting another takes longer."""
    from autodeco_edge.cli import main

    def call(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["autodeco-edge", "collect", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
        errors = capfd.readouterr().err
        assert "Traceback" not in errors
        return stop.value.code, errors.strip().splitlines()[-1]

    return call


@pytest.fixture(scope="session")
def one_server():
    from tests.collect.chat_server import ChatServer

    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def server(one_server, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    one_server.reset()
    return one_server

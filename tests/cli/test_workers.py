"""Layers on workers: two of them on this machine give the tokens of one process. Runs where llama.cpp has remote calls."""

from __future__ import annotations

import json
import signal
import socket
import subprocess

import pytest

from autodeco_edge.engine import devices
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import MissingInputError, UsageError
from tests.support.warm import command, run


def has_remote_calls() -> bool:
    try:
        devices.lender("127.0.0.1:1", 1)
    except UsageError:
        return False
    return True


remote = pytest.mark.skipif(not has_remote_calls(), reason="llama.cpp was built without GGML_RPC")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


@pytest.fixture
def workers():
    """Endpoints of two, and a way to start more."""
    started = []

    def start() -> tuple[str, subprocess.Popen]:
        port = free_port()
        process = subprocess.Popen(command("rpc-worker", "--port", port, "-t", "1"), stderr=subprocess.PIPE)
        started.append(process)
        assert b"listening" in process.stderr.readline()
        while b"transport" not in process.stderr.readline():
            assert process.poll() is None
        return f"127.0.0.1:{port}", process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


@remote
def test_two_workers_give_the_tokens_of_one_process(workers):
    endpoints = [workers()[0], workers()[0]]
    words = ("run", "--seed", "5", "-n", "40", "-t", "1", "--jsonl", "Tom has 3 apples and buys 4.")
    here, there = (
        [
            json.loads(line)
            for line in subprocess.check_output(command(*words, *extra), stdin=subprocess.DEVNULL).splitlines()
        ][:-1]
        for extra in ((), ("--rpc", ",".join(endpoints)))
    )
    assert len(here) > 3
    assert [step["id"] for step in here] == [step["id"] for step in there]
    for name in ("temperature", "top_p"):
        assert max(abs(a[name] - b[name]) for a, b in zip(here, there, strict=True)) < 1e-3


@remote
def test_worker_ends_as_it_is_told(workers):
    for number, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        _, process = workers()
        process.send_signal(number)
        assert process.wait(20) == code


@remote
def test_somebody_who_is_no_worker():
    with socket.create_server(("127.0.0.1", 0)) as stranger, pytest.raises(MissingInputError, match="no worker"):
        stranger.settimeout(0.1)
        endpoint = f"127.0.0.1:{stranger.getsockname()[1]}"
        stranger.listen(0)
        devices.add_workers([endpoint])


def test_nobody_there():
    endpoint = f"127.0.0.1:{free_port()}"
    with pytest.raises((MissingInputError, UsageError), match="nobody answers|without remote calls"):
        Engine(Model(demo_model(), workers=[endpoint]))


@pytest.mark.parametrize(
    "text", ["", "here", ":5", "host:", "host:0", "host:65536", "host:1,", "h\u00f6st:5", ",".join(["h:1"] * 17)]
)
def test_addresses_that_are_none(text):
    with pytest.raises(UsageError, match="--rpc: allowed"):
        devices.endpoints_of(text)
    assert run("run", "some words", "--rpc", text).returncode == 2


def test_beyond_this_machine_only_when_told():
    done = run("rpc-worker", "--host", "0.0.0.0")
    assert done.returncode == 2 and b"--trusted-network" in done.stderr

"""How many come in: no more than there are files for, and what is said of it."""

from __future__ import annotations

import logging
import socket
import sys
from urllib.parse import urlsplit

import httpx
import pytest

from autodeco_edge.server import listen
from tests.support.serving import WAIT, ask, serving

if sys.platform == "win32":
    pytest.skip("no ulimit", allow_module_level=True)

CHAT = "/v1/chat/completions"


def is_served(served) -> bool:
    try:
        return served.post(CHAT, ask(max_tokens=1)).status_code == 200
    except httpx.TransportError:  # those before have not been seen to leave
        return False


def test_more_connections_than_files():
    """Who is in is served, with the modules that a first reply imports; the others are turned away, and that is said once.
    It was 2,000 lines a second, and 500 for who was in."""
    with serving(files=64) as served:
        url = urlsplit(served.url)
        inside = socket.create_connection((url.hostname, url.port), timeout=WAIT)
        others = [socket.create_connection((url.hostname, url.port), timeout=WAIT) for _ in range(100)]
        assert others[-1].recv(1) == b"", "closed at once"
        body = b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":1}'
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        inside.sendall(head.encode() + body)
        assert inside.recv(12) == b"HTTP/1.1 200"
        for connection in (inside, *others):
            connection.close()
        served.wait_until(lambda: is_served(served))
        assert [line for line in served.log if line.startswith(("warning", "error"))] == [
            "warning: no more connections: ulimit -n 64 leaves no room for them"
        ]
        assert served.end() == 0


def test_fewer_files_than_it_needs():
    with serving(ready=False, files=40) as served:
        assert served.process.wait(WAIT) == 2
        served.wait_until(lambda: bool(served.log))
        assert served.log == [
            "autodeco-edge: error: ulimit -n 40: serve opens up to 48 files and connections; raise it"
        ]


def test_a_line_is_said_once_a_minute(capfd, monkeypatch):
    monkeypatch.setattr(listen, "say_now_and_then", listen.Seldom())
    now = 100.0
    monkeypatch.setattr(listen.time, "monotonic", lambda: now)
    logger = logging.Logger("some.library")
    logger.addHandler(listen._OneLine())
    for now in (100.0, 100.1, 159.9, 160.0, 161.0):
        for _ in range(100):
            logger.error("a prompt: %s", now)
        logger.warning("other")
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 4 and len(set(lines)) == 2 and all("some.library" in line for line in lines)

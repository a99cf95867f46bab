"""Fixtures of the server's tests: one server on the demo model, and the official client for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

for _needed in ("fastapi", "uvicorn", "sse_starlette", "prometheus_client"):
    pytest.importorskip(_needed, reason="the extra 'server' is not installed")
pytest.importorskip("openai", reason="the official client is not installed")

from tests.support.serving import Served, serving  # noqa: E402


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    """The demo model on four slots. Tests leave it as they found it."""
    with serving("--parallel", "4", "--queue", "8") as served:
        yield served
        assert served.process.poll() is None, served.log


@pytest.fixture(scope="session")
def client(server):
    return server.client()

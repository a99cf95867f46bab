"""Two servers behind nginx, with the configuration that docs/workers.md prints."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.serving import WAIT, Served, ask, serving

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
DOCUMENT = Path(__file__).parents[2] / "docs" / "workers.md"


def configuration(folder: Path, front: int, servers: list[Served]) -> str:
    """The documented text, with the ports of this test, and nothing outside its folder."""
    text = re.search(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.S)[1]
    for port, served in zip(("8081", "8082"), servers, strict=True):
        text = text.replace(f"127.0.0.1:{port}", served.url.removeprefix("http://"))
    text = text.replace("127.0.0.1:8080", f"127.0.0.1:{front}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    inside = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    return f"pid {folder}/pid; error_log {folder}/error.log; daemon off;\n" + text.replace(
        "http {", f"http {{ access_log off; {inside}", 1
    )


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """(address of the balancer, the two servers behind it)"""
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving("--parallel", "1", "--queue", "0") as one, serving("--parallel", "1", "--queue", "0") as two:
        (folder / "nginx.conf").write_text(configuration(folder, port, [one, two]))
        nginx = subprocess.Popen([NGINX, "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"])
        try:
            yield Served(nginx, f"http://127.0.0.1:{port}"), (one, two)
        finally:
            nginx.terminate()
            nginx.wait(WAIT)


def wait_for(url: str) -> None:
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        try:
            if httpx.get(url + "/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


def test_two_replies_at_once_are_on_two_servers(front):
    balancer, servers = front
    wait_for(balancer.url)
    with ThreadPoolExecutor(4) as pool:
        bodies = [ask(seed=i, max_tokens=200) for i in range(4)]
        answers = list(pool.map(lambda body: balancer.post("/v1/chat/completions", body), bodies))
    codes = sorted(answer.status_code for answer in answers)
    assert codes.count(200) >= 2 and set(codes) <= {200, 429}
    assert all(served.metric("autodeco_completion_tokens_total") > 0 for served in servers)


def test_stream_comes_token_by_token(front):
    balancer, _ = front
    wait_for(balancer.url)
    body = ask("Tell me a story about a fox.", seed=3, stream=True)
    with httpx.stream("POST", balancer.url + "/v1/chat/completions", json=body, timeout=WAIT) as answer:
        reads = list(answer.iter_raw())
    assert len(reads) > 3 and b"[DONE]" in reads[-1] + reads[-2]


def test_server_that_is_gone_is_left_out(front):
    """Last: it ends one of the two."""
    balancer, (one, _) = front
    wait_for(balancer.url)
    one.end()
    for seed in range(4):
        assert balancer.post("/v1/chat/completions", ask(seed=seed)).status_code == 200

"""Several servers behind one nginx, with the configuration that docs/server.md shows."""

from __future__ import annotations

import concurrent.futures
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.serving import NAME, QUESTION, WAIT, ask, serving

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
CONFIG = re.search(r"```nginx\n(.*?)```", PAGE, re.S)[1]
FRAME = """daemon off; worker_processes 1; pid FOLDER/pid; error_log FOLDER/error.log;
events { worker_connections 256; }
http { access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/f;
uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s;
CONFIG }
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    """(address of nginx, the two servers)"""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed; on Debian: apt-get install nginx-light")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    with serving("--parallel", "2") as one, serving("--parallel", "2") as two:
        config = CONFIG.replace("listen 80;", f"listen 127.0.0.1:{port};")
        for name, served in (("127.0.0.1:8081", one), ("127.0.0.1:8082", two)):
            assert name in config
            config = config.replace(name, served.url.removeprefix("http://"))
        path = folder / "nginx.conf"
        path.write_text(FRAME.replace("CONFIG", config).replace("FOLDER", str(folder)))
        nginx = subprocess.Popen([program, "-p", str(folder), "-c", str(path)], stderr=subprocess.PIPE, text=True)
        try:
            one.wait_until(lambda: nginx.poll() is not None or is_up(port))
            assert nginx.poll() is None, nginx.stderr.read()
            yield f"http://127.0.0.1:{port}", one, two
        finally:
            nginx.terminate()
            nginx.wait(10)


def is_up(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def drawn(served) -> float:
    return served.metric("autodeco_completion_tokens_total")


def test_both_servers_reply_and_say_the_same(balanced):
    url, one, two = balanced
    before = drawn(one), drawn(two)
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT)

    def reply(_: int) -> str:
        answer = client.chat.completions.create(model=NAME, messages=ask()["messages"], seed=5)
        return answer.choices[0].message.content

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(reply, range(16)))
    assert set(texts) == {texts[0]} and "boxed" in texts[0]
    assert drawn(one) > before[0] and drawn(two) > before[1]


def test_a_stream_is_not_held_back(balanced):
    """The first piece comes well before the last: nginx does not gather them."""
    url, *_ = balanced
    body = ask(seed=1, stream=True, max_tokens=400, logit_bias={str(i): -100 for i in ends(balanced[1])})
    came = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=WAIT) as answer:
        for line in answer.iter_lines():
            came += [time.monotonic()] if line.startswith("data: {") else []
    assert len(came) > 100 and came[-1] - came[0] > 3 * (came[10] - came[0])


def ends(served) -> list[int]:
    return served.post("/tokenize", {"content": "<|im_end|><|endoftext|>"}).json()["tokens"]


def test_a_client_that_leaves_frees_the_slot_behind_nginx(balanced):
    url, one, two = balanced
    body = ask(seed=1, stream=True, logit_bias={str(i): -100 for i in ends(one)})
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=WAIT) as answer:
        next(answer.iter_lines())
    one.wait_until(lambda: one.metric("autodeco_slots_busy") == two.metric("autodeco_slots_busy") == 0)


def test_one_server_ends_and_the_other_goes_on(balanced):
    url, one, _ = balanced
    one.end()
    for _ in range(6):
        answer = httpx.post(f"{url}/v1/chat/completions", json=ask(QUESTION, seed=1), timeout=WAIT)
        assert answer.status_code == 200, answer.text
    assert httpx.get(url, timeout=WAIT).text.startswith("<!doctype html>")

"""A real server in a process of its own, and clients for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

NAME = "autodeco-demo-q8_0"
QUESTION = "Find two numbers that make 83."
WAIT = 60.0  # seconds for what takes one on a quiet machine


@dataclass
class Served:
    """One `autodeco-edge serve`. url: without /v1; log: what it said on stderr."""

    process: subprocess.Popen
    url: str = ""
    log: list[str] = field(default_factory=list)

    def client(self, key: str = "none", **options) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=WAIT, **options)

    def post(self, path: str, body, **options) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=WAIT, **options)

    def metric(self, name: str, **headers: str) -> float:
        text = httpx.get(self.url + "/metrics", timeout=WAIT, headers=headers).text
        return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])

    def wait_until(self, condition: Callable[[], bool], seconds: float = WAIT) -> float:
        """How long it took."""
        start = time.monotonic()
        while not condition():
            assert time.monotonic() - start < seconds, self.log
            time.sleep(0.02)
        return time.monotonic() - start

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT)


@contextlib.contextmanager
def serving(*arguments: str, ready: bool = True, files: int = 0) -> Iterator[Served]:
    """files: that it may have open, where not as many as we"""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "autodeco_edge", "serve", "--port", "0", "-t", "1", *map(str, arguments)]
    if files:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    served = Served(process)
    reader = threading.Thread(target=lambda: served.log.extend(line.rstrip() for line in process.stderr), daemon=True)
    reader.start()
    try:
        served.wait_until(lambda: bool(served.log) or process.poll() is not None)
        for line in served.log:
            if found := re.match(r"listening on (http://\S+)/v1", line):
                served.url = found[1]
        if ready:
            served.wait_until(lambda: any(line.startswith("ready: ") for line in served.log))
        yield served
    finally:
        process.kill()
        process.wait()
        reader.join(5)


@dataclass
class Inside:
    """A server in this process. loop_seconds: what its event loop's thread has computed so far."""

    url: str
    runner: Any
    house: Any
    thread: threading.Thread
    failures: list[BaseException] = field(default_factory=list)

    @property
    def loop_seconds(self) -> float:
        return time.clock_gettime(time.pthread_getcpuclockid(self.thread.ident))

    def post(self, path: str, body: Any, **options) -> httpx.Response:
        """body: bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return httpx.post(self.url + path, content=content, headers=headers, timeout=WAIT, **options)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: httpx.get(self.url + "/health", timeout=WAIT).status_code == 200)


@contextlib.contextmanager
def serving_inside(load: Callable[[], Any], **limits) -> Iterator[Inside]:
    """``load`` makes the engine. What the server ends with is among the failures."""
    import asyncio

    from autodeco_edge.server.app import House, make_app
    from autodeco_edge.server.guard import Hosts, Keys
    from autodeco_edge.server.limits import ServerLimits
    from autodeco_edge.server.listen import Runner, bind, url_of

    async def made() -> House:
        return House(load, ["m"], ServerLimits(**limits))

    def run() -> None:
        try:
            inside.runner.run(sock)
        except BaseException as error:
            inside.failures.append(error)

    sock = bind("127.0.0.1", 0)
    house = asyncio.run(made())
    inside = Inside(url_of(sock), Runner(house, make_app(house, Keys(), Hosts())), house, threading.Thread(target=run))
    inside.thread.start()
    try:
        yield inside
    finally:
        inside.runner.on_signal(signal.SIGTERM)
        inside.thread.join(WAIT)
        assert not inside.thread.is_alive()


def ask(text: str = QUESTION, **more) -> dict:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": text}], **more}

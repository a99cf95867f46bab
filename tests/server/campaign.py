"""The long runs against the server: python -P tests/server/campaign.py [NAME ...] [--scale 1.0] [--out FILE]

Each prints one JSON object with its figures and `ok`; the exit code is 1 where one is not. --out keeps them in a JSON file,
a run beside those of before. Names, with their full size:

    fuzz 100000, schemathesis, disconnects 500, readers 16, slowloris 200, isolation 2000, soak 5000, overload 200, signals 20
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))


from autodeco_edge.io.atomic import atomic_write  # noqa: E402
from tests.support.http_fuzz import Fuzzer  # noqa: E402
from tests.support.serving import Served, ask, serving  # noqa: E402

PATIENCE = 300.0  # seconds until something is taken for hung; what may take how long is judged by the runs
LONG = ask("Write.", max_tokens=400, logit_bias={"2047": -100})


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def n_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_idle(served: Served) -> bool:
    return served.metric("autodeco_choices_open") == 0 and served.metric("autodeco_slots_busy") == 0


def opened(served: Served, body: dict, receive_buffer: int = 0) -> socket.socket:
    """A connection with a chat request on it."""
    url, data = urlsplit(served.url), json.dumps(body).encode()
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(60)
    connection.connect((url.hostname, url.port))
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def fuzz(n: int) -> dict:
    with serving("--parallel", "4", "--max-tokens", "4", "-c", "512") as served:
        fuzzers = [Fuzzer(served.url, seed) for seed in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda f: f.run(n // 4), fuzzers))
        statuses: Counter = sum((Counter(f.statuses) for f in fuzzers), Counter())
        failures = [str(failure)[:2000] for f in fuzzers for failure in f.failures]
        alive = served.process.poll() is None
    return {"statuses": dict(statuses), "failures": failures[:5], "ok": alive and not failures}


def schemathesis(n: int) -> dict:
    with (
        serving("--parallel", "4", "--max-tokens", "4", "-c", "512") as served,
        tempfile.TemporaryDirectory() as folder,
    ):
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", str(ROOT / "docs" / "openapi.json"), "--url", served.url, "--max-examples", str(n),
            "--seed", "1", "--phases", "examples,coverage,fuzzing", "--request-timeout", "60", "--no-color",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return {"said": done.stdout.strip().splitlines()[-1:], "ok": done.returncode == 0}


def disconnects(n: int) -> dict:
    """At random moments, whole and streamed; how long until every slot is free."""
    rng, slowest = random.Random(1), 0.0
    with serving("--parallel", "4") as served, httpx.Client(timeout=PATIENCE) as client:

        def is_free() -> bool:
            """Asked on one connection: making a client takes longer than the answer."""
            lines = client.get(served.url + "/metrics").text.splitlines()
            return "autodeco_choices_open 0.0" in lines and "autodeco_slots_busy 0.0" in lines

        for i in range(n):
            body = {**LONG, "stream": rng.random() < 0.5, "n": rng.choice((1, 1, 2)), "seed": i}
            body["messages"] = ask("word " * rng.choice((1, 50, 500)))["messages"]
            connection = opened(served, body)
            time.sleep(rng.random() * 0.2)
            connection.close()
            slowest = max(slowest, served.wait_until(is_free, PATIENCE))
    return {"n": n, "slowest_s": round(slowest, 3), "ok": slowest < 1.0}


def readers(n: int) -> dict:
    """Clients that ask for much and read nothing."""
    body = {
        **LONG,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
        "autodeco": {"trace": True},
        "max_tokens": 900,
    }
    with serving("--parallel", "4") as served:
        for _ in range(20):
            served.post("/v1/chat/completions", {**body, "max_tokens": 50})
        before = rss_mb(served.pid)
        ended = served.metric("autodeco_choice_seconds_count") + n
        connections = [opened(served, body, 4096) for _ in range(n)]
        served.wait_until(lambda: served.metric("autodeco_choice_seconds_count") == ended, PATIENCE)
        added = rss_mb(served.pid) - before
        start = time.monotonic()
        status = served.post("/v1/chat/completions", ask(max_tokens=1)).status_code
        seconds = time.monotonic() - start
        for connection in connections:
            connection.close()
        served.wait_until(lambda: is_idle(served), PATIENCE)
    ok = added <= 32 and status == 200 and seconds < 2
    return {"n": n, "added_mb": round(added, 1), "other_s": round(seconds, 3), "ok": ok}


def slowloris(n: int) -> dict:
    with serving() as served:
        url = urlsplit(served.url)
        connections = [socket.create_connection((url.hostname, url.port)) for _ in range(n)]
        for connection in connections:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        slowest = 0.0
        for _ in range(10):
            start = time.monotonic()
            served.post("/v1/chat/completions", ask(max_tokens=5)).raise_for_status()
            slowest = max(slowest, time.monotonic() - start)
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(b"x")
        time.sleep(12)
        left = n_files(served.pid)
    return {"n": n, "slowest_s": round(slowest, 3), "files_after": left, "ok": slowest < 2 and left < 60}


def isolation(n: int) -> dict:
    """Eight at once: nobody's number in another's reply; with --deterministic each reply equals its serial one."""
    codes = [f"{i * 7919 % 100_000:05d}" for i in range(n)]
    bodies = [
        ask(f"What is {i % 90 + 10} + {i % 7 + 2}? Code {codes[i]}.", seed=i, max_tokens=40, logprobs=True)
        for i in range(n)
    ]
    found: dict = {"n": n, "ok": True}
    for name, arguments in (("fast", ()), ("deterministic", ("--deterministic",))):
        with serving("--parallel", "8", "--queue", "64", *arguments) as served:
            client = httpx.Client(timeout=PATIENCE)

            def text(body: dict, client: httpx.Client = client, url: str = served.url) -> list:
                choice = client.post(url + "/v1/chat/completions", json=body).json()["choices"][0]
                return [choice["message"]["content"], [e["temperature"] for e in choice["logprobs"]["content"]]]

            with ThreadPoolExecutor(8) as pool:
                many = list(pool.map(text, bodies))
            serial = [text(body) for body in bodies]
        foreign = sum(any(code in t for k, code in enumerate(codes) if k != i) for i, (t, _) in enumerate(many))
        others = sum(a[0] != b[0] for a, b in zip(many, serial, strict=True))
        bits = sum(a != b for a, b in zip(many, serial, strict=True))
        found[name] = {"foreign": foreign, "other_texts": others, "other_bits": bits}
        found["ok"] = found["ok"] and foreign == 0 and (name == "fast" or bits == 0)
    return found


def soak(n: int) -> dict:
    """All kinds of requests at 8 at once, some of them dropped; memory and descriptors from the first fifth on."""
    rng = random.Random(2)
    form = {
        "type": "json_schema",
        "json_schema": {"schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
    }
    kinds: list[Callable[[int], dict]] = [
        lambda i: ask(f"What is {i} + 2?", max_tokens=20, seed=i),
        lambda i: ask(f"What is {i} + 2?", max_tokens=20, stream=True, logprobs=True, top_logprobs=5),
        lambda i: ask("word " * (i % 300), max_tokens=8, n=2),
        lambda i: ask(f"{i}", max_tokens=20, response_format=form),
        lambda i: ask(f"{i}", max_tokens=20, frequency_penalty=1.0, logit_bias={"5": -5}),
        lambda i: ask(f"{i}", temperature="wrong"),
    ]
    unexpected: list[str] = []

    def one(i: int) -> None:
        if i % 25 == 0:
            connection = opened(served, LONG)
            time.sleep(0.02)
            connection.close()
            return
        kind = i % len(kinds)
        answer = client.post(served.url + "/v1/chat/completions", json=kinds[kind](i))
        if answer.status_code != (400 if kind == 5 else 200):
            unexpected.append(f"{answer.status_code} {answer.text[:200]}")

    with serving("--parallel", "4", "--queue", "64") as served, httpx.Client(timeout=PATIENCE) as client:
        order = list(range(n))
        rng.shuffle(order)
        memory, files = [], []
        for part in range(5):
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(one, order[part * n // 5 : (part + 1) * n // 5]))
            served.wait_until(lambda: is_idle(served), PATIENCE)
            memory.append(round(rss_mb(served.pid), 2))
            files.append(n_files(served.pid))
    slope = (memory[-1] - memory[0]) / (0.8 * n / 1000)
    found = {"n": n, "rss_mb": memory, "mb_per_1000": round(slope, 2), "files": files, "unexpected": unexpected[:5]}
    return {**found, "ok": slope <= 1.0 and not unexpected and abs(files[-1] - files[0]) <= 2}


def overload(n: int) -> dict:
    """4 slots, 16 places: 20 are served, the rest turned away at once."""
    barrier = threading.Barrier(n)
    with serving("--parallel", "4", "--queue", "16") as served:

        def send(_: int) -> int:
            client = httpx.Client(timeout=PATIENCE)
            barrier.wait()
            return client.post(served.url + "/v1/chat/completions", json={**LONG, "max_tokens": 900}).status_code

        with ThreadPoolExecutor(n) as pool:
            codes = Counter(pool.map(send, range(n)))
        seconds = served.wait_until(lambda: is_idle(served), PATIENCE)
        again = served.post("/v1/chat/completions", ask(max_tokens=1)).status_code
    expected = {200: 20, 429: n - 20}
    return {
        "n": n,
        "codes": dict(codes),
        "idle_s": round(seconds, 2),
        "ok": codes == expected and again == 200 and seconds < 5,
    }


def signals(n: int) -> dict:
    """SIGTERM among 16 long streams: a clean end within 12 seconds."""
    slowest, codes = 0.0, Counter()
    for i in range(n):
        with serving("--parallel", "4") as served:
            connections = [opened(served, {**LONG, "stream": True, "max_tokens": 900, "n": 2}) for _ in range(8)]
            time.sleep(0.05 * (i % 10))
            start = time.monotonic()
            codes[served.end(signal.SIGTERM)] += 1
            slowest = max(slowest, time.monotonic() - start)
            for connection in connections:
                connection.close()
    return {"n": n, "codes": dict(codes), "slowest_s": round(slowest, 2), "ok": slowest < 12 and codes == {0: n}}


SIZES = {fuzz: 100_000, schemathesis: 100, disconnects: 500, readers: 16, slowloris: 200, isolation: 2000, soak: 5000, overload: 200, signals: 20}  # fmt: skip


def keep(path: Path, name: str, found: dict) -> None:
    before = json.loads(path.read_text()) if path.exists() else {}
    with atomic_write(path) as out:
        out.write(json.dumps({**before, name: found}, indent=1).encode() + b"\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = {run.__name__: run for run in SIZES}
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.names or names:
        start = time.monotonic()
        found = names[name](max(4, round(SIZES[names[name]] * arguments.scale)))
        found["seconds"] = round(time.monotonic() - start, 1)
        print(json.dumps({"run": name, **found}), flush=True)
        if arguments.out:
            keep(arguments.out, name, found)
        failed = failed or not found["ok"]
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

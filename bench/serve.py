"""`autodeco-edge serve` beside llama-server: tokens a second and time to the first token, one client and several.

    python -P bench/serve.py -m MODEL.gguf --llama-server PATH [--heads] [--fresh] [--out FILE]

Both serve the same file with the same threads, slots and context; every client streams chats one after another, static
sampling on both sides (with --heads the heads' on ours). Rounds alternate between the two servers, and no question is
asked twice. All slots have been used before one client is measured: chats begin alike (the template, half of the question),
and either server goes on from what a slot holds. With --fresh each prompt is computed from its first token (cache_prompt
false on both sides, and no prompts in llama-server's memory). llama-server is built from the source that
llama-cpp-python's distribution carries (vendor/llama.cpp):

    cmake -S vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_SERVER=ON -DLLAMA_CURL=OFF
    cmake --build build --target llama-server
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from autodeco_edge.bench.machine import describe_machine
from autodeco_edge.io.atomic import atomic_write

STATIC = {"temperature": 0.8, "top_p": 0.95, "top_k": 0, "min_p": 0.0}
ONCE = httpx.Limits(
    max_keepalive_connections=0
)  # llama-server closes a connection now and then that it said it would keep


@dataclass
class Tally:
    """Of one round: first[s] to the first text of each reply, tokens of all, wall seconds."""

    first: list[float] = field(default_factory=list)
    n_tokens: int = 0
    seconds: float = 0.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[str]:
    """A server that is ready; its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    common = ["-m", str(options.model), "--parallel", str(options.slots), "-t", str(options.threads)]
    heads = [] if options.heads else ["--no-heads"]
    ours = [
        sys.executable,
        "-m",
        "autodeco_edge",
        "serve",
        "-c",
        str(options.context),
    ]
    total = str(options.context * options.slots)
    theirs = [
        options.llama_server,
        "-c",
        total,
        "-b",
        "512",
        "-ub",
        "512",
        "--no-warmup",
        *(["--cache-ram", "0"] if options.fresh else []),
    ]
    return {"autodeco": [*ours, *common, *heads], "llama": [*theirs, *common]}


def chat(
    client: httpx.Client,
    url: str,
    number: int,
    n: int,
    tally: Tally,
    lock: threading.Lock,
    static: bool,
    fresh: bool,
) -> None:
    body = {
        "messages": [{"role": "user", "content": f"Tell me a long story about the number {number}."}],
        "max_tokens": n,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
        **(STATIC if static else {}),
        **({"cache_prompt": False} if fresh else {}),
    }
    start, first, tokens = time.perf_counter(), None, 0
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if first is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                first = time.perf_counter() - start
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    with lock:
        tally.first.append(first if first is not None else time.perf_counter() - start)
        tally.n_tokens += tokens


def one_round(url: str, n_clients: int, options: argparse.Namespace, offset: int, static: bool) -> Tally:
    tally, lock = Tally(), threading.Lock()

    def client(c: int) -> None:
        with httpx.Client(timeout=600, limits=ONCE) as connection:
            for i in range(options.chats):
                number = offset + c * options.chats + i
                chat(connection, url, number, options.tokens, tally, lock, static, options.fresh)

    threads = [threading.Thread(target=client, args=(c,)) for c in range(n_clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.seconds = time.perf_counter() - start
    return tally


def measure(options: argparse.Namespace) -> dict:
    """Medians over the rounds, of each server, for one client and for all."""
    found: dict = {}
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(running(command)) for name, command in commands(options).items()}
        for n_clients in (options.clients, 1):
            tallies: dict[str, list[Tally]] = {name: [] for name in urls}
            for r in range(options.rounds + 1):
                for name in sorted(urls, reverse=bool(r % 2)):
                    static = not (options.heads and name == "autodeco")
                    tally = one_round(urls[name], n_clients, options, n_clients * 10_000 + r * 1000, static)
                    if r:  # the first warms up
                        tallies[name].append(tally)
            found[f"{n_clients} clients"] = {name: summary(each) for name, each in tallies.items()}
    return found


def summary(tallies: list[Tally]) -> dict[str, float]:
    return {
        "tokens_per_s": round(statistics.median(t.n_tokens / t.seconds for t in tallies), 1),
        "first_token_s": round(statistics.median(f for t in tallies for f in t.first), 4),
        "tokens": sum(t.n_tokens for t in tallies),
    }


def ratios(found: dict, n_clients: int) -> dict[str, float]:
    """What is wanted of them: throughput at least 1, first token at most 1, all clients at least 2."""
    one, many = found["1 clients"], found[f"{n_clients} clients"]
    pairs = {
        "throughput, ours / llama-server": (many["autodeco"], many["llama"], "tokens_per_s"),
        "throughput of one client, ours / llama-server": (one["autodeco"], one["llama"], "tokens_per_s"),
        "first token, ours / llama-server": (many["autodeco"], many["llama"], "first_token_s"),
        "first token of one client, ours / llama-server": (one["autodeco"], one["llama"], "first_token_s"),
        f"throughput, {n_clients} clients / 1": (many["autodeco"], one["autodeco"], "tokens_per_s"),
    }
    return {name: round(a[key] / b[key], 3) for name, (a, b, key) in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--heads", action="store_true", help="the heads' sampling on our side")
    parser.add_argument("--fresh", action="store_true", help="no prompt goes on from an earlier one")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=512, help="of a slot")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--chats", type=int, default=2, help="of a client, one after another")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {
        "model": options.model.name,
        "heads": options.heads,
        "fresh": options.fresh,
        "threads": options.threads,
        "load": os.getloadavg()[0],
        **measure(options),
    }
    found["ratios"] = ratios(found, options.clients)
    found["machine"] = describe_machine()
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if options.out:
        with atomic_write(options.out) as out:
            out.write(text.encode())


if __name__ == "__main__":
    main()

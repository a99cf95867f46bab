"""Requests that nobody would send, made from requests that somebody would: bytes are changed, values exchanged, heads bent."""

from __future__ import annotations

import copy
import http.client
import json
import random
from typing import Any
from urllib.parse import urlsplit

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 3? é🎉"},
    {"role": "assistant", "content": "5", "reasoning_content": "hm"},
    {"role": "user", "content": [{"type": "text", "text": "And 4 + 4?"}]},
]
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", 1.5, None]}},
    "required": ["a"],
}
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 2, "seed": 1}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}, "n": 2}),
    ("/v1/chat/completions", {"messages": MESSAGES[1:2], "max_tokens": 2, "logprobs": True, "top_logprobs": 3, "temperature": 0.7, "top_p": 0.9, "stop": ["x", "\n"], "logit_bias": {"5": -1}, "autodeco": {"heads": "both", "temperature_range": [0.1, 1.0], "trace": True}}),
    ("/v1/chat/completions", {"messages": MESSAGES[1:2], "max_tokens": 2, "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}),
    ("/v1/chat/completions", {"messages": MESSAGES[1:2], "max_tokens": 2, "tools": [TOOL], "tool_choice": "auto", "frequency_penalty": 0.5, "chat_template_kwargs": {"x": True}}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "logprobs": 2, "min_p": 0.1, "top_k": 5}),
    ("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 1, "stream": True, "repeat_penalty": 1.1, "repeat_last_n": 8}),
    ("/tokenize", {"content": "Hello <|im_end|>", "with_pieces": True}),
    ("/detokenize", {"tokens": [1, 2, 300], "special": True}),
    ("/apply-template", {"messages": MESSAGES, "tools": [TOOL]}),
]  # fmt: skip
WORDS = (b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"-", b"1e999", b"1e-999", b"99999999999999999999", b"NaN", b"\x00", b"\xff", b"\xc3", b"\xe2\x80\xae", b"$ref", b"\n", b"<|im_start|>")  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 0.0, -0.5, 1e308, 5e-324, "", "x", "\x00", "\ud800", "é" * 300, [], {}, [[]], [None], {"type": "text"}, {"$ref": "#"}, [1] * 50, "a" * 5000)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {}, {}, {}, {}, {}, {}, {"Content-Type": "text/plain"}, {"Content-Type": "application/json; charset=utf-16"}, {"Host": "evil.example"},
    {"Authorization": "Bearer x"}, {"Expect": "100-continue"}, {"Content-Encoding": "gzip"}, {"Accept": "x" * 500}, {"Connection": "close"},
    {"Origin": "null"}, {"X-HTTP-Method-Override": "DELETE"}, {"Transfer-Encoding": "chunked"}, {"Range": "bytes=0-"}, {"Upgrade": "websocket", "Connection": "upgrade"},
)  # fmt: skip
METHODS = ("POST",) * 50 + ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The way to every value inside a body."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        found += places(each, (*path, key))
    return found


def exchanged(body: dict[str, Any], rng: random.Random) -> bytes:
    """One to three values replaced, removed, renamed or doubled."""
    body = copy.deepcopy(body)
    for _ in range(rng.randrange(1, 4)):
        found = places(body)
        if not found:
            break
        *way, last = rng.choice(found)
        holder: Any = body
        for key in way:
            holder = holder[key]
        action = rng.randrange(4)
        if action == 0 and isinstance(holder, dict):
            holder[rng.choice(("x", "", "messages", "n", str(last) + "_"))] = holder.pop(last)
        elif action == 1:
            del holder[last]
        elif action == 2 and isinstance(holder, list):
            holder += holder * rng.randrange(1, 20)
        else:
            holder[last] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(body, ensure_ascii=True).encode()


def bent(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, and words put in."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        action = rng.randrange(4)
        if action == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif action == 1:
            del data[at : at + rng.randrange(1, 9)]
        elif action == 2:
            data[at:at] = rng.choice(WORDS)
        else:
            end = min(len(data), at + rng.randrange(1, 30))
            data[at:at] = data[at:end]
    return bytes(data)


def request(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """(method, path, body, headers)."""
    path, body = rng.choice(BODIES)
    data = exchanged(body, rng) if rng.random() < 0.6 else bent(json.dumps(body).encode(), rng)
    if rng.random() < 0.05:
        path = path + rng.choice(("/", "?x=1", "//", "%00", "/..", "/../health", "x", "#"))
    return rng.choice(METHODS), path, data, {"Content-Type": "application/json", **rng.choice(HEADERS)}


class Fuzzer:
    """Sends ``request`` after ``request``; ``statuses`` counts the answers, ``failures`` holds what got a 5xx or none."""

    def __init__(self, url: str, seed: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._rng = random.Random(seed)
        self._connection: http.client.HTTPConnection | None = None
        self.statuses: dict[int, int] = {}
        self.failures: list[tuple[int, tuple]] = []

    def run(self, count: int) -> None:
        for _ in range(count):
            made = request(self._rng)
            status = self._send(*made) or self._send(*made)  # a connection that was kept may have been closed meanwhile
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if status >= 500 or status == 0:
                self.failures.append((status, made))

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> int:
        """0 where no answer came."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            if headers.get("Transfer-Encoding"):
                self._connection.request(method, path, iter([body]), headers, encode_chunked=True)
            else:
                self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            answer.read()
            return answer.status
        except (http.client.HTTPException, OSError, ValueError):
            self._connection.close()
            self._connection = None
            return 0

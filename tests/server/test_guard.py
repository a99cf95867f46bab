"""Who may come in, with what, and in which words everybody else is turned away."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import random
import socket
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import httpx
import pytest

from autodeco_edge.server.guard import Hosts, Keys
from tests.support.serving import WAIT, ask, serving

KEY = "correct-horse-battery"
ROUTES = (
    ("GET", "/v1/models"),
    ("GET", "/v1/models/autodeco-demo-q8_0"),
    ("GET", "/props"),
    ("GET", "/metrics"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/tokenize"),
    ("POST", "/detokenize"),
    ("POST", "/apply-template"),
)


@pytest.fixture(scope="module")
def locked():
    with serving("--api-key", KEY, "--parallel", "2", "--cors-origin", "https://chat.example") as served:
        yield served


def raw(served, text: bytes, wait: float = WAIT) -> bytes:
    """What comes back for bytes on a connection of their own, until it is closed or 64 kB have come."""
    url = urlsplit(served.url)
    with socket.create_connection((url.hostname, url.port), timeout=wait) as connection:
        connection.sendall(text)
        found = b""
        while len(found) < 65536 and (part := connection.recv(65536)):
            found += part
            head, _, body = found.partition(b"\r\n\r\n")
            length = next(
                (
                    int(v)
                    for k, _, v in (h.partition(b":") for h in head.split(b"\r\n"))
                    if k.lower() == b"content-length"
                ),
                None,
            )
            if length is not None and len(body) >= length:
                break
        return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


BYPASSES = {
    "nothing": {},
    "empty": {"Authorization": ""},
    "no more than bearer": {"Authorization": "Bearer"},
    "wrong": {"Authorization": "Bearer wrong"},
    "a part": {"Authorization": f"Bearer {KEY[:-1]}"},
    "one more": {"Authorization": f"Bearer {KEY}x"},
    "a blank more": {"Authorization": f"Bearer  {KEY} ."},
    "another case": {"Authorization": f"Bearer {KEY.upper()}"},
    "another scheme": {"Authorization": f"Basic {KEY}"},
    "bare": {"Authorization": KEY},
    "another header": {"X-Api-Key": KEY, "Cookie": f"Authorization=Bearer {KEY}"},
    "said to be local": {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
    "another path": {"X-Original-URL": "/health", "X-Rewrite-URL": "/health", "X-Forwarded-Prefix": "/health"},
    "another method": {"X-HTTP-Method-Override": "GET"},
}


@pytest.mark.parametrize("headers", BYPASSES.values(), ids=BYPASSES)
def test_no_key_no_answer(locked, headers):
    with httpx.Client(base_url=locked.url, timeout=WAIT) as client:
        for method, path in ROUTES:
            answer = client.request(method, path, json=ask() if method == "POST" else None, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"


PATHS = (
    "//v1/models", "/v1//models", "/v1/models/", "/V1/MODELS", "/v1/../v1/models", "/health/../v1/models", "/health/%2e%2e/v1/models",
    "/v1%2fmodels", "/v1/models%00", "/v1/models;/health", "/v1/models?/health", "/health/", "/health?key=" + KEY, "/%68ealth/../props",
    "http://localhost/v1/models", "/health%00", "/v1/models#/health",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "get", "PROPFIND"])
def test_no_other_way_of_writing_a_path_gets_in(locked, path, method):
    text = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    answer = raw(locked, text.encode())
    assert status(answer) in ((200,) if path.startswith("/health?") and method == "GET" else (400, 401)), answer[:200]


def test_two_keys_in_one_request(locked):
    for values in ((KEY, "wrong"), ("wrong", KEY), (KEY, KEY)):
        lines = "".join(f"Authorization: Bearer {value}\r\n" for value in values)
        answer = raw(locked, f"GET /props HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n".encode())
        assert status(answer) == 401


def test_with_the_key(locked):
    headers = {"Authorization": f"bearer {KEY}"}
    assert httpx.get(locked.url + "/props", headers=headers).status_code == 200
    assert locked.post("/v1/chat/completions", ask(max_tokens=2), headers=headers).status_code == 200
    assert httpx.get(locked.url + "/health").status_code == 200
    assert locked.client(KEY).models.list().data


def test_keys_are_found_among_many():
    keys = Keys(["a" * 20, "b" * 20])
    owners = [keys.owner([f"Bearer {c * 20}".encode()]) for c in "abc"]
    assert owners[0] != owners[1] and None not in owners[:2] and owners[2] is None
    assert "a" * 8 not in owners[0]
    assert not Keys() and keys


@pytest.mark.parametrize("given", ["a" * 20, "b" * 20, "c" * 20, "a" * 19, "", "a" * 100_000])
def test_time_tells_nothing_of_a_key(monkeypatch, given):
    """Every key is compared each time, as a hash of fixed length: also behind one that has matched."""
    compared = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr("autodeco_edge.server.guard.hmac", SimpleNamespace(compare_digest=watched))
    Keys(["a" * 20, "b" * 20]).owner([f"Bearer {given}".encode()])
    assert len(compared) == 2 and all(len(value) == 32 for pair in compared for value in pair)


# ---- hosts and origins --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True), ("localhost:8080", True), ("LOCALHOST", True), ("127.0.0.1:1", True), ("[::1]:8080", True), ("192.168.1.5", True),
        ("::1", True), ("my.box", True), ("my.box.:80", True), ("evil.example", False), ("localhost.evil.example", False), ("", False),
        ("127.0.0.1.evil.example", False), ("evil.example:127.0.0.1", False), ("127.0.0.1@evil.example", False), ("0x7f000001", False),
        ("localhost, evil.example", False), ("[::1", True), ("\x00", False),
    ],
)  # fmt: skip
def test_host_names(host, allowed):
    assert Hosts(["My.Box"]).allow([host.encode("latin-1")]) == allowed


def test_host_is_said_once():
    assert not Hosts().allow([]) and not Hosts().allow([b"localhost", b"localhost"])
    assert Hosts(["*"]).allow([b"anything.example"])


def test_page_of_another_name_is_turned_away(server):
    answer = httpx.get(server.url + "/v1/models", headers={"Host": "evil.example"})
    assert answer.status_code == 421 and answer.json()["error"]["code"] == "host_not_allowed"
    assert status(raw(server, b"GET /health HTTP/1.0\r\n\r\n")) in (400, 421)


def test_cross_origin_is_off_and_can_be_turned_on(server, locked):
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    off = httpx.options(server.url + "/v1/chat/completions", headers=asked)
    assert off.status_code == 405 and "access-control-allow-origin" not in off.headers
    on = httpx.options(locked.url + "/v1/chat/completions", headers=asked)
    assert on.headers["access-control-allow-origin"] == "https://chat.example"
    other = httpx.options(locked.url + "/v1/chat/completions", headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    names = "authorization,content-type,x-stainless-arch,x-stainless-retry-count,openai-organization"  # openai's client
    own = httpx.options(locked.url + "/v1/chat/completions", headers={**asked, "Access-Control-Request-Headers": names})
    assert own.status_code == 200 and own.headers["access-control-allow-headers"] == names
    answer = httpx.get(locked.url + "/health", headers={"Origin": "https://chat.example"})
    assert answer.headers["access-control-expose-headers"] == "Retry-After"


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/json", "application/jsonp"],
)
def test_what_a_page_may_send_unasked_is_refused(server, kind):
    answer = httpx.post(server.url + "/tokenize", content=b'{"content":"x"}', headers={"Content-Type": kind})
    assert answer.status_code == 415 and answer.json()["error"]["type"] == "invalid_request_error"


# ---- bodies -------------------------------------------------------------------------------------


def test_sizes(server):
    headers = {"Content-Type": "application/json"}
    too_large = b'{"content":"' + b"x" * 2**20 + b'"}'
    assert httpx.post(server.url + "/tokenize", content=too_large, headers=headers).status_code == 413

    def pieces():
        for _ in range(100):
            yield b" " * 65536

    with contextlib.suppress(httpx.TransportError):  # the connection is closed while we still write
        assert httpx.post(server.url + "/tokenize", content=pieces(), headers=headers, timeout=WAIT).status_code == 413
    text = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {10**30}\r\n\r\n"
    assert status(raw(server, text.encode())) in (400, 413)
    gzip = httpx.post(server.url + "/tokenize", content=b"x", headers={**headers, "Content-Encoding": "gzip"})
    assert gzip.status_code == 415


def test_just_small_enough(server):
    body = b'{"content":"' + b"word " * 209_000 + b'"}'
    answer = httpx.post(
        server.url + "/tokenize", content=body, headers={"Content-Type": "application/json"}, timeout=WAIT
    )
    assert answer.status_code == 200 and len(answer.json()["tokens"]) > 200_000


@pytest.mark.parametrize(
    ("head", "version"),
    [
        ("Content-Length: {n}\r\nTransfer-Encoding: chunked", "1.1"), ("Transfer-Encoding: chunked\r\nContent-Length: {n}", "1.1"),
        ("Content-Length: 0\r\nTransfer-Encoding: Chunked", "1.1"), ("content-length: 5\r\nTRANSFER-ENCODING:\tchunked", "1.1"),
        ("Transfer-Encoding: chunked", "1.0"), ("Content-Length: {n}\r\nContent-Length: 5", "1.1"), ("Content-Length: {n}, 5", "1.1"),
        ("Transfer-Encoding: chunked, identity", "1.1"), ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "1.1"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS"])
def test_a_body_with_two_lengths_is_no_request(locked, head, version, method):
    """And what follows on its connection is not read: a proxy might take it for another's."""
    body = b"1e\r\n" + b'{"content":"x"}'.ljust(30) + b"\r\n0\r\n\r\n"
    lines = f"{method} /tokenize HTTP/{version}\r\nHost: localhost\r\nOrigin: https://chat.example\r\n"
    lines += (
        f"Access-Control-Request-Method: POST\r\nContent-Type: application/json\r\n{head.format(n=len(body))}\r\n\r\n"
    )
    url = urlsplit(locked.url)
    with socket.create_connection((url.hostname, url.port), timeout=WAIT) as connection:
        connection.sendall(lines.encode() + body + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        found = b""
        with contextlib.suppress(ConnectionResetError):  # what was not read
            while part := connection.recv(65536):
                found += part
    assert found.count(b"HTTP/1.1 ") == 1 and status(found) == 400, found
    assert json.loads(found.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /\r\n\r\n",
        b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"A" * 70_000,
    ],
)
def test_what_is_no_http_gets_an_answer_in_the_same_shape(server, text):
    answer = raw(server, text)
    if answer:
        assert status(answer) in (400, 421)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
    assert httpx.get(server.url + "/health").status_code == 200


def test_a_websocket_is_no_door(locked):
    text = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert status(raw(locked, text.encode())) == 401


def test_errors_have_one_shape(server):
    for method, path, code in (
        ("GET", "/nope", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/health", 405),
        ("GET", "/v1/models/x", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/docs", 404),
    ):
        answer = httpx.request(method, server.url + path)
        error = answer.json()["error"]
        assert answer.status_code == code and set(error) == {"message", "type", "param", "code"}
    assert httpx.get(server.url + "/v1/chat/completions").headers["allow"] == "POST"


# ---- bad bodies ---------------------------------------------------------------------------------

NO_JSON = (
    b"", b"{", b"null", b"[]", b"5", b'"x"', b"{}", b"\xff\xfe", b'{"messages":', b"nan", b'{"a":NaN}', b'{"a":Infinity}', b"{'a':1}", b"[" * 100_000,
    b'{"a":' * 5_000, b'{"messages":[{"role":"user","content":"\xe9"}]}', b'{"messages":[{"role":"user","content":"\\ud83d"}]}', b'{"a":1e999}',
    b'{"seed":' + b"9" * 5000 + b"}", b"\x00", b"{}{}", b'{"messages":[],"messages":[]}', b"\xef\xbb\xbf{}", b'{"\\u0000":1}',
)  # fmt: skip
TWICE = {
    "seed": b'{"messages":[{"role":"user","content":"hi"}],"seed":1,"max_tokens":1,"seed":2}',
    "heads": b'{"messages":[{"role":"user","content":"hi"}],"autodeco":{"heads":"both","heads":"none"}}',
    "autodeco": b'{"messages":[{"role":"user","content":"hi"}],"autodeco":{"heads":"both"},"max_tokens":1,"autodeco":{}}',
    "role": b'{"messages":[{"role":"user","content":"hi","role":"user"}]}',
    "type": b'{"messages":[{"role":"user","content":"hi"}],"response_format":{"type":"json_object","schema":{"type":"object","type":"object"}}}',
    "5": b'{"messages":[{"role":"user","content":"hi"}],"logit_bias":{"5":1,"6":1,"5":-1}}',
    "seed, spelt otherwise": b'{"messages":[{"role":"user","content":"hi"}],"seed":1,"s\\u0065ed":2}',
    "a": b'{"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\\"a\\":1,\\"a\\":2}"}}]}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_is_given_twice(server, name):
    """Of which a guard in front of this server may have read the other."""
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(server.url + "/v1/chat/completions", content=TWICE[name], headers=headers, timeout=WAIT)
    assert answer.status_code == 400
    assert f"'{name.split(',')[0]}' stands twice" in answer.json()["error"]["message"]


WRONG = (None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**70), 0.5, -0.5, 1e308, -1e308, 10**400, "", "x", "1", "\x00", "\u202e", [], [[]], [None], [1], ["x"], {}, {"a": 1}, {"type": "x"}, [{}], "x" * 70_000)  # fmt: skip
FIELDS = ("messages", "model", "n", "seed", "stream", "stream_options", "stop", "temperature", "top_p", "min_p", "top_k", "frequency_penalty", "presence_penalty", "repeat_penalty", "repeat_last_n", "logit_bias", "autodeco", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "chat_template_kwargs", "user", "store", "modalities")  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/tokenize", "/apply-template"])
def test_what_is_no_json_object_is_a_400(server, path):
    with httpx.Client(base_url=server.url, timeout=WAIT) as client:
        for text in NO_JSON:
            answer = client.post(path, content=text, headers={"Content-Type": "application/json"})
            assert answer.status_code == 400, text[:60]
            assert answer.json()["error"]["message"]


def test_every_field_with_every_wrong_value(server):
    """About 900 bodies: a 400 that names the field, or a reply; nothing else."""
    random.seed(5)
    n_refused = 0
    with httpx.Client(base_url=server.url, timeout=WAIT) as client:
        for field in FIELDS:
            for value in WRONG:
                body = ask(max_tokens=1) | {field: value}
                answer = client.post(
                    "/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": "application/json"}
                )
                assert answer.status_code in (200, 400, 404), (field, str(value)[:60], answer.text[:300])
                if answer.status_code == 400:
                    n_refused += 1
                    error = answer.json()["error"]
                    assert (error["param"] or error["message"]).split(".")[0].split(":")[0] in (
                        field,
                        "body",
                        "top_logprobs",
                        "tool_choice",
                        "stream_options",
                        "max_tokens and max_completion_tokens mean the same; give one",
                    ), error
    assert n_refused > 500


NESTED = (
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    {"messages": [{"role": "king", "content": "x"}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "user", "content": "x", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "["}}]}]},
    {"messages": [{"role": "user", "content": "x", "audio": {}}]},
    {"messages": [{"role": "user", "content": {"a": 1}}]},
    {"messages": [["user", "x"]]},
    ask(autodeco={"heads": "all"}),
    ask(autodeco={"temperature_range": [2, 1]}),
    ask(autodeco={"temperature_range": [1]}),
    ask(autodeco={"temperature_range": [-1, 5]}),
    ask(autodeco={"top_p_range": [0, 3]}),
    ask(autodeco={"x": 1}),
    ask(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "http://evil.example/x"}}}),
    ask(response_format={"type": "json_schema", "json_schema": {"schema": {"pattern": "(a+)+$" * 2000, "type": "string"}}}),
    ask(response_format={"type": "json_object", "schema": {"type": "x"}}),
    ask(tools=[{"type": "function", "function": {"name": "f"}}]),
    ask(tools=[{"type": "web_search"}]),
    ask(chat_template_kwargs={"messages": "x"}),
    ask(chat_template_kwargs={"a": {"b": 1}}),
    ask(logit_bias={"x": 1}),
    ask(logit_bias={"1": 101}),
    ask(stop=[""]),
    ask(stop=["x"] * 17),
    ask(stop="x" * 257),
    ask(n=9),
    ask(stream_options={"include_usage": True}),
    ask(max_tokens=1, max_completion_tokens=2),
    ask(top_logprobs=1),
    ask(chat_template="{{ 1 }}"),
    ask(template="{{ 1 }}"),
    ask(grammar="root ::= x"),
)  # fmt: skip


@pytest.mark.parametrize("body", NESTED, ids=lambda body: json.dumps(body)[:70])
def test_what_cannot_be_meant_is_a_400(server, body):
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 400, answer.text[:300]
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_refusals_do_not_repeat_a_prompt(server):
    secret = "canary-4711"
    for body in (
        ask(secret, x=1),
        ask(secret, temperature=secret),
        {"messages": [{"role": "user", "content": {"a": secret}}]},
        {"messages": secret},
    ):
        answer = server.post("/v1/chat/completions", body)
        assert answer.status_code == 400 and secret not in answer.text
    assert not any(secret in line for line in server.log)


def test_many_unknown_fields_are_quick(server):
    body = ask(**{f"field{i}": i for i in range(50_000)})
    start = time.monotonic()
    assert server.post("/v1/chat/completions", body).status_code == 400
    assert time.monotonic() - start < 20


def test_slow_heads_are_closed(server):
    """A connection that never ends its head is closed, and meanwhile nobody waits for it."""
    url = urlsplit(server.url)
    connection = socket.create_connection((url.hostname, url.port), timeout=WAIT)
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
    start = time.monotonic()
    assert httpx.get(server.url + "/health").status_code == 200
    assert connection.recv(100) == b"", "closed without a word"
    assert 5 < time.monotonic() - start < 40
    connection.close()


def test_a_kept_connection_is_used_again(server):
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=WAIT)
    for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
    connection.close()

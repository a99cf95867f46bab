"""Bodies are read where they hold nobody up: the large ones beside the event loop, in turn, and none whose client has left."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from autodeco_edge import Engine
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.server import guard
from autodeco_edge.server.bodies import SMALL, body_of
from autodeco_edge.server.errors import ApiError
from autodeco_edge.server.limits import MAX_CHUNKS
from autodeco_edge.server.wire import ChatRequest
from tests.server.test_service import leave
from tests.support.serving import WAIT, ask, serving_inside

CHAT = "/v1/chat/completions"
ROOM = 4
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}]
LONG = {"messages": TURNS * 4000}
TOO_LONG = {"messages": TURNS * 400}  # for the context, and large enough for the thread


@pytest.fixture(scope="module")
def inside():
    def load() -> Engine:
        return Engine(demo_model(), n_slots=1, n_ctx=256, n_threads=1)

    with serving_inside(load, parallel=1, queue=ROOM - 1) as inside:
        inside.wait_until_ready()
        inside.post(CHAT, ask(max_tokens=1))
        yield inside


@contextlib.contextmanager
def held_up(inside) -> Iterator[None]:
    """The thread of bodies does something else meanwhile."""
    go = threading.Event()
    inside.house.bodies._threads._pool.submit(go.wait, WAIT)
    try:
        yield
    finally:
        go.set()


def test_many_messages_are_not_read_on_the_loop(inside):
    """8,000 of them: the loop has their bytes to take, and no more. It did all of it before."""
    data = json.dumps(LONG).encode()
    start = time.thread_time()
    body_of(data, ChatRequest)
    reading = time.thread_time() - start
    before = inside.loop_seconds
    for _ in range(4):
        assert inside.post(CHAT, data).json()["error"]["code"] == "context_length_exceeded"
    assert inside.loop_seconds - before < 4 * reading * 2 / 3


def test_who_leaves_before_its_turn_is_not_read(inside):
    disconnects, threads = inside.house.metrics.disconnects._value, inside.house.bodies._threads
    before = disconnects.get()
    with held_up(inside):
        for _ in range(12):
            leave(inside, TOO_LONG, 0.02)
        inside.wait_until(lambda: disconnects.get() == before + 11 and not threads._queue)
        assert not threads.are_idle, "the one that had begun"
        assert inside.post(CHAT, ask(max_tokens=1)).status_code == 200, "a small one waits for nobody"
    inside.wait_until(lambda: disconnects.get() == before + 12 and threads.are_idle)


def test_who_leaves_in_the_middle_of_its_body(inside, capfd):
    """It was an error in the log, or a 400 that nobody read."""
    disconnects = inside.house.metrics.disconnects._value
    before = disconnects.get()
    url = urlsplit(inside.url)
    for data in (b"", b'{"messages":'):
        with socket.create_connection((url.hostname, url.port), timeout=WAIT) as connection:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n"
            connection.sendall(f"{head}\r\n".encode() + data)
            time.sleep(0.05)
    inside.wait_until(lambda: disconnects.get() == before + 2)
    assert "error" not in capfd.readouterr().err


def test_who_sends_slowly_does_not_fill_the_memory(inside, monkeypatch):
    """Bodies that are not whole have room for so many bytes, all together; one that is, is no longer among them."""
    monkeypatch.setattr(guard, "MAX_COMING", 100_000)
    url = urlsplit(inside.url)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((url.hostname, url.port), WAIT)) for _ in range(3)]
        for connection in slow:
            connection.sendall(head.encode() + b" " * 40_000)
        answered, _, _ = select.select(slow, [], [], WAIT)
        found = answered[0].recv(12)
        assert (len(answered), found) == (1, b"HTTP/1.1 429"), "the third, whichever it was"
        assert inside.post(CHAT, {**TOO_LONG, "new": 1}).status_code == 400, "there is room for 20 kB"
    inside.wait_until(lambda: inside.post(CHAT, json.dumps(ask()).encode() + b" " * 90_000).status_code == 200)


def test_more_than_may_wait_are_turned_away(inside):
    answers = []

    def send() -> None:
        answers.append(inside.post(CHAT, {**TOO_LONG, "new": 1}).status_code)

    senders = [threading.Thread(target=send) for _ in range(ROOM + 3)]
    with held_up(inside):
        for sender in senders:
            sender.start()
        inside.wait_until(lambda: answers == [429, 429])
    for sender in senders:
        sender.join(WAIT)
    assert sorted(answers) == [400] * (ROOM + 1) + [429, 429]


def in_pieces(inside, data: bytes, size: int, target: str = CHAT) -> bytes:
    """What comes back; nothing where the connection is reset under what is still being sent."""
    url = urlsplit(inside.url)
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (data[i : i + size] for i in range(0, len(data), size))
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    found = b""
    with (
        socket.create_connection((url.hostname, url.port), timeout=WAIT) as connection,
        contextlib.suppress(ConnectionError),
    ):
        connection.sendall(head.encode() + body + b"0\r\n\r\n")
        while part := connection.recv(65536):
            found += part
            if b"}" in part:
                break
    return found


def test_a_body_in_crumbs_does_not_hold_the_loop_up(inside):
    """A megabyte, a byte a chunk, is three megabytes to send and was six seconds of the loop's; also where the answer is
    there before the body is."""
    crumbs = b" " * 2**20
    for target in (CHAT, "/nowhere"):
        before = inside.loop_seconds
        assert in_pieces(inside, crumbs, 1, target)[9:12] in (b"", b"400", b"404")
        assert inside.loop_seconds - before < 2.0


def test_a_body_in_as_many_pieces_as_may_be(inside):
    data = json.dumps(ask(max_tokens=1)).encode()
    data = data + b" " * (MAX_CHUNKS - 100 - len(data))  # some are cut in two on their way
    assert in_pieces(inside, data, 1).startswith(b"HTTP/1.1 200 ")
    assert in_pieces(inside, data + b" " * 101, 1).startswith(b"HTTP/1.1 400 ")
    assert in_pieces(inside, data + b" " * 2**19, 512).startswith(b"HTTP/1.1 200 ")


WRONG = [
    b"null", b"1", b"[]", b'"x"', b"{]", b"{}", b'{"a":1}', b'{"n":NaN}', b'{"n":1,"n":1}', b"[[" * 150 + b"]]" * 150,
    b'{"messages":"\\ud800"}', b'{"messages":[{"role":"user"}]}', b'{"messages":[{"role":"user","content":"a","zzz":1}]}',
    b'{"messages":[{"role":"user","content":"a"}],"n":9,"new":1}', b'{"messages":[{"role":"user","content":[{"type":"text"}]}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_a_large_one_is_refused_in_the_same_words(inside, body):
    small, large = inside.post(CHAT, body), inside.post(CHAT, body + b" " * SMALL)
    assert (small.status_code, small.text) == (large.status_code, large.text)
    assert small.status_code == 400


def test_without_a_body_it_is_missing(inside):
    assert inside.post(CHAT, b"").json()["error"]["message"] == "body: is missing"


def test_what_is_read_is_checked():
    with pytest.raises(ApiError, match="messages: is missing"):
        body_of(b"{}", ChatRequest)
    read = body_of(json.dumps(LONG).encode(), ChatRequest)
    assert isinstance(read, ChatRequest) and len(read.messages) == 8000

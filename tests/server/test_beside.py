"""What takes long lies beside the event loop: how much of it at once, for whom, and what becomes of it when they leave."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from autodeco_edge import Engine
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import Step
from autodeco_edge.server import app
from autodeco_edge.server.answers import ChatObjects, ReplyWriter, TextObjects
from autodeco_edge.server.app import text_of
from autodeco_edge.server.connection import Connection
from autodeco_edge.server.errors import ApiError
from autodeco_edge.server.limits import MAX_TEXT, ServerLimits
from autodeco_edge.server.prompts import ReplyPlanner
from autodeco_edge.server.replies import ReplyReader
from autodeco_edge.server.service import Exchange, Job, Permit, Service
from autodeco_edge.server.stream import ClientGone, pieces_of
from autodeco_edge.server.threads import Threads
from autodeco_edge.server.wire import ChatRequest, CompletionRequest, DetokenizeRequest
from autodeco_edge.text.template import _renderer
from tests.server.test_service import leave
from tests.support.serving import WAIT, ask, serving, serving_inside


def heavy_schema(i: int = 0) -> dict:
    """Of 200 kB, in which nothing repeats: a second and more of work."""
    names = [[f"p{k}_{j}_{i}" for j in range(20)] for k in range(300)]
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {name: {"type": "string"} for name in group},
                "required": group[:1],
                "additionalProperties": False,
            }
            for group in names
        ]
    }


def held_to(schema: dict, **more) -> dict:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return ask("hi", max_tokens=1, response_format=form, **more)


# ---- threads ------------------------------------------------------------------------------------


async def begun(event: threading.Event) -> None:
    async with asyncio.timeout(WAIT):
        while not event.is_set():
            await asyncio.sleep(0.001)


def test_a_place_is_free_when_the_work_has_ended():
    """And not when somebody stops waiting for it; who leaves the row before its turn has never been there."""

    async def run() -> None:
        threads, go, at_work, done = Threads(1, 10), threading.Event(), threading.Event(), []

        def work() -> None:
            at_work.set()
            go.wait(WAIT)

        first = asyncio.ensure_future(threads.run("a", work))
        left = asyncio.ensure_future(threads.run("a", lambda: done.append("left")))
        last = asyncio.ensure_future(threads.run("a", lambda: done.append("last") or 7))
        await begun(at_work)
        for task in (first, left):
            task.cancel()
        await asyncio.wait((left,), timeout=WAIT)
        await asyncio.sleep(0.05)
        assert left.cancelled() and not first.done() and not done and not threads.are_idle
        go.set()
        assert await asyncio.wait_for(last, WAIT) == 7
        assert done == ["last"] and threads.are_idle
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(run())


def test_who_must_not_wait_is_cancelled_twice():
    async def run() -> None:
        threads, go, at_work = Threads(1, 10), threading.Event(), threading.Event()
        task = asyncio.ensure_future(threads.run("a", lambda: (at_work.set(), go.wait(WAIT))))
        await begun(at_work)
        for _ in range(2):
            assert not task.done()
            task.cancel()
            await asyncio.sleep(0.01)
        assert task.cancelled()
        go.set()

    asyncio.run(run())


def test_callers_take_turns_at_the_threads():
    async def run() -> list[str]:
        threads, order = Threads(1, 10), []
        names = ("a1", "a2", "a3", "b1", "c1", "c2")
        await asyncio.gather(*(threads.run(name[0], lambda name=name: order.append(name)) for name in names))
        return order

    assert asyncio.run(run()) == ["a1", "a2", "b1", "c1", "a3", "c2"]


def test_what_work_raises_and_how_much_may_wait():
    async def run() -> None:
        threads, go = Threads(2, 3), threading.Event()
        with pytest.raises(ZeroDivisionError):
            await threads.run("a", lambda: 1 // 0)
        with pytest.raises(KeyboardInterrupt):
            await threads.run("a", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        tasks = [asyncio.ensure_future(threads.run("a", lambda: go.wait(WAIT))) for _ in range(6)]
        found = []
        await asyncio.sleep(0.01)
        for task in tasks:
            if task.done():
                found.append(task.exception().status_code)
        assert found == [429]
        go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert threads.are_idle

    asyncio.run(run())


# ---- plans whose clients leave ------------------------------------------------------------------


def test_plans_keep_their_room_until_their_threads_end():
    """A chat template holds two threads up: those who leave meanwhile leave nothing behind, but for the two that had begun."""

    def load() -> Engine:
        return Engine(demo_model(), n_slots=1, n_ctx=256, n_threads=1)

    with serving_inside(load, parallel=1, queue=2) as inside:
        inside.wait_until_ready()
        service = inside.house.service
        with _renderer._lock:
            for i in range(12):
                leave(inside, ask("hi", n=1, stream=i % 2 == 0), 0.05)
            inside.wait_until(lambda: service.n_open == 2)
            assert inside.post("/v1/chat/completions", ask(n=2)).status_code == 429
            assert not inside.house._threads.are_idle and not inside.house._threads._queue
        inside.wait_until(lambda: service.n_open == 0)
        assert inside.house._threads.are_idle
        assert inside.post("/v1/chat/completions", ask(max_tokens=1)).status_code == 200


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
def test_abandoned_plans_do_not_pile_up():
    """Of 25 clients that leave while the grammar of theirs is made, few cost a grammar; the server has a handful of threads."""
    with serving("--parallel", "4") as served:
        assert served.post("/v1/chat/completions", held_to({"type": "object"})).status_code == 200
        start = processor_seconds(served.pid)
        assert served.post("/v1/chat/completions", held_to(heavy_schema())).status_code == 200
        one = processor_seconds(served.pid) - start
        start = processor_seconds(served.pid)
        for i in range(25):
            leave(served, held_to(heavy_schema(i + 1)), 0.05)
        assert served.post("/v1/chat/completions", ask(max_tokens=1)).status_code == 200
        assert len(os.listdir(f"/proc/{served.pid}/task")) <= 8
        served.wait_until(lambda: served.metric("autodeco_choices_open") == 0)
        assert processor_seconds(served.pid) - start < 15 * one
        assert served.metric("autodeco_disconnects_total") == 25


@pytest.fixture(scope="module")
def engine():
    with Engine(demo_model(), n_ctx=256, n_slots=2, n_threads=1) as engine:
        yield engine


def test_a_plan_stops_at_its_next_step(engine):
    """Before the grammar, and before each filter that is built from it."""
    planner = ReplyPlanner(engine)

    def n_steps(plan, body, stop_at: int) -> int:
        asked = iter(range(1, 99))
        n = 0

        def go_on() -> None:
            nonlocal n
            n = next(asked)
            if n == stop_at:
                raise ClientGone

        try:
            plan(body, "", None, go_on)
        except ClientGone:
            assert n == stop_at
        return n

    body = ChatRequest(**held_to({"type": "object"}, n=3))
    assert [n_steps(planner.chat, body, stop_at) for stop_at in (1, 2, 3, 4, 5)] == [1, 2, 3, 4, 4]
    assert n_steps(planner.completion, CompletionRequest(prompt=["a", "b"]), 99) == 4


# ---- the loop is free ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inside():
    with serving_inside(lambda: Engine(demo_model(), n_slots=2, n_ctx=256, n_threads=1), parallel=2) as inside:
        inside.wait_until_ready()
        inside.post("/v1/chat/completions", ask(max_tokens=1))
        yield inside


MEBIBYTE = 2**20 - 100
HI = b'{"messages":[{"role":"user","content":"hi"}],'


def many(text: bytes, n_bytes: int = MEBIBYTE) -> bytes:
    return text * (n_bytes // len(text))


def members(form: str) -> bytes:
    return ",".join(form % i for i in range(70_000)).encode()


HOSTILE = {
    "unknown fields": ("chat/completions", b"{" + members('"f%d":1') + b"}"),
    "unknown fields of messages": ("chat/completions", b'{"messages":[' + many(b'{"a":1,"b":2},') + b"1]}"),
    "messages that are none": ("chat/completions", b'{"messages":[' + many(b"1,") + b"1]}"),
    "parts that are none": ("chat/completions", b'{"messages":[{"role":"user","content":[' + many(b"1,") + b"1]}]}"),
    "parts of another kind": ("chat/completions", b'{"messages":[{"role":"user","content":[' + many(b'{"a":1},') + b"1]}]}"),
    "calls that are none": ("chat/completions", b'{"messages":[{"role":"assistant","tool_calls":[' + many(b"1,") + b"1]}]}"),
    "begun with no tokens": ("chat/completions", HI + b'"autodeco":{"reply_start":[' + many(b"-1,") + b"1]}}"),
    "no range": ("chat/completions", HI + b'"autodeco":{"top_p_range":[' + many(b'"",') + b"1]}}"),
    "variables that are none": ("chat/completions", HI + b'"chat_template_kwargs":{' + members('"f%d":[]') + b"}}"),
    "biases that are none": ("chat/completions", HI + b'"logit_bias":{' + members('"f%d":1') + b"}}"),
    "stops that are none": ("chat/completions", HI + b'"stop":[' + many(b"1,") + b"1]}"),
    "modalities": ("chat/completions", HI + b'"modalities":[' + many(b'"x",') + b'"text"]}'),
    "tools": ("chat/completions", HI + b'"tools":[' + many(b"{},") + b"1]}"),
    "no tokens for a prompt": ("completions", b'{"prompt":[' + many(b"-1,") + b"1]}"),
    "lists for a prompt": ("completions", b'{"prompt":[' + many(b"[-1],") + b"[1]]}"),
    "eight lists for a prompt": ("completions", b'{"prompt":[' + b",".join([b"[" + many(b"-1,", 120_000) + b"1]"] * 8) + b"]}"),
    "the same key again": ("chat/completions", b"{" + many(b'"a":1,') + b'"a":1}'),
    "the last key again": ("chat/completions", b"{" + members('"f%d":1') + b',"f0":1}'),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_wrong_body_does_not_hold_the_loop_up(inside, name):
    """One complaint is told, and the half million others are not made: 2 to 4 s of the loop's processor time before, up to
    0.8 s now on a thread that shares its core."""
    path, body = HOSTILE[name]
    before = inside.loop_seconds
    answer = inside.post(f"/v1/{path}", body)
    assert answer.status_code == 400 and len(answer.content) < 1000, answer.text[:300]
    assert inside.loop_seconds - before < 1.5


def test_texts_and_tokens_of_a_megabyte_do_not_hold_it_up(inside):
    text = "word and, " * 104_000
    before = inside.loop_seconds
    pieces = inside.post("/tokenize", {"content": text[:150_000], "with_pieces": True}).json()["tokens"]
    tokens = inside.post("/tokenize", {"content": text}).json()["tokens"]
    assert [piece["id"] for piece in pieces[:20_000]] == tokens[:20_000]
    assert b"".join(bytes(piece["bytes"]) for piece in pieces).decode() == text[:150_000]
    answer = inside.post("/tokenize", {"content": text, "with_pieces": True})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "content"
    found = inside.post("/detokenize", {"tokens": tokens[:150_000]}).json()["content"]
    assert text.startswith(found) and len(found) > 150_000
    assert inside.post("/apply-template", {"messages": ask(text)["messages"]}).json()["prompt"].count("word") == 104_000
    assert inside.loop_seconds - before < 2.0, "five requests, of which reading takes the most"


def test_a_text_of_any_length_is_not_made(engine):
    """A body of a megabyte names half a million tokens, and some vocabularies have tokens of a hundred blanks."""
    planner, model = ReplyPlanner(engine), engine.model
    longest = max(range(model.n_vocab), key=lambda i: len(model.token_bytes(i, special=True)))
    n = MAX_TEXT // len(model.token_bytes(longest, special=True))
    assert len(text_of(planner, DetokenizeRequest(tokens=[longest] * n))) > MAX_TEXT * 0.9
    with pytest.raises(ApiError, match="send fewer"):
        text_of(planner, DetokenizeRequest(tokens=[longest] * (n + 1)))


def test_texts_wait_for_their_turn_and_are_forgotten_with_their_clients(inside):
    body = json.dumps({"content": "word and, " * 104_000, "with_pieces": True}).encode()
    before = inside.house.metrics.disconnects._value.get()

    def give_up(_: int) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{inside.url}/tokenize", content=body, headers={"Content-Type": "application/json"}, timeout=0.2
            )

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(give_up, range(10)))
    assert inside.post("/tokenize", {"content": "x"}).status_code == 200
    disconnects = inside.house.metrics.disconnects._value
    inside.wait_until(lambda: disconnects.get() == before + 10 and inside.house._threads.are_idle)


def test_what_a_reply_begins_with_is_read_in_the_thread(inside, monkeypatch):
    """By the reader of each choice: a context full of it took seconds of the loop's for eight choices."""
    makers = []

    class Reader(ReplyReader):
        def __init__(self, *arguments) -> None:
            makers.append(threading.current_thread())
            super().__init__(*arguments)

    monkeypatch.setattr(app, "ReplyReader", Reader)
    body = ask("hi", n=3, max_tokens=1, autodeco={"reply_start": [5, 6, 7] * 20})
    assert len(inside.post("/v1/chat/completions", body).json()["choices"]) == 3
    assert len(makers) == 3 and inside.thread not in makers


def steps(n: int, n_top: int = 20) -> list[Step]:
    top = tuple((i, -0.5 * i) for i in range(3, 3 + n_top))
    return [Step(i, 5 + i % 50, 0.7, 0.9, 0.7, 0.9, 3, 1.0, 0.5, -0.1, top) for i in range(n)]


@pytest.mark.parametrize("form", [ChatObjects, TextObjects])
def test_a_long_answer_is_written_as_it_comes(engine, form):
    """Eight replies with the likeliest of each token: what is left for their end is a small part, and the same as at once."""
    planner = ReplyPlanner(engine)
    more = {"n": 8, "autodeco": {"trace": True}, "seed": 1}
    if form is ChatObjects:
        plan = planner.chat(ChatRequest(**ask("hi", logprobs=True, top_logprobs=20, **more)), "")
    else:
        plan = planner.completion(CompletionRequest(prompt="hi", logprobs=20, **more), "")
    writer = ReplyWriter(form(planner, plan), plan, "m", None, "fp")

    def answer(size: int) -> tuple[str, float, float]:
        jobs = [Job(choice.request, "", asyncio.Event(), lambda job: None) for choice in plan.choices]
        readers, replies = [ReplyReader(planner, plan, c) for c in plan.choices], [writer.gathered() for _ in jobs]
        start = time.thread_time()
        for job, reader, reply in zip(jobs, readers, replies, strict=True):
            drawn = steps(400)
            for at in range(0, len(drawn), size):
                for _, delta, _, _ in pieces_of(0, reader, drawn[at : at + size], at + size >= len(drawn)):
                    reply.add(delta)
            job.finish_reason = "length"
        middle = time.thread_time()
        text = writer.whole(replies, readers, jobs)
        return text, middle - start, time.thread_time() - middle

    text, before, last = answer(3)
    assert last < before / 3, "all of it, when it was written at the end"
    assert text == answer(400)[0]
    choices = json.loads(text)["choices"]
    assert [choice["autodeco"]["seed"] for choice in choices] == list(range(1, 9))
    logprobs = choices[7]["logprobs"]
    assert len(logprobs["content" if form is ChatObjects else "tokens"]) == 400
    assert [record["index"] for record in choices[3]["autodeco"]["trace"]] == list(range(400))


def test_a_reader_behind_a_long_reply_gets_it_in_handfuls(engine):
    """All that waits for it is not written in one go: others have their turn between."""

    async def run() -> tuple[list[int], int]:
        service = Service(lambda: engine, ServerLimits())
        service._loop = asyncio.get_running_loop()
        request = ReplyPlanner(engine).completion(CompletionRequest(prompt="hi"), "").choices[0].request
        service.n_open = 1
        exchange, turns, sizes = Exchange(service, Permit(service, 1)), 0, []
        exchange.submit("", [request])
        exchange.jobs[0].push(steps(1000, 1))
        exchange.jobs[0].end("length")

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(others())
        async for news in exchange:
            sizes += [len(each) for _, each, _ in news]
            assert news[0][2] == (sum(sizes) == 1000)
        task.cancel()
        return sizes, turns

    sizes, turns = asyncio.run(run())
    assert sum(sizes) == 1000 and max(sizes) <= 64 and turns >= len(sizes) - 1


# ---- answers that nobody reads ------------------------------------------------------------------


def asked(inside, body: dict, room: int) -> socket.socket:
    """A connection that has asked for the text of tokens, with so much room for it."""
    url, data = urlsplit(inside.url), json.dumps(body, separators=(",", ":")).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    connection.settimeout(WAIT)
    connection.connect((url.hostname, url.port))
    head = "POST /detokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return connection


def test_a_whole_answer_that_nobody_reads_is_dropped(inside, monkeypatch):
    """And one that is read slowly is not: what the system takes no more of lay in the server for ever."""
    made = Connection.connection_made

    def made_small(self, transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", made_small)
    monkeypatch.setattr(Connection, "send_seconds", 2.0)
    model, state = inside.house.service.engine.model, inside.runner.server.server_state
    longest = max(range(model.n_vocab), key=lambda i: len(model.token_bytes(i, special=True)))
    inside.wait_until(lambda: not state.connections)
    n_bytes = len(model.token_bytes(longest, special=True))
    body = {"tokens": [longest] * 200_000}
    connections = [asked(inside, body, 4096) for _ in range(3)]
    slow = asked(inside, body, 1 << 19)
    n_read = 0
    while part := slow.recv(65_536):
        n_read += len(part)
        time.sleep(0.05)
    assert n_read > 200_000 * n_bytes
    inside.wait_until(lambda: not state.connections)
    for connection in (slow, *connections):
        connection.close()

"""Many at once: who waits, who is turned away, who is forgotten, and what a neighbour changes (nothing)."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from autodeco_edge import Engine
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.server import settings
from autodeco_edge.server.fair_queue import FairQueue
from autodeco_edge.server.wire import ChatRequest
from tests.support.serving import NAME, WAIT, ask, serving, serving_inside

# Nothing of this model's ends by itself under a bias against its end token: a reply of as many tokens as are asked for.
END = "2047"
ENDLESS = {"logit_bias": {END: -100}}
LONG = ask("Write.", max_tokens=400, **ENDLESS)


def is_idle(served) -> bool:
    return served.metric("autodeco_choices_open") == 0 and served.metric("autodeco_slots_busy") == 0


# ---- the queue ----------------------------------------------------------------------------------


def test_callers_take_turns():
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert len(queue) == 6
    assert [queue.get() for _ in range(7)] == ["a1", "b1", "c1", "a2", "c2", "a3", None]


def test_queue_keeps_its_order_and_its_count_whatever_happens():
    rng = random.Random(3)
    queue, waiting = FairQueue(), []
    for number in range(3000):
        action = rng.random()
        if action < 0.5:
            entry = rng.randrange(5), number
            queue.put(*entry)
            waiting.append(entry)
        elif action < 0.8:
            item = queue.get()
            if item is None:
                assert not waiting
                continue
            entry = next(e for e in waiting if e[1] == item)
            assert entry == next(e for e in waiting if e[0] == entry[0]), "each caller's own in order"
            waiting.remove(entry)
        elif waiting:
            entry = rng.choice(waiting)
            assert queue.remove(*entry) and not queue.remove(*entry)
            waiting.remove(entry)
        assert len(queue) == len(waiting)
    assert not queue.remove("nobody", 1)


def test_nobody_waits_for_all_of_anothers_requests():
    """One slot; a caller of eight requests, then one of another key: its reply comes second, not ninth."""
    with serving("--parallel", "1", "--queue", "20", "--api-key", "one", "--api-key", "two") as served:
        order: list[str] = []

        def send(key: str, i: int) -> None:
            body = ask(f"{key} {i}", max_tokens=150, **ENDLESS)
            assert (
                served.post("/v1/chat/completions", body, headers={"Authorization": f"Bearer {key}"}).status_code == 200
            )
            order.append(key)

        with ThreadPoolExecutor(9) as pool:
            many = [pool.submit(send, "one", i) for i in range(8)]
            served.wait_until(lambda: served.metric("autodeco_choices_open", Authorization="Bearer one") == 8)
            last = pool.submit(send, "two", 0)
            for future in [*many, last]:
                future.result(WAIT)
        assert order.index("two") <= 3, order


# ---- overload -----------------------------------------------------------------------------------


def test_counts_of_an_overload_are_exact(server):
    """4 slots and 8 places: of 30 at once 12 are served and 18 turned away, with a time to come back."""
    barrier, answers = threading.Barrier(30), []

    def send(_: int) -> httpx.Response:
        barrier.wait(WAIT)
        return server.post("/v1/chat/completions", LONG)

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(send, range(30)))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(200), codes.count(429)) == (12, 18)
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    server.wait_until(lambda: is_idle(server), 5)
    assert server.post("/v1/chat/completions", ask(max_tokens=1)).status_code == 200


def test_choices_count_as_many(server):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: server.post("/v1/chat/completions", {**LONG, "n": 8}), range(3)))
    assert sorted(a.status_code for a in answers) == [200, 429, 429]
    server.wait_until(lambda: is_idle(server))


# ---- who leaves ---------------------------------------------------------------------------------


def leave(served, body: dict, after: float, read: int = 0) -> None:
    """Sends a request and closes the connection: after some time, or once some bytes of the answer have come."""
    url = urlsplit(served.url)
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection = socket.create_connection((url.hostname, url.port), timeout=WAIT)
    connection.sendall(head.encode() + data)
    while read > 0 and (part := connection.recv(4096)):
        read -= len(part)
    time.sleep(after)
    connection.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_who_leaves_frees_a_slot_within_a_second(server, stream, n):
    """At every stage: at once, while the prompt is made, while it is read, while the reply is drawn."""
    before = server.metric("autodeco_disconnects_total")
    text = "word " * 700
    for i, after in enumerate((0.0, 0.005, 0.02, 0.05, 0.15)):
        body = ask(text, max_tokens=300, stream=stream, n=n, seed=i, **ENDLESS)
        leave(server, body, after, read=400 if stream and i == 4 else 0)
        # Generously: other tests' machines are slow. The campaign measures the second.
        assert server.wait_until(lambda: is_idle(server), 10) < 10
    assert server.metric("autodeco_disconnects_total") >= before + 4


def test_who_leaves_the_queue_leaves_no_trace(server):
    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(server.post, "/v1/chat/completions", LONG) for _ in range(4)]
        server.wait_until(lambda: server.metric("autodeco_slots_busy") == 4)
        for _ in range(6):
            leave(server, LONG, 0.02)
        server.wait_until(lambda: server.metric("autodeco_queue") == 0, 10)
        assert [future.result().status_code for future in running] == [200] * 4
    server.wait_until(lambda: is_idle(server))


def test_a_reply_beside_others_that_leave(server):
    """Streams that are dropped half way change nothing for one that is read to its end."""
    client = server.client()
    wanted = client.chat.completions.create(model=NAME, messages=LONG["messages"], temperature=0, max_tokens=200)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            leave(server, {**LONG, "stream": True}, 0.0, read=2000)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            found = client.chat.completions.create(model=NAME, messages=LONG["messages"], temperature=0, max_tokens=200)
            assert found.usage.completion_tokens == wanted.usage.completion_tokens
    finally:
        stop.set()
        thread.join()
    server.wait_until(lambda: is_idle(server), 10)


def test_a_reader_that_does_not_read_holds_nobody_up(server):
    url = urlsplit(server.url)
    body = json.dumps(
        {**LONG, "stream": True, "logprobs": True, "top_logprobs": 20, "autodeco": {"trace": True}}
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connections = []
    for _ in range(4):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((url.hostname, url.port))
        connection.sendall(head.encode() + body)
        connections.append(connection)
    answer = server.post("/v1/chat/completions", ask(max_tokens=5))
    assert answer.status_code == 200
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    for connection in connections:
        connection.close()
    server.wait_until(lambda: is_idle(server), 10)


# ---- what a neighbour changes -------------------------------------------------------------------


def canary(i: int) -> dict:
    return ask(f"What is {i % 90 + 10} + {i % 7 + 2}? Code {i * 7919 % 100_000:05d}.", seed=i, max_tokens=40)


def test_replies_hold_nothing_of_another_request(server):
    """64 at 8 at once; each with a number of its own, of which no other reply may hold the digits. 2,000: campaign.py."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: server.post("/v1/chat/completions", canary(i)).json(), range(64)))
    codes = [f"{i * 7919 % 100_000:05d}" for i in range(64)]
    for i, answer in enumerate(answers):
        text = json.dumps(answer["choices"])
        assert answer["choices"][0]["autodeco"]["seed"] == i
        content = answer["choices"][0]["message"]["content"]
        assert not any(code in content for k, code in enumerate(codes) if k != i), text


def test_deterministic_replies_equal_serial_ones():
    """Token for token and bit for bit: T, P and the draw of 12 requests at 6 at once, and one after another."""
    bodies = [{**canary(i), "logprobs": True, "cache_prompt": True} for i in range(12)]
    with serving("--parallel", "3", "--deterministic") as served:

        def one(body: dict) -> list:
            choice = served.post("/v1/chat/completions", body).json()["choices"][0]
            return [(e["id"], e["temperature"], e["top_p"], e["logprob"]) for e in choice["logprobs"]["content"]]

        serial = [one(body) for body in bodies]
        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(one, bodies)) == serial
    assert sum(map(len, serial)) > 100


def test_what_one_key_has_computed_serves_no_other():
    with serving("--parallel", "1", "--api-key", "one", "--api-key", "two") as served:

        def cached(key: str) -> int:
            body = ask("A question that is long enough to be worth remembering.", max_tokens=1)
            answer = served.post("/v1/chat/completions", body, headers={"Authorization": f"Bearer {key}"}).json()
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

        assert [cached(key) for key in ("one", "one", "two", "two", "one")] == [
            0,
            pytest.approx(20, abs=19),
            0,
            pytest.approx(20, abs=19),
            0,
        ]
        off = ask("Another.", max_tokens=1, cache_prompt=False)
        for _ in range(2):
            answer = served.post("/v1/chat/completions", off, headers={"Authorization": "Bearer one"}).json()
            assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


# ---- limits -------------------------------------------------------------------------------------


def test_limits_of_time_and_tokens():
    with serving("--parallel", "1", "--max-seconds", "0.1", "--max-tokens", "500") as served:
        asked = {**LONG, "max_tokens": 600, "autodeco": {"trace": True}, "top_logprobs": 20, "logprobs": True}
        answer = served.post("/v1/chat/completions", asked).json()
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "length"
        by_time = choice["autodeco"].get("cut_by") == "time"
        assert by_time or answer["usage"]["completion_tokens"] == 500
    with serving("--parallel", "1", "--max-tokens", "7") as served:
        answer = served.post("/v1/chat/completions", LONG).json()
        assert answer["usage"]["completion_tokens"] == 7 and answer["choices"][0]["finish_reason"] == "length"


PENALTIES = ({"frequency_penalty": 1.0}, {"presence_penalty": 0.5}, {"repeat_penalty": 1.3})


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: next(iter(penalty)))
@pytest.mark.parametrize("window", [None, -1, 0, 5, 299, 300, 2**20])
def test_a_window_of_penalties_is_no_longer_than_a_slot(penalty, window):
    """llama.cpp lays out as many tokens as are asked for: 4 MB a reply for 2^20, which is what a soak filled up with."""
    with Engine(demo_model(), n_ctx=300, n_threads=1) as engine:
        body = ChatRequest(**ask(repeat_last_n=window, **penalty))
        found = settings.filters(body, engine.model, True, None, engine.n_ctx)
        assert 0 <= found.repeat_last_n <= 300
        given = {"repeat_last_n": -1 if window is None and "repeat_penalty" not in penalty else window, **penalty}
        asked = FilterParams(**{key: value for key, value in given.items() if value is not None})

        def drawn(params: FilterParams) -> list[int]:
            request = Request((5, 6, 7), SamplingParams(seed=3), 290, params.build(engine.model), stop_at_end=False)
            return [step.id for step in engine.submit(request)]

        assert drawn(found) == drawn(asked)


# ---- beginning and end --------------------------------------------------------------------------


def test_health_while_loading_and_a_model_that_cannot_be_loaded(tmp_path):
    """A named pipe as the model: loading waits for it, and the server answers meanwhile."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    with serving("-m", str(broken), ready=False) as served:
        assert served.process.wait(WAIT) == 65
        assert any("broken.gguf" in line for line in served.log)


def test_while_the_model_loads():
    """A load that takes until it is told."""
    go = threading.Event()

    def load() -> Engine:
        go.wait(WAIT)
        return Engine(demo_model(), n_slots=2, n_ctx=256, n_threads=1)

    with serving_inside(load, parallel=2) as inside:
        try:
            for _ in range(3):
                answer = httpx.get(inside.url + "/health", timeout=WAIT)
                assert answer.status_code == 503 and answer.json()["error"]["code"] == "loading"
                answer = inside.post("/v1/chat/completions", ask())
                assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
            assert httpx.get(inside.url + "/v1/models").status_code == 200
        finally:
            go.set()
        inside.wait_until_ready()
        assert inside.post("/v1/chat/completions", ask(max_tokens=2)).status_code == 200
    assert inside.house.service.has_ended and not inside.failures


def test_an_engine_that_breaks_leaves_nobody_waiting(monkeypatch):
    """Its thread ends by something unforeseen: every reply ends with an error, and the server with it."""
    engine = Engine(demo_model(), n_slots=2, n_ctx=256, n_threads=1)
    monkeypatch.setattr(engine, "submit", lambda request: {}["unforeseen"])
    with serving_inside(lambda: engine, parallel=2) as inside:
        inside.wait_until_ready()
        assert inside.post("/v1/chat/completions", ask()).status_code == 500
        inside.thread.join(WAIT)
        assert not inside.thread.is_alive()
    assert [type(error) for error in inside.failures] == [KeyError]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_under_load_lets_replies_end(number):
    """Six streams, the signal, and each still gets its whole reply; a new request is refused."""
    with serving("--parallel", "3", "--drain-seconds", "40") as served:
        client = served.client()
        ends: list = []

        def read() -> None:
            last = None
            for chunk in client.chat.completions.create(
                model=NAME, stream=True, extra_body=ENDLESS, messages=LONG["messages"], max_tokens=300
            ):
                last = chunk
            ends.append((last.choices[0].finish_reason, last.choices[0].autodeco.get("cut_by")))

        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        served.wait_until(lambda: served.metric("autodeco_choices_open") == 6)
        code = served.end(number)
        for thread in threads:
            thread.join(WAIT)
        assert ends == [("length", None)] * 6
        assert code == (0 if number == signal.SIGTERM else 130)
        with pytest.raises((httpx.TransportError, openai.APIConnectionError)):
            httpx.get(served.url + "/health")


def test_the_end_comes_though_replies_do_not():
    """A drain of no time: what runs ends at once, and its readers see an end."""
    with serving("--parallel", "1", "--drain-seconds", "0.5", "-c", "1024") as served:
        client = served.client()
        found: list = []

        def read() -> None:
            try:
                body = {**ENDLESS, "top_logprobs": 20, "logprobs": True}
                for chunk in client.chat.completions.create(
                    model=NAME, stream=True, extra_body=body, messages=LONG["messages"]
                ):
                    if chunk.choices and chunk.choices[0].finish_reason:
                        found.append(chunk.choices[0])
            except openai.APIError as error:
                found.append(error)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        served.wait_until(lambda: served.metric("autodeco_choices_open") == 8)
        start = time.monotonic()
        assert served.end() == 0
        assert time.monotonic() - start < 12
        for thread in threads:
            thread.join(WAIT)
        assert len(found) == 8
        cut = [c for c in found if not isinstance(c, Exception) and c.autodeco.get("cut_by") == "shutdown"]
        turned_away = [e for e in found if isinstance(e, openai.APIError)]
        assert cut or turned_away


def test_second_signal_ends_at_once():
    with serving("--parallel", "1", "--drain-seconds", "100") as served:
        client = served.client()
        stream = client.chat.completions.create(
            model=NAME,
            stream=True,
            messages=LONG["messages"],
            extra_body={**ENDLESS, "logprobs": True, "top_logprobs": 20},
        )
        next(iter(stream))
        served.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 130


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--port", "70000"], 2, "port"), (["--parallel", "0"], 2, "parallel"), (["--queue", "-1"], 2, "queue"), (["--host", ""], 2, "host"),
        (["--host", "no.such.host.invalid"], 2, "no such address"), (["-m", "/nowhere.gguf"], 66, "nowhere"), (["--api-key", ""], 2, "api-key"),
        (["--api-key", "a b"], 2, "api-key"), (["--api-key-file", "/nowhere"], 66, "nowhere"), (["a", "-m", "b"], 2, "one model"),
        (["--max-seconds", "0"], 2, "max-seconds"), (["--chat-template-file", "/nowhere"], 66, "nowhere"), (["-c", "1"], 2, "context"),
        (["--heads", "x.gguf", "--no-heads"], 2, "exclude"), (["--draft", "ngram", "--deterministic"], 2, "--draft and --deterministic exclude"), (["--drain-seconds", "nan"], 2, "finite"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(arguments, code, words):
    import sys

    command = [sys.executable, "-m", "autodeco_edge", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, stdin=subprocess.DEVNULL)
    assert done.returncode == code and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_port_that_is_taken(server):
    import sys

    port = str(urlsplit(server.url).port)
    done = subprocess.run(
        [sys.executable, "-m", "autodeco_edge", "serve", "--port", port], capture_output=True, text=True, timeout=WAIT
    )
    assert done.returncode == 75 and port in done.stderr


def test_keys_from_a_file(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# mine\nfirst\n\nsecond\n")
    with serving("--api-key-file", str(keys)) as served:
        for key, code in (("first", 200), ("second", 200), ("# mine", 401), ("", 401)):
            headers = {"Authorization": f"Bearer {key}".strip()}
            assert httpx.get(served.url + "/v1/models", headers=headers).status_code == code


def test_no_prompt_in_the_log():
    with serving("-v") as served:
        for body in (
            ask("canary-4711"),
            ask("canary-4711", stream=True),
            ask("canary-4711", bad=1),
            ask("canary-4711 " * 2000),
        ):
            served.post("/v1/chat/completions", body)
        httpx.get(served.url + "/canary-4712?canary-4713")
        leave(served, ask("canary-4711", stream=True, **ENDLESS), 0.05)
        served.end()
        assert not any("canary" in line for line in served.log)

"""How replies and the server end: what was drawn is given out, who waits hears of it, and the exit code is the one that is stated."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from autodeco_edge import Engine
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.errors import FormatError
from autodeco_edge.server import service as service_module
from autodeco_edge.server.answers import ChatObjects, ReplyWriter
from autodeco_edge.server.errors import ApiError
from autodeco_edge.server.limits import ServerLimits
from autodeco_edge.server.prompts import ReplyPlanner
from autodeco_edge.server.replies import ReplyReader
from autodeco_edge.server.service import Exchange, Job, Service
from autodeco_edge.server.wire import ChatRequest
from tests.server.test_beside import heavy_schema, held_to
from tests.server.test_service import LONG
from tests.support.serving import WAIT, ask, serving


class GivesUp:
    """A filter that fails before its draw of that number, as a grammar does that grows too complex."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, chain) -> None:
        pass

    def prepare(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise FormatError("too complex")

    def accept(self, token: int) -> None:
        pass

    def reset(self) -> None:
        pass

    def rollback(self, n: int) -> None:
        pass


def endless(*filters, n: int = 500) -> Request:
    return Request((5, 6, 7), SamplingParams(seed=1), n, filters=filters, stop_at_end=False)


def served(use, **engine) -> None:
    """``use(service)`` in a loop, beside a real engine's thread."""

    async def run() -> None:
        service = Service(lambda: Engine(demo_model(), n_ctx=1024, n_threads=1, **engine), ServerLimits(parallel=4))
        service.start()
        await service.ready.wait()
        try:
            async with asyncio.timeout(WAIT):
                await use(service)
        finally:
            service.close()
            await asyncio.to_thread(service.join, WAIT)

    asyncio.run(run())


def exchange_of(service: Service, *requests: Request) -> Exchange:
    exchange = Exchange(service, service.permit(len(requests)))
    exchange.submit("", requests)
    return exchange


async def until(condition) -> None:
    while not condition():
        await asyncio.sleep(0.002)


# ---- replies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 7, 40])
def test_what_was_drawn_before_a_reply_failed_is_given_out(at):
    async def use(service: Service) -> None:
        exchange, drawn = exchange_of(service, endless(GivesUp(at))), 0
        with pytest.raises(ApiError, match="too complex") as raised:
            async for news in exchange:
                for _, steps, is_over in news:
                    drawn += len(steps)
                    assert not is_over, "its end is the error"
        assert drawn == at and raised.value.status_code == 400
        exchange.close()

    served(use)


def test_what_was_drawn_before_the_engine_failed_is_given_out(monkeypatch):
    """Also what was still held back for the next handful."""
    monkeypatch.setattr(service_module, "GATHER_SECONDS", 1000.0)

    async def use(service: Service) -> None:
        tick, left = service.engine.tick, 30

        def fails() -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise RuntimeError("unforeseen")
            return tick()

        monkeypatch.setattr(service.engine, "tick", fails)
        exchange, drawn = exchange_of(service, endless()), 0
        with pytest.raises(RuntimeError, match="unforeseen"):
            async for news in exchange:
                drawn += sum(len(steps) for _, steps, _ in news)
        assert drawn > 20, "one and more were handed over at once, the others waited"
        exchange.close()

    served(use)


def test_the_end_of_the_server_ends_the_choices_of_a_reply_that_has_begun():
    """One slot: of two choices one is drawn, the other waits; both end alike. Who has nothing yet is turned away."""

    async def use(service: Service) -> None:
        begun, waiting = exchange_of(service, endless(), endless(), endless()), exchange_of(service, endless())
        await until(lambda: begun.jobs[0].timings.predicted_n > 3)
        service.cut("shutdown")
        found = {}
        async for news in begun:
            for index, steps, is_over in news:
                found.setdefault(index, []).append((len(steps), is_over))
        assert [sum(n for n, _ in found[i]) > 0 for i in range(3)] == [True, False, False]
        assert [found[i][-1][1] for i in range(3)] == [True] * 3
        assert [(job.finish_reason, job.cut_by) for job in begun.jobs] == [("cancelled", "shutdown")] * 3
        with pytest.raises(ApiError) as raised:
            async for _ in waiting:
                pass
        assert raised.value.status_code == 503
        for exchange in (begun, waiting):
            exchange.close()
        assert service.n_open == 0

    served(use)


@pytest.mark.parametrize("reason", ["stop", "length", "cancelled"])
def test_only_a_reply_that_was_cut_says_so(reason):
    """One that had ended by itself a moment before, or that a stop string ended, was not."""
    with Engine(demo_model(), n_ctx=64, n_threads=1) as engine:
        planner = ReplyPlanner(engine)
        plan = planner.chat(ChatRequest(**ask("hi")), "")
        writer = ReplyWriter(ChatObjects(planner, plan), plan, "m", None, "fp")
        job = Job(plan.choices[0].request, "", asyncio.Event(), lambda job: None)
        for stopped in (False, True):
            reader, reply = ReplyReader(planner, plan, plan.choices[0]), writer.gathered()
            reader.stopped, job.cut_by, job.finish_reason = stopped, "shutdown", reason
            delta = reader.finish()
            reply.add(delta)
            whole = json.loads(writer.whole([reply], [reader], [job]))["choices"][0]
            for choice in (whole, writer.ending(0, delta, 0, reader, job)):
                assert ("cut_by" in choice["autodeco"]) == (reason == "cancelled" and not stopped)
                assert choice["finish_reason"] == ("stop" if stopped or reason == "stop" else "length")


# ---- the process --------------------------------------------------------------------------------


def test_two_signals_and_everybody_hears_of_it():
    """Streams and whole replies, two choices each, drawn, waiting and still being planned: an answer in the usual form."""
    with serving("--parallel", "2", "--queue", "64", "--drain-seconds", "100") as served:

        def send(i: int) -> httpx.Response:
            body = held_to(heavy_schema(i)) if i % 4 == 3 else {**LONG, "max_tokens": 900, "n": 2, "stream": i % 2 == 0}
            return served.post("/v1/chat/completions", body)

        with ThreadPoolExecutor(12) as pool:
            answers = [pool.submit(send, i) for i in range(12)]
            served.wait_until(lambda: served.metric("autodeco_choices_open") == 21)
            for _ in range(2):
                served.process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
            found = [answer.result(WAIT) for answer in answers]
        assert served.process.wait(WAIT) == 0
    for i, answer in enumerate(found):
        assert answer.status_code in (200, 503), answer.text[:300]
        if i % 2 == 0:
            last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
            assert last == "data: [DONE]" or json.loads(last[6:])["error"]["code"] == "shutting_down"
        elif answer.status_code == 503:
            assert answer.json()["error"]["code"] == "shutting_down"
        else:
            assert len(answer.json()["choices"]) in (1, 2)
    assert any(answer.status_code == 503 for answer in found), "those that were still being planned"
    assert not any("Traceback" in line or "Exception" in line for line in served.log), served.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("is_busy", [False, True])
def test_signals_until_it_is_over(number, is_busy):
    """A signal every few milliseconds, also while the interpreter tidies up."""
    with serving("--parallel", "1") as served, ThreadPoolExecutor(1) as pool:
        if is_busy:
            answer = pool.submit(served.post, "/v1/chat/completions", {**LONG, "max_tokens": 900})
            served.wait_until(lambda: served.metric("autodeco_choices_open") == 1)
        deadline = time.monotonic() + WAIT
        while served.process.poll() is None:
            assert time.monotonic() < deadline
            served.process.send_signal(number)
            time.sleep(0.003)
        assert served.process.returncode == (0 if number == signal.SIGTERM else 130), served.log
        if is_busy:
            assert answer.result(WAIT).status_code in (200, 503)
        assert not any("Traceback" in line or "Error" in line for line in served.log), served.log


def test_a_reader_that_does_not_read_does_not_hold_up_the_end():
    from tests.server.campaign import opened

    body = {
        **LONG,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 20,
        "max_tokens": 900,
        "autodeco": {"trace": True},
    }
    with serving("--parallel", "2", "--drain-seconds", "100") as served:
        connections = [opened(served, body, 4096) for _ in range(2)]
        served.wait_until(lambda: served.metric("autodeco_slots_busy") == 2)
        time.sleep(1)
        start = time.monotonic()
        for _ in range(2):
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert served.process.wait(WAIT) == 0
        assert time.monotonic() - start < 20
        assert not any("error" in line for line in served.log), served.log
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("while_importing", ["fastapi.routing", "uvicorn.server"])
def test_a_signal_before_it_listens(while_importing):
    command = [sys.executable, "-X", "importtime", "-m", "autodeco_edge", "serve", "--port", "0", "-t", "1"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while while_importing not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=WAIT)[1]
    assert process.returncode == 0 and "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--alias", "m", "--alias", "m"], "two models would be named 'm'"),
        (["--alias", "autodeco-demo-q8_0"], "two models would be named 'autodeco-demo-q8_0'"),
        (["--alias", ""], "allowed 1 to 512 characters"),
        (["--alias", " "], "allowed 1 to 512 characters"),
        (["--alias", "a\nb"], "allowed 1 to 512 characters"),
        (["--alias", "x" * 513], "allowed 1 to 512 characters"),
    ],
)
def test_names_that_nobody_could_ask_for(arguments, words):
    command = [sys.executable, "-m", "autodeco_edge", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and words in done.stderr, done.stderr

"""Tokens that come at once make the same answer, to the byte, as tokens that come one by one."""

from __future__ import annotations

import asyncio
import random

import pytest

from autodeco_edge import Engine
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import Step
from autodeco_edge.errors import UsageError
from autodeco_edge.server import stream
from autodeco_edge.server.answers import ChatObjects, ReplyWriter, TextObjects
from autodeco_edge.server.errors import ApiError
from autodeco_edge.server.limits import ServerLimits
from autodeco_edge.server.prompts import ReplyPlanner
from autodeco_edge.server.replies import ReplyReader
from autodeco_edge.server.service import Exchange, Job, Permit, Service
from autodeco_edge.server.wire import ChatRequest, CompletionRequest
from tests.support.serving import ask

TEXTS = (
    "<think>\n33 and 50 make 83. Ünïcode 🎉 in pieces,\n\nthen the END of it.</think>\n\nThe answer is 83.",
    "Nothing is thought here; <thin ice, and an EN D that is none.",
)
STREAMS = {
    "plain": {},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "trace": {"autodeco": {"trace": True}},
    "stop": {"stop": ["END", "\n\nThe"]},
    "several": {"n": 2, "logprobs": True},
}


@pytest.fixture(scope="module")
def engine():
    with Engine(demo_model(), n_ctx=256, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def planner(engine):
    return ReplyPlanner(engine)


def steps_of(planner: ReplyPlanner, text: str) -> list[Step]:
    """A reply of this text, byte tokens among its tokens, with a token of no text at its end."""
    ids = planner.model.tokenize(text, add_special=False, parse_special=True)
    ids.append(next(i for i in range(planner.model.n_vocab) if planner.model.is_end(i)))
    top = ((ids[0], -0.5), (ids[-1], -1.0), (3, -float("inf")))
    return [Step(n, i, 0.7, 0.9, 0.7, 0.9, 3, 1.0, 0.5, -0.1 * n, top) for n, i in enumerate(ids)]


class Given:
    """An exchange whose news are given: for each moment, how many steps of each job come."""

    def __init__(self, jobs: list[Job], replies: list[list[Step]], cuts: list[list[int]]) -> None:
        self.jobs, self._replies, self._cuts = jobs, replies, cuts

    async def __aiter__(self):
        at = [0] * len(self.jobs)
        for moment in self._cuts:
            news = []
            for index, n in enumerate(moment):
                steps = self._replies[index][at[index] : at[index] + n]
                at[index] += n
                ended = at[index] >= len(self._replies[index])
                if ended:
                    self.jobs[index].finish_reason = "stop"
                if steps:
                    news.append((index, steps, ended))
            yield news


def one_by_one(replies: list[list[Step]]) -> list[list[int]]:
    """A token of each in turn: the order in which they are drawn."""
    return [[1] * len(replies) for _ in range(max(map(len, replies)))]


def served(planner: ReplyPlanner, plan, form, writer_of, replies, cuts, usage: bool, whole: bool):
    jobs = [Job(choice.request, "", asyncio.Event(), lambda job: None) for choice in plan.choices]
    readers = [ReplyReader(planner, plan, choice) for choice in plan.choices]
    exchange = Given(jobs, replies, cuts)

    async def run():
        if whole:
            return await stream.whole(exchange, readers, writer_of)
        return b"".join([data async for data in stream.events(exchange, readers, writer_of, usage)])

    return asyncio.run(run())


def by_choice(data: bytes) -> dict[bytes, list[bytes]]:
    """Events in order, those of each choice apart: between two choices the order is that of their coming."""
    found: dict[bytes, list[bytes]] = {}
    for event in data.split(b"\n\n"):
        mark = event.split(b'"choices":[{"index":')[-1][:1] if b'"choices":[{' in event else b"all"
        found.setdefault(mark, []).append(event)
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", STREAMS)
def test_events_are_the_same_to_the_byte_however_tokens_come(planner, name, text):
    usage = name != "plain"
    plan = planner.chat(ChatRequest(**ask(stream=True, seed=1, **STREAMS[name])), "")
    writer = ReplyWriter(ChatObjects(planner, plan), plan, "m", None, "fp")
    replies = [steps_of(planner, text[i:]) for i in range(len(plan.choices))]
    slow = served(planner, plan, ChatObjects, writer, replies, one_by_one(replies), usage, False)
    assert slow.endswith(b"data: [DONE]\n\n") and slow.count(b"data: ") > 8
    whole = served(planner, plan, ChatObjects, writer, replies, one_by_one(replies), usage, True)
    rng = random.Random(7)
    for size in (1, 2, 5, 1000):
        cuts = [[rng.randrange(size + 1) for _ in replies] for _ in range(300)] + [[1000] * len(replies)]
        fast = served(planner, plan, ChatObjects, writer, replies, cuts, usage, False)
        assert by_choice(fast) == by_choice(slow)
        if len(replies) == 1:
            assert fast == slow
        assert served(planner, plan, ChatObjects, writer, replies, cuts, usage, True) == whole


def test_plain_completions_likewise(planner):
    body = CompletionRequest(prompt="Hello", stream=True, logprobs=2, seed=1, max_tokens=64)
    plan = planner.completion(body, "")
    writer = ReplyWriter(TextObjects(planner, plan), plan, "m", None, "fp")
    replies = [steps_of(planner, TEXTS[0])]
    slow = served(planner, plan, TextObjects, writer, replies, one_by_one(replies), True, False)
    assert slow == served(planner, plan, TextObjects, writer, replies, [[1000]], True, False)


def test_one_event_a_token(planner):
    plan = planner.chat(ChatRequest(**ask(stream=True, logprobs=True)), "")
    writer = ReplyWriter(ChatObjects(planner, plan), plan, "m", None, "fp")
    replies = [steps_of(planner, "What is 2 + 3?")]
    data = served(planner, plan, ChatObjects, writer, replies, [[1000]], False, False)
    assert data.count(b'"bytes":') == data.count(b'"logprobs":{"content":[{') == len(replies[0]) - 1


def test_what_is_kept_of_a_token_is_what_the_model_says(planner):
    model = planner.model
    for _ in range(2):
        for token in range(model.n_vocab):
            assert planner.token_bytes(token) == model.token_bytes(token, special=token in planner._shown)
    with Engine(demo_model(), n_ctx=64, n_threads=1) as other:
        token = next(i for i in range(other.model.n_vocab) if other.model.is_end(i))
        assert other.model.is_end(token) and other.model.metadata("general.architecture")
        assert other.model.metadata("no.such.key") is None
        other.model.close()
        with pytest.raises(UsageError, match="closed"):
            other.model.is_end(token)
        with pytest.raises(UsageError, match="closed"):
            other.model.metadata("general.architecture")
    for wrong in (True, -1, model.n_vocab, 1.0, "1"):
        with pytest.raises(UsageError):
            model.is_end(wrong)


# ---- the plan's thread tells the engine ---------------------------------------------------------


class Stopped(Service):
    """Whose engine cannot be made."""

    def __init__(self) -> None:
        super().__init__(self._fail, ServerLimits())

    def _fail(self):
        raise UsageError("no engine")


def test_what_is_handed_in_too_late_is_turned_away(planner):
    """By a thread that planned while the engine's thread ended, and by one whose client left meanwhile."""
    request = planner.chat(ChatRequest(**ask()), "").choices[0].request

    async def run():
        service = Stopped()
        service.start()
        await service.ready.wait()
        service._ended(None)
        exchange = Exchange(service, Permit(service, 0))
        await asyncio.to_thread(exchange.submit, "", [request])
        with pytest.raises(ApiError, match="no engine"):
            async with asyncio.timeout(30):
                async for _ in exchange:
                    pass
        other = Service(lambda: None, ServerLimits())
        gone = Exchange(other, Permit(other, 0))
        gone.close()
        await asyncio.to_thread(gone.submit, "", [request])
        assert len(other._queue) == 0 and gone.jobs[0].ended

    asyncio.run(run())

"""Neighbours: what happens to one request changes nothing for another.

Replies are compared with those of an engine of one slot. A batch of several sequences is added up in another order
than single tokens (test_slots.py has the size of it), so tokens are compared on greedy requests over a model whose
argmax is far from a tie, and to the bit between two schedules whose batches have the same shapes.
"""

from __future__ import annotations

import os
import random
import threading
from itertools import takewhile

import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import AutodecoError, UsageError
from autodeco_edge.text.chat import render

N_SCHEDULES = int(os.environ.get("AUTODECO_TEST_SCHEDULES", "30"))  # 200 by hand
N_TOKENS = 24
PROMPTS = (
    "What is 97 * 3 + 28 - 72?",
    "What is 12 * 4 + 31 - 17?",
    "What is 45 * 2 + 16 - 9?",
    "What is 23 * 5 + 40 - 38?",
)
CERTAIN = 0.6  # a likeliest token of more than this is not overtaken for the sake of a few last bits


@pytest.fixture(scope="module")
def engine():
    with Engine(demo_model(), n_slots=8, n_ctx=256, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def alone(engine):
    """Greedy ids of each prompt, from one slot, as far as every one of them is certain."""
    with Engine(engine.model, n_ctx=256, n_threads=1) as single:
        replies = [list(single.generate(ids_of(engine, i), GREEDY, max_tokens=N_TOKENS)) for i in range(4)]
    certain = [[s.id for s in takewhile(lambda s: s.max_prob > CERTAIN, steps)] for steps in replies]
    assert all(len(ids) >= 12 for ids in certain)
    return certain


GREEDY = SamplingParams(temperature=0.0)


def agree(ids: list[int], certain: list[int]) -> bool:
    n = min(len(ids), len(certain))
    return ids[:n] == certain[:n]


def ids_of(engine: Engine, i: int) -> tuple[int, ...]:
    return tuple(render(engine.model, [{"role": "user", "content": PROMPTS[i]}]))


def test_cancelled_and_finished_neighbours_change_nothing(engine, alone):
    """Schedules of 12 requests on 8 slots; some are cancelled before, while and after they are read."""
    rng = random.Random(7)
    n_compared = 0
    for _ in range(N_SCHEDULES):
        running = []
        for _ in range(12):
            i = rng.randrange(4)
            running.append((i, engine.submit(Request(ids_of(engine, i), GREEDY, rng.choice((3, 9, N_TOKENS))))))
            for _ in range(rng.randrange(3)):
                engine.tick()
        for _, generation in running:
            if rng.random() < 0.3:
                generation.cancel()
        for i, generation in running:
            ids = [step.id for step in generation]
            if generation.finish_reason != "cancelled":
                assert agree(ids, alone[i])
                n_compared += 1
        assert engine.n_free == 8
    assert n_compared > N_SCHEDULES * 6


def test_cancel_frees_the_slot_at_every_stage(engine):
    prompt = ids_of(engine, 0)
    for n_ticks in range(4):
        replies = [engine.submit(Request(prompt, GREEDY, N_TOKENS)) for _ in range(10)]  # two of them wait
        for _ in range(n_ticks):
            engine.tick()
        for reply in replies:
            reply.cancel()
        assert engine.n_free == 8
        assert {reply.finish_reason for reply in replies} == {"cancelled"}
    assert not engine.tick()


def test_a_dropped_handle_frees_its_slot(engine):
    for _ in range(3):
        next(engine.submit(Request(ids_of(engine, 0), GREEDY, N_TOKENS)))
    assert engine.n_free == 8


def test_threads_read_their_own_replies(engine, alone):
    found: dict[int, list[int]] = {}

    def read(number: int) -> None:
        generation = engine.submit(Request(ids_of(engine, number % 4), GREEDY, N_TOKENS))
        found[number] = [step.id for step in generation]

    threads = [threading.Thread(target=read, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(agree(found[n], alone[n % 4]) for n in range(12))


def test_close_in_another_thread_ends_replies_with_an_error(engine):
    other = Engine(engine.model, n_slots=2, n_ctx=256, n_threads=1)
    generation = other.submit(Request(ids_of(engine, 0), GREEDY, 200, stop_at_end=False))
    next(generation)
    closer = threading.Thread(target=other.close)
    closer.start()
    with pytest.raises(UsageError, match="closed"):
        for _ in generation:
            pass
    closer.join()
    assert generation.finish_reason == "error"


def test_a_short_prompt_does_not_wait_for_a_long_one(engine):
    """Two ticks at most: the long prompt of 1,000 tokens takes more."""
    with Engine(engine.model, n_slots=2, n_ctx=1024, n_threads=1) as both:
        long = both.submit(Request(ids_of(engine, 0) * 40, GREEDY, 4))
        assert len(long.request.prompt) > 1000 - 64
        short = both.submit(Request(ids_of(engine, 1), GREEDY, 4))
        both.tick()
        both.tick()
        assert short.read(), "its first token is there"
        assert not long.read()


def test_a_failing_draw_ends_alone(engine, alone):
    """One reply's logits are all masked; the others go on."""
    other = Engine(engine.model, n_slots=3, n_ctx=256, n_threads=1)
    draw = other.strategy.draw

    def spoiled(context, outputs):
        return [
            AutodecoError("spoiled") if o.sequence == 1 else s
            for o, s in zip(outputs, draw(context, outputs), strict=True)
        ]

    other.strategy.draw = spoiled
    replies = [other.submit(Request(ids_of(engine, i), GREEDY, N_TOKENS)) for i in range(3)]
    assert agree([s.id for s in replies[0]], alone[0])
    with pytest.raises(AutodecoError, match="spoiled"):
        list(replies[1])
    assert agree([s.id for s in replies[2]], alone[2])
    assert replies[1].finish_reason == "error"
    other.close()


def test_only_the_context_decodes():
    """The drop-in's parent aside, llama_decode is called in one place of the package."""
    import re
    from pathlib import Path

    import autodeco_edge

    root = Path(autodeco_edge.__file__).parent
    calls = [p.name for p in root.rglob("*.py") for _ in re.finditer(r"llama_cpp\.llama_decode\(", p.read_text())]
    assert calls == ["context.py"]

"""Several heads in one engine: each request draws by those that it names, whoever draws beside it."""

from __future__ import annotations

import random

import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.engine.generation import Request
from autodeco_edge.errors import MismatchError, UsageError
from tests.support import checkpoints
from tests.support.letters import N_EMBD, make_letters

NAMES = (None, "b", "c")
N_TOKENS = 10


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def others(letters, tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    _, base = open_base(letters.gguf)
    for name, seed in (("b", 8), ("c", 9)):
        checkpoint = checkpoints.random_heads(folder / name, N_EMBD, seed=seed)
        write_heads(read_checkpoint(checkpoint), folder / f"{name}.gguf", base=base)
    return {name: folder / f"{name}.gguf" for name in NAMES[1:]}


@pytest.fixture(scope="module")
def alone(letters, others):
    """By the name of the heads: what an engine with these alone draws, for a prompt and a seed."""
    files = {None: letters.heads, **others}
    engines = {name: Engine(letters.gguf, file, n_ctx=256, n_threads=1) for name, file in files.items()}
    yield lambda name, prompt, seed, **more: list(
        engines[name].generate(prompt, SamplingParams(seed, **more), max_tokens=N_TOKENS)
    )
    for engine in engines.values():
        engine.close()


def ids(engine, text: bytes) -> tuple[int, ...]:
    return tuple(engine.model.tokenize(text))


def test_one_after_another_to_the_bit(letters, others, alone):
    rng = random.Random(1)
    with Engine(letters.gguf, letters.heads, more_heads=others, n_ctx=256, n_threads=1) as engine:
        for seed in range(30):
            name, prompt = rng.choice(NAMES), ids(engine, b"fox %d" % (seed % 3))
            more = rng.choice(({}, {"top_logprobs": 2}, {"heads_mode": "temp"}))
            request = Request(prompt, SamplingParams(seed, **more), N_TOKENS, heads=name)
            assert list(engine.submit(request)) == alone(name, prompt, seed, **more)


def test_beside_each_other(letters, others, alone):
    """T of the first token is that of the heads which were asked for; a batch of several may move its last bits."""
    found = set()
    with Engine(letters.gguf, letters.heads, more_heads=others, n_slots=4, n_ctx=256, n_threads=1) as engine:
        for turn in range(8):
            made = [(name, seed) for seed in range(2) for name in NAMES]
            prompt = ids(engine, b"two birds %d" % turn)
            replies = [engine.submit(Request(prompt, SamplingParams(s), N_TOKENS, heads=n)) for n, s in made]
            for (name, seed), reply in zip(made, replies, strict=True):
                step, expected = list(reply)[0], alone(name, prompt, seed)[0]
                assert (step.temperature, step.top_p) == pytest.approx((expected.temperature, expected.top_p), abs=1e-3)
                found.add((name, round(step.temperature, 3)))
    assert len({value for _, value in found}) > 2 * len(NAMES), "the heads differ"


def test_a_conversation_is_not_lost_to_other_heads(letters, others):
    """Heads need another graph, which takes milliseconds; a prompt that was computed is worth more."""
    with Engine(letters.gguf, letters.heads, more_heads=others, n_slots=2, n_ctx=256, n_threads=1) as engine:
        prompt = ids(engine, b"fox " * 20)
        for name in ("b", None, "b", "c"):
            reply = engine.submit(Request(prompt, SamplingParams(1), 2, heads=name, reuse_prefix=True))
            list(reply)
        assert reply.timings.prompt_cached == len(prompt) - 1
        list(engine.submit(Request(ids(engine, b"two"), SamplingParams(1), 2, heads="c", reuse_prefix=True)))
        again = engine.submit(Request(prompt, SamplingParams(1), 2, heads="b", reuse_prefix=True))
        list(again)
        assert again.timings.prompt_cached == len(prompt) - 1


def test_names_that_nobody_gave_and_heads_of_another_model(letters, others, tmp_path):
    for more, said in ((others, "named in this engine b, c; got 'x'"), ({}, "named in this engine none; got 'x'")):
        with (
            Engine(letters.gguf, letters.heads, more_heads=more, n_ctx=64, n_threads=1) as engine,
            pytest.raises(UsageError, match=said),
        ):
            engine.submit(Request((1, 2), heads="x"))
    from autodeco_edge.engine.pairing import demo_model

    with pytest.raises(MismatchError):
        Engine(letters.gguf, letters.heads, more_heads={"b": demo_model()}, n_ctx=64, n_threads=1)

"""What a server asks of the engine: likeliest tokens, cells with an owner, and replies that no neighbour changes."""

from __future__ import annotations

import numpy as np
import pytest

from autodeco_edge import Engine, SamplingParams, demo_model
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.sampler import likeliest
from autodeco_edge.errors import UsageError


@pytest.fixture(scope="module")
def engine():
    with Engine(demo_model(), n_slots=2, n_ctx=256, n_threads=1) as engine:
        yield engine


def ids_of(engine: Engine, text: str) -> tuple[int, ...]:
    return tuple(engine.model.tokenize(text))


def test_likeliest_is_what_sorting_gives():
    rng = np.random.default_rng(1)
    for n in (1, 5, 20):
        logits = rng.normal(size=500).astype(np.float32) * 4
        expected = logits.astype(np.float64) - np.log(np.exp(logits.astype(np.float64)).sum())
        order = sorted(range(500), key=lambda i: (-logits[i], i))[:n]
        found = likeliest(logits, n)
        assert [i for i, _ in found] == order
        assert [p for _, p in found] == pytest.approx([expected[i] for i in order], abs=1e-9)


@pytest.mark.parametrize(
    ("logits", "found"),
    [
        ([0.0, 0.0, 0.0], [0, 1, 2]), ([np.nan, 1.0, 0.0], [1, 2]), ([-np.inf, -np.inf, 5.0], [2]), ([-np.inf] * 3, []), ([np.nan] * 3, []),
        ([np.inf, 1.0, 0.0], []), ([3e38, -3e38, 0.0], [0, 2, 1]),
    ],
)  # fmt: skip
def test_likeliest_of_strange_rows(logits, found):
    assert [i for i, _ in likeliest(np.array(logits, np.float32), 3)] == found


def test_asking_for_the_likeliest_changes_no_token(engine):
    """They come from the logits before every filter, and the token's own logprob is among them."""
    prompt = ids_of(engine, "What is 2 + 3?")
    plain = list(engine.generate(prompt, SamplingParams(seed=1, logprobs=True), max_tokens=12))
    asked = list(engine.generate(prompt, SamplingParams(seed=1, logprobs=True, top_logprobs=20), max_tokens=12))
    assert [s.id for s in asked] == [s.id for s in plain] and all(s.top == () for s in plain)
    for step in asked:
        found = dict(step.top)
        assert len(found) == 20 and found.get(step.id, step.logprob) == pytest.approx(step.logprob, abs=1e-4)
    filters = FilterParams(top_k=1, logit_bias={3: 50.0}).build(engine.model)
    forced = list(engine.generate(prompt, SamplingParams(top_logprobs=20), max_tokens=1, filters=filters))
    assert forced[0].id == 3 and forced[0].top == asked[0].top
    with pytest.raises(UsageError, match="top logprobs"):
        SamplingParams(top_logprobs=21)


def test_cells_are_reused_for_their_owner_alone(engine):
    prompt = ids_of(engine, "A question that nobody else has asked before, and that is long.")

    def cached(owner: str, reuse: bool = True) -> int:
        request = Request(prompt, SamplingParams(), 1, reuse_prefix=reuse, owner=owner)
        generation = engine.submit(request)
        list(generation)
        return generation.timings.prompt_cached

    assert cached("a") == 0
    assert cached("a") == len(prompt) - 1
    assert cached("b") == 0
    assert cached("a") == len(prompt) - 1, "the other slot was free for b"
    assert cached("a", reuse=False) == 0


def test_a_slot_that_would_lose_much_is_left_alone(engine):
    """Two conversations on two slots keep theirs, though they begin alike."""
    texts = [f"You are helpful. {name} " + f"{name} " * 60 for name in ("one", "two")]
    for turn in range(3):
        for text in texts:
            request = Request(ids_of(engine, text + "more " * turn), SamplingParams(), 1, reuse_prefix=True)
            generation = engine.submit(request)
            list(generation)
            assert turn == 0 or generation.timings.prompt_cached > 60


def test_neighbours_change_no_bit_of_a_deterministic_reply():
    requests = [(f"What is {i} + {7 * i}?" + " word" * 40 * (i % 3), i) for i in range(6)]
    found = []
    for n_slots in (1, 4):
        with Engine(demo_model(), n_slots=n_slots, n_ctx=256, n_threads=1, deterministic=True, n_batch=32) as engine:
            made = [Request(ids_of(engine, text), SamplingParams(seed=seed), 25) for text, seed in requests]
            replies = dict(engine.run(made))
            found.append([[(s.id, s.temperature, s.top_p, s.entropy) for s in replies[i].steps] for i in range(6)])
    assert found[0] == found[1] and sum(map(len, found[0])) > 50


def test_settings_that_exclude_each_other():
    with pytest.raises(UsageError, match="exclude"):
        Engine(demo_model(), share_prompts=True, deterministic=True)
    for n_batch in (0, 2049):
        with pytest.raises(UsageError, match="batch"):
            Engine(demo_model(), n_batch=n_batch)

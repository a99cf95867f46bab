"""Drafts change the time of a reply and nothing else: each test compares with an engine that drafts nothing.

The letters model is F32, whose matrix products llama.cpp adds up in another order for several rows than for one, so T and P
may differ in the last bits there. The demo model is Q8_0, and equal to the bit on one thread.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.drafts import MAX_DRAFT, Drafts, PromptLookup
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import UsageError
from tests.support.letters import make_letters

PROMPTS = ("Find two numbers that make 83.", "Tell me a story about a fox.", "one two three one two three one two")


class Oracle(Drafts):
    """Knows the reply, and is wrong at every ``wrong``-th token of it; of a length that changes."""

    def __init__(self, prompt: Sequence[int], reply: Sequence[int], wrong: int = 0) -> None:
        self._text = [
            (t + 1) % 300 if wrong and i % wrong == 0 and i else t for i, t in enumerate([*prompt, *reply, *reply])
        ]

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        return self._text[len(tokens) : len(tokens) + 1 + len(tokens) % n_max]


@pytest.fixture(scope="module")
def plain():
    with Engine(demo_model(), n_ctx=400, n_threads=1) as engine:
        yield engine


def reply(engine: Engine, ids: Sequence[int], params: SamplingParams, **options):
    generation = engine.generate(ids, params, **options)
    steps = list(generation)
    return steps, generation.finish_reason, generation.timings


@pytest.mark.parametrize("wrong", [0, 1, 2, 5])
@pytest.mark.parametrize("cpu_draw", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=3),
        SamplingParams(seed=4, temperature=1.4, logprobs=True),
        SamplingParams(seed=5, heads_mode="none", temperature=0.8, min_p=0.05),
        SamplingParams(seed=6, temperature=0.0),
        SamplingParams(seed=7, top_logprobs=3),
    ],
)
def test_the_steps_are_those_of_plain_decoding(plain, wrong, cpu_draw, params):
    """All that a Step reports, to the bit, whatever share of the draft is right; and the slot is as good as new."""
    ids = plain.model.tokenize(PROMPTS[0])
    want, reason, _ = reply(plain, ids, params, max_tokens=50, stop_at_end=False)
    drafts = Oracle(ids, [step.id for step in want], wrong)
    with Engine(plain.model, n_ctx=400, n_threads=1, cpu_draw=cpu_draw, draft=drafts, draft_max=7) as engine:
        for _ in range(2):
            got, got_reason, timings = reply(engine, ids, params, max_tokens=50, stop_at_end=False)
            assert (got, got_reason) == (want, reason)
            assert timings.predicted_n == 50 and 0 <= timings.draft_n_accepted <= timings.draft_n
            assert (timings.draft_n_accepted == timings.draft_n) == (wrong == 0)


@pytest.mark.parametrize("n_max", [1, 4, MAX_DRAFT])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompt_lookup_changes_nothing(plain, prompt, n_max):
    ids = plain.model.tokenize(prompt)
    with Engine(plain.model, n_ctx=400, n_threads=1, draft="ngram", draft_max=n_max) as engine:
        for seed in range(3):
            params = SamplingParams(seed=seed)
            assert reply(engine, ids, params)[:2] == reply(plain, ids, params)[:2]


def filter_sets(model):
    return {
        "penalties": FilterParams(repeat_penalty=1.3, frequency_penalty=0.3, repeat_last_n=8),
        "grammar": FilterParams(grammar=Grammar.from_regex("([a-z]{3,5} ){4}([0-9]{2} ){8}")),
        "bias": FilterParams(logit_bias={20: 3.0}, top_k=20),
    }


@pytest.mark.parametrize("kind", ["penalties", "grammar", "bias"])
@pytest.mark.parametrize("wrong", [0, 3])
def test_filters_see_what_was_drawn_and_nothing_else(plain, kind, wrong):
    ids = plain.model.tokenize(PROMPTS[1])
    build = filter_sets(plain.model)[kind].build
    want = reply(plain, ids, SamplingParams(seed=8), max_tokens=60, filters=build(plain.model))
    drafts = Oracle(ids, [step.id for step in want[0]], wrong)
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        for _ in range(2):
            got = reply(engine, ids, SamplingParams(seed=8), max_tokens=60, filters=build(plain.model))
            assert got[:2] == want[:2] and got[2].draft_n > 0


@pytest.mark.parametrize("max_tokens", [0, 1, 2, 3, 9, 10, 11])
def test_a_reply_ends_where_it_should_in_the_middle_of_a_draft(plain, max_tokens):
    ids = plain.model.tokenize(PROMPTS[0])
    want = reply(plain, ids, SamplingParams(seed=1), max_tokens=max_tokens, stop_at_end=False)
    longer = reply(plain, ids, SamplingParams(seed=1), max_tokens=40, stop_at_end=False)
    drafts = Oracle(ids, [step.id for step in longer[0]])
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        got = reply(engine, ids, SamplingParams(seed=1), max_tokens=max_tokens, stop_at_end=False)
        assert got[:2] == want[:2]


def test_an_end_token_in_a_draft_ends_the_reply_and_is_in_no_cell(plain):
    ids = plain.model.tokenize(PROMPTS[0])
    want = reply(plain, ids, SamplingParams(seed=0))
    assert want[1] == "stop"
    drafts = Oracle(ids, [*(step.id for step in want[0]), 5, 6, 7, 8, 9, 10])
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        assert reply(engine, ids, SamplingParams(seed=0))[:2] == want[:2]
        whole = [*ids, *(step.id for step in want[0])]
        assert engine._slots[0].tokens == whole[: len(engine._slots[0].tokens)]
        assert len(engine._slots[0].tokens) == len(whole) - 1


def test_a_conversation_goes_on_from_its_cells(plain):
    """What a rejected draft left would be reused as a prefix of the next turn."""
    ids = plain.model.tokenize(PROMPTS[0])
    with (
        Engine(plain.model, n_ctx=400, n_threads=1) as one,
        Engine(plain.model, n_ctx=400, n_threads=1, draft=Oracle(ids, range(40, 140))) as two,
    ):
        history = list(ids)
        for turn in range(4):
            params = SamplingParams(seed=turn)
            want = reply(one, history, params, max_tokens=20, reuse_prefix=True)
            got = reply(two, history, params, max_tokens=20, reuse_prefix=True)
            assert got[:2] == want[:2]
            assert (got[2].prompt_n, got[2].prompt_cached) == (want[2].prompt_n, want[2].prompt_cached)
            history += [*(step.id for step in want[0]), *plain.model.tokenize(" and then", add_special=False)]


def test_the_end_of_the_context_is_reached_with_drafts_too(plain):
    ids = plain.model.tokenize(PROMPTS[2])
    with Engine(plain.model, n_ctx=len(ids) + 30, n_threads=1) as one:
        want = reply(one, ids, SamplingParams(seed=2), stop_at_end=False)
    drafts = Oracle(ids, [step.id for step in want[0]])
    with Engine(plain.model, n_ctx=len(ids) + 30, n_threads=1, draft=drafts) as two:
        got = reply(two, ids, SamplingParams(seed=2), stop_at_end=False)
    assert got[:2] == want[:2] and len(got[0]) == 30


def test_slots_with_drafts_beside_slots_without(tmp_path):
    """Several slots, prompts that are read meanwhile, and a batch that has no room for all drafts. F32 and common cells: T and
    P are compared as in test_slots.py."""
    letters = make_letters(tmp_path)
    with (
        Engine(letters.gguf, letters.heads, n_ctx=256, n_threads=1) as one,
        Engine(
            letters.gguf, letters.heads, n_slots=3, n_ctx=256, n_threads=1, n_batch=16, draft=PromptLookup(1)
        ) as many,
    ):
        rng = random.Random(5)
        requests = [
            Request(
                tuple(rng.choices(range(97, 105), k=rng.randint(3, 60))), SamplingParams(seed=s, temperature=0.4), 40
            )
            for s in range(12)
        ]
        n_drafted = n_parted = 0
        generations = [many.submit(request) for request in requests]
        for request, generation in zip(requests, generations, strict=True):
            got, want = list(generation), reply(one, request.prompt, request.params, max_tokens=40)[0]
            same = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a.id != b.id), len(want))
            assert all(abs(a.temperature - b.temperature) < 1e-3 for a, b in zip(got[:same], want, strict=False))
            n_parted += same < len(want)
            n_drafted += generation.timings.draft_n_accepted
        assert n_parted <= 3 and n_drafted > 50


def test_a_reply_that_is_left_in_the_middle_leaves_a_sound_slot(plain):
    ids = plain.model.tokenize(PROMPTS[0])
    want = reply(plain, ids, SamplingParams(seed=3), max_tokens=30)
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=Oracle(ids, [s.id for s in want[0]])) as engine:
        generation = engine.generate(ids, SamplingParams(seed=3))
        assert next(generation) == want[0][0] and next(generation) == want[0][1]
        generation.cancel()
        assert reply(engine, ids, SamplingParams(seed=3), max_tokens=30)[:2] == want[:2]


# ---- where the drafts come from ---------------------------------------------------------


def followers(tokens: list[int], n: int, n_max: int) -> list[int]:
    """The oracle: look from the end."""
    for end in range(len(tokens) - 1, n - 1, -1):
        if tokens[end - n : end] == tokens[len(tokens) - n :]:
            return tokens[end : end + n_max]
    return []


@pytest.mark.parametrize("n", [1, 2, 3])
def test_prompt_lookup_finds_what_a_search_finds(n):
    rng = random.Random(n)
    lookup, n_found = PromptLookup(n), 0
    for _ in range(30):
        lookup.begin(0)
        tokens = rng.choices(range(4), k=rng.randint(1, 12))
        for _ in range(40):
            want = followers(tokens, n, 5)
            assert lookup.propose(0, tokens, 5) == want
            n_found += bool(want)
            tokens += rng.choices(range(4), k=rng.randint(1, 3))
    assert n_found > 100


# ---- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draft": "ngram", "draft_max": 0}, "draft max: allowed 1 to 62"),
        ({"draft": "ngram", "draft_max": MAX_DRAFT + 1}, "draft max: allowed 1 to 62"),
        ({"draft": "ngram", "n_ctx": 9, "draft_max": 8}, "need a context of 10, this one has 9"),
        ({"draft": "n-gram"}, "draft: allowed ngram"),
        ({"draft": "ngram", "deterministic": True}, "draft and deterministic exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(plain, options, words):
    with pytest.raises(UsageError, match=words):
        Engine(plain.model, n_threads=1, **{"n_ctx": 64, **options})

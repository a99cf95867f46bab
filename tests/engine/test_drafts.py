"""Drafts change the time of a reply and nothing else: each test compares with an engine that drafts nothing.

The letters model is F32, whose matrix products llama.cpp adds up in another order for several rows than for one, so T and P
may differ in the last bits there. The demo model is Q8_0, and equal to the bit on one thread.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.draft_cost import SHAPES, USUAL, Costs, Stake
from autodeco_edge.engine.drafts import MAX_DRAFT, DraftParams, Drafts, Length, best_length
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.prompt_lookup import PromptLookup
from autodeco_edge.engine.sampler import Step
from autodeco_edge.errors import FormatError, MismatchError, UsageError
from tests.support.draft_campaign import Known, compare
from tests.support.letters import N_EMBD, make_letters, write_model

PROMPTS = ("Find two numbers that make 83.", "Tell me a story about a fox.", "one two three one two three one two")


def knowing(prompt: Sequence[int], reply: Sequence[int], wrong: int = 0) -> Known:
    return Known(300, prompt, reply, wrong)


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
    drafts = knowing(ids, [s.id for s in want], wrong)
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
    drafts = knowing(ids, [s.id for s in want[0]], wrong)
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        for _ in range(2):
            got = reply(engine, ids, SamplingParams(seed=8), max_tokens=60, filters=build(plain.model))
            assert got[:2] == want[:2] and got[2].draft_n > 0


@pytest.mark.parametrize("max_tokens", [0, 1, 2, 3, 9, 10, 11])
def test_a_reply_ends_where_it_should_in_the_middle_of_a_draft(plain, max_tokens):
    ids = plain.model.tokenize(PROMPTS[0])
    want = reply(plain, ids, SamplingParams(seed=1), max_tokens=max_tokens, stop_at_end=False)
    longer = reply(plain, ids, SamplingParams(seed=1), max_tokens=40, stop_at_end=False)
    drafts = knowing(ids, [s.id for s in longer[0]])
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        got = reply(engine, ids, SamplingParams(seed=1), max_tokens=max_tokens, stop_at_end=False)
        assert got[:2] == want[:2]
        assert got[2].draft_n == got[2].draft_n_accepted, "no row beyond the end"


def test_an_end_token_in_a_draft_ends_the_reply_and_is_in_no_cell(plain):
    ids = plain.model.tokenize(PROMPTS[0])
    want = reply(plain, ids, SamplingParams(seed=0))
    assert want[1] == "stop"
    drafts = knowing(ids, [*(s.id for s in want[0]), 5, 6, 7, 8, 9, 10])
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        assert reply(engine, ids, SamplingParams(seed=0))[:2] == want[:2]
        whole = [*ids, *(s.id for s in want[0])]
        assert engine._scheduler.slots[0].tokens == whole[: len(engine._scheduler.slots[0].tokens)]
        assert len(engine._scheduler.slots[0].tokens) == len(whole) - 1


def test_a_conversation_goes_on_from_its_cells(plain):
    """What a rejected draft left would be reused as a prefix of the next turn."""
    ids = plain.model.tokenize(PROMPTS[0])
    with (
        Engine(plain.model, n_ctx=400, n_threads=1) as one,
        Engine(plain.model, n_ctx=400, n_threads=1, draft=knowing(ids, range(40, 140))) as two,
    ):
        history = list(ids)
        for turn in range(6):
            if turn == 4:  # what a full context leaves out is the middle
                history = [*ids, *history[-40:]]
            params = SamplingParams(seed=turn)
            want = reply(one, history, params, max_tokens=20, reuse_prefix=True)
            got = reply(two, history, params, max_tokens=20, reuse_prefix=True)
            assert got[:2] == want[:2]
            assert (got[2].prompt_n, got[2].prompt_cached) == (want[2].prompt_n, want[2].prompt_cached)
            history += [*(s.id for s in want[0]), *plain.model.tokenize(" and then", add_special=False)]


def test_the_end_of_the_context_is_reached_with_drafts_too(plain):
    ids = plain.model.tokenize(PROMPTS[2])
    with Engine(plain.model, n_ctx=len(ids) + 30, n_threads=1) as one:
        want = reply(one, ids, SamplingParams(seed=2), stop_at_end=False)
    drafts = knowing(ids, [s.id for s in want[0]])
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
            letters.gguf,
            letters.heads,
            n_slots=3,
            n_ctx=256,
            n_threads=1,
            n_batch=16,
            draft=PromptLookup(DraftParams(row_cost=0.0)),
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
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=knowing(ids, [s.id for s in want[0]])) as engine:
        generation = engine.generate(ids, SamplingParams(seed=3))
        assert next(generation) == want[0][0] and next(generation) == want[0][1]
        generation.cancel()
        assert reply(engine, ids, SamplingParams(seed=3), max_tokens=30)[:2] == want[:2]


def test_trouble_behind_a_rejected_token_is_nobodys(tmp_path):
    """A token whose embedding is not a number: its row has no finite logit, and nobody has drawn it."""
    letters = make_letters(tmp_path)
    embedding = np.random.default_rng(1).standard_normal((260, N_EMBD), dtype=np.float32)
    embedding[200] = np.nan
    model = write_model(tmp_path / "broken.gguf", tensors={"token_embd.weight": embedding})
    params = SamplingParams(seed=2, temperature=0.3)
    with Engine(model, letters.heads, n_ctx=200, n_threads=1) as one:
        want = [s.id for s in reply(one, [97, 98, 99], params, max_tokens=40, stop_at_end=False)[0]]
    assert 200 not in want
    drafts = knowing([97, 98, 99], want)
    drafts.text = [200 if i % 5 == 0 and i > 3 else token for i, token in enumerate(drafts.text)]
    for cpu_draw in (False, True):
        with Engine(model, letters.heads, n_ctx=200, n_threads=1, cpu_draw=cpu_draw, draft=drafts) as two:
            got = reply(two, [97, 98, 99], params, max_tokens=40, stop_at_end=False)
            assert [s.id for s in got[0]] == want and got[2].draft_n > got[2].draft_n_accepted > 10
            with pytest.raises(FormatError, match="no finite logit"):
                reply(two, [97, 200], params)


def test_a_short_campaign(plain):
    for name, found in compare(plain.model, "auto", 8, 48, 1, 1, 8).items():
        assert found.equal == found.replies == 8 and found.tokens == 8 * 48, name
        assert found.accepted > 20, name


# ---- where the drafts come from ---------------------------------------------------------


def followers(tokens: list[int], n: int) -> list[int]:
    """The oracle: of the last eight places where the last two tokens stood, that with most alike, up to twelve; go on from there."""
    ends = [end for end in range(2, len(tokens)) if tokens[end - 2 : end] == tokens[-2:]][-8:]
    for n_alike in range(12, 1, -1):
        for end in reversed(ends):
            if tokens[max(end - n_alike, 0) : end] == tokens[-n_alike:]:
                return [*tokens[end:], *(tokens[end:] * n)][:n]
    return []


def step(token: int, n_kept: int) -> Step:
    return Step(0, token, 1.0, 1.0, 1.0, 1.0, n_kept, 0.0, 1.0, None)


def test_prompt_lookup_finds_what_a_search_finds():
    """With rows that cost nothing, a draft is as long as a batch may be."""
    rng, n_found = random.Random(3), 0
    lookup = PromptLookup(DraftParams(n_max=9, row_cost=0.0))
    for _ in range(60):
        lookup.begin(0, Request((1,)))
        tokens = rng.choices(range(4), k=rng.randint(1, 12))
        for _ in range(40):
            want = followers(tokens, 7)
            draft = lookup.propose(0, tokens, 9)
            assert draft == want
            n_found += bool(want)
            drawn = [*draft[: rng.randint(0, len(draft))], rng.randrange(4)]
            lookup.learn(0, draft, [step(token, rng.randint(0, 20)) for token in drawn])
            tokens += drawn
    assert n_found > 1000


COSTS = (
    Costs.linear(0.0),
    Costs.linear(0.3),
    USUAL,
    Costs.linear(1.0),
    Costs({1: 1.0, 2: 1.75, 4: 2.65, 8: 4.25, 16: 7.55}),
    Costs({1: 1.0, 2: 2.7, 4: 2.7, 8: 2.7, 16: 9.0}),
)


def rate(survival: Sequence[float], n: int, costs: Costs, n_beside: int) -> float:
    expected = n_beside + 1.0 + sum(math.prod(survival[: i + 1]) for i in range(n))
    return expected / costs.of(n_beside + 1 + n)


def test_a_draft_has_the_length_that_is_expected_to_gain_most():
    """Against all lengths tried one by one, of those that the stake pays for."""
    rng, lengths = random.Random(6), set()
    for _ in range(3000):
        costs, n_beside, stake = rng.choice(COSTS), rng.choice([0, 0, 1, 7]), rng.choice([0.0, 0.8, 3.0, math.inf])
        survival = [rng.random() ** 0.3 for _ in range(rng.randint(0, 20))]
        n = best_length(iter(survival), Length(costs, n_beside=n_beside, stake=stake))
        allowed = [
            i for i in range(len(survival) + 1) if i + 1 in SHAPES and costs.of_draft(i, n_beside) <= stake + 1e-9
        ]
        assert n in allowed
        assert rate(survival, n, costs, n_beside) == pytest.approx(
            max(rate(survival, i, costs, n_beside) for i in allowed)
        )
        lengths.add(n)
    assert len(lengths) >= 6


def test_costs_are_straight_lines_between_what_is_known():
    costs = Costs({1: 1.0, 2: 1.5, 4: 2.5, 8: 3.5})
    assert [costs.of(n) for n in (1, 2, 3, 4, 6, 8, 12, 20)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5, 6.5]
    assert costs.of_draft(3, 0) == 1.5 and costs.of_draft(4, 1) == pytest.approx((3.0 - 1.5) * 2 / 1.5)
    assert costs.per_row == pytest.approx(2.5 / 7) and Costs.linear(0.5).of(3) == 2.25


@pytest.mark.parametrize("costs", COSTS)
def test_whatever_comes_drafts_lose_no_more_than_their_stake(costs):
    """The worst that can be: the odds are told that all is certain, and nothing is right, or just enough to go on."""
    rng = random.Random(2)
    for n_wins in (0, 1, 5):
        stake, spent, n_tokens = Stake(), 0.0, 0
        for _ in range(400):
            n = best_length(iter([0.99] * 20), Length(costs, stake=stake.left))
            n_right = n if n_wins and rng.random() < 0.1 * n_wins else 0
            stake.settle(costs.of_draft(n, 0), n_right + 1)
            spent, n_tokens = spent + costs.of(n + 1), n_tokens + n_right + 1
            assert spent <= n_tokens * (1 + Stake.SHARE) + Stake.FIRST + 1e-6


def test_the_times_of_rows_are_measured(plain):
    with Engine(plain.model, n_ctx=400, n_threads=1, draft="ngram", draft_max=16) as engine:
        known = engine._drafts.costs.as_dict()
        assert list(known) == [1, 2, 4, 8, 16] and known[1] == 1.0
        assert list(known.values()) == sorted(known.values()) and known[16] > 1.0
        assert engine._scheduler.slots[0].tokens == [] and engine._context.keep(0, 0) == 0
    with Engine(plain.model, n_ctx=400, n_threads=1, draft="ngram", draft_cost=0.5) as engine:
        assert engine._drafts.costs.as_dict() == USUAL.as_dict()


def lengths_of(kept: int, answers: Sequence[int]) -> list[int]:
    """Of drafts behind a passage of the reply that was drawn from nuclei of this size; each answer is the share that is right."""
    lookup, passage, lengths = PromptLookup(DraftParams(row_cost=0.2)), list(range(100, 140)), []
    lookup.begin(0, Request((1,)))
    tokens = [1, 2, 3, *passage, 50]
    lookup.learn(0, [], [step(token, kept) for token in tokens[3:]])
    for turn, n_right in enumerate(answers):
        tokens += passage[:4]
        lookup.learn(0, [], [step(token, kept) for token in passage[:4]])
        draft = lookup.propose(0, tokens, 16)
        lengths.append(len(draft))
        drawn = [*draft[: min(n_right, len(draft))], 200 + turn]
        lookup.learn(0, draft, [step(token, kept) for token in drawn])
        tokens += drawn
    return lengths


def test_a_draft_stops_where_the_model_wanted_freedom():
    certain, some, free = (lengths_of(kept, [0])[0] for kept in (1, 4, 300))
    assert certain >= 5 > some >= free == 0


def test_drafts_get_shorter_where_they_fail_and_longer_where_they_hold():
    fails = lengths_of(1, [0] * 12)
    assert fails[-1] < fails[0]
    holds = lengths_of(4, [16] * 12)
    assert holds[-1] >= holds[0] > 0


def test_nothing_of_a_reply_comes_into_the_next(plain):
    """Neither its tokens nor what was learnt of it: the drafts of a reply are a function of the reply."""
    ids = plain.model.tokenize(PROMPTS[2])
    with Engine(plain.model, n_ctx=400, n_threads=1, draft="ngram", draft_cost=0.1) as engine:
        first, again = (reply(engine, ids, SamplingParams(seed=1))[2] for _ in range(2))
    assert (first.draft_n, first.draft_n_accepted) == (again.draft_n, again.draft_n_accepted) and first.draft_n


# ---- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draft": "ngram", "draft_max": 0}, "draft max: allowed 1 to 62"),
        ({"draft": "ngram", "draft_max": MAX_DRAFT + 1}, "draft max: allowed 1 to 62"),
        ({"draft": "ngram", "n_ctx": 9, "draft_max": 8}, "need a context of 10, this one has 9"),
        ({"draft": "ngram", "draft_cost": 1.5}, "draft cost: allowed 0 to 1"),
        ({"draft": "n-gram"}, "draft: allowed ngram"),
        ({"draft": "ngram", "deterministic": True}, "draft and deterministic exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(plain, options, words):
    with pytest.raises(UsageError, match=words):
        Engine(plain.model, n_threads=1, **{"n_ctx": 64, **options})


def test_a_recurrent_model_is_refused(tmp_path):
    model = write_mamba(tmp_path / "mamba.gguf")
    with pytest.raises(MismatchError, match=r"draft: mamba.gguf keeps a recurrent state, .*; use --draft off"):
        Engine(model, n_ctx=64, n_threads=1, draft="ngram")
    with Engine(model, n_ctx=64, n_threads=1, draft="off") as engine:
        assert len(list(engine.generate([97], max_tokens=3, stop_at_end=False))) == 3


def write_mamba(path: Path) -> Path:
    """The smallest recurrent model."""
    n_inner, n_state, n_rank, n_conv = 2 * N_EMBD, 4, 2, 4
    rng = np.random.default_rng(4)

    def keys(writer) -> None:
        writer.add_ssm_conv_kernel(n_conv)
        writer.add_ssm_inner_size(n_inner)
        writer.add_ssm_state_size(n_state)
        writer.add_ssm_time_step_rank(n_rank)

    shapes = {
        "ssm_in.weight": (2 * n_inner, N_EMBD),
        "ssm_conv1d.weight": (n_inner, n_conv),
        "ssm_conv1d.bias": (n_inner,),
        "ssm_x.weight": (n_rank + 2 * n_state, n_inner),
        "ssm_dt.weight": (n_inner, n_rank),
        "ssm_dt.bias": (n_inner,),
        "ssm_a": (n_inner, n_state),
        "ssm_d": (n_inner,),
        "ssm_out.weight": (N_EMBD, n_inner),
    }
    attention = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
    tensors = {f"blk.0.{name}": rng.standard_normal(shape).astype(np.float32) * 0.1 for name, shape in shapes.items()}
    return write_model(
        path, arch="mamba", keys=keys, tensors={**tensors, **{f"blk.0.{name}.weight": None for name in attention}}
    )


def test_what_anybodys_drafts_propose_is_cut_and_may_fail():
    """Too many tokens are cut to the room; one that raises ends the reply that it was for, and the engine goes on."""

    class Loud(Drafts):
        fails = False

        def propose(self, sequence, tokens, n_max):
            if self.fails:
                raise ValueError("sick")
            return [5] * 600

    loud = Loud()
    with (
        Engine(demo_model(), n_ctx=128, n_threads=1) as plain,
        Engine(demo_model(), n_ctx=128, n_threads=1, draft=loud) as engine,
    ):
        want = reply(plain, [65, 66], SamplingParams(seed=1), max_tokens=20)
        assert reply(engine, [65, 66], SamplingParams(seed=1), max_tokens=20)[:2] == want[:2]
        loud.fails = True
        with pytest.raises(ValueError, match="sick"):
            reply(engine, [65, 66], SamplingParams(seed=1), max_tokens=20)
        loud.fails = False
        assert engine.n_free == 1
        assert reply(engine, [65, 66], SamplingParams(seed=1), max_tokens=20)[:2] == want[:2]


def test_the_time_of_guessing_is_of_the_reply():
    class Slow(Drafts):
        def propose(self, sequence, tokens, n_max):
            time.sleep(0.02)
            return []

    with Engine(demo_model(), n_ctx=128, n_threads=1, draft=Slow()) as engine:
        generation = engine.generate([65, 66], max_tokens=10, stop_at_end=False)
        assert len(list(generation)) == 10 and generation.timings.predicted_s > 8 * 0.02


def test_a_draft_is_a_whole_number_of_tokens():
    for wrong in (3.5, True):
        with pytest.raises(UsageError, match="draft max: allowed whole numbers"):
            DraftParams(wrong)

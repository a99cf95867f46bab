"""Drafts by another model: the same replies; a vocabulary that differs is refused."""

from __future__ import annotations

from collections import Counter

import llama_cpp
import numpy as np
import pytest
from scipy import stats

from autodeco_edge import Engine, Model, SamplingParams
from autodeco_edge.engine.draft_model import DraftModel
from autodeco_edge.engine.drafts import DraftParams
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import FormatError, MismatchError, MissingInputError, UsageError
from autodeco_edge.spec import speculative
from tests.engine.test_drafts import PROMPTS, reply, write_mamba
from tests.support.letters import byte_letters, make_letters, write_model

PARAMS = DraftParams(n_max=8, row_cost=0.05)


@pytest.fixture(scope="module")
def plain():
    with Engine(demo_model(), n_ctx=400, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def drafting(path, target: Model, n_slots: int = 1, n_ctx: int = 400, **options) -> DraftModel:
    return DraftModel(path, target, PARAMS, n_slots=n_slots, n_ctx=n_ctx, n_threads=1, **{"cost": 0.05, **options})


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(seed=2, temperature=1.3, logprobs=True),
        SamplingParams(seed=3, temperature=0.0),
        SamplingParams(seed=4, heads_mode="temp", min_p=0.1),
        SamplingParams(seed=5, top_logprobs=2),
    ],
)
def test_replies_are_those_of_plain_decoding(plain, params):
    """To the bit. A model that drafts for itself is always right where the likeliest token is drawn."""
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafting(demo_model(), plain.model), draft_max=8) as engine:
        for prompt in PROMPTS[:2]:
            ids = plain.model.tokenize(prompt)
            want = reply(plain, ids, params, max_tokens=60, stop_at_end=False)
            got = reply(engine, ids, params, max_tokens=60, stop_at_end=False)
            assert got[:2] == want[:2]
            assert got[2].draft_n >= got[2].draft_n_accepted > 20
            assert got[2].draft_n == got[2].draft_n_accepted or params.temperature > 0


# ---- drafts that are drawn --------------------------------------------------------------


def third_tokens(letters, drafts, seeds: range) -> Counter:
    """(second, third) token of a reply to each seed: the first has no draft."""
    model = Model(letters.gguf)
    made = None
    if drafts:  # at a price at which a guess that is known to be unlikely would not be worth its row
        params = DraftParams(row_cost=0.3)
        made = DraftModel(letters.gguf, model, params, n_slots=1, n_ctx=64, n_threads=1, cost=0.05, drawn=True)
    with Engine(model, letters.heads, n_ctx=64, n_threads=1, draft=made) as engine:
        counts = Counter()
        for seed in seeds:
            generation = engine.generate([100], SamplingParams(seed=seed, top_p=0.6), max_tokens=3)
            counts[tuple(step.id for step in generation)] += 1
            assert not drafts or generation.timings.draft_n <= 1
    return counts


def p_value(one: Counter, two: Counter) -> float:
    """That both are of one law: replies seen 20 times or more, the others together."""
    often = [key for key, n in (one + two).items() if n >= 20]
    table = [[*(c[key] for key in often), sum(c.values()) - sum(c[key] for key in often)] for c in (one, two)]
    assert len(often) > 9
    return float(stats.chi2_contingency(np.array(table)[:, np.sum(table, 0) > 0]).pvalue)


@pytest.fixture(scope="module")
def plain_law(letters) -> Counter:
    return third_tokens(letters, False, range(2500))


def test_drawn_drafts_keep_the_law_of_replies(letters, plain_law):
    found = third_tokens(letters, True, range(10_000, 12_500))
    assert p_value(found, plain_law) > 1e-4


def test_a_wrong_rule_changes_it(letters, plain_law, monkeypatch):
    monkeypatch.setattr(speculative, "acceptance", lambda p, q: 1.0)
    assert p_value(third_tokens(letters, True, range(10_000, 12_500)), plain_law) < 1e-6


def test_more_drawn_drafts_are_right_and_the_same_seed_gives_the_same_reply(plain):
    ids = plain.model.tokenize(PROMPTS[1])
    counts = {}
    for drawn in (False, True):
        drafts = drafting(demo_model(), plain.model, drawn=drawn)
        with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
            right = drafted = 0
            for seed in range(5):
                params = SamplingParams(seed=seed, temperature=2.0, logprobs=True)
                one, again = (reply(engine, ids, params, max_tokens=40, stop_at_end=False) for _ in range(2))
                assert one[:2] == again[:2]
                right, drafted = right + one[2].draft_n_accepted, drafted + one[2].draft_n
                for step in one[0]:
                    assert step.logprob <= 0.0
            counts[drawn] = right, drafted
    assert counts[True][0] / counts[True][1] > counts[False][0] / counts[False][1]


def test_filters_and_drawn_drafts_go_together(plain):
    """The law of what a filter leaves is not known: such replies are those of plain decoding, token for token."""
    ids = plain.model.tokenize(PROMPTS[1])
    build = FilterParams(repeat_penalty=1.3).build
    want = reply(plain, ids, SamplingParams(seed=8), max_tokens=50, filters=build(plain.model))
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafting(demo_model(), plain.model, drawn=True)) as engine:
        got = reply(engine, ids, SamplingParams(seed=8), max_tokens=50, filters=build(plain.model))
        assert got[:2] == want[:2] and got[2].draft_n > 5


# ---- slots, trouble, refusals -----------------------------------------------------------


def test_slots_conversations_and_replies_that_are_left(plain):
    """Cells of the draft model follow whatever happens to the slot."""
    ids = plain.model.tokenize(PROMPTS[0])
    drafts = drafting(demo_model(), plain.model, n_slots=2)
    with Engine(plain.model, n_ctx=400, n_threads=1, n_slots=2, draft=drafts) as engine:
        history = list(ids)
        for turn in range(3):
            left = engine.generate(plain.model.tokenize(PROMPTS[1]), SamplingParams(seed=9))
            for _ in range(3 + turn):
                next(left)
            params = SamplingParams(seed=turn)
            want = [s.id for s in reply(plain, history, params, max_tokens=20)[0]]
            got = reply(engine, history, params, max_tokens=20, reuse_prefix=turn > 0, owner="one")
            assert [s.id for s in got[0]] == want
            left.cancel()
            history += [*want, *plain.model.tokenize(" and", add_special=False)]


def test_a_draft_model_as_large_as_its_target_is_not_asked(plain):
    """Its tokens would cost what they save."""
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=demo_model()) as engine:
        assert reply(engine, [65, 66, 67], SamplingParams(), max_tokens=20)[2].draft_n == 0


def test_trouble_in_the_draft_model_is_no_trouble_of_the_reply(plain, monkeypatch):
    drafts = drafting(demo_model(), plain.model)
    want = reply(plain, [65, 66, 67], SamplingParams(seed=1), max_tokens=30)

    def fails(rows):
        raise FormatError("no finite logit")

    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        monkeypatch.setattr(drafts._context, "decode", fails)
        assert reply(engine, [65, 66, 67], SamplingParams(seed=1), max_tokens=30)[:2] == want[:2]
        monkeypatch.undo()
        got = reply(engine, [65, 66, 67], SamplingParams(seed=1), max_tokens=30)
        assert got[:2] == want[:2] and got[2].draft_n > 10


def test_what_cannot_draft_is_refused(plain, letters, tmp_path):
    def opened(draft, model=plain.model):
        Engine(model, n_ctx=64, n_threads=1, draft=draft)

    with pytest.raises(MismatchError, match=r"letters.gguf has another vocabulary than .* \(token \d+ is '.*', not"):
        opened(letters.gguf)
    with pytest.raises(MissingInputError, match=r"draft: .*none.gguf: no such model file"):
        opened(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match=r"draft: allowed ngram, off or the path of a \.gguf file"):
        opened("letters")
    with pytest.raises(UsageError, match="draft: allowed ngram, off, a path or Drafts; got bool"):
        opened(True)
    with pytest.raises(MismatchError, match="mamba.gguf keeps a recurrent state"):
        opened(write_mamba(tmp_path / "mamba.gguf"), Model(letters.gguf))
    with pytest.raises(FormatError):
        (tmp_path / "text.gguf").write_text("not a model")
        opened(tmp_path / "text.gguf")


def test_models_without_a_vocabulary_are_refused(letters, tmp_path):
    """llama.cpp ends the process that asks one of them for a token's text."""

    def keys(writer) -> None:
        writer.kv_data[0]["tokenizer.ggml.model"].value = "none"

    bare = write_model(tmp_path / "bare.gguf", keys=keys)
    assert not Model(bare).has_text
    for model, draft in ((letters.gguf, bare), (bare, letters.gguf)):
        with pytest.raises(MismatchError, match="bare.gguf has no vocabulary to compare"):
            Engine(Model(model), None, n_ctx=64, n_threads=1, draft=draft)


@pytest.mark.parametrize("drawn", [False, True])
def test_logits_that_are_not_finite_guess_nothing(plain, drawn, monkeypatch):
    want = reply(plain, [65, 66, 67], SamplingParams(seed=1), max_tokens=20)
    drafts = drafting(demo_model(), plain.model, drawn=drawn)
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafts) as engine:
        logits = drafts._context.logits
        monkeypatch.setattr(drafts._context, "logits", lambda rows: logits(rows) * np.float32(np.nan))
        got = reply(engine, [65, 66, 67], SamplingParams(seed=1), max_tokens=20)
        assert [s.id for s in got[0]] == [s.id for s in want[0]] and got[2].draft_n == 0


@pytest.mark.parametrize("n_gpu_layers", [0, 7, -1])
def test_the_draft_model_has_as_many_layers_on_a_gpu_as_its_target(plain, n_gpu_layers, monkeypatch):
    asked = []
    load = llama_cpp.llama_model_load_from_file
    monkeypatch.setattr(
        llama_cpp,
        "llama_model_load_from_file",
        lambda p, params: (asked.append(params.n_gpu_layers), load(p, params))[1],
    )
    Engine(plain.model, n_ctx=64, n_threads=1, n_gpu_layers=n_gpu_layers, draft=demo_model()).close()
    assert asked == [n_gpu_layers]


def test_vocabularies_that_are_padded_differently_go_together(letters, tmp_path):
    """As models of one family are; a token that the draft model does not have ends its drafts."""
    tokens = [*byte_letters(), "ab", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    assert Model(letters.gguf).n_vocab == len(tokens)

    more = write_model(
        tmp_path / "more.gguf",
        extra=["<pad0>", "<pad1>"],
        tensors={
            name: np.random.default_rng(1).standard_normal((len(tokens) + 2, 32)).astype(np.float32)
            for name in ("token_embd.weight", "output.weight")
        },
    )
    with Engine(more, n_ctx=128, n_threads=1) as one:
        want = reply(one, [97, 98, len(tokens)], SamplingParams(seed=1), max_tokens=30, stop_at_end=False)
        drafts = drafting(letters.gguf, one.model, n_ctx=128)
        with Engine(one.model, n_ctx=128, n_threads=1, draft=drafts) as two:
            got = reply(two, [97, 98, len(tokens)], SamplingParams(seed=1), max_tokens=30, stop_at_end=False)
            assert [s.id for s in got[0]] == [s.id for s in want[0]] and got[2].draft_n == 0
            reply(two, [97, 98], SamplingParams(seed=1), max_tokens=30, stop_at_end=False)

"""Drafts by another model: the same replies; a vocabulary that differs is refused."""

from __future__ import annotations

import numpy as np
import pytest

from autodeco_edge import Engine, Model, SamplingParams
from autodeco_edge.engine.draft_model import DraftModel
from autodeco_edge.engine.drafts import DraftParams
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import FormatError, MismatchError, MissingInputError, UsageError
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
def test_a_model_that_drafts_for_itself_is_always_right(plain, params):
    """The same heads, the same random numbers: each token of a draft is the one that is drawn."""
    with Engine(plain.model, n_ctx=400, n_threads=1, draft=drafting(demo_model(), plain.model), draft_max=8) as engine:
        for prompt in PROMPTS[:2]:
            ids = plain.model.tokenize(prompt)
            want = reply(plain, ids, params, max_tokens=60, stop_at_end=False)
            got = reply(engine, ids, params, max_tokens=60, stop_at_end=False)
            assert got[:2] == want[:2]
            assert got[2].draft_n == got[2].draft_n_accepted > 30


def test_a_draft_model_without_heads_takes_t_and_p_of_the_reply(letters):
    """F32: equal but for the last bits, so that a reply may part from the plain one once in a while."""
    with Engine(letters.gguf, letters.heads, n_ctx=256, n_threads=1) as one:
        drafts = drafting(letters.gguf, one.model, n_ctx=256)
        with Engine(one.model, letters.heads, n_ctx=256, n_threads=1, draft=drafts) as two:
            n_same = n_right = n_drafted = 0
            for seed in range(6):
                params = SamplingParams(seed=seed, temperature=0.5)
                want = reply(one, [97, 98, 99], params, max_tokens=60, stop_at_end=False)
                got = reply(two, [97, 98, 99], params, max_tokens=60, stop_at_end=False)
                n_same += [s.id for s in got[0]] == [s.id for s in want[0]]
                n_drafted, n_right = n_drafted + got[2].draft_n, n_right + got[2].draft_n_accepted
            assert n_same >= 4
            assert n_right > 0.5 * n_drafted > 20  # right where T and P change little from token to token


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
    with pytest.raises(MismatchError, match="mamba.gguf keeps a recurrent state"):
        opened(write_mamba(tmp_path / "mamba.gguf"), Model(letters.gguf))
    with pytest.raises(FormatError):
        (tmp_path / "text.gguf").write_text("not a model")
        opened(tmp_path / "text.gguf")


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

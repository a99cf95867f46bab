"""A text that is given is weighed token by token (echo with logprobs), as if the model had drawn it."""

from __future__ import annotations

import pytest

from autodeco_edge import Engine
from autodeco_edge.engine.forced import ForcedTokens
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.errors import UsageError

PATH = "/v1/completions"


def weigh(server, prompt, **more) -> dict:
    answer = server.post(PATH, {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 0, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def drawn(server) -> tuple[list[int], dict]:
    """Token ids of a prompt, and its greedy continuation."""
    ids = server.post("/tokenize", {"content": "Find two numbers that make 83."}).json()["tokens"]
    body = {"prompt": ids, "temperature": 0, "logprobs": 3, "max_tokens": 20, "cache_prompt": False}
    return ids, server.post(PATH, body).json()["choices"][0]["logprobs"]


def test_a_reply_weighs_what_it_weighed_when_it_was_drawn(server, drawn):
    ids, reply = drawn
    answer = weigh(server, [*ids, *reply["ids"]], logprobs=3)
    found, n = answer["choices"][0]["logprobs"], len(ids)
    assert found["ids"] == [*ids, *reply["ids"]]
    for name in ("token_logprobs", "temperature", "top_p"):
        assert found[name][0] is None
        assert found[name][n:] == pytest.approx(reply[name], abs=1e-4), name
    for top, logprob in zip(found["top_logprobs"][n:], found["token_logprobs"][n:], strict=True):
        assert max(top.values()) == logprob  # greedy: each token is the likeliest, to the bit
    assert (
        answer["usage"]["prompt_tokens"] == len(ids) + len(reply["ids"]) and answer["usage"]["completion_tokens"] == 0
    )


def test_the_prompt_weighs_what_every_prefix_says(server, drawn):
    """The slow way: each beginning of the text asked for its next token."""
    ids, _ = drawn
    found = weigh(server, ids)["choices"][0]["logprobs"]["token_logprobs"]
    for n in range(1, len(ids)):
        body = {
            "prompt": ids[:n],
            "logprobs": 0,
            "max_tokens": 1,
            "logit_bias": {str(ids[n]): 100},
            "temperature": 0,
            "cache_prompt": False,
        }
        one = server.post(PATH, body).json()["choices"][0]["logprobs"]
        if one["ids"] == [ids[n]]:  # a bias of 100 is not always enough
            assert found[n] == pytest.approx(one["token_logprobs"][0], abs=1e-3)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_text_comes_back_as_it_is_written(server, extra):
    text = "<|im_start|>user\nHé 🎉 日本<|im_end|>\nfive"
    answer = weigh(server, text, max_tokens=extra, temperature=0)
    choice = answer["choices"][0]
    assert choice["text"].startswith(text) and answer["usage"]["completion_tokens"] == extra
    n_shown = len(choice["logprobs"]["ids"]) - answer["usage"]["prompt_tokens"]
    assert n_shown in (0, extra)  # an end token that was drawn is not shown, those of the text are
    assert choice["logprobs"]["tokens"][0] == "<|im_start|>" and choice["finish_reason"] == "length"


def test_several_texts_at_once(server, drawn):
    ids, _ = drawn
    both = weigh(server, [ids, ids[:4]])["choices"]
    assert [len(c["logprobs"]["ids"]) for c in both] == [len(ids), 4]
    assert both[1]["logprobs"]["token_logprobs"][1:] == pytest.approx(
        both[0]["logprobs"]["token_logprobs"][1:4], abs=1e-4
    )
    assert weigh(server, ids[:1])["choices"][0]["logprobs"]["token_logprobs"] == [None]


REFUSED = {
    "no logprobs": {"logprobs": None},
    "a reply": {"max_tokens": 5},
    "the default length": {"max_tokens": None},
    "a stream": {"stream": True},
    "several": {"n": 2},
    "stop": {"stop": "a"},
    "too long": {"prompt": [5] * 5000},
    "no token": {"prompt": [10**9]},
    "text": {"echo": "yes"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server, name):
    body = {"prompt": "a b c", "echo": True, "logprobs": 1, "max_tokens": 0, **REFUSED[name]}
    assert server.post(PATH, body).status_code == 400


def test_the_engine_draws_what_is_forced():
    """Also end tokens, and after the last one it is free; a second reply of the same filter begins anew."""
    with Engine(demo_model(), n_threads=1) as engine:
        end = next(i for i in range(engine.model.n_vocab) if engine.model.is_end(i))
        ids = [7, end, 300, end]
        forced = ForcedTokens(ids, engine.model.n_vocab)
        request = Request((5,), SamplingParams(seed=1), 6, (forced,), stop_at_end=False)
        for _ in range(2):
            ((_, reply),) = engine.run([request])
            steps = reply.steps
            assert [s.id for s in steps[:4]] == ids and len(steps) == 6
            assert all(s.n_kept == 1 for s in steps[:4])
        with pytest.raises(UsageError):
            ForcedTokens([engine.model.n_vocab], engine.model.n_vocab)

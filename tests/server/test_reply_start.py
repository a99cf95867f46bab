"""A reply that begins with given tokens (autodeco.reply_start) goes on as the model would have."""

from __future__ import annotations

import pytest

from tests.support.serving import ask, serving

CHAT = "/v1/chat/completions"
OPENED = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>
"""


def greedy(served, start: list[int] | None = None, **more) -> dict:
    heads = {"temperature_factor": 0, "trace": True, **({} if start is None else {"reply_start": start})}
    answer = served.post(CHAT, ask(seed=1, autodeco=heads, cache_prompt=False, **more))
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids_of(answer: dict) -> list[int]:
    return [record["id"] for record in answer["choices"][0]["autodeco"]["trace"]]


@pytest.fixture(scope="module")
def whole(server) -> dict:
    return greedy(server)


@pytest.mark.parametrize("n", [0, 1, 3, 10])
def test_the_rest_of_a_greedy_reply(server, whole, n):
    """Its first tokens given, a reply without chance is the same as without them."""
    ids = ids_of(whole)
    rest = greedy(server, ids[:n])
    assert ids_of(rest) == ids[n:]
    begun = server.post("/detokenize", {"tokens": ids[:n]}).json()["content"]
    assert begun + rest["choices"][0]["message"]["content"] == whole["choices"][0]["message"]["content"]
    assert rest["usage"]["prompt_tokens"] == whole["usage"]["prompt_tokens"] + n
    assert rest["usage"]["completion_tokens"] == len(ids) - n


def test_streamed_it_is_the_same(server, whole):
    start = ids_of(whole)[:4]
    client = server.client()
    body = ask(seed=1, stream=True, extra_body={"autodeco": {"temperature_factor": 0, "reply_start": start}})
    text = "".join(
        choice.delta.content or ""
        for chunk in client.chat.completions.create(model="autodeco-demo-q8_0", **body)
        for choice in chunk.choices
    )
    assert text == greedy(server, start)["choices"][0]["message"]["content"]


def test_a_character_that_begins_in_the_given_tokens(server):
    """Its first bytes come from the start, and no stray half of it from the rest."""
    ids = server.post("/tokenize", {"content": "🎉"}).json()["tokens"]
    assert len(ids) > 1
    answer = greedy(server, ids[:1], max_tokens=1, logit_bias={str(ids[1]): 100})
    assert answer["choices"][0]["autodeco"]["trace"][0]["id"] == ids[1]
    assert not answer["choices"][0]["message"]["content"].startswith("\x89")


def test_a_thought_that_was_begun_goes_on(tmp_path):
    """Whether what follows is thought or answer is decided by the whole reply."""
    path = tmp_path / "think.jinja"
    path.write_text(OPENED)
    with serving("--chat-template-file", str(path)) as served:
        tokens = lambda text: served.post("/tokenize", {"content": text}).json()["tokens"]  # noqa: E731
        within = greedy(served, tokens("Let me"), max_tokens=8)["choices"][0]["message"]
        assert within["reasoning_content"] and not within["content"]
        after = greedy(served, tokens("Let me</think>\n\nSo"), max_tokens=8)["choices"][0]["message"]
        assert after["content"] and "reasoning_content" not in after


REFUSED = {
    "a format": (CHAT, ask(response_format={"type": "json_object"}, autodeco={"reply_start": [5]})),
    "no token": (CHAT, ask(autodeco={"reply_start": [10**9]})),
    "negative": (CHAT, ask(autodeco={"reply_start": [-1]})),
    "text": (CHAT, ask(autodeco={"reply_start": "Hello"})),
    "a truth value": (CHAT, ask(autodeco={"reply_start": [True]})),
    "too long": (CHAT, ask(autodeco={"reply_start": [5] * 5000})),
    "plain": ("/v1/completions", {"prompt": "a", "autodeco": {"reply_start": [5]}}),
    "plain, empty": ("/v1/completions", {"prompt": "a", "autodeco": {"reply_start": []}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(server, name):
    answer = server.post(*REFUSED[name])
    assert answer.status_code == 400, answer.text
    assert name == "too long" or answer.json()["error"]["param"].startswith("autodeco.reply_start")

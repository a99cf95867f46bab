"""Every call of the official client, whole and streamed, with T and P read from the answer."""

from __future__ import annotations

import json
import math

import openai
import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.text.chat import render
from tests.support.serving import NAME, QUESTION, ask

LONG = "Write the numbers from 1 to 20, please."


def chat(client, text=QUESTION, **options):
    return client.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": text}], seed=options.pop("seed", 1), **options
    )


def gathered(stream) -> tuple[str, list, object]:
    """(text, logprob entries, last chunk) of the first choice."""
    text, entries, last = "", [], None
    for chunk in stream:
        last = chunk
        for choice in chunk.choices:
            assert choice.index == 0
            text += choice.delta.content or ""
            if choice.logprobs:
                entries += choice.logprobs.content
    return text, entries, last


@pytest.fixture(scope="module")
def alone():
    """Steps of the engine itself, one slot, seed 1."""
    with Engine(demo_model(), n_threads=1) as engine:
        ids = render(engine.model, [{"role": "user", "content": QUESTION}])
        steps = list(engine.generate(ids, SamplingParams(seed=1, logprobs=True)))
        yield steps, engine.model.detokenize([s.id for s in steps]).decode()


def test_models(client):
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "autodeco-edge"
    with pytest.raises(openai.NotFoundError, match=NAME):
        client.models.retrieve("gpt-5")


def test_reply_is_the_engines_with_t_and_p_of_each_token(client, alone):
    steps, text = alone
    answer = chat(client, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    assert choice.message.content == text and choice.finish_reason == "stop"
    assert "".join(entry.token for entry in choice.logprobs.content) == text
    assert [entry.id for entry in choice.logprobs.content] == [s.id for s in steps[:-1]]  # the end token is no text
    for entry, step in zip(choice.logprobs.content, steps, strict=False):
        assert entry.temperature == pytest.approx(step.temperature, abs=2e-3)
        assert entry.top_p == pytest.approx(step.top_p, abs=2e-3)
        assert entry.logprob == pytest.approx(step.logprob, abs=2e-2)
        assert bytes(entry.bytes).decode() == entry.token
        assert [t.logprob for t in entry.top_logprobs] == sorted((t.logprob for t in entry.top_logprobs), reverse=True)
        assert len(entry.top_logprobs) == 2 and math.exp(entry.top_logprobs[0].logprob) <= 1
    assert answer.usage.completion_tokens == len(steps)
    assert answer.autodeco["heads"].startswith("temperature + top-p")
    assert answer.autodeco["temperature_factor"] == 1.0
    means = choice.autodeco["temperature"]
    assert means["min"] < means["mean"] < means["max"]
    assert answer.timings["predicted_n"] == len(steps)


def test_streamed_reply_is_the_whole_one(client):
    whole = chat(client, logprobs=True)
    text, entries, last = gathered(chat(client, logprobs=True, stream=True, stream_options={"include_usage": True}))
    assert text == whole.choices[0].message.content
    assert [e.token for e in entries] == [e.token for e in whole.choices[0].logprobs.content]
    assert [e.temperature for e in entries] == pytest.approx(
        [e.temperature for e in whole.choices[0].logprobs.content], abs=2e-3
    )
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.autodeco["applied"] == "both" and last.timings["predicted_n"] > 0


def test_stream_without_usage_ends_with_the_summary(client):
    chunks = list(chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop" and chunks[-1].autodeco["applied"] == "both"
    assert all(chunk.usage is None for chunk in chunks)


def test_trace_is_that_of_the_command_line(client, alone):
    steps, _ = alone
    trace = chat(client, extra_body={"autodeco": {"trace": True}}).choices[0].autodeco["trace"]
    assert [record["id"] for record in trace] == [s.id for s in steps]
    assert [record["n_kept"] for record in trace][:3] == [s.n_kept for s in steps][:3]
    streamed = [
        record
        for chunk in chat(client, stream=True, extra_body={"autodeco": {"trace": True}})
        for choice in chunk.choices
        for record in (choice.model_extra.get("autodeco") or {}).get("trace", [])
    ]
    assert [r["id"] for r in streamed] == [r["id"] for r in trace]
    assert [r["text"] for r in streamed] == [r["text"] for r in trace]


def test_choices_have_seeds_that_count_on(client):
    answer = chat(client, n=3, seed=5)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert [c.autodeco["seed"] for c in answer.choices] == [5, 6, 7]
    singles = [chat(client, seed=seed).choices[0].message.content for seed in (5, 6, 7)]
    same = sum(c.message.content == single for c, single in zip(answer.choices, singles, strict=True))
    assert same >= 1, "neighbours change the last bits only"
    traced = chat(client, n=2, extra_body={"autodeco": {"trace": True}})
    assert traced.usage.completion_tokens == sum(len(c.autodeco["trace"]) for c in traced.choices)


def test_streamed_choices_are_told_apart(client):
    texts = {0: "", 1: ""}
    ends = {}
    for chunk in chat(client, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    assert ends == {0: "stop", 1: "stop"} and all(texts.values())


def test_limits_of_tokens(client):
    for name in ("max_tokens", "max_completion_tokens"):
        answer = chat(client, **{name: 3})
        assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


@pytest.mark.parametrize("stop", ["3", " make", ["zzz", "8"], "\n", "boxed{"])
def test_nothing_of_a_stop_string_is_shown(client, stop):
    whole = chat(client).choices[0].message.content
    stops = [stop] if isinstance(stop, str) else stop
    hits = [whole.index(s) for s in stops if s in whole]
    expected = whole[: min(hits)] if hits else whole
    answer = chat(client, stop=stop, logprobs=True).choices[0]
    assert answer.message.content == expected and answer.finish_reason == "stop"
    assert "".join(e.token for e in answer.logprobs.content) == expected
    text, entries, _ = gathered(chat(client, stop=stop, stream=True, logprobs=True))
    assert text == "".join(e.token for e in entries) == expected


@pytest.mark.parametrize("stop", ["3", " make", "I ", "boxed{", "I am a small demo model", "none of it"])
def test_usage_and_trace_count_the_same_tokens(client, stop):
    """The trace is what was drawn, as `run --jsonl` has it: with those that make the stop string, of which nothing is seen."""
    body = {"autodeco": {"trace": True}}
    asked = {"stop": stop, "logprobs": True, "extra_body": body, "text": "Hello"}
    answer = chat(client, **asked)
    choice, drawn = answer.choices[0], answer.usage.completion_tokens
    trace = choice.autodeco["trace"]
    assert [record["index"] for record in trace] == list(range(drawn))
    whole = chat(client, "Hello", extra_body=body).choices[0].autodeco["trace"]
    assert [record["id"] for record in trace] == [record["id"] for record in whole[:drawn]]
    assert "".join(record["text"] for record in trace) == choice.message.content
    assert b"".join(bytes(record["bytes"]) for record in trace) == choice.message.content.encode()
    temperatures = [record["temperature"] for record in trace]
    assert choice.autodeco["temperature"]["mean"] == pytest.approx(sum(temperatures) / drawn)
    assert len(choice.logprobs.content) <= drawn and all(entry.bytes for entry in choice.logprobs.content)
    streamed, usage = [], None
    for chunk in chat(client, **asked, stream=True, stream_options={"include_usage": True}):
        streamed += chunk.choices[0].autodeco.get("trace", []) if chunk.choices and chunk.choices[0].model_extra else []
        usage = chunk.usage or usage
    assert streamed == trace and usage.completion_tokens == drawn


@pytest.mark.parametrize("heads", ["both", "temperature", "top_p", "none"])
def test_heads_of_a_request(client, heads):
    body = {"autodeco": {"heads": heads, "trace": True}}
    trace = chat(client, extra_body=body, max_tokens=4).choices[0].autodeco["trace"]
    for record in trace:
        # The temperature is an input of the top-p head, and is computed for it.
        assert (record["top_p"] is not None) == (heads in ("both", "top_p"))
        if heads in ("top_p",):
            assert record["temperature_eff"] == 1.0
        if heads in ("both", "temperature"):
            assert record["temperature_eff"] == pytest.approx(record["temperature"], abs=1e-6)


def test_factors_and_ranges(client):
    plain = chat(client, temperature=0.5, extra_body={"autodeco": {"trace": True}}, max_tokens=3)
    record = plain.choices[0].autodeco["trace"][0]
    assert record["temperature_eff"] == pytest.approx(0.5 * record["temperature"], rel=1e-5)
    assert plain.autodeco["temperature_factor"] == 0.5
    factor = {"temperature_factor": 1.0, "top_p_factor": 0.9, "temperature_range": [0.9, 1.1], "trace": True}
    other = chat(client, temperature=0.5, extra_body={"autodeco": factor}, max_tokens=3)
    assert other.autodeco["temperature_factor"] == 1.0
    for record in other.choices[0].autodeco["trace"]:
        assert 0.9 - 1e-6 <= record["temperature_eff"] <= 1.1 + 1e-6
        assert record["top_p_eff"] == pytest.approx(0.9 * record["top_p"], rel=1e-5)


def test_greedy_is_greedy(client):
    answers = {chat(client, temperature=0, seed=seed).choices[0].message.content for seed in (1, 2, 3)}
    assert len(answers) == 1


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_json_schema_is_enforced(client, stream):
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    for seed in range(4):
        answer = chat(client, response_format=form, seed=seed, stream=stream, max_tokens=400)
        text = gathered(answer)[0] if stream else answer.choices[0].message.content
        value = json.loads(text)
        assert isinstance(value["a"], int) and value["b"] in ("x", "y") and len(value) == 2


def test_json_object_and_text(client):
    answer = chat(client, response_format={"type": "json_object"}, seed=3, max_tokens=300).choices[0]
    assert answer.finish_reason == "length" or isinstance(json.loads(answer.message.content), dict)
    assert (
        chat(client, response_format={"type": "text"}).choices[0].message.content
        == chat(client).choices[0].message.content
    )


def test_parsed_by_the_client(client):
    import pydantic

    class Pair(pydantic.BaseModel):
        first: int
        second: int

    answer = client.chat.completions.parse(
        model=NAME, messages=[{"role": "user", "content": QUESTION}], response_format=Pair, seed=1, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Pair)


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "string", "format": "regex"}}},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": 5}}},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": False}},
        {"type": "json_schema", "json_schema": {"name": "n"}},
        {"type": "grammar"},
    ],
)
def test_a_format_that_cannot_be_enforced_is_refused(client, form):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, response_format=form)
    assert refused.value.param.startswith("response_format")


def test_bias_and_penalties(client, server):
    ids = server.post("/tokenize", {"content": "Yes"}).json()["tokens"]
    answer = chat(client, logit_bias={str(ids[0]): 100}, max_tokens=3)
    assert answer.choices[0].message.content.startswith("Yes"[:1])
    plain = chat(client, LONG, max_tokens=60, temperature=0).choices[0].message.content
    penal = chat(client, LONG, max_tokens=60, temperature=0, presence_penalty=2.0, frequency_penalty=2.0)
    assert penal.choices[0].message.content != plain
    with pytest.raises(openai.BadRequestError, match="token id"):
        chat(client, logit_bias={"999999": 1})


def test_completions_whole_and_streamed(client):
    whole = client.completions.create(model=NAME, prompt="What is 2 + 3?", seed=1, logprobs=2, max_tokens=20)
    choice = whole.choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text and choice.logprobs.text_offset[0] == 0
    assert len(choice.logprobs.temperature) == len(choice.logprobs.tokens) == len(choice.logprobs.top_logprobs)
    assert all(0 < t < 2 for t in choice.logprobs.temperature) and all(0 < p < 1 for p in choice.logprobs.top_p)
    streamed, offsets = "", []
    for chunk in client.completions.create(
        model=NAME, prompt="What is 2 + 3?", seed=1, logprobs=2, max_tokens=20, stream=True
    ):
        for part in chunk.choices:
            streamed += part.text
            offsets += part.logprobs.text_offset
    assert streamed == choice.text and offsets == choice.logprobs.text_offset


def test_prompts_as_lists_and_ids(client, server):
    ids = server.post("/tokenize", {"content": "What is 2 + 3?", "add_special": True}).json()["tokens"]
    several = client.completions.create(model=NAME, prompt=["What is 2 + 3?", "Yes"], temperature=0, n=2)
    assert [c.index for c in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text
    by_ids = client.completions.create(model=NAME, prompt=ids, temperature=0)
    assert by_ids.choices[0].text == several.choices[0].text
    assert by_ids.usage.completion_tokens <= 16
    nothing = client.completions.create(model=NAME, prompt=ids, max_tokens=0)
    assert nothing.choices[0].text == "" and nothing.choices[0].finish_reason == "length"


def test_conversation_and_roles(client):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?"}]},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "What is 4 + 4?"},
    ]
    answer = client.chat.completions.create(model=NAME, messages=messages, seed=1)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    back = [*messages, answer.choices[0].message.model_dump()]
    again = client.chat.completions.create(model=NAME, messages=[*back, messages[1]], seed=1)
    assert again.usage.prompt_tokens > answer.usage.prompt_tokens
    assert again.usage.prompt_tokens_details.cached_tokens > 0


def test_context_that_is_too_small(client):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, "word " * 3000)
    assert refused.value.code == "context_length_exceeded"


def test_unknown_model_and_unknown_fields(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=ask()["messages"])
    for field in ("functions", "audio", "prediction", "web_search_options", "best_of"):
        with pytest.raises(openai.BadRequestError) as refused:
            chat(client, extra_body={field: {}})
        assert refused.value.param == field and field in str(refused.value)

"""What a reader gets of a reply: pieces that are cut where they must be, thoughts, calls of tools; streamed as whole."""

from __future__ import annotations

import json
import random

import openai
import pytest
from pydantic import BaseModel

from autodeco_edge.server.replies import Trimmer
from autodeco_edge.server.tools import FORMATS, ToolStream, format_of
from tests.support.serving import NAME, ask, serving

HERMES, MISTRAL, LLAMA = FORMATS
CALL = {"name": "add", "arguments": {"a": 1, "b": "</x>"}}
TEMPLATE = """{% if tools %}<|im_start|>system
Tools: {{ tools | tojson }} ReplyWriter with <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if think %}<think>
{% endif %}"""
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("add", "subtract")
]


def in_pieces(text: str, rng: random.Random) -> list[str]:
    cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randrange(14)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def read(format, text: str, rng: random.Random, many: bool = True) -> tuple[str, list]:
    stream = ToolStream(format, many)
    shown = "".join(stream.feed(piece) for piece in in_pieces(text, rng)) + stream.finish()
    return shown, [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in stream.calls]


one = ("add", {"a": 1, "b": "</x>"})
text_of_call = json.dumps(CALL)
CASES = [
    (HERMES, f"<tool_call>\n{text_of_call}\n</tool_call>", "", [one]),
    (HERMES, f"Let me see.\n<tool_call>{text_of_call}</tool_call>\n<tool_call>\n{text_of_call}\n</tool_call>", "Let me see.\n", [one, one]),
    (HERMES, f"<tool_call>{text_of_call}", "", [one]),  # the end token came in place of the closing mark
    (HERMES, "<tool_call>no JSON</tool_call> so", "<tool_call>no JSON</tool_call> so", []),
    (HERMES, "a < b <tool", "a < b <tool", []),
    (HERMES, "<tool_call>[1]</tool_call>", "<tool_call>[1]</tool_call>", []),
    (HERMES, "plain", "plain", []),
    (MISTRAL, f"[TOOL_CALLS][{text_of_call}, {text_of_call}]", "", [one, one]),
    (MISTRAL, f"[TOOL_CALLS] {text_of_call}", "", [one]),
    (MISTRAL, "[TOOL_CALLS]nothing", "[TOOL_CALLS]nothing", []),
    (MISTRAL, "[TOOL_CALLS]", "", []),
    (LLAMA, json.dumps({"name": "add", "parameters": CALL["arguments"]}), "", [one]),
    (LLAMA, '{"answer": 5}', '{"answer": 5}', []),
    (LLAMA, "The answer is {5}.", "The answer is {5}.", []),
    (LLAMA, '{"name": "add", "parameters": 5}', '{"name": "add", "parameters": 5}', []),
]  # fmt: skip


@pytest.mark.parametrize(("format", "text", "shown", "calls"), CASES, ids=[case[1][:40] for case in CASES])
def test_calls_are_found_however_the_text_is_cut(format, text, shown, calls):
    for seed in range(200):
        assert read(format, text, random.Random(seed)) == (shown, calls)


def test_one_call_where_several_are_not_wanted():
    text = f"<tool_call>{text_of_call}</tool_call><tool_call>{text_of_call}</tool_call>"
    assert read(HERMES, text, random.Random(1), many=False) == ("", [one])


def test_formats_are_known_by_the_template():
    assert format_of(TEMPLATE) == HERMES
    assert format_of("{% for m in messages %}{{ m.content }}{% endfor %}") is None
    assert format_of("{{ tools }} [TOOL_CALLS]") == MISTRAL
    assert format_of('{{ tools }} {"name": function name, "parameters": ...}') == LLAMA
    assert format_of("{{ tools }} call them as you like") is None


def test_blanks_around_a_thought():
    for seed in range(300):
        rng, trimmer = random.Random(seed), Trimmer()
        thought = "".join(trimmer.thought(piece) for piece in in_pieces("\n  hm,  a\nb \n\n", rng))
        answer = "".join(trimmer.answer(piece) for piece in in_pieces("\n\n It is.  \n", rng))
        assert (thought, answer) == ("hm,  a\nb", "It is.  \n")
    assert Trimmer().answer("  kept") == "  kept"


# ---- over the wire ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tooled(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "tools.jinja"
    path.write_text(TEMPLATE)
    with serving("--chat-template-file", str(path), "--parallel", "2") as served:
        yield served


def called(client, **options) -> tuple[list, str]:
    """(calls, finish_reason), whole."""
    answer = client.chat.completions.create(
        model=NAME, messages=ask("Add one and x.")["messages"], tools=TOOLS, max_tokens=400, **options
    )
    message = answer.choices[0].message
    return message.tool_calls or [], answer.choices[0].finish_reason


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "subtract"}}])
@pytest.mark.parametrize("parallel", [False, None])
def test_a_call_that_is_demanded_is_made(tooled, choice, parallel):
    options = {} if parallel is None else {"parallel_tool_calls": parallel}
    for seed in range(3):
        calls, reason = called(tooled.client(), tool_choice=choice, seed=seed, **options)
        assert reason == "tool_calls" and calls
        assert parallel is None or len(calls) == 1
        for call in calls:
            assert call.function.name in (("add", "subtract") if choice == "required" else ("subtract",))
            arguments = json.loads(call.function.arguments)
            assert isinstance(arguments["a"], int) and arguments["b"] in ("x", "y")
        assert len({call.id for call in calls}) == len(calls)


def test_a_streamed_call_is_the_whole_one(tooled):
    client = tooled.client()
    whole, _ = called(client, tool_choice="required", seed=4, parallel_tool_calls=False)
    names, arguments, reason = "", "", None
    for chunk in client.chat.completions.create(
        model=NAME, messages=ask("Add one and x.")["messages"], tools=TOOLS, tool_choice="required", seed=4,
        parallel_tool_calls=False, stream=True, max_tokens=400,
    ):  # fmt: skip
        for choice in chunk.choices:
            assert not choice.delta.content
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                names, arguments = names + (call.function.name or ""), arguments + (call.function.arguments or "")
            reason = choice.finish_reason or reason
    assert (names, arguments, reason) == (whole[0].function.name, whole[0].function.arguments, "tool_calls")


class Pair(BaseModel):
    first: int
    second: int


def parsed(client, **asked):
    return client.chat.completions.parse(**asked)


def streamed(client, **asked):
    with client.chat.completions.stream(**asked) as stream:
        return stream.get_final_completion()


KINDS = {
    "plain": {},
    "schema": {"response_format": Pair},
    "tools": {"tools": [openai.pydantic_function_tool(Pair, name="add")], "tool_choice": "required"},
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # openai's own, of what it has parsed
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("draw", [parsed, streamed])
def test_a_reply_that_was_parsed_is_handed_back_as_it_is(tooled, kind, draw):
    """In every form that the official client has of it; the prompt is that of its words and calls alone."""
    client, messages = tooled.client(), ask("Add one and x.")["messages"]
    reply = draw(client, model=NAME, messages=messages, seed=1, max_tokens=400, **KINDS[kind]).choices[0].message
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
        for c in reply.tool_calls or []
    ]
    assert bool(calls) == (kind == "tools") and (reply.parsed is not None) == (kind == "schema")
    answers = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls]
    bare = {"role": "assistant", "content": reply.content, **({"tool_calls": calls} if calls else {})}
    wanted = tooled.post("/apply-template", {"messages": [*messages, bare, *answers]}).json()["prompt"]
    for form in (reply.model_dump(), reply.model_dump(mode="json", exclude_none=True), reply.to_dict()):
        found = tooled.post("/apply-template", {"messages": [*messages, form, *answers]}).json()
        assert found["prompt"] == wanted
    for form in (reply, reply.model_dump()):
        assert client.chat.completions.create(model=NAME, messages=[*messages, form, *answers], max_tokens=1).choices


def test_nobody_else_has_parsed_anything(tooled):
    message = {"role": "user", "content": "hi", "parsed": {"a": 1}}
    answer = tooled.post("/v1/chat/completions", {"messages": [message]})
    assert answer.status_code == 400 and "parsed" in answer.json()["error"]["message"]


def test_tools_may_be_left_alone(tooled):
    client = tooled.client()
    for choice in ("none", "auto"):
        answer = client.chat.completions.create(
            model=NAME, messages=ask()["messages"], tools=TOOLS, tool_choice=choice, seed=1, max_tokens=50
        )
        assert answer.choices[0].message.content


def test_answers_of_tools_go_into_the_prompt(tooled):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 77, "b": "x"}'}}
    messages = [
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "78"},
    ]
    prompt = tooled.post("/apply-template", {"messages": messages, "tools": TOOLS}).json()["prompt"]
    assert '"a": 77' in prompt and "\n78<|im_end|>" in prompt and '"subtract"' in prompt
    assert tooled.client().chat.completions.create(model=NAME, messages=messages, tools=TOOLS, max_tokens=5).choices


@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tool_choice": "required", "response_format": {"type": "json_object"}},
        {"tools": [TOOLS[0], TOOLS[0]]},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 5}}}]},
        {"tool_choice": "required", "tools": []},
    ],
)  # fmt: skip
def test_tools_that_cannot_be_called_are_refused(tooled, more):
    answer = tooled.post("/v1/chat/completions", ask(**{"tools": TOOLS, **more}))
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("tool")


def test_a_model_without_tools_says_so(server):
    with pytest.raises(openai.BadRequestError, match="tools"):
        called(server.client())


def test_thought_comes_apart_from_the_answer(tooled):
    """The template opens a thought, which the reply never closes: all of it is thought, whole and streamed."""
    body = ask(seed=1, max_tokens=30, chat_template_kwargs={"think": True}, logprobs=True)
    message = tooled.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    assert message["content"] == "" and message["reasoning_content"]
    client = tooled.client()
    thought = ""
    for chunk in client.chat.completions.create(
        model=NAME, messages=body["messages"], seed=1, max_tokens=30, stream=True,
        extra_body={"chat_template_kwargs": {"think": True}},
    ):  # fmt: skip
        for choice in chunk.choices:
            assert not choice.delta.content
            thought += (choice.delta.model_extra or {}).get("reasoning_content") or ""
    assert thought == message["reasoning_content"]


def test_a_format_is_the_answer_though_the_template_opens_a_thought(tooled):
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["<think>", 5]}}}
    body = ask(seed=1, chat_template_kwargs={"think": True}, response_format=form)
    message = tooled.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    assert json.loads(message["content"]) in ("<think>", 5) and "reasoning_content" not in message


def test_reasoning_effort_needs_a_template_that_knows_it(tooled):
    answer = tooled.post("/v1/chat/completions", ask(reasoning_effort="low"))
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "reasoning_effort"

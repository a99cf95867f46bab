"""Chats of `Llama`: the prompt is that of `autodeco-edge run`, thoughts are kept apart, tools work as in llama-cpp-python."""

from __future__ import annotations

import json
import warnings
from collections import UserDict

import llama_cpp
import pytest
from llama_cpp.llama_chat_format import CHATML_CHAT_TEMPLATE, LLAMA3_INSTRUCT_CHAT_TEMPLATE
from pydantic import BaseModel

import autodeco_edge
from autodeco_edge.engine.model import Model
from autodeco_edge.errors import FormatError, UsageError
from autodeco_edge.text.chat import prompt_of
from tests.support.chain import write_chain
from tests.support.formats import FORMATS, HARMONY, TURNS, write_format
from tests.support.letters import write_model
from tests.support.stock import open_stock

OPTIONS = {"n_ctx": 1024, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
ONE = [{"role": "user", "content": "What is 2 + 2?"}]
TALK = [
    {"role": "system", "content": "Be brief and answer with a number."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And 3 + 3, if you would be so kind?"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}, "sure": {"type": "boolean"}},
            "required": ["a", "sure"],
        },
    },
}
FORCED = {"type": "function", "function": {"name": "add"}}


def open_llama(path, **options) -> autodeco_edge.Llama:
    return autodeco_edge.Llama(path, **{"heads": None, **OPTIONS, **options})


def prompt_ids(llm, messages, **arguments) -> list[int]:
    reply = llm.create_chat_completion(messages, max_tokens=1, **arguments)
    return llm.input_ids[: reply["usage"]["prompt_tokens"]].tolist()


def prompt_text(llm, messages, **arguments) -> str:
    ids = prompt_ids(llm, messages, **arguments)
    return llm.detokenize(ids, special=True).decode()


PARTS = "{% for m in messages %}{% for p in m['content'] %}{% if p['type']=='text' %}{{ p['text'] }}{% endif %}{% endfor %}|{% endfor %}A:"
TEMPLATES = {
    "plain": TURNS + "<a>",
    "ChatML": CHATML_CHAT_TEMPLATE,
    "Llama 3": LLAMA3_INSTRUCT_CHAT_TEMPLATE,
    "parts": PARTS,
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "tools is none": "{% if tools is not none %}TOOLS{% endif %}{{ messages[-1].content }}{{ messages[0].content }}",
    "documents is none": "{% if documents is not none %}D{% endif %}{{ messages[-1].content }}{{ messages[0].content }}",
    "tojson": "{{ {'b': 1, 'a': 'é<'} | tojson(separators=(',', ':'), sort_keys=true) }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "loop control": "{% for m in messages %}{{ m.content }}{% if loop.last %}{% break %}{% endif %}{% endfor %}",
    "date": "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "writes BOS": "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "no system role": "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("add_bos", [True, False], ids=["bos", "no bos"])
@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.filterwarnings("ignore:the chat template has no place")
def test_the_prompt_is_that_of_run(tmp_path, template, add_bos):
    path = write_model(tmp_path / "m.gguf", template=template, add_bos=add_bos)
    with Model(path) as model, open_llama(path) as llm:
        for messages in (ONE, TALK):
            assert prompt_ids(llm, messages) == prompt_of(model, messages).ids


@pytest.mark.parametrize("name", ["plain", "ChatML", "loop control", "date", "tojson"])
def test_where_the_original_renders_rightly_it_is_the_same(tmp_path, name):
    """Not for Llama 3's template: the original takes a format of its own for it, and leaves its BOS out."""
    path = write_model(tmp_path / "m.gguf", template=TEMPLATES[name])
    ours, stock = open_llama(path), open_stock(path, **OPTIONS)
    assert prompt_ids(ours, TALK) == prompt_ids(stock, TALK)
    arguments = {"max_tokens": 40, "seed": 3, "temperature": 1.5, "stop": ["x", "y"]}
    ours, stock = (llm.create_chat_completion(TALK, **arguments)["choices"] for llm in (ours, stock))
    assert ours == stock


def test_system_message_without_a_place_is_noted(tmp_path):
    path = write_model(tmp_path / "m.gguf", template=TEMPLATES["no system role"])
    with open_llama(path) as llm, pytest.warns(UserWarning, match="no place for a system message"):
        assert "number.\n\nWhat" in prompt_text(llm, TALK)


def in_parts(message: dict) -> dict:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


@pytest.mark.parametrize(
    "template", [TEMPLATES["plain"], CHATML_CHAT_TEMPLATE, PARTS], ids=["plain", "ChatML", "parts"]
)
def test_content_in_parts(tmp_path, template):
    with open_llama(write_model(tmp_path / "m.gguf", template=template)) as llm:
        assert prompt_ids(llm, [in_parts(m) for m in TALK]) == prompt_ids(llm, TALK)
        mixed = [*TALK[:3], in_parts(TALK[3])]
        assert prompt_ids(llm, mixed) == prompt_ids(llm, TALK)
        two = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("first part", "second part")]}]
        text = prompt_text(llm, two)
        assert "first part" in text and "second part" in text and "'type'" not in text


def test_messages_as_objects(tmp_path):
    class Message(BaseModel):
        role: str
        content: str
        name: str | None = None

    with open_llama(write_model(tmp_path / "m.gguf", template=TURNS)) as llm:
        assert prompt_ids(llm, [Message(**m) for m in TALK]) == prompt_ids(llm, TALK)
        assert prompt_ids(llm, tuple(UserDict(m) for m in TALK)) == prompt_ids(llm, TALK)


CYCLE: list = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "messages",
    [None, 5, "hi", {}, [5], ["hi"], [{}], [{"content": "x"}], [{"role": 5, "content": "x"}], [{"role": "user", "content": b"x"}],
     [{"role": "user", "content": {1, 2}}], [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
     [{"role": "user", "content": ["x"]}], [{"role": "user", "content": CYCLE}], [{"role": "user", "content": "a\ud800"}], [{"role": "user", "\udfff": "a"}]],
    ids=range(16),
)  # fmt: skip
def test_messages_that_are_refused(tmp_path, messages):
    with open_llama(write_model(tmp_path / "m.gguf", template=TURNS)) as llm:
        with pytest.raises(UsageError, match="^messages: "):
            llm.create_chat_completion(messages, max_tokens=1)
        assert prompt_ids(llm, ONE)


@pytest.mark.parametrize(
    "template, words",
    [
        ("{% if %}", "template failed"), ("{{ 'x' * 10**9 }}", "template failed"), ("{{ raise_exception('not so') }}", "not so"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "did not end"), ("Assistant:", "does not print the user's message"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|template failed"), ("", "does not print"), ("{{ nothing.at.all }}", "undefined"),
    ],
)  # fmt: skip
def test_template_that_fails_does_so_in_the_chat(tmp_path, template, words):
    """Not in the constructor, as with the original, and not in this process."""
    with open_llama(write_model(tmp_path / "m.gguf", template=template or "{# #}")) as llm:
        with pytest.raises(FormatError, match=f"chat template failed.*({words}).*chat_handler|{words}"):
            llm.create_chat_completion(ONE, max_tokens=1)
        assert "--raw" not in str(pytest.raises(FormatError, llm.create_chat_completion, ONE).value)
        assert llm("hello", max_tokens=2)["choices"]


def test_what_the_user_names_is_left_alone(tmp_path):
    path = write_model(tmp_path / "m.gguf", template=TURNS + "MINE")
    stock = open_stock(path, chat_format="chatml", **OPTIONS)
    assert prompt_ids(open_llama(path, chat_format="chatml"), TALK) == prompt_ids(stock, TALK)
    handler = llama_cpp.llama_chat_format.Jinja2ChatFormatter(
        "{{ messages[0].content }}THEIRS", "", ""
    ).to_chat_handler()
    assert prompt_text(open_llama(path, chat_handler=handler), ONE).endswith("THEIRS")
    later = open_llama(path)
    assert prompt_text(later, ONE).endswith("MINE")
    later.chat_format = "chatml"
    assert prompt_ids(later, TALK) == prompt_ids(stock, TALK)
    assert prompt_text(open_llama(path, chat_format="chat_template.default"), ONE).endswith("MINE")


def test_names_of_formats_are_the_originals(tmp_path):
    import pickle

    for i, template in enumerate((CHATML_CHAT_TEMPLATE, LLAMA3_INSTRUCT_CHAT_TEMPLATE, TURNS, None)):
        path = write_model(tmp_path / f"{i}.gguf", template=template)
        ours, stock = open_llama(path), open_stock(path, **OPTIONS)
        assert (ours.chat_format, ours.metadata) == (stock.chat_format, stock.metadata)
        if template:
            again = pickle.loads(pickle.dumps(ours))
            assert prompt_ids(again, [in_parts(m) for m in TALK]) == prompt_ids(ours, TALK)


def test_other_templates_of_the_file(tmp_path):
    from tests.support.changed import changed_copy

    path = write_model(tmp_path / "m.gguf", template=TURNS)
    path = changed_copy(
        path, tmp_path / "two.gguf", {"tokenizer.chat_template.tool_use": "{{ messages[0].content }}USE"}
    )
    assert prompt_text(open_llama(path, chat_format="chat_template.tool_use"), ONE).endswith("USE")
    assert not prompt_text(open_llama(path), ONE).endswith("USE")


# ---- thoughts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("f", FORMATS.values(), ids=FORMATS)
def test_three_turns_with_every_format(tmp_path, f):
    """A format whose marks are text stays as the original gives it; control tokens would leave no mark to tell by."""
    path = write_format(tmp_path / "m.gguf", f)
    told = any(mark in "".join(f.reply) for mark in f.control)
    with open_llama(path) as llm:
        messages = list(ONE)
        for _ in range(3):
            reply = llm.create_chat_completion(messages, temperature=0.0, max_tokens=40)["choices"][0]
            message = reply["message"]
            streamed = [
                c["choices"][0]
                for c in llm.create_chat_completion(messages, temperature=0.0, max_tokens=40, stream=True)
            ]
            kinds = {
                kind: "".join(c["delta"].get(kind) or "" for c in streamed) for kind in ("content", "reasoning_content")
            }
            assert streamed[-1]["finish_reason"] == reply["finish_reason"] == "stop" and streamed[-1]["delta"] == {}
            assert kinds["content"].strip() == message["content"].strip()
            assert kinds["reasoning_content"].strip() == message.get("reasoning_content", "")
            if told:
                assert message["content"] == f.answer and message.get("reasoning_content", "") == f.thought
            messages += [message, *ONE]


def test_without_control_marks_it_is_the_original(tmp_path):
    for name in ("think", "seed", "apriel", "exaone", "none", "another's marks"):
        path = write_format(tmp_path / f"{name}.gguf", FORMATS[name])
        ours, stock = (
            llm.create_chat_completion(ONE, temperature=0.0)["choices"]
            for llm in (open_llama(path), open_stock(path, **OPTIONS))
        )
        assert ours == stock


def test_a_stream_of_two_models_and_a_completion_between(tmp_path):
    """The marks belong to the chat that is being drawn, not to whoever asks in between."""
    f = FORMATS["magistral"]
    path = write_format(tmp_path / "m.gguf", f)
    one, two = open_llama(path), open_llama(path)
    mark = one.tokenize(b"[THINK]", add_bos=False, special=True)
    parts, said = one.create_chat_completion(ONE, temperature=0.0, stream=True), ""
    for part in parts:
        said += part["choices"][0]["delta"].get("content") or ""
        assert one.detokenize(mark) == two.detokenize(mark) == b""
        assert "THINK" not in two("x", max_tokens=3, temperature=0.0)["choices"][0]["text"]
    assert said == f.answer


def test_a_reply_that_is_held_to_a_form_has_no_marks(tmp_path):
    path = write_model(tmp_path / "m.gguf", template=HARMONY)
    with open_llama(path) as llm:
        form = {"type": "json_object", "schema": {"enum": ["yes", "no"]}}
        for stream in (False, True):
            reply = llm.create_chat_completion(ONE, response_format=form, seed=1, stream=stream, max_tokens=20)
            parts = reply if stream else [{"choices": [{"delta": reply["choices"][0]["message"]}]}]
            said = "".join(p["choices"][0]["delta"].get("content") or "" for p in parts)
            assert json.loads(said) in ("yes", "no")


def test_a_thought_that_was_cut_off(tmp_path):
    f = FORMATS["magistral"]
    with open_llama(write_format(tmp_path / "m.gguf", f)) as llm:
        reply = llm.create_chat_completion(ONE, temperature=0.0, max_tokens=2)["choices"][0]
        assert reply["finish_reason"] == "length" and "[THINK]" not in reply["message"]["content"]


# ---- tools and functions ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tools_llm(tmp_path_factory):
    template = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}" + TURNS
    with open_llama(write_model(tmp_path_factory.mktemp("tools") / "m.gguf", template=template), n_ctx=2048) as llm:
        yield llm


WAYS = {
    "tools": {"tools": [TOOL], "tool_choice": FORCED},
    "functions": {"functions": [TOOL["function"]], "function_call": {"name": "add"}},
}


@pytest.mark.parametrize("arguments", WAYS.values(), ids=WAYS)
def test_a_forced_call(tools_llm, arguments):
    for seed in range(4):
        choice = tools_llm.create_chat_completion(ONE, seed=seed, max_tokens=200, **arguments)["choices"][0]
        call = choice["message"]["tool_calls"][0]["function"]
        value = json.loads(call["arguments"])
        assert call["name"] == "add" and value.keys() >= {"a", "sure"} and 0 <= value["a"] <= 9
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["function_call"] == call
        parts = list(tools_llm.create_chat_completion(ONE, seed=seed, max_tokens=200, stream=True, **arguments))
        deltas = [p["choices"][0]["delta"].get("tool_calls") for p in parts]
        assert "".join(d[0]["function"]["arguments"] for d in deltas if d) == call["arguments"]


def test_the_shape_of_a_call_is_the_originals(tools_llm, tmp_path):
    stock = open_stock(tools_llm.model_path, **{**OPTIONS, "n_ctx": 2048})

    def shape(value):
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items()}
        return [shape(v) for v in value] if isinstance(value, list) else type(value)

    for arguments in WAYS.values():
        for stream in (False, True):
            ours, theirs = (
                llm.create_chat_completion(ONE, seed=1, max_tokens=200, stream=stream, **arguments)
                for llm in (tools_llm, stock)
            )
            assert (
                [shape(p) for p in list(ours)[:2]] == [shape(p) for p in list(theirs)[:2]]
                if stream
                else shape(ours) == shape(theirs)
            )


def test_a_template_sees_the_tools(tools_llm):
    assert '"name": "add"' in prompt_text(tools_llm, ONE, tools=[TOOL])
    assert "add" not in prompt_text(tools_llm, ONE)
    free = tools_llm.create_chat_completion(ONE, tools=[TOOL], tool_choice="auto", seed=1, max_tokens=5)["choices"][0]
    assert "tool_calls" not in free["message"]


def test_a_template_that_wants_functions(tmp_path):
    """Defined by llama-cpp-python alone, and None where there are none."""
    template = "{% for f in (functions if functions is not none else []) %}F{{ f.name }}{% endfor %}" + TURNS
    with open_llama(write_model(tmp_path / "m.gguf", template=template)) as llm:
        assert prompt_text(llm, ONE).startswith("<user>")
        assert prompt_text(llm, ONE, functions=[TOOL["function"]]).startswith("Fadd<user>")


def test_results_of_tools_go_back(tmp_path):
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}{% endfor %}<a>"
    with open_llama(write_model(tmp_path / "m.gguf", template=template)) as llm:
        called = llm.create_chat_completion(ONE, seed=1, max_tokens=200, tools=[TOOL], tool_choice=FORCED)["choices"][
            0
        ]["message"]
        text = prompt_text(
            llm, [*ONE, called, {"role": "tool", "content": "4", "tool_call_id": called["tool_calls"][0]["id"]}]
        )
        assert f"<assistant>add{called['tool_calls'][0]['function']['arguments']}<tool>4<a>" in text


@pytest.mark.parametrize("arguments", [{"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "sub"}}},
                                       {"functions": [], "function_call": {"name": "add"}}, {"tools": [TOOL], "tool_choice": {}},
                                       {"tools": [{}], "tool_choice": FORCED}], ids=range(4))  # fmt: skip
def test_a_tool_that_is_not_there(tools_llm, arguments):
    with pytest.raises(ValueError, match="not found in tools"):
        tools_llm.create_chat_completion(ONE, max_tokens=3, **arguments)


def test_arguments_that_cannot_be_held_to(tools_llm):
    function = {
        "name": "add",
        "parameters": {"type": "object", "not": {"required": ["a"]}},
    }  # a keyword that llguidance has not
    with pytest.warns(UserWarning, match="add are held to a JSON object alone"):
        reply = tools_llm.create_chat_completion(
            ONE, seed=1, max_tokens=300, functions=[function], function_call={"name": "add"}, temperature=0.5
        )
    assert isinstance(reply["choices"][0]["message"]["function_call"]["arguments"], str)
    with pytest.raises(FormatError, match="not"):
        tools_llm.create_chat_completion(ONE, functions=[{**function, "strict": True}], function_call={"name": "add"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bare = {"type": "function", "function": {"name": "add"}}
        tools_llm.create_chat_completion(ONE, seed=1, max_tokens=20, tools=[bare], tool_choice=FORCED)


@pytest.mark.parametrize(
    "argument",
    [{"tools": {1}}, {"tools": [object()]}, {"tool_choice": {"\ud800": 1}}, {"functions": b"x"}],
    ids=["set", "object", "half surrogate", "bytes"],
)
def test_tools_that_no_json_can_say(tools_llm, argument):
    with pytest.raises(UsageError, match="^(tools|tool_choice|functions): "):
        tools_llm.create_chat_completion(ONE, max_tokens=1, **argument)


def test_marks_written_as_text_end_a_reply(tmp_path):
    """A model that never learned ChatML's mark as one token; its END is another."""
    path = write_chain(tmp_path / "m.gguf", "\n", ("Four.", "<|im_end|>", "more"), template=CHATML_CHAT_TEMPLATE)
    for llm in (open_llama(path), open_stock(path, **OPTIONS)):
        assert (
            llm.create_chat_completion(ONE, temperature=0.0, max_tokens=9)["choices"][0]["message"]["content"]
            == "Four."
        )

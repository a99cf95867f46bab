"""Messages in the shape that a template reads, and refused where it prints them in none."""

from __future__ import annotations

import html
import json

import pytest

from autodeco_edge.errors import FormatError
from autodeco_edge.text.chat import fill, render_text
from autodeco_edge.text.shapes import MERGED
from autodeco_edge.text.template import TemplateError

ONE = [{"role": "user", "content": "Why?"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
    {"role": "user", "content": "And then?"},
]

PARTS = "{% for m in messages %}{{ m['role'] | capitalize }}:{% for p in m['content'] %}{% if p['type'] == 'text' %} {{ p['text'] }}{% endif %}{% endfor %}\n{% endfor %}Assistant:"
# Written after the public templates of these families.
WALKERS = {
    "SmolVLM": "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    "LLaVA": "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "strict": "{% for m in messages %}{% if m.content is string %}{{ raise_exception('content must be a list of parts') }}{% endif %}{{ m.role }}: {{ m.content[0].text }}\n{% endfor %}",
    "user's parts alone": "{% for m in messages %}{% if m.role == 'user' %}{{ m.content | map(attribute='text') | join }}{% else %}{{ m.content + '.' }}{% endif %}\n{% endfor %}",
    "last part": "{% for m in messages %}{{ m.content[-1]['text'] }}\n{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("template", [PARTS, *WALKERS.values()], ids=["parts", *WALKERS])
@pytest.mark.parametrize("messages", [ONE, TALK], ids=["one", "talk"])
def test_template_that_walks_parts_gets_parts(template, messages):
    text = render_text(template, messages, "", "")
    assert all(m["content"] in text for m in messages) and "'type'" not in text


def test_parts_as_the_issue_has_them():
    assert render_text(PARTS, ONE, "", "") == "User: Why?Assistant:"


STRINGS = {
    "as it is": "{% for m in messages %}{{ m.content }}{% endfor %}",
    "trimmed": "{% for m in messages %}{{ m.content | trim }}\n{% endfor %}",
    "stripped": "{% for m in messages %}{{ m['content'].strip() }}{% endfor %}",
    "escaped": "{% for m in messages %}{{ m.content | e }}{% endfor %}",
    "JSON": "{{ messages | tojson }}",
    "JSON in ASCII": "{% for m in messages %}{{ m.content | tojson(ensure_ascii=true) }}{% endfor %}",
    "lower case": "{% for m in messages %}{{ m.content | lower }}{% endfor %}",
    "words": "{% for m in messages %}{{ m.content.split() | join('  ') }}{% endfor %}",
    "indented": "{% for m in messages %}{{ m.content | indent(4) }}{% endfor %}",
    "either": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
    "last alone": "{{ messages[-1].content }}{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}",
    "reversed roles": "{% for m in messages | reverse %}{{ m.content }}{% endfor %}",
}  # fmt: skip
TEXTS = ["x", "  padded\n", "<b>&'\"</b>", 'quotes "in" \\ it', "größer 日本 \U0001f600", "ÜPPER", "{{ no }} {% jinja %}", "a\n\n  b", "",
         "0", "'type': 'text'", "</think>", "word " * 500]  # fmt: skip


@pytest.mark.parametrize("template", STRINGS.values(), ids=STRINGS)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_a_template_does_to_a_text_is_no_loss(template, text):
    messages = [{"role": "system", "content": "SYSTEM " + text}, {"role": "user", "content": text}]
    filled = fill(template, messages, "", "", True)
    assert filled.remark is None
    squeezed = "".join(filled.text.split()).lower()
    forms = (text, html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;"), json.dumps(text)[1:-1])
    forms += (json.dumps(text, ensure_ascii=False)[1:-1],)
    assert any("".join(form.split()).lower() in squeezed for form in forms)


LOSING = {
    "nothing": "Assistant:",
    "roles": "{% for m in messages %}{{ m.role }}{% endfor %}",
    "first letters": "{% for m in messages %}{{ m.content[:5] }}{% endfor %}",
    "cut": "{% for m in messages %}{{ m.content | truncate(12, true) }}{% endfor %}",
    "all but the last": "{% for m in messages[:-1] %}{{ m.content }}{% endfor %}",
    "another key": "{% for m in messages %}{{ m.text }}{% endfor %}",
    "another type": "{% for m in messages %}{% for p in m.content %}{% if p.type == 'input_text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}",
    "a list as Python writes it": "{% for m in messages %}{% if m.content is not string %}{{ m.content }}{% endif %}{% endfor %}",
    "a list as JSON": "{% for m in messages %}{% if m.content is not string %}{{ m.content | tojson }}{% endif %}{% endfor %}",
    "system alone": "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}",
    "its length": "{% for m in messages %}{{ m.content | length }}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("template", LOSING.values(), ids=LOSING)
@pytest.mark.parametrize("text", ["Assistant", "s", "tell me more about the user's system", "word " * 300])
def test_template_that_loses_the_question_is_refused(template, text):
    with pytest.raises(FormatError, match="does not print the user's message.*use --raw"):
        render_text(template, [{"role": "user", "content": text}], "", "")


def test_template_that_looks_into_the_messages():
    template = (
        "{% for m in messages %}{% if 'W' not in m.content %}{{ raise_exception('ask why') }}{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    assert render_text(template, ONE, "", "") == "Why?"
    with pytest.raises(FormatError, match="ask why"):
        render_text(template, [{"role": "user", "content": "How?"}], "", "")
    with pytest.raises(FormatError, match="does not print the user's message"):
        render_text(template.replace("{{ m.content }}", ""), ONE, "", "")


def test_messages_without_content():
    called = [*ONE, {"role": "assistant", "content": None, "tool_calls": []}, {"role": "tool", "content": "4"}]
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.content is defined }}\n{% endfor %}"
    assert fill(template, called, "", "", True).text == "user: Why?True\nassistant: False\ntool: 4True\n"


def test_parts_that_the_caller_made_are_left_alone():
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why?"}]}]
    assert render_text(WALKERS["SmolVLM"], messages, "", "").startswith("<|im_start|>User:<image>Why?")


@pytest.mark.parametrize("template", [*STRINGS.values(), *WALKERS.values()], ids=[*STRINGS, *WALKERS])
def test_parts_that_the_caller_made_are_joined_where_a_template_wants_strings(template):
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in TALK]
    assert render_text(template, parts, "", "") == render_text(template, TALK, "", "")
    two = [{"role": "user", "content": [{"type": "text", "text": t} for t in ("Why?", "How?")]}]
    if template in STRINGS.values() and "string" not in template:
        assert render_text(template, two, "", "") == render_text(
            template, [{"role": "user", "content": "Why?\nHow?"}], "", ""
        )


# ---- a system message where there is no place for one ---------------------------------------------

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
NO_SYSTEM = {
    "Gemma": GEMMA,
    "silent": "{% for m in messages if m.role != 'system' %}[{{ m.role }}] {{ m.content }}\n{% endfor %}",
    "user or assistant": "{% for m in messages %}{% if m.role == 'user' %}U {{ m.content }}{% elif m.role == 'assistant' %}A {{ m.content }}{% endif %}\n{% endfor %}",
    "one of two": "{% for m in messages %}{{ {'user': 'U', 'assistant': 'A'}[m.role] + m.content }}{% endfor %}",
    "parts": "{% for m in messages if m.role != 'system' %}{% for p in m.content %}{{ p.text }}\n{% endfor %}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("template", NO_SYSTEM.values(), ids=NO_SYSTEM)
def test_system_message_goes_to_the_user(template):
    filled = fill(template, TALK, "<bos>", "", True)
    assert filled.remark == MERGED and "Be brief.\n\nWhy?" in filled.text and "And then?" in filled.text
    assert fill(template, TALK[1:], "<bos>", "", True).remark is None


def test_system_message_that_has_a_place_stays_there():
    assert fill("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", TALK, "", "", True).remark is None


def test_roles_that_do_not_alternate_are_the_templates_to_refuse():
    twice = [*TALK, {"role": "user", "content": "again"}]
    with pytest.raises(TemplateError, match="^Conversation roles must alternate"):
        fill(GEMMA, twice, "", "", True)


def test_template_meant_for_tools_is_used_without():
    """transformers hands it None, over which it cannot loop; the file holds no other."""
    template = "{% for t in tools %}{{ t }}{% endfor %}{{ messages[-1].content }}"
    assert render_text(template, ONE, "", "") == "Why?"


def test_a_template_that_ends_is_tried_in_each_shape_and_one_that_does_not_once():
    import time

    start = time.monotonic()
    with pytest.raises(FormatError, match="did not end"):
        render_text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", TALK, "", "")
    assert time.monotonic() - start < 8  # once is 2 seconds, six shapes would be 12

"""Conversations: what a template makes of them, and their file. The loop on a terminal is tests/cli/."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.errors import FormatError, MissingInputError
from autodeco_edge.text.chat import Conversation, render, render_text
from autodeco_edge.text.template import MAX_SECONDS, Renderer, TemplateError, render_template
from tests.support.letters import BOS, make_letters, write_model

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def as_text(model: Model, ids: list[int]) -> str:
    return model.detokenize(ids, special=True).decode()


# ---- rendering --------------------------------------------------------------------------------


def test_chatml_where_the_model_has_no_template(tmp_path):
    model = Model(write_model(tmp_path / "m.gguf"))
    assert model.chat_template is None
    text = as_text(model, render(model, MESSAGES))
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_control_tokens_of_a_template_are_single_tokens(letters):
    model = Model(letters.gguf)
    ids = render(model, MESSAGES)
    assert ids.count(model.eos) == 2


PLAIN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


@pytest.mark.parametrize("add_bos", [False, True])
@pytest.mark.parametrize("written", [False, True])
def test_bos_is_there_once_or_not_at_all(tmp_path, add_bos, written):
    template = ("{{ bos_token }}" if written else "") + PLAIN
    model = Model(write_model(tmp_path / "model.gguf", add_bos=add_bos, template=template))
    text = as_text(model, render(model, MESSAGES))
    assert text == (BOS if add_bos or written else "") + "[system] Be brief.\n[user] hello\n"


def test_template_sees_the_generation_prompt_and_the_date():
    template = PLAIN + "{% if add_generation_prompt %}{{ strftime_now('%Y') }}{{ eos_token }}{% endif %}"
    assert render_text(template, MESSAGES, "B", "E").endswith(f"hello\n{datetime.now():%Y}E")


FAILING = {
    "refuses": ("{{ raise_exception('no system message') }}", "no system message"),
    "syntax": ("{% for m in messages %}", "endfor"),
    "undefined": ("{{ messages.nothing.at.all }}", "has no attribute"),
    "type": ("{{ messages + 1 }}", "list"),
    "division": ("{{ 1 // 0 }}", "zero"),
    "endless recursion": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
    "endless range": ("{% for i in range(10 ** 9) %}x{% endfor %}", "too big"),
}


@pytest.mark.parametrize("template, says", FAILING.values(), ids=FAILING)
def test_template_that_fails(template, says):
    with pytest.raises(FormatError, match=f"(?i)chat template failed.*{says}.*use --raw"):
        render_text(template, MESSAGES, "", "")


REFUSED = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ().__class__.__base__ }}",
    "{{ messages.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ strftime_now.__globals__['datetime'] }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{% set x = namespace.__init__ %}{{ x.__globals__ }}",
]


@pytest.mark.parametrize("template", REFUSED)
def test_sandbox_refuses_a_way_out(template):
    with pytest.raises(FormatError, match="unsafe"):
        render_text(template, MESSAGES, "", "")


@pytest.mark.parametrize(
    "template", ["{{ raise_exception.__globals__ }}", "{{ ''|attr('__class__') }}", "{{ ''.__class__ }}"]
)
def test_sandbox_prints_nothing_for_a_hidden_attribute(template):
    assert render_template(template, {"messages": MESSAGES}) == ""


@pytest.mark.parametrize(
    "template", ["{{ messages.append(1) }}", "{{ messages.clear() }}", "{{ messages[0].update(x=1) }}"]
)
def test_template_cannot_change_the_messages(template):
    messages = [dict(m) for m in MESSAGES]
    with pytest.raises(FormatError):
        render_text(template, messages, "", "")
    assert messages == MESSAGES


def test_conversation_forgets_all_but_the_system_message():
    conversation = Conversation()
    for role, content in (("system", "Be brief."), ("user", "hello"), ("assistant", "hi")):
        conversation.add(role, content)
    conversation.clear()
    assert conversation.messages == MESSAGES[:1]


# ---- templates that would not end -------------------------------------------------------------

BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "text": "{{ 'x' * 10 ** 11 }}",
    "doubling": "{% set t = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set t.x = t.x + t.x %}{% endfor %}{{ t.x }}",
    "padding": "{{ 'x'.center(10 ** 10) }}",
    "format": "{{ '%99999999999d' % 1 }}",
}


@pytest.mark.parametrize("template", BOMBS.values(), ids=BOMBS)
def test_template_bomb_ends_in_time_with_one_line(template):
    """2 seconds are the promise; one more for killing and reaping on a machine that has other work."""
    start = time.monotonic()
    with pytest.raises(FormatError, match="^the model's chat template failed [^\n]* use --raw to go without it$"):
        render_text(template, MESSAGES, "", "")
    assert time.monotonic() - start < MAX_SECONDS + 1.0


def test_after_a_bomb_the_next_template_is_rendered():
    renderer = Renderer(max_seconds=0.2)
    with pytest.raises(TemplateError, match="did not end within 0.2 seconds"):
        renderer.render(BOMBS["loops"], {})
    assert renderer.render("{{ x }}", {"x": "größer"}) == "größer"
    renderer.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_renders_with_a_child_of_its_own():
    renderer = Renderer()
    assert renderer.render("{{ x }}", {"x": 1}) == "1"
    before = renderer._child
    pid = os.fork()
    if pid == 0:
        ok = renderer.render("{{ x }}", {"x": 2}) == "2" and renderer._child is not before
        renderer.close()
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert renderer.render("{{ x }}", {"x": 3}) == "3" and renderer._child is before
    renderer.close()


def test_text_without_bounds_is_refused():
    with pytest.raises(FormatError, match="made more than [0-9]+ characters"):
        render_text("{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}", [], "", "")


def test_variables_and_json_as_transformers_has_them():
    template = "{% for x in tools %}{% if loop.index > 1 %}{% break %}{% endif %}{{ x | tojson }}{% endfor %}"
    assert render_text(template, [], "", "", {"tools": [{"a": "<ü>"}, 2]}) == '{"a": "<ü>"}'


def test_another_template_than_the_models_own(letters):
    model = Model(letters.gguf)
    assert as_text(model, render(model, MESSAGES, PLAIN)) == "[system] Be brief.\n[user] hello\n"


# ---- the file of a conversation -----------------------------------------------------------------


def test_saved_and_loaded(tmp_path):
    conversation = Conversation([dict(m) for m in MESSAGES])
    conversation.save(tmp_path / "c.json")
    assert Conversation.load(tmp_path / "c.json") == conversation
    (tmp_path / "bare.json").write_text(json.dumps(MESSAGES))
    assert Conversation.load(tmp_path / "bare.json") == conversation


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", '[{"role": "robot", "content": ""}]', '[{"role": "user", "content": 1}]', "\x00"]
)
def test_file_that_is_no_conversation(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(FormatError, match="c.json"):
        Conversation.load(tmp_path / "c.json")


def test_no_file():
    with pytest.raises(MissingInputError, match="nowhere.json: cannot be read"):
        Conversation.load("nowhere.json")


def test_system_message_and_taking_back():
    conversation = Conversation()
    assert conversation.take_back() is None
    conversation.add("user", "hello")
    conversation.system = "Be brief."
    assert conversation.messages == MESSAGES
    conversation.add("assistant", "hi")
    assert conversation.take_back() == "hello"
    conversation.system = None
    assert conversation.messages == [] and conversation.system is None

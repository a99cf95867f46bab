"""Conversations: what a template makes of them, and the loop on a terminal.

The loop runs on a pseudo-terminal, as a user sees it. Its statistics line says how full the context is,
which shows what the model was given.
"""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import datetime

import pytest

from autodeco_edge.chat import Conversation, render, render_text
from autodeco_edge.errors import FormatError
from autodeco_edge.model import Model
from tests.support.letters import BOS, make_letters, write_model

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def as_text(model: Model, ids: list[int]) -> str:
    return model.detokenize(ids, special=True).decode()


# ---- rendering --------------------------------------------------------------------------------


def test_chatml_where_the_model_has_no_template(letters):
    model = Model(letters.gguf)
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
    template = "{% if add_generation_prompt %}{{ strftime_now('%Y') }}{{ eos_token }}{% endif %}"
    assert render_text(template, MESSAGES, "B", "E") == f"{datetime.now():%Y}E"


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
    assert render_text(template, MESSAGES, "", "") == ""


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


# ---- the loop -------------------------------------------------------------------------------------

pexpect = pytest.importorskip("pexpect")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")

HELP = "/exit or Ctrl-D ends"
PROMPT = "> "
STATS = r"context (\d+)/(\d+) .*seed (\d+)\]"


@pytest.fixture
def chat():
    """``chat(arguments...)`` starts the loop; what is left running ends with the test."""
    running = []

    def start(*args):
        environment = {**os.environ, "TERM": "dumb", "PROMPT_TOOLKIT_NO_CPR": "1"}
        arguments = ["-m", "autodeco_edge", "run", "-t", "1", "--seed", "1", *map(str, args)]
        child = pexpect.spawn(sys.executable, arguments, env=environment, timeout=20, dimensions=(40, 200))
        running.append(child)
        child.expect_exact(HELP)
        wait_for_prompt(child)
        return child

    yield start
    for child in running:
        child.close(force=True)


def wait_for_prompt(child) -> None:
    """The prompt is there, and the keyboard is read: before that, Ctrl-D would go to the terminal itself."""
    child.expect_exact(PROMPT)
    assert child.waitnoecho(timeout=5)


def say(child, line: str) -> tuple[int, int, int]:
    """One turn; returns (tokens in the context, size of the context, seed)."""
    child.sendline(line)
    child.expect(STATS)
    found = tuple(int(x) for x in child.match.groups())
    wait_for_prompt(child)
    return found


def leave(child) -> int:
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def test_two_turns_clear_and_end(letters, chat):
    child = chat("-m", letters.gguf, "--heads", letters.heads, "-n", "1", "--system", "Be brief.")
    first, n_ctx, seed = say(child, "hello")
    assert (first, n_ctx, seed) == (len(render(Model(letters.gguf), MESSAGES)) + 1, 512, 1)
    second, _, next_seed = say(child, "hello")
    assert second > first + len("hello"), "the second turn carries the first"
    assert next_seed == 2, "each turn draws with random numbers of its own"
    child.sendline("/clear")
    wait_for_prompt(child)
    assert say(child, "hello")[0] == first, "only the system message is left"
    child.sendline("/help")
    child.expect_exact(HELP)
    wait_for_prompt(child)
    assert leave(child) == 0
    assert b"Traceback" not in child.before


def test_exit_command(letters, chat):
    child = chat("-m", letters.gguf, "--heads", letters.heads)
    child.sendline("/exit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_overflow_keeps_the_loop(letters, chat):
    child = chat("-m", letters.gguf, "--heads", letters.heads, "-n", "1", "-c", "64")
    first = say(child, "hello")[0]
    child.sendline("x" * 100)
    child.expect(r"the prompt has \d+ tokens, the context 64; .*\(or /clear\)")
    wait_for_prompt(child)
    child.sendline("/clear")
    wait_for_prompt(child)
    assert say(child, "hello")[0] == first, "the line that did not fit is forgotten"
    assert leave(child) == 0


def test_raw_turns_stand_alone(letters, chat):
    child = chat("-m", letters.gguf, "--heads", letters.heads, "-n", "1", "--raw")
    assert [say(child, "hello")[0] for _ in range(2)] == [6, 6]
    assert leave(child) == 0


def test_interrupt_stops_a_reply_and_keeps_the_loop(qwen2, chat):
    child = chat("-m", qwen2.gguf, "--heads", qwen2.heads, "-c", "4096")  # a reply of about a minute
    child.sendline("hello")
    child.expect_exact("hello")  # the echo
    time.sleep(0.5)
    start = time.monotonic()
    child.sendintr()
    child.expect_exact("[stopped]")
    wait_for_prompt(child)
    assert time.monotonic() - start < 1.0  # the promise: within a second
    child.sendline("/help")
    child.expect_exact(HELP)
    wait_for_prompt(child)
    child.sendline("hello again")
    child.expect_exact("hello again")
    time.sleep(0.3)
    child.sendintr()
    child.expect_exact("[stopped]")
    wait_for_prompt(child)
    assert leave(child) == 0


def test_interrupt_at_the_prompt_leaves_with_130(letters, chat):
    child = chat("-m", letters.gguf, "--heads", letters.heads)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not re.search(rb"Traceback|Exception", child.before)

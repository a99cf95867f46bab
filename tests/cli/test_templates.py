"""Conversations with templates and formats that models really have, typed at a terminal."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support import warm
from tests.support.chain import write_chain
from tests.text.test_reasoning import CHANNELS, FORMATS
from tests.text.test_shapes import GEMMA, PARTS

GREEDY = ("--no-heads", "--temp", "0")


def run(*args: object, code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = warm.run("run", "-t", "1", *args)
    assert done.returncode == code and b"Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def gpt_oss(tmp_path):
    f = FORMATS["gpt-oss"]
    return write_chain(tmp_path / "m.gguf", "t", f.reply, control=CHANNELS, template=f.template)


def test_second_turn_with_channels(chat, gpt_oss, tmp_path):
    terminal = chat("-m", gpt_oss, *GREEDY, "--hide-thinking")
    for question in ("one", "two", "three"):
        terminal.type(question)
        terminal.wait_for("Four.")
        assert "<|" not in terminal.child.before and "two and two" not in terminal.child.before
        terminal.wait_for_prompt()
    terminal.command(f"/save {tmp_path}/c.json", "saved 6 messages")
    terminal.command(f"/load {tmp_path}/c.json", "loaded 6 messages")
    terminal.type("/regen")
    terminal.wait_for("Four.")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0
    messages = json.loads((tmp_path / "c.json").read_text())["messages"]
    assert messages[1::2] == [{"role": "assistant", "content": "Four.", "reasoning_content": "two and two"}] * 3


def test_json_keeps_what_the_model_wrote(gpt_oss):
    done = json.loads(run("-m", gpt_oss, *GREEDY, "hi", "--json").stdout)
    assert done["text"].startswith("<|channel|>analysis<|message|>two and two<|end|>")
    assert "".join(t["text"] for t in done["tokens"]) == done["text"]


def test_thought_of_channels_in_a_pipe(gpt_oss):
    assert run("-m", gpt_oss, *GREEDY, "hi").stdout == b"<think>\ntwo and two\n</think>\n\nFour.\n"
    assert run("-m", gpt_oss, *GREEDY, "hi", "--hide-thinking").stdout == b"Four.\n"


@pytest.fixture
def gemma(tmp_path):
    return write_chain(tmp_path / "m.gguf", "\n", ("Four.",), template=GEMMA.replace("model\n{%", "model{{ '\\n' }}{%"))


def test_system_message_without_a_place_is_noted_once(chat, gemma):
    done = run("-m", gemma, *GREEDY, "hi", "--system", "Be brief.")
    assert done.stdout == b"Four.\n" and done.stderr.count(b"no place for a system message") == 1
    terminal = chat("-m", gemma, *GREEDY, "--system", "Be brief.")
    terminal.type("one")
    terminal.wait_for("no place for a system message")
    terminal.wait_for("Four.")
    terminal.wait_for_prompt()
    terminal.type("two")
    terminal.wait_for("Four.")
    assert "no place" not in terminal.child.before
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_roles_that_do_not_alternate_leave_the_conversation_as_it_was(chat, gemma, tmp_path):
    path = tmp_path / "c.json"
    twice = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    path.write_text(json.dumps(twice))
    terminal = chat("-m", gemma, *GREEDY)
    terminal.command(f"/load {path}", "loaded 2 messages")
    for line in ("three", "/regen"):
        terminal.command(line, "roles must alternate")
    terminal.command(f"/save {tmp_path}/after.json", "saved 2 messages")
    assert json.loads((tmp_path / "after.json").read_text())["messages"] == twice
    terminal.command("/clear", "[cleared]")
    assert terminal.say("one")[0] > 0
    assert terminal.leave() == 0


def test_interrupted_reply_and_regen_keep_the_roles_alternating(chat, letters, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text(GEMMA)
    terminal = chat("-m", letters.gguf, "--heads", letters.heads, "--chat-template-file", template, "-n", "400")
    terminal.type("one")
    terminal.wait_for_match(r"\S")
    terminal.interrupt()
    terminal.wait_for_prompt()
    for line in ("two", "/regen", "/regen"):
        terminal.command("/set max-tokens 3", "[max-tokens: 3]")
        terminal.say(line)
    terminal.command("/stats", "ended: ")
    terminal.command(f"/save {tmp_path}/c.json", "saved 2 messages")
    assert terminal.leave() == 0


@pytest.mark.parametrize(
    "template, says",
    [
        ("Assistant:", b"does not print the user's message"),
        ("{{ raise_exception('\x1b[31mred\n' * 99) }}", b"red"),
        ("{{ '\n' * 16000000 }}", b"made more than"),
        ("", b"does not print the user's message"),
        ("{% generation %}", b"endgeneration"),
    ],
)
def test_refused_in_one_line(gemma, tmp_path, template, says):
    (tmp_path / "t.jinja").write_text(template)
    done = run("-m", gemma, *GREEDY, "hi", "--chat-template-file", tmp_path / "t.jinja", code=65)
    assert done.stdout == b"" and says in done.stderr and done.stderr.strip().count(b"\n") <= 1


def test_parts(tmp_path):
    path = write_chain(tmp_path / "m.gguf", ":", ("Four.",), template=PARTS)
    done = json.loads(run("-m", path, *GREEDY, "Why?", "--json").stdout)
    assert len(done["prompt_ids"]) == len("User: Why?Assistant:")


@pytest.mark.parametrize("template", [r"{{ '\ud800' }}", "{{ 'a' * 500000 }}"], ids=["surrogate", "one long word"])
def test_text_that_a_template_made_unreadable_is_its_own_fault(template, tmp_path):
    (tmp_path / "t.jinja").write_text(template + "{{ messages[-1].content }}")
    done = run(*GREEDY, "some words", "--chat-template-file", tmp_path / "t.jinja", code=65)
    assert b"the model's chat template failed (what it made is no prompt; " in done.stderr
    run(*GREEDY, "a" * 110_000, code=2)  # their user's

"""A conversation as a user has it: every command, key and signal, on a pseudo-terminal.

The statistics line says how full the context is, which shows what the model was given.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from autodeco_edge.cli.commands import COMMANDS
from autodeco_edge.cli.completion import SlashCompleter
from autodeco_edge.cli.settable import SETTABLE
from autodeco_edge.engine.model import Model
from autodeco_edge.text.chat import render

BRIEF = {"role": "system", "content": "Be brief."}
HELLO = {"role": "user", "content": "hello"}
ENDLESS = ["-c", "200000", "--logit-bias", "258=-100", "--logit-bias", "259=-100"]  # no end token: minutes


@pytest.fixture(scope="module")
def n_prompt(letters):
    """Tokens of a prompt made of the messages."""
    model = Model(letters.gguf)
    return lambda *messages: len(render(model, list(messages)))


# ---- commands ------------------------------------------------------------------------------------


def test_turns_and_the_commands_about_the_conversation(chat, n_prompt, tmp_path):
    terminal = chat("-n", "1", "--system", "Be brief.")
    first = terminal.say("hello")
    assert first == (n_prompt(BRIEF, HELLO) + 1, 512, 1)
    second, _, next_seed = terminal.say("hello")
    assert second > first[0] + len("hello"), "the second turn carries the first"
    assert next_seed == 2, "each turn draws with random numbers of its own"
    terminal.command("/set temp 0.5", "[temp: 0.5 (times the heads' T)]")
    assert terminal.say("/regen") == (second, 512, 3), "the same prompt, other random numbers"
    terminal.command("/clear", "[cleared]")
    assert terminal.say("hello")[0] == first[0], "only the system message is left"
    terminal.command("/system -", "[system: none]")
    terminal.command("/system Be kind.", "[system: Be kind.]")
    terminal.command("/system", "[system: Be kind.]")
    terminal.command(f"/save {tmp_path / 'c.json'}", "[saved 3 messages to")
    saved = json.loads((tmp_path / "c.json").read_text())["messages"]
    assert [m["role"] for m in saved] == ["system", "user", "assistant"] and saved[0]["content"] == "Be kind."
    terminal.command("/clear", "[cleared]")
    terminal.command(f"/load {tmp_path / 'c.json'}", "[loaded 3 messages from")
    assert terminal.say("hello")[0] == n_prompt(*saved, HELLO) + 1, "the conversation goes on from the file"
    assert terminal.leave() == 0


def test_commands_about_the_session(chat):
    terminal = chat("-n", "3")
    terminal.type("/help")
    for command in COMMANDS:
        terminal.wait_for(command.usage)
    terminal.wait_for_prompt()
    terminal.command("/stats", "[no reply yet]")
    terminal.say("hello")
    terminal.command("/stats", "ended: length]")
    terminal.command("/heads temp", "[heads: temp]")
    terminal.type("hello")
    terminal.wait_for_match(r"mean T \d\.\d\d · P 1 \(no head applied\) · on CPU · seed")  # no mean P: its head was off
    terminal.wait_for_prompt()
    terminal.command("/heads off", "[heads: none]")
    terminal.command("/heads on", "[heads: both]")
    terminal.command("/heads maybe", "allowed on, off, temp, top-p or a heads file; got 'maybe'")
    terminal.command("/set color-by p", "[color-by: p]")
    terminal.type("/show")
    names = ("model", "file", "heads", "context", "device", "seed", "max-tokens", "color-by", "next seed", "[the other")
    for name in names:  # what was changed, and nothing else
        terminal.wait_for_match(rf"\n{re.escape(name)} ")
    terminal.wait_for_prompt()
    assert "temp-range" not in terminal.shown.rpartition("/show")[2]
    terminal.command("/nonsense", "no such command")
    terminal.type("/exit")
    assert terminal.ended() == 0


SET = {
    "temp": ("0.5", "0.5 (times the heads' T)"), "top-p": ("0.9", "0.9 (times the heads' P)"), "temp-range": ("0.2:0.9", "0.2:0.9"),
    "top-p-range": ("0.1:0.9", "0.1:0.9"), "min-p": ("0.1", "0.1"), "top-k": ("40", "40"),
    "repeat-penalty": ("1.1", "1.1"), "frequency-penalty": ("0.1", "0.1"), "presence-penalty": ("0.1", "0.1"),
    "repeat-last-n": ("-1", "-1 (the whole reply)"), "heads-mode": ("temp", "temp"), "seed": ("7", "7"), "max-tokens": ("2", "2"),
    "stop": ("zz", "'zz'"), "grammar": ('root ::= "yes" | "no"', 'root ::= "yes" | "no"'),
    "json-schema": ('{"enum": ["yes"]}', '{"enum": ["yes"]}'), "regex": ("[ab]{3}", "[ab]{3}"), "color-by": ("t", "t"), "hide-thinking": ("true", "true"),
    "context-full": ("stop", "stop"), "ctx-size": ("600", "600"),
}  # fmt: skip


def test_set_takes_every_name(chat):
    assert set(SET) == set(SETTABLE)
    terminal = chat("-n", "1")
    for name, (value, answer) in SET.items():
        terminal.command(f"/set {name} {value}", f"[{name}: {answer}]")
    terminal.command("/set regex -", "[regex: none]")
    assert terminal.say("hello")[2] == 7
    terminal.command("/set temp warm", "/set temp: expected a number; got 'warm'")
    terminal.command("/set temp -1", "temperature: allowed 0 to 100")
    terminal.command("/set temp-range 2:1", "must not exceed")
    terminal.command("/set nothing 1", "/set nothing: no such option; temp, top-p")
    terminal.command("/set tmp 1", "/set tmp: no such option; did you mean temp?")
    terminal.command("/set temp", "a value is missing; it is 0.5 (times the heads' T) now")
    terminal.command("/set grammar rot ::= x", "the grammar has no rule named root")
    assert terminal.say("hello")[1] == 600, "what was refused changed nothing"
    assert terminal.leave() == 0


def test_commands_that_cannot_be_done(chat, tmp_path):
    terminal = chat("-n", "1")
    terminal.command("/regen", "there is no message to reply to yet")
    terminal.command("/trace", "there is no reply yet")
    terminal.command("/save", "a file name is missing")
    terminal.command(f"/save {tmp_path}/nowhere/c.json", "cannot be created")
    terminal.command(f"/load {tmp_path}/nowhere.json", "cannot be read")
    (tmp_path / "text").write_text("text")
    terminal.command(f"/load {tmp_path}/text", "not valid JSON")
    assert terminal.say("hello")[0] > 0
    assert terminal.leave() == 0


def test_nothing_typed_or_loaded_ends_the_conversation(chat, tmp_path):
    """Hostile files and values, bytes that are no text, and an error that nobody foresaw: a line each."""
    files = {
        "half": (b'[{"role": "user", "content": "\\ud83d"}]', "half a character"),
        "deep": (b"[" * 100_000, "nested too deeply"),
        "deep-right": (b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        "latin": (b'[{"role": "user", "content": "caf\xe9"}]', "byte 0xE9"),
        "utf16": ("[]".encode("utf-16"), "UTF-16"),
        "nan": (b"[NaN]", "NaN is no JSON number"),
        "nul": (bytes(9), "NUL"),
        "long": (b"1" * 9999, "not valid JSON"),
        "other": (b'{"messages": [5]}', "no conversation"),
    }
    terminal = chat("-n", "1")
    first = terminal.say("hello")
    for name, (data, says) in files.items():
        (tmp_path / name).write_bytes(data)
        terminal.command(f"/load {tmp_path / name}", says)
    os.mkfifo(tmp_path / "pipe")
    for line, says in (
        (f"/load {tmp_path / 'pipe'}", "it is a pipe"),
        ("/load /dev/zero", "it is a device"),
        (f"/load {tmp_path}", "it is a folder"),
        ("/load ~nobody-of-this-name/x", "no such user"),
        (f"/save {tmp_path / 'nul'}", "is not a saved conversation"),
        ("/set temp nan", "expected a finite number"),
        ("/set temp 1e999", "expected a finite number"),
        ("/set seed " + "9" * 30, "at most 64 bits"),
        ("/set max-tokens -5", "allowed -1 to"),
        ("/set temp-range nan:nan", "allowed 0 to"),
        ("/set grammar /dev/zero", "larger than"),
        ("/set grammar ~/nowhere-of-this-name", "cannot be read"),
    ):
        terminal.command(line, says)
    for line in (b"caf\xe9 \xff", b"/system caf\xe9", b"/save /tmp/caf\xe9", b"/set stop \xe9"):
        os.write(terminal.child.child_fd, line + b"\r")
        terminal.wait_for("is not UTF-8 text")
        terminal.wait_for_prompt()
    (tmp_path / "mark").write_bytes(b'\xef\xbb\xbf[{"role": "system", "content": "a\\u001b[2J\\u202eb\\nc"}]\r\n')
    terminal.command(f"/load {tmp_path / 'mark'}", "[loaded 1 messages")
    terminal.command("/system", r"[system: a\x1b[2J\u202eb\nc]")
    terminal.command("/clear", "[cleared]")
    terminal.command("/system -", "[system: none]")
    assert terminal.say("hello")[0] == first[0], "nothing of it is in the conversation"
    assert terminal.leave() == 0


def test_error_that_nobody_foresaw_is_a_line(letters, monkeypatch, capsys):
    """The last net, on the real loop with an engine that fails as no engine should."""
    from autodeco_edge.cli.conversation import Chat
    from autodeco_edge.cli.interrupts import Interrupts
    from autodeco_edge.cli.options import RunOptions
    from autodeco_edge.cli.session import Session
    from autodeco_edge.engine.engine import Engine

    with Engine(letters.gguf, letters.heads, n_ctx=256, n_threads=1) as engine, Interrupts() as interrupts:
        chat = Chat(Session(engine, RunOptions(history=False, n=2, seed=1), interrupts))
        chat.handle("hello")
        before = list(chat.conversation.messages)
        for error in (
            RuntimeError("a\x1b[2J\nb"),
            RecursionError("deep"),
            KeyError("x"),
            UnicodeError("y"),
            OSError(5, "z"),
        ):

            def fail(*_args, error=error, **_more):
                raise error

            with monkeypatch.context() as patch:
                patch.setattr(engine, "generate", fail)
                chat.handle("again")
            assert f"internal error: {type(error).__name__}" in capsys.readouterr().err
            assert chat.conversation.messages == before
        with monkeypatch.context() as patch:
            patch.setattr(engine, "generate", lambda *_a, **_k: (_ for _ in ()).throw(MemoryError()))
            chat.handle("again")
        assert "out of memory; the conversation goes on" in capsys.readouterr().err
        chat.handle("again")
        assert len(chat.conversation.messages) == len(before) + 2


# ---- keys ---------------------------------------------------------------------------------------


def test_several_lines(chat, n_prompt):
    def size(text: str) -> int:
        return n_prompt({"role": "user", "content": text}) + 1

    terminal = chat("-n", "1")
    terminal.type('"""one')
    terminal.type("two")
    assert terminal.say('three"""')[0] == size("one\ntwo\nthree")
    terminal.command("/clear", "[cleared]")
    terminal.send("one\x1b\r")  # Alt-Enter
    assert terminal.say("two")[0] == size("one\ntwo")
    terminal.command("/clear", "[cleared]")
    terminal.send("\x1b[200~one\ntwo\n\nthree\x1b[201~")  # a bracketed paste
    assert terminal.say("")[0] == size("one\ntwo\n\nthree")
    assert terminal.leave() == 0


def test_tab_completes_commands(chat):
    terminal = chat("-n", "1", term="xterm-256color")
    terminal.send("/hea")
    terminal.wait_for("/heads")  # offered beneath the line
    terminal.send("\t of")
    terminal.wait_for("off")
    terminal.send("\t\r")
    terminal.wait_for("[heads: none]")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_tab_offers_no_name_that_acts(tmp_path):
    for name in ("apple.json", "a\u202eb.json", "a\x1b[31mb.json", "a\x9bb.json"):
        (tmp_path / name).write_text("{}")
    line = f"/load {tmp_path}/a"
    offered = SlashCompleter().get_completions(Document(line, len(line)), CompleteEvent(completion_requested=True))
    assert [c.text for c in offered] == ["pple.json"]


def test_a_colour_that_is_typed_is_no_mouse(chat):
    terminal = chat("-n", "1", term="xterm-256color")
    from tests.support.terminal import STATS

    for colour in ("\x1b[31m", "\x1b[0m", "\x1b[1;31m", "\x1b[38;5;9m"):
        terminal.send(f"hel{colour}lo\r")
        assert terminal.child.expect([STATS, "Unhandled exception"]) == 0
        terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_lines_are_remembered_unless_told_not_to(chat, home):
    terminal = chat("-n", "1")
    terminal.say("hello there")
    assert terminal.leave() == 0
    assert "+hello there" in (home / "autodeco-edge" / "history").read_text()
    assert (home / "autodeco-edge" / "history").stat().st_mode & 0o777 == 0o600
    terminal = chat("-n", "1")
    terminal.send("\x1b[A")  # Up
    assert terminal.say("")[0] > 0
    assert terminal.leave() == 0
    terminal = chat("-n", "1", "--no-history")
    terminal.say("a secret")
    assert terminal.leave() == 0
    assert not any("a secret" in p.read_text() for p in (home / "autodeco-edge").iterdir())


def test_continue_goes_on_with_the_last_conversation(chat, n_prompt):
    terminal = chat("-n", "1", "--system", "Be brief.")
    first = terminal.say("hello")[0]
    assert terminal.leave() == 0
    terminal = chat("-n", "1", "--continue")
    assert terminal.say("hello")[0] > first + len("hello")
    assert terminal.leave() == 0


def test_history_that_cannot_be_written_is_one_note(chat, home):
    home.mkdir()
    (home / "autodeco-edge").write_text("a file where the folder should be")
    terminal = chat("-n", "1", hint="no history is kept")
    assert terminal.say("hello")
    assert terminal.leave() == 0


# ---- limits -------------------------------------------------------------------------------------


def test_overflow_keeps_the_loop(chat):
    terminal = chat("-n", "1", "-c", "64")
    first = terminal.say("hello")[0]
    terminal.type("x" * 100)
    terminal.wait_for_match(r"the prompt has (\d+) tokens, the context 64; .*here: /set ctx-size N, or /clear")
    terminal.wait_for_prompt()
    terminal.command("/clear", "[cleared]")
    assert terminal.say("hello")[0] == first, "the line that did not fit is forgotten"
    assert terminal.leave() == 0


def test_full_context_is_said(chat):
    terminal = chat("-c", "64")
    terminal.type("hello")
    terminal.wait_for("the context of 64 tokens is full")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_raw_turns_stand_alone(chat):
    terminal = chat("-n", "1", "--raw")
    assert [terminal.say("hello")[0] for _ in range(2)] == [6, 6]
    assert terminal.leave() == 0


# ---- signals -------------------------------------------------------------------------------------


def test_interrupt_stops_a_reply_and_keeps_the_loop(chat):
    terminal = chat(*ENDLESS)
    for line in ("hello", "hello again"):
        terminal.type(line)
        terminal.wait_for(line)  # the echo
        time.sleep(0.3)
        start = time.monotonic()
        terminal.interrupt()
        terminal.wait_for("[stopped]")
        terminal.wait_for_prompt()
        assert time.monotonic() - start < 5.0
    assert terminal.leave() == 0


def test_a_stopped_reply_stays_as_far_as_it_came(chat, tmp_path):
    terminal = chat(*ENDLESS)
    terminal.type("hello")
    terminal.wait_for("hello")
    time.sleep(0.5)
    terminal.interrupt()
    terminal.wait_for("[stopped]")
    terminal.wait_for_prompt()
    terminal.command(f"/save {tmp_path}/c.json", "saved 2 messages")
    asked, answered = json.loads((tmp_path / "c.json").read_text())["messages"]
    assert asked["content"] == "hello" and answered["role"] == "assistant" and len(answered["content"]) > 3
    terminal.type("/regen")
    terminal.wait_for("/regen")
    time.sleep(0.5)
    terminal.interrupt()
    terminal.wait_for("[stopped]")
    terminal.wait_for_prompt()
    terminal.command(f"/save -f {tmp_path}/c.json", "saved 2 messages")
    assert terminal.leave() == 0


def test_interrupt_is_never_lost_after_enter(chat):
    """At moments spread over the way from Enter to the first tokens; a lost one would leave a reply of a
    minute running, and one that reached the empty prompt would end the program."""
    terminal = chat(*ENDLESS)
    for i in range(25):
        terminal.child.delaybeforesend = None
        terminal.type("hello")
        time.sleep(0.002 * i)
        terminal.interrupt()
        if terminal.child.expect_exact(["[stopped]", "\n> "], timeout=20) == 0:
            terminal.wait_for_prompt()
    terminal.command("/help", "this list")
    assert terminal.leave() == 0


def test_second_interrupt_at_the_empty_prompt_leaves_with_130(chat):
    """The first may have been meant for a reply that ended at that moment: what is pasted next is no shell's."""
    terminal = chat("-n", "1")
    for _ in range(2):
        terminal.interrupt()
        terminal.wait_for("[Ctrl-C again ends, so does /exit]")
        terminal.wait_for_prompt()
        assert terminal.say("hello"), "a line in between, and it counts from the beginning"
    terminal.interrupt()
    terminal.wait_for("[Ctrl-C again ends, so does /exit]")
    terminal.wait_for_prompt()
    terminal.interrupt()
    assert terminal.ended() == 130


def test_interrupt_clears_a_line_first(chat, n_prompt):
    terminal = chat("-n", "1")
    first = n_prompt(HELLO) + 1
    terminal.send("half a li")
    terminal.wait_for("half a li")
    terminal.interrupt()
    terminal.wait_for_prompt()
    assert terminal.say("hello")[0] == first, "nothing of it is left"
    assert terminal.leave() == 0


def test_signal_from_elsewhere_counts_like_the_key(chat):
    terminal = chat()
    os.kill(terminal.child.pid, signal.SIGINT)
    terminal.wait_for("again ends")
    terminal.wait_for_prompt()
    os.kill(terminal.child.pid, signal.SIGINT)
    assert terminal.ended() == 130


def test_end_of_file_in_a_reply_ends_after_it(chat):
    terminal = chat("-n", "1")
    assert terminal.leave() == 0

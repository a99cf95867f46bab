"""What makes a conversation worth keeping: nothing typed is lost, the context does not end it, words stay whole.

On a pseudo-terminal; where the place on the screen matters, as a terminal would draw it.
"""

from __future__ import annotations

import json
import time

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.text.chat import render
from tests.support.letters import write_model

ENDLESS = ["-c", "200000", "--logit-bias", "258=-100", "--logit-bias", "259=-100"]  # no end token: minutes
HELLO = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def n_prompt(letters):
    model = Model(letters.gguf)
    return lambda *messages: len(render(model, list(messages)))


# ---- what is typed while a reply comes ---------------------------------------------------------------


def test_what_is_typed_into_a_reply_is_the_next_line(chat):
    terminal = chat(
        "-n", "400", "-c", "4096", "--logit-bias", "258=-100", "--logit-bias", "259=-100", "--logit-bias", "64=100"
    )
    terminal.type("hello")
    terminal.wait_for("@@@@")  # the reply has begun: token 64 is all there is
    terminal.send("typed meanwhile")
    terminal.wait_for("[prompt")
    assert "typed" not in terminal.child.before, "nothing of it is in the reply"
    terminal.wait_for("typed meanwhile")  # it stands behind the prompt
    assert terminal.say("")[2] == 2, "and is sent by Enter"
    assert terminal.leave() == 0


def test_a_line_sent_meanwhile_is_the_next_turn(chat):
    terminal = chat("-n", "300", "-c", "4096")
    terminal.type("hello")
    terminal.type("/set seed 77")
    terminal.wait_for("[prompt")
    terminal.wait_for("[seed: 77]")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


@pytest.mark.parametrize("bracketed", [False, True])
def test_interrupt_behind_a_large_paste_stops_the_reply(chat, bracketed):
    """The terminal's own queue holds 4 KB: behind more of it, Ctrl-C would wait for somebody to read."""
    terminal = chat(*ENDLESS, term="xterm-256color" if bracketed else "dumb")
    terminal.type("hello")
    time.sleep(0.5)
    text = "word " * 12_000
    terminal.send(f"\x1b[200~{text}\x1b[201~" if bracketed else text)
    start = time.monotonic()
    terminal.interrupt()
    terminal.wait_for("[stopped]")
    assert time.monotonic() - start < 15
    terminal.wait_for("word word word")  # and the paste is the next line
    assert terminal.child.isalive()


def test_a_paste_of_lines_into_a_reply_stays_one_message(chat, n_prompt):
    terminal = chat("-n", "200", "-c", "4096", term="xterm-256color")
    terminal.type("hello")
    terminal.wait_for("\x1b[?2004h")  # the terminal is asked to mark pastes, in the reply too
    terminal.send("\x1b[200~one\ntwo\nthree\x1b[201~")
    terminal.wait_for("[prompt")
    terminal.wait_for("three")
    terminal.type("")
    terminal.wait_for_match(r"context (\d+)/")
    assert terminal.child.isalive()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_keystrokes(letters, tmp_path, seed):
    """A short run of tests/cli/keystrokes.py."""
    from tests.cli import keystrokes

    assert keystrokes.play(seed, letters, tmp_path) is None


# ---- a full context ----------------------------------------------------------------------------------


def test_the_oldest_turns_are_left_out(chat, tmp_path):
    terminal = chat("-n", "4", "-c", "128", "--logit-bias", "64=100", "--system", "Be kind.")
    used = [terminal.say("hello there")[0] for _ in range(9)]
    assert max(used) <= 128 and used[0] < used[1]
    hint, note = (
        "% full; then the oldest turns will be left out; more: -c, or /set ctx-size",
        "left out: the context is full",
    )
    assert 0 < terminal.shown.index(hint) < terminal.shown.index(note)
    terminal.command(f"/save {tmp_path / 'c.json'}", "[saved 19 messages to")
    saved = json.loads((tmp_path / "c.json").read_text())["messages"]
    assert saved[0]["content"] == "Be kind." and len(saved) == 19, "the conversation itself loses nothing"
    assert terminal.leave() == 0


def test_a_context_that_stops(chat):
    terminal = chat("-n", "4", "-c", "128", "--logit-bias", "64=100", "--context-full", "stop", "--system", "Be kind.")
    while "then the conversation stops" not in terminal.shown:
        used = terminal.say("hello there")[0]
    terminal.type("x" * (128 - used))
    terminal.wait_for_match(r"the prompt has \d+ tokens, the context 128; .*here: /set ctx-size N, or /clear")
    terminal.wait_for_prompt()
    terminal.command("/set context-full shift", "[context-full: shift]")
    assert terminal.say("hello there, once again")[0] <= 128
    assert terminal.leave() == 0


def test_window_is_the_obvious_one():
    """Against the plain rule: while it does not fit, drop one turn more, down to half the context."""
    import random

    from autodeco_edge.cli.window import Window

    draw = random.Random(1)
    for _ in range(300):
        n_ctx, room = draw.randint(20, 200), draw.randint(1, 10)
        window, oracle, messages = Window(), 0, [{"role": "system", "content": "s" * draw.randint(0, 9)}]
        size = lambda some: sum(len(m["content"]) for m in some)  # noqa: E731
        for _ in range(draw.randint(1, 12)):
            messages.append({"role": "user", "content": "u" * draw.randint(1, 40)})
            turns = messages[1:]
            if size(messages[:1] + turns[oracle:]) + room > n_ctx:
                last = len(turns) - 1
                while oracle < last:
                    oracle += 1
                    if turns[oracle]["role"] == "user" and size(messages[:1] + turns[oracle:]) + room <= max(
                        n_ctx // 2, room
                    ):
                        break
            assert window.fit(messages, size, n_ctx, room) == messages[:1] + turns[oracle:]
            messages.append({"role": "assistant", "content": "a" * draw.randint(0, 30)})


# ---- coming back ---------------------------------------------------------------------------------


def test_continue_shows_where_it_was(chat, n_prompt):
    terminal = chat("-n", "3", "--system", "Be brief.")
    used = terminal.say("hello")[0]
    assert terminal.leave() == 0
    terminal = chat("-n", "3", "--continue")
    assert "you: hello" in terminal.shown and "[going on with 3 messages" in terminal.shown
    size = int(terminal.shown.partition("messages · context ")[2].partition("/")[0])
    assert used - 3 <= size <= used + 20
    terminal.command("/clear", "[cleared]")
    terminal.type("/show")
    terminal.wait_for("0 of 512 tokens")
    terminal.wait_for_prompt()
    assert terminal.leave() == 0


def test_save_spares_another_conversation(chat, tmp_path):
    terminal = chat("-n", "1")
    terminal.say("hello")
    target = tmp_path / "c.json"
    target.write_text('{"messages": [{"role": "user", "content": "somebody else\'s"}]}')
    terminal.command(f"/save {target}", "another conversation is saved there; /save -f")
    assert "somebody" in target.read_text()
    terminal.command(f"/save -f {target}", "[saved 2 messages")
    terminal.say("hello")
    terminal.command(f"/save {target}", "[saved 4 messages")  # its own, by now
    terminal.command(f"/load {target}", "[loaded 4 messages")
    terminal.command(f"/save {target}", "[saved 4 messages")
    assert terminal.leave() == 0


def test_words_of_other_programs(chat):
    terminal = chat("-n", "1")
    terminal.command("/?", "/set [NAME VALUE]")
    terminal.command("/reset", "[cleared]")
    terminal.command("/hlep", "did you mean /help?")
    terminal.type("/bye")
    assert terminal.ended() == 0
    for word in ("/quit", "/q", "/exit"):
        terminal = chat("-n", "1")
        terminal.type(word)
        assert terminal.ended() == 0


def test_banner_names_model_file_size_and_what_heads_do(chat, letters):
    terminal = chat("-n", "1")
    assert "letters (llama" in terminal.shown and "letters.gguf" in terminal.shown and "?B" not in terminal.shown
    assert "heads that set temperature and top-p at every token (letters-heads.gguf)" in terminal.shown
    assert terminal.leave() == 0
    terminal = chat("-n", "1", "--heads", "none")
    assert "no heads" in terminal.shown
    assert terminal.leave() == 0


def test_a_model_without_a_template_goes_on_with_the_text(chat, tmp_path):
    model = write_model(tmp_path / "base.gguf")
    terminal = chat("-n", "2", "-m", model, "--heads", "none")
    assert "base.gguf has no chat template, so it goes on with your text" in terminal.shown
    assert terminal.say("hello")[0] == len("hello") + 2, "nothing of a made-up template"
    assert terminal.leave() == 0


# ---- switching ---------------------------------------------------------------------------------------


def test_ctx_size_is_set_without_leaving(chat):
    terminal = chat("-n", "2", "--logit-bias", "64=100")
    first = terminal.say("hello")
    terminal.command("/set ctx-size 300", "[ctx-size: 300]")
    used, size, seed = terminal.say("hello")
    assert size == 300 and used > first[0] and seed == 2, "the conversation goes on"
    terminal.command("/set ctx-size 1", "context: allowed 2 to")
    assert terminal.say("hello")[1] == 300, "and what was refused changed nothing"
    assert terminal.leave() == 0


def test_another_model_and_other_heads(chat, letters, tmp_path):
    other = write_model(tmp_path / "other.gguf", template="{{ messages[-1]['content'] }}")
    terminal = chat("-n", "2", "--logit-bias", "64=100")
    terminal.say("hello")
    terminal.command("/model nosuch-7b", "nosuch-7b: no such file, name or repository")
    terminal.command(f"/model {letters.heads}", "holds AutoDeco heads; give them as --heads")
    assert terminal.say("hello")[1] == 512, "the model of before is still there"
    terminal.command(f"/model {other}", "other.gguf) · no heads]")
    assert terminal.say("hello")[0] == len("hello") + 2, "with its own template"
    terminal.command("/compare x", "/compare: no heads are in force")
    terminal.command(
        f"/heads {letters.heads}", "[heads that set temperature and top-p at every token (letters-heads.gguf)]"
    )
    terminal.type("hello")
    terminal.wait_for("mean T ")
    terminal.wait_for_prompt()
    terminal.command("/heads ./nowhere.gguf", "nowhere.gguf")
    terminal.command(f"/heads {tmp_path}/", "is a folder, not a heads file")
    terminal.type("hello")
    terminal.wait_for("mean T ")
    terminal.wait_for_prompt()
    terminal.command("/model demo", "[AutoDeco Demo 5M (qwen2")
    assert terminal.leave() == 0


def test_an_option_that_the_other_model_refuses_leaves_all_as_it_was(letters, capsys):
    from autodeco_edge.cli.interrupts import Interrupts
    from autodeco_edge.cli.options import RunOptions
    from autodeco_edge.cli.run import _open
    from autodeco_edge.cli.session import Session
    from autodeco_edge.engine.pairing import demo_model
    from autodeco_edge.errors import UsageError

    options = RunOptions(model=str(demo_model()), n=1, seed=1, threads=1, logit_bias=["1000=1"])
    engine = _open(options)
    with Interrupts() as interrupts:
        session = Session(engine, options, interrupts, _open)
        from dataclasses import replace

        with pytest.raises(UsageError, match="logit bias"):
            session.reopen(replace(options, model=str(letters.gguf)), same_model=False)
        assert session.engine is engine and session.options is options
        assert session.reply(session.prompt_ids("Hi", None)).records
        session.close()
        assert engine.native.closed


def test_names_of_the_users_own(chat, home, letters):
    (home).mkdir(exist_ok=True)
    (home / "config.toml").write_text(f"[aliases]\nsmall = {json.dumps(str(letters.gguf))}\nnext = 'demo'\n")
    terminal = chat("-m", "small", "-n", "1")
    assert "letters.gguf" in terminal.shown
    terminal.command("/model next", "autodeco-demo-q8_0.gguf")
    assert terminal.leave() == 0


@pytest.mark.parametrize("text", ["aliases = 5", "[aliases]\nx = 5", "[aliases]\nx = ''"])
def test_aliases_that_cannot_be_meant(home, text):
    from autodeco_edge.cli.config_file import read_config
    from autodeco_edge.errors import FormatError

    home.mkdir()
    (home / "config.toml").write_text(text)
    with pytest.raises(FormatError, match="aliases holds names of models"):
        read_config(home / "config.toml")


# ---- once again --------------------------------------------------------------------------------------


def test_edit_sends_an_earlier_message_anew(chat, n_prompt, tmp_path):
    terminal = chat("-n", "1", "--logit-bias", "64=100")
    terminal.command("/edit", "there are 0 messages of yours; got 1")
    for text in ("one", "two", "three"):
        terminal.say(text)
    terminal.type("/edit 2")
    terminal.wait_for_prompt()
    terminal.send("\x7f\x7fen")  # "two" to "ten"
    assert terminal.say("")[0] > 0
    terminal.command(f"/save {tmp_path / 'c.json'}", "[saved 4 messages")
    saved = json.loads((tmp_path / "c.json").read_text())["messages"]
    assert [m["content"] for m in saved if m["role"] == "user"] == ["one", "ten"]
    terminal.type("/edit")
    terminal.wait_for_prompt()
    terminal.interrupt()  # given up: nothing is lost
    terminal.wait_for_prompt()
    terminal.command(f"/save {tmp_path / 'c.json'}", "[saved 4 messages")
    for wrong in ("0", "x", "9"):
        terminal.command(f"/edit {wrong}", "/edit: ")
    assert terminal.leave() == 0


def test_compare_is_beside_the_conversation(chat, tmp_path):
    terminal = chat("-n", "6")
    terminal.command("/compare", "there is no message to compare yet")
    terminal.say("hello")
    terminal.type("/compare")
    terminal.wait_for_match(r"with heads, \d+ tokens +constant, \d+ tokens")
    means = r"\[mean T \d\.\d\d, mean P \d\.\d\d · seed 2\] +\[T \d\.\d\d, P \d\.\d\d · the same seed 2\]"
    terminal.wait_for_match(means)
    terminal.wait_for_prompt()
    terminal.type("/compare another text")
    terminal.wait_for("with heads")
    terminal.wait_for_prompt()
    terminal.command(f"/save {tmp_path / 'c.json'}", "[saved 2 messages")
    assert terminal.leave() == 0


def test_the_constants_of_compare_are_the_mean_of_the_heads(letters, capsys):
    """And are what is applied: the same seed, no head."""
    from autodeco_edge.cli.compare import compare
    from autodeco_edge.cli.interrupts import Interrupts
    from autodeco_edge.cli.options import RunOptions
    from autodeco_edge.cli.session import Session
    from autodeco_edge.engine.engine import Engine

    with Engine(letters.gguf, letters.heads, n_ctx=256, n_threads=1) as engine, Interrupts() as interrupts:
        session = Session(engine, RunOptions(history=False, n=12, seed=5), interrupts)
        drawn, draw = [], session.draw
        session.draw = lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
        ids = session.prompt_ids("hello", None)
        compare(session, ids)
        ours, theirs = drawn
        assert ours.mean("temperature") is not None and theirs.mean("temperature") is None
        for name in ("temperature_eff", "top_p_eff"):
            assert all(r[name] == pytest.approx(ours.mean(name), abs=1e-6) for r in theirs.records)
        assert ours.seed == theirs.seed == 5 and session.params.seed == 6
        plain = Session(engine, RunOptions(history=False, n=12, seed=5), interrupts)
        assert [r["id"] for r in plain.reply(ids).records] == [r["id"] for r in ours.records]


# ---- a long prompt ---------------------------------------------------------------------------------


def test_a_long_prompt_shows_a_bar_and_stops_at_once(tmp_path, home):
    """On the real model of the package, where a prompt of 900 tokens takes seconds; on letters it takes none."""
    from autodeco_edge.cli.interrupts import Interrupts
    from autodeco_edge.cli.options import RunOptions
    from autodeco_edge.cli.session import Session
    from autodeco_edge.engine.engine import Engine
    from autodeco_edge.engine.pairing import demo_model

    with Engine(demo_model(), n_threads=1, n_batch=64) as engine, Interrupts() as interrupts:
        session = Session(engine, RunOptions(history=False, n=1, seed=1), interrupts)
        ticks, tick = [], engine.tick
        engine.tick = lambda: (ticks.append(session.generation.timings.prompt_done), tick())[1]
        session.reply(engine.model.tokenize("one two three " * 150))
        n = session.generation.timings.prompt_n
        assert ticks == list(range(0, n, 64)), "it can be stopped between any two pieces, and they are counted"


def test_bar(monkeypatch, capsys):
    import sys

    from autodeco_edge.cli import bar

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(bar, "_PATIENCE_SECONDS", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with bar.Bar("reading") as shown:
        shown.show(50, 200)
    assert "reading" in capsys.readouterr().err
    monkeypatch.setenv("TERM", "dumb")
    with bar.Bar("reading") as shown:
        shown.show(50, 200)
    assert capsys.readouterr().err == ""

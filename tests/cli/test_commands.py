"""Slash commands with what people type behind them: nothing, too much, capitals, other programs' words, hostile values."""

from __future__ import annotations

import json

import pytest

from autodeco_edge.cli.commands import COMMANDS
from autodeco_edge.cli.settable import NAMES, SETTABLE, option_name
from autodeco_edge.errors import UsageError


def said(terminal, path) -> list[str]:
    """What the user said so far, by the file of /save."""
    terminal.command(f"/save -f {path}", "[saved")
    return [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "user"]


def listed(terminal) -> dict[str, str]:
    """What /set alone says: a name's words."""
    terminal.type("/set")
    return {name: terminal.wait_for_match(rf"\n{name} +([^\r]+)\r")[0] for name in (*SETTABLE, "next seed")}


def test_set_without_heads_says_whose_the_values_are(chat):
    terminal = chat("-n", "1", "--top-k", "7", "--heads-mode", "none")
    values = listed(terminal)
    terminal.wait_for_prompt()
    assert values["temp"] == "0.8 (llama.cpp's defaults)" and values["top-k"] == "7"
    assert values["repeat-penalty"] == "1 (off, llama.cpp's defaults)" and values["top-p-range"] == "off"
    terminal.command("/set temp 0", "[temp: 0 (greedy)]")
    terminal.command("/set temp -", "[temp: 0.8 (llama.cpp's defaults)]")
    terminal.command("/heads top-p", "[heads: top-p]")
    terminal.command("/set temp -", "[temp: 1 (no head applied)]")
    terminal.command("/set temp-range off", "[temp-range: off]")
    terminal.command("/set temp-range 1", "expected LO:HI, such as 0.3:1.2, or off; got '1'")
    assert terminal.leave() == 0


def test_set_alone_lists_the_options_and_their_values(chat):
    terminal = chat("-n", "1", "--temp", "0.5")
    assert listed(terminal) == {
        "temp": "0.5 (times the heads' T)", "top-p": "1 (times the heads' P)", "temp-range": "off", "top-p-range": "off",
        "min-p": "0 (off)", "top-k": "0 (off)", "repeat-penalty": "1 (off)", "frequency-penalty": "0 (off)",
        "presence-penalty": "0 (off)", "repeat-last-n": "64", "heads-mode": "both", "seed": "1", "max-tokens": "1",
        "stop": "none", "grammar": "none", "json-schema": "none", "regex": "none", "color-by": "off",
        "hide-thinking": "false", "context-full": "shift", "ctx-size": "0 (the model's own, at most 4096)", "next seed": "1",
    }  # fmt: skip
    terminal.command("/model", "letters.gguf) · heads that set")
    terminal.command("/heads", "[heads: both; heads that set")
    assert terminal.leave() == 0


@pytest.mark.parametrize(
    "command", [c.name for c in COMMANDS if " " not in c.usage] + ["/quit", "/bye", "/h", "/retry"]
)
def test_what_takes_nothing_says_so(chat, command):
    terminal = chat("-n", "1")
    terminal.command(f"{command} now", f"{command}: takes nothing behind it; got 'now'")
    assert terminal.leave() == 0


def test_a_message_that_begins_with_a_slash(chat, tmp_path):
    terminal = chat("-n", "1")
    path = "/usr/bin/env: no such file"
    terminal.command(
        path, '/usr/bin/env:: no such command; /help lists them; a message that begins so goes between """'
    )
    terminal.say(f'"""{path}"""')
    terminal.say('"""/exit"""')
    assert said(terminal, tmp_path / "c.json") == [path, "/exit"]
    terminal.type("/edit")
    terminal.wait_for_prompt()
    terminal.say("")
    assert said(terminal, tmp_path / "c.json") == [path, "/exit"], "and it is edited as a message, too"
    terminal.command('""""""', "")
    assert terminal.leave() == 0


def test_an_edit_of_nothing_is_given_up(chat, tmp_path):
    terminal = chat("-n", "1")
    terminal.say("hello")
    terminal.type("/edit")
    terminal.wait_for_prompt()
    terminal.send("\x15\r")
    terminal.wait_for_prompt()
    terminal.say("again")
    assert said(terminal, tmp_path / "c.json") == ["hello", "again"]
    assert terminal.leave() == 0


def test_capitals_and_the_words_of_other_programs(chat):
    terminal = chat("-n", "1")
    terminal.command("/SET color-by T", "[color-by: t]")
    terminal.command("/set Context_Full STOP", "[context-full: stop]")
    terminal.command("/set heads-mode Temp", "[heads-mode: temp]")
    terminal.command("/heads ON", "[heads: both]")
    terminal.command("/set parameter temperature 0.5", "[temp: 0.5 (times the heads' T)]")
    terminal.command("/set num_predict 2", "[max-tokens: 2]")
    terminal.command("/set system Be kind.", "/set system: no such option; did you mean /system?")
    terminal.command("/Help", "Alt-Enter")
    assert terminal.leave() == 0


@pytest.mark.parametrize("word", [*SETTABLE, *NAMES])
def test_option_names_in_any_spelling(word):
    for spelt in (word, word.upper(), word.replace("-", "_")):
        assert option_name(spelt) == NAMES.get(word, word)


def test_option_name_of_nothing():
    with pytest.raises(UsageError, match="did you mean temp?"):
        option_name("tmp")


def test_a_name_too_long_for_a_file(chat, tmp_path):
    terminal = chat("-n", "1")
    long = "x" * 300
    for command in ("/save", "/save -f", "/load", "/model ./", "/heads ./"):
        terminal.type(f"{command} {long}".replace("./ ", "./"))
        terminal.wait_for_prompt()
    assert "internal error" not in terminal.shown
    assert terminal.say("hello")[0] > 0
    assert terminal.leave() == 0


# ---- what a conversation keeps when something is refused or stopped -----------------------------


def test_a_message_that_is_too_long_costs_nothing(chat):
    terminal = chat("-n", "2", "-c", "128", "--logit-bias", "64=100")
    used = [terminal.say("hello")[0] for _ in range(3)]
    terminal.command("x" * 200, "here: /set ctx-size N, or /clear")
    assert "left out" not in terminal.shown
    assert terminal.say("hello")[0] > used[-1], "the turns before are still seen"
    assert terminal.leave() == 0


def test_a_larger_context_sees_again_what_was_left_out(chat):
    terminal = chat("-n", "2", "-c", "128", "--logit-bias", "64=100")
    for _ in range(5):
        used = terminal.say("hello there")[0]
    assert "are left out" in terminal.shown
    terminal.command("/set ctx-size 500", "[ctx-size: 500]")
    assert terminal.say("hello there")[0] > 128 > used
    assert terminal.leave() == 0


def test_compare_leaves_out_what_a_reply_leaves_out(chat, tmp_path):
    terminal = chat("-n", "2", "-c", "128", "--logit-bias", "64=100")
    for _ in range(6):
        terminal.say("hello there")
    for line in ("/compare", "/compare something else"):
        terminal.type(line)
        terminal.wait_for("with heads")
        terminal.wait_for_prompt()
    assert len(said(terminal, tmp_path / "c.json")) == 6
    assert terminal.leave() == 0


def test_a_prompt_that_is_stopped_is_not_counted(letters, capsys, monkeypatch):
    """Ctrl-C before the first token: neither the conversation nor the figure of the context has it."""
    from autodeco_edge.cli.conversation import Chat
    from autodeco_edge.cli.interrupts import Interrupts
    from autodeco_edge.cli.options import RunOptions
    from autodeco_edge.cli.session import Session
    from autodeco_edge.engine.engine import Engine

    with Engine(letters.gguf, letters.heads, n_threads=1) as engine, Interrupts() as interrupts:
        chat = Chat(Session(engine, RunOptions(history=False, n=2, seed=1), interrupts))
        chat.handle("hello")
        chat.measure()
        used = chat.session.n_used

        def tick():
            raise KeyboardInterrupt

        monkeypatch.setattr(engine, "tick", tick)
        chat.handle("word " * 50)
        assert chat.session.n_used == used > 0
        assert [m["content"] for m in chat.conversation.messages if m["role"] == "user"] == ["hello"]
        assert "[stopped]" in capsys.readouterr().err


def test_compare_cuts_nothing_off_in_a_narrow_window(chat):
    word = "abcdefghijklmnopqrstuvwxyz" * 3
    terminal = chat("--grammar", f'root ::= "{word}"', columns=40)
    terminal.type("/compare hello")
    terminal.wait_for("with heads")
    terminal.wait_for_prompt()
    shown = terminal.shown[terminal.shown.rindex("with heads") :]
    assert "…" not in shown and sum(map(shown.count, "abc")) >= 2 * 3 * 3, "both columns, whole"
    assert terminal.leave() == 0


def test_the_banner_has_the_name_that_was_asked_for(chat, home, letters):
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(f"[aliases]\nsmall = {json.dumps(str(letters.gguf))}\n")
    assert "small (llama" in chat("-m", "small", "-n", "1").shown

"""`run` as one command: which word is what, and the options that shape a reply."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from autodeco_edge.cli.arguments import is_model, split_words
from autodeco_edge.cli.options import RunOptions, run_command
from autodeco_edge.cli.settings import parameters
from autodeco_edge.errors import UsageError
from tests.support import warm


@pytest.fixture
def run(home, letters):
    """``run(arguments...)`` on the small model; must succeed. ``code`` says otherwise."""

    def call(*args, code: int = 0, prompt: str = "hi", shell: str = "") -> subprocess.CompletedProcess:
        done = warm.run("run", prompt, "-m", letters.gguf, "--heads", letters.heads, "-t", "1", "--seed", "1", *args)
        assert done.returncode == code, done.stderr
        return done

    return call


def steps(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.decode().split("\n")[:-1]]


# ---- words ---------------------------------------------------------------------------------------


def words(*given: str, **options) -> tuple[str | None, str | None]:
    return split_words(RunOptions(words=list(given), **options))


def test_which_word_is_the_model(letters):
    model = str(letters.gguf)
    assert words() == (None, None)
    assert words("Find two numbers.") == (None, "Find two numbers.")
    assert words("hello") == (None, "hello"), "a word is a prompt unless it is a name"
    assert words(model) == (model, None)
    assert words(model, "hello") == (model, "hello")
    assert words("user/repo:Q4_K_M", "hello") == ("user/repo:Q4_K_M", "hello")
    assert words("user/repo", model="m.gguf") == ("m.gguf", "user/repo")
    assert words(hf="user/repo") == ("user/repo", None)
    assert is_model("nowhere.gguf") and not is_model("and / or") and not is_model("")
    assert words("hi", "ho", model="m.gguf") == ("m.gguf", "hi ho"), "words without quotes are one prompt"
    assert words("tell", "me", "more") == (None, "tell me more")
    assert words("mymodel", "say hi") == ("mymodel", "say hi")
    with pytest.raises(UsageError, match="one prompt only, got 'ho ho'"):
        words("hi", "ho ho", model="m.gguf")
    with pytest.raises(UsageError, match="exclude each other"):
        words(model="a", hf="b")


def test_names_of_the_registry_are_models():
    from autodeco_edge.hub.registry import load_registry

    assert all(is_model(name) for name in load_registry())


# ---- options ---------------------------------------------------------------------------------------


def test_stop_string_is_never_shown_even_split_over_tokens(run):
    text = json.loads(run("-n", "40", "--json").stdout)["text"]
    stop = text[5:8]  # letters are tokens here: it is spread over three
    cut = run("-n", "40", "--stop", stop)
    assert cut.stdout.decode() == text[: text.index(stop)] + "\n"
    whole = json.loads(run("-n", "40", "--stop", stop, "--json").stdout)
    assert (whole["text"], whole["finish_reason"]) == (text[: text.index(stop)], "stop")
    assert "".join(r["text"] for r in whole["tokens"]) == whole["text"]
    *records, done = steps(run("-n", "40", "--stop", "nowhere", "--jsonl"))
    assert text.startswith("".join(r["text"] for r in records)) and done["finish_reason"] == "length"


def test_ranges_clamp_what_is_applied_and_not_what_is_predicted(run):
    *free, _ = steps(run("-n", "12", "--jsonl"))
    *held, _ = steps(run("-n", "12", "--jsonl", "--temp-range", "0.9:0.95", "--top-p-range", ":0.3"))
    assert free[0]["temperature"] == held[0]["temperature"]
    assert all(r["temperature_eff"] + 1e-6 >= 0.9 and r["temperature_eff"] <= 0.95 + 1e-6 for r in held)
    assert all(r["top_p_eff"] <= 0.3 + 1e-6 for r in held)


CUT = [
    (
        ("--json-schema", '{"enum": ["abcdef"]}', "--stop", "c"),
        b"error: the reply does not satisfy --json-schema: it is not JSON",
    ),
    (("--json-schema", '{"enum": ["abcdef"]}', "-n", "3"), b"it was cut: allow more tokens"),
    (("--json-schema", '{"enum": ["abcdef"]}', "-n", "3", "--json"), b"it was cut: allow more tokens"),
    (("--grammar", 'root ::= "ok"', "-n", "1"), b"error: the reply ended before its grammar did; it was cut"),
    (("--regex", "[ab]{40}", "-n", "5"), b"error: the reply ended before its grammar did; it was cut"),
]


@pytest.mark.parametrize("args, says", CUT, ids=lambda a: a[0] if isinstance(a, tuple) else "")
def test_reply_that_is_not_what_was_asked_for_exits_65(run, args, says):
    """A script that pipes the reply on learns of it; what there is was printed."""
    done = run(*args, code=65)
    assert says in done.stderr and done.stderr.count(b"error:") == 1 and done.stdout.strip()


def test_reply_that_ends_with_the_last_token_is_whole(run):
    assert run("--regex", "[ab]*", "-n", "5").stdout.strip()
    assert run("--grammar", 'root ::= "ok"', "-n", "2").stdout == b"ok\n"
    assert run("--json-schema", '{"type": "integer"}', "-n", "1").stdout.strip().isdigit()


def test_schema_grammar_and_bias(run):
    schema = '{"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}'
    whole = json.loads(run("--json-schema", schema, "--json").stdout)
    assert json.loads(whole["text"])["a"] in (1, 2)
    assert all(r["temperature"] and r["top_p"] for r in whole["tokens"])
    assert run("--grammar", 'root ::= "ok"').stdout == b"ok\n"
    assert run("--regex", "^[0-4]{3}$").stdout.strip().decode().translate({ord(c): None for c in "01234"}) == ""
    assert {r["id"] for r in steps(run("--logit-bias", "65=100", "-n", "5", "--jsonl"))[:-1]} == {65}


@pytest.mark.parametrize(
    "args, code, says",
    [
        (["--grammar", "root ::= ("], 65, "the grammar was refused: line 1, column 10: the parenthesis is not closed"),
        (["--grammar", "nowhere.gbnf"], 66, "cannot be read"),
        (["--json-schema", '{"not": {}}'], 65, "cannot be enforced"),
        (["--json-schema", '{"required": true}'], 65, "required: expected an array; got true"),
        (["--json-schema", '{"title": "\\ud83d"}'], 65, "surrogate"),
        (["--regex", "(a"], 65, "the regular expression was refused"),
        (["--grammar", "root ::= x", "--json-schema", "{}"], 2, "exclude each other"),
        (["--grammar", "root ::= x", "--regex", "a"], 2, "exclude each other"),
        (["--temp-range", "1"], 2, "expected LO:HI"),
        (["--temp-range", "2:1"], 2, "must not exceed"),
        (["--top-p-range", "0:2"], 2, "allowed 0 to 1"),
        (["--logit-bias", "a=b"], 2, "expected ID=BIAS"),
        (["--logit-bias", "99999=1"], 2, "token id: allowed 0 to"),
        (["--min-p", "2"], 2, "allowed 0 to 1"),
        (["--top-k", "-1"], 2, "allowed 0 to"),
        (["--repeat-penalty", "0"], 2, "allowed 0.01 to 10"),
        (["--stop", ""], 2, "empty text"),
        (["--color-by", "mood"], 2, "allowed t, p"),
        (["--no-heads"], 2, "exclude each other"),
        (["--chat-template-file", "nowhere.jinja"], 66, "cannot be read"),
        (["--preset", "nowhere"], 2, "preset 'nowhere'"),
    ],
)
def test_refused_in_one_line(run, args, code, says):
    done = run(*args, code=code)
    assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert says in done.stderr.decode()


def test_template_file_and_its_bombs(run, tmp_path):
    path = tmp_path / "t.jinja"
    path.write_text("[{{ messages[0].content }}]")
    assert len(json.loads(run("--chat-template-file", path, "-n", "1", "--json").stdout)["prompt_ids"]) == 4
    path.write_text("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    assert b"did not end within 2 seconds" in run("--chat-template-file", path, code=65).stderr


def test_thinking_is_hidden_when_the_template_opens_it(run, tmp_path):
    """The whole reply is thought here, for it never closes."""
    path = tmp_path / "t.jinja"
    path.write_text("{{ messages[0].content }}<think>\n")
    assert run("--chat-template-file", path, "-n", "8", "--hide-thinking").stdout == b"\n"
    assert len(run("--chat-template-file", path, "-n", "8").stdout) > 8


def test_without_heads(run, letters):
    done = warm.run("run", "hi", "-m", letters.gguf, "--no-heads", "-n", "2", "--jsonl")
    assert done.stderr == b"" and steps(done)[0]["temperature"] is None


def test_into_head_it_ends_quietly(letters, home):
    command = (
        f"echo hello | {sys.executable} -m autodeco_edge run -m {letters.gguf} --heads {letters.heads} -t 1 -c 4096"
    )
    done = subprocess.run(f"{command} --jsonl | head -1", shell=True, capture_output=True, timeout=60)
    assert done.stderr == b"" and json.loads(done.stdout)["index"] == 0


def test_every_option_has_a_variable_and_an_example_stands_in_the_help():
    for name, parameter in parameters(run_command()).items():
        assert parameter.envvar == "AUTODECO_" + name.upper().replace("-", "_"), name
    from autodeco_edge.cli import app

    for command in app.registered_commands:
        assert "Example: autodeco-edge" in (command.callback.__doc__ or ""), command.callback.__name__

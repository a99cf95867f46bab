"""Every command behind the same two doors: paths with ~, text that is none, numbers that nobody means, names that act."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from autodeco_edge.cli import app
from autodeco_edge.cli.settings import PATHS
from tests.support import warm
from tests.support.changed import changed_copy
from tests.support.letters import write_model

RAW = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
EVIL = "esc\x1b[2J\u202ec1\x9bx"


def cli(*args, **options) -> subprocess.CompletedProcess:
    return warm.run(*args, **options)


def refused(done: subprocess.CompletedProcess, code: int, says: str) -> None:
    message = done.stderr.decode()
    assert done.returncode == code, message
    assert says in message and message.count("\n") == 1 and not RAW.search(done.stderr), message


def every_command():
    def walk(command, name: str):
        for key, child in getattr(command, "commands", {}).items():
            yield from walk(child, f"{name} {key}".strip())
        if name and name != "bench":
            yield name, command

    return list(walk(get_command(app), ""))


# ---- in ------------------------------------------------------------------------------------------


def test_every_option_that_takes_a_file_is_a_path():
    """Named in PATHS, or its text is split by its own command (which uses the same function)."""
    ours = {"more_heads", "variant", "words", "preset"}
    for name, command in every_command():
        for p in command.params:
            text = f"{getattr(p, 'metavar', None) or ''} {getattr(p, 'help', None) or ''}"
            takes = re.search(r"\.gguf|\bfile\b|\bfolder\b|JSONL|\bGGUF\b", text, re.IGNORECASE)
            if takes and not getattr(p, "is_flag", False) and p.name not in ours:
                assert p.name in PATHS, f"{name}: {p.name}: {text}"


def test_home_in_every_place_where_a_path_is_written(home, letters, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for file in (letters.gguf, letters.heads):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "g.gbnf").write_bytes(b'\xef\xbb\xbfroot ::=\r\n  "ok"\r\n')
    (tmp_path / "s.json").write_bytes(b'\xef\xbb\xbf{"enum": ["ok"]}')
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    model, heads = f"~/{letters.gguf.name}", f"~/{letters.heads.name}"
    words = ["-t", "1", "-n", "4", "--heads", heads]
    for more in (["--grammar", "~/g.gbnf"], ["--grammar=~/g.gbnf"], ["--json-schema", "~/s.json"]):
        done = cli("run", "hi", "-m", model, *words, *more)
        assert done.returncode == 0 and b"ok" in done.stdout, done.stderr
    done = cli("run", model, "hi", *words, "--trace", "~/trace.jsonl", "--chat-template-file=~/t.jinja")
    assert done.returncode == 0 and (tmp_path / "trace.jsonl").exists(), done.stderr
    assert cli("plot", "~/trace.jsonl", "-o", "~/figure.html").returncode == 0 and (tmp_path / "figure.html").exists()
    assert cli("show", model).returncode == 0
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(f'model = "{model}"\nheads = "{heads}"\ntrace = "~/from-config.jsonl"\n')
    assert cli("run", "hi", "-t", "1", "-n", "1").returncode == 0 and (tmp_path / "from-config.jsonl").exists()
    monkeypatch.setenv("AUTODECO_TRACE", "~/from-variable.jsonl")
    assert cli("run", "hi", "-t", "1", "-n", "1").returncode == 0 and (tmp_path / "from-variable.jsonl").exists()
    refused(cli("run", "hi", "-m", "~nobody-of-this-name/m.gguf"), 2, "no such user")
    assert not (tmp_path / "~").exists() and not Path("~").exists()


@pytest.mark.parametrize(
    "option", ["--system", "--grammar", "--json-schema", "--stop", "--preset", "--heads-mode", "hi"]
)
def test_argument_that_is_not_utf8(home, letters, option):
    words = [option, b"caf\xe9"] if option != "hi" else [b"caf\xe9"]
    refused(cli("run", "-m", letters.gguf, *words, *(["hi"] if option != "hi" else [])), 2, "is not UTF-8 text")


def test_right_text_in_a_locale_of_ascii(home, letters):
    plain = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
    words = ["run", "größer", "-m", letters.gguf, "--no-heads", "--raw", "-t", "1", "-n", "1", "--json"]
    done = cli(*words, env=plain)
    assert (
        done.returncode == 0 and json.loads(done.stdout)["prompt_ids"] == json.loads(cli(*words).stdout)["prompt_ids"]
    )


NUMBERS = ("nan", "inf", "-inf", "1e999", "9" * 30, "-" + "9" * 30, "-5")


@pytest.mark.parametrize("name, command", every_command(), ids=lambda x: x if isinstance(x, str) else "")
def test_number_that_nobody_means(name, command, home, tmp_path):
    """No command takes one for any of its numbers; -1 is the only special value below 0. Nothing is read before."""
    from autodeco_edge.cli.settings import checked

    floats = [p for p in command.params if isinstance(getattr(p, "default", None), float)]
    for value in (float("nan"), float("inf"), 2**64, -(2**63) - 1):
        with pytest.raises(Exception, match="expected a finite number|at most 64 bits"):
            checked("x", value, "--x")
    for p in floats[:1]:
        done = cli(*name.split(), f"{max(p.opts, key=len)}=nan", cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.count(b"\n") == 1, done.stderr
        assert not list(tmp_path.iterdir()) or list(tmp_path.iterdir()) == [home]


@pytest.mark.parametrize(
    "option", ["-n", "-ngl", "-c", "-t", "--top-k", "--repeat-last-n", "--seed", "--temp", "--top-p", "--min-p"]
)
@pytest.mark.parametrize("value", [*NUMBERS, "-2"])
def test_numbers_of_run(home, letters, option, value):
    from autodeco_edge.cli.options import RunOptions
    from autodeco_edge.engine.context import check_limits
    from autodeco_edge.errors import UsageError

    def parse() -> None:
        ctx = (
            get_command(app)
            .commands["run"]
            .make_context(
                "run",
                ["hi", f"{option}={value}" if option[1] == "-" else option, *([] if option[1] == "-" else [value])],
            )
        )
        options = RunOptions(**ctx.params)
        options.check()
        options.sampling()
        options.filters()
        check_limits(options.n_ctx, options.threads)

    with pytest.raises(Exception) as caught:  # noqa: PT011
        parse()
    assert isinstance(caught.value, UsageError) or hasattr(caught.value, "format_message"), caught.value


@pytest.mark.parametrize(
    "text, code, says",
    [
        ("temp = nan", 2, "temp: expected a finite number"),
        ("temp = true", 2, "temp: expected text or a number; got True"),
        ("seed = 1.5", 2, "seed: "),
        ("max-tokens = -5", 2, "-n: allowed -1 to"),
        ("temp = {a = 1}", 2, "temp: expected text or a number"),
        ("temp = 2020-01-01", 2, "temp: expected text or a number"),
        ("stop = [['a']]", 2, "stop: expected text or a number"),
        ("raw = []", 2, "raw: expected true or false"),
        ('system = "\\u0000"', 2, "system: holds a NUL character"),
        ('"\\u001b[31m" = 1', 2, r"'\x1b[31m' is no option"),
        ("a = " + "[" * 5000, 65, "nested too deeply"),
        ("temp = 1" + "0" * 5000, 65, "not valid TOML"),
    ],
)
def test_hostile_configuration(home, letters, text, code, says):
    home.mkdir()
    (home / "config.toml").write_text(text)
    refused(cli("run", "hi", "-m", letters.gguf, "-t", "1"), code, says)


def test_configuration_with_mark_and_one_that_is_a_pipe(home, letters):
    home.mkdir()
    path = home / "config.toml"
    path.write_bytes(b"\xef\xbb\xbftemp = 0.5\r\n")
    assert b"0.5" in cli("config").stdout
    path.write_bytes("temp = 0.5".encode("utf-16"))
    refused(cli("config"), 65, "is UTF-16 text")
    path.unlink()
    os.mkfifo(path)
    refused(cli("config"), 65, "it is a pipe")
    path.unlink()
    path.mkdir()
    refused(cli("config"), 65, "it is a folder")


# ---- out -----------------------------------------------------------------------------------------


def test_names_out_of_files_and_of_files_are_escaped(home, letters, tmp_path):
    """Architecture, model name, metadata, file names, tensor names, arguments: whoever quotes them."""
    evil = write_model(tmp_path / f"{EVIL}.gguf", arch=f"a{EVIL}")
    named = changed_copy(letters.gguf, tmp_path / f"n{EVIL}.gguf", {"general.name": EVIL, f"x{EVIL}": EVIL})
    empty = tmp_path / f"{EVIL}.txt"
    empty.write_text("x")
    broken = tmp_path / f"{EVIL}.jsonl"
    broken.write_text(json.dumps({"problem": EVIL, "gt": "1", "family": EVIL}))
    template = tmp_path / "t.jinja"
    template.write_text("{{ raise_exception('\x1b[2J\u202e') }}")
    out = tmp_path / "out"
    calls = [
        ("run", "hi", "-m", evil),
        ("run", "hi", "-m", named, "-n", "1", "-v"),  # llama.cpp's own log, which quotes the file
        ("run", "hi", "-m", named, "-n", "1", "--system", EVIL),
        ("run", "hi", "-m", empty),
        ("run", EVIL, EVIL, EVIL),
        ("run", "hi", "-m", letters.gguf, "--heads", evil),
        ("run", "hi", "-m", letters.gguf, "--chat-template-file", template, "--no-heads"),
        ("run", "hi", "-m", letters.gguf, "--preset", EVIL),
        ("run", "hi", "-m", letters.gguf, "--color-by", EVIL),
        ("show", evil), ("show", evil, "--json"), ("show", empty), ("show", EVIL),
        ("convert", evil), ("convert", EVIL), ("convert", letters.checkpoint, "--base", evil, "-o", out),
        ("merge", letters.checkpoint, "--base", evil, "-o", out), ("verify", letters.checkpoint, evil),
        ("plot", broken, "-o", out), ("plot", empty, "-o", tmp_path / f"{EVIL}.{EVIL}"),
        ("collect", "-m", letters.gguf, "--problems", broken, "-o", out),
        ("eval", "-m", letters.gguf, "--task", broken, "-o", out), ("eval", "--task", EVIL),
        ("pull", EVIL), ("rm", EVIL, "--yes"), (EVIL,), ("run", f"--{EVIL}"),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    for call in calls:
        done = cli(*call, env=environment)
        assert done.returncode in (0, 2, 65, 66), (call, done)
        assert not RAW.search(done.stderr + done.stdout), (call, done.stderr, done.stdout)


def test_folders_and_addresses_out_of_the_environment_are_escaped(home, letters, tmp_path):
    folders = ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME")
    evil = {name: str(tmp_path / f"{name}{EVIL}") for name in folders}
    for call in (("doctor",), ("list",), ("config",), ("run", "hi", "-n", "1", "--no-heads", "-m", letters.gguf)):
        done = cli(*call, env={**os.environ, **evil})
        assert done.returncode == 0 and not RAW.search(done.stderr + done.stdout), (call, done)


@pytest.mark.parametrize("address", [f"http://{EVIL}", "http://[", "http://a[b"])
def test_an_address_that_is_none_is_one_line(home, tmp_path, address):
    """huggingface_hub and transformers fail at their import."""
    calls = [("pull", "user/repo"), ("list",), ("run", "-hf", "user/repo", "hi"), ("run", "--heads", "user/repo", "hi")]
    if find_spec("torch"):
        calls.append(("train", "--base", "user/repo", "--data", tmp_path / "d", "-o", tmp_path / "o"))
    for call in calls:
        refused(cli(*call, env={**os.environ, "HF_ENDPOINT": address}), 2, "HF_ENDPOINT: expected the address")


def test_reply_is_exact_in_a_pipe_and_safe_on_a_terminal(chat, letters, home):
    """The small model writes any byte: on a terminal none of them acts, whatever the form."""
    words = ["hi", "-m", letters.gguf, "--heads", letters.heads, "-t", "1", "--seed", "3", "-n", "300"]
    text = json.loads(cli("run", *words, "--json").stdout)["text"]
    assert cli("run", *words).stdout.decode() == text + "\n" and re.search(r"[\x00-\x08\x0b-\x1f]", text)
    pexpect = pytest.importorskip("pexpect")
    for form in ([], ["--jsonl"], ["--json"]):
        child = pexpect.spawn(sys.executable, ["-m", "autodeco_edge", "run", *map(str, words), *form], timeout=60)
        child.setecho(False)
        shown = child.read()
        child.close()
        assert child.exitstatus == 0 and len(shown) > 300
        own = re.sub(rb"\r+\n|\t|\x1b\[\d*m", b"", shown)
        assert not RAW.search(own), RAW.search(own)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk"])
def test_reply_that_the_encoding_cannot_show(home, letters, encoding):
    words = [
        "run",
        "hi",
        "-m",
        letters.gguf,
        "--heads",
        letters.heads,
        "-t",
        "1",
        "--grammar",
        'root ::= "é 🎉 日本"',
        "-n",
        "40",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = cli(*words, env=environment)
    assert done.returncode == 0 and "\\U0001f389" in done.stdout.decode(encoding), (done.stdout, done.stderr)
    done = cli(*words, "--json", env=environment)
    assert json.loads(done.stdout)["text"] == json.loads(cli(*words, "--json").stdout)["text"] == "é 🎉 日本"


def test_chat_lines_are_not_lost_to_a_stream_that_fails(home, letters):
    words = ["run", "hi", "-m", letters.gguf, "--no-heads", "-t", "1", "-n", "3"]
    for redirection, code in (("2>/dev/full", 0), (">/dev/full", 74), (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)):
        command = " ".join([f'"{sys.executable}" -m autodeco_edge', *map(str, words), redirection])
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60)
        assert done.returncode == code, (redirection, done.stderr)
        assert b"Traceback" not in done.stderr


def test_output_never_takes_the_place_of_an_input_or_of_something_else(home, letters, tmp_path):
    model = tmp_path / "m.gguf"
    model.write_bytes(letters.gguf.read_bytes())
    (tmp_path / "link.gguf").symlink_to(model)
    (tmp_path / "notes.txt").write_text("mine")
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "ok"')
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    for target in (model, tmp_path / "link.gguf", tmp_path / "notes.txt", grammar, tmp_path / "." / "m.gguf"):
        done = cli(
            "run", "hi", "-m", model, "--no-heads", "-t", "1", "-n", "2", "--grammar", grammar, "--trace", target
        )
        refused(done, 2, "input file" if target not in (tmp_path / "notes.txt",) else "is not a trace")
    trace = tmp_path / "t.html"
    trace.write_text('{"index": 0, "text": "a", "temperature": 0.5, "top_p": 0.9}\n')
    refused(cli("plot", trace, "-o", trace), 2, "input file")
    (tmp_path / "t.html").unlink()
    assert {p: p.read_bytes() for p in before} == before
    assert set(p.name for p in tmp_path.iterdir()) - {p.name for p in before} <= {"link.gguf", "home"}


def test_two_runs_into_one_trace_leave_one_whole_trace(home, letters, tmp_path):
    words = ["run", "hi", "-m", letters.gguf, "--no-heads", "-t", "1", "-n", "50", "--trace", tmp_path / "t.jsonl"]
    command = [sys.executable, "-m", "autodeco_edge", *map(str, words)]
    running = [
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert {p.wait(timeout=60) for p in running} == {0}
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().split("\n")[:-1]]
    assert lines[-1]["n_tokens"] == len(lines) - 1 and [p.name for p in tmp_path.glob("*t.jsonl*")] == ["t.jsonl"]


# ---- random command lines -----------------------------------------------------------------------------


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks with rlimits, and /dev/full")
def test_random_command_lines():
    """A small part of the campaign, which is fuzz_cli.py itself: 2,000 lines."""
    script = Path(__file__).with_name("fuzz_cli.py")
    done = subprocess.run([sys.executable, script, "--count", "80", "--seed", "20"], capture_output=True, timeout=600)
    report = json.loads(done.stdout)
    assert done.returncode == 0 and not report["findings"], json.dumps(report["findings"], indent=1)
    assert sum(report["codes"].values()) == 80 and len(report["codes"]) >= 4

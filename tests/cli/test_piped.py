"""What of stdin belongs to `run`: a pipe that was made for it, not the lines of the loop it stands in."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import warm

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="who shares a pipe is known on Linux alone")


@pytest.fixture
def shell(home, letters, tmp_path):
    """``shell(script)`` runs it, with `ask` for a run of one token of the small model, whose prompt it prints."""
    (tmp_path / "ask").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -m autodeco_edge run -m "{letters.gguf}" --no-heads --raw -t 1 -n 1 --json "$@"\n'
    )
    (tmp_path / "ask").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def call(script: str, timeout: float = 60, **options) -> tuple[list[str], str]:
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, timeout=timeout, env=environment, cwd=tmp_path, **options
        )
        assert done.returncode == 0, done.stderr
        prompts = [json.loads(line)["prompt_ids"] for line in done.stdout.splitlines()]
        return ["".join(chr(i) if i < 256 else "ab" for i in map(_byte, ids)) for ids in prompts], done.stderr.decode()

    return call


def _byte(token: int) -> int:
    """The small model's vocabulary is the bytes, and "ab"."""
    return token


@pytest.mark.parametrize(
    "script, prompt",
    [
        ("printf 'one\\ntwo\\n' | ask hi", "one\ntwo\nhi"),
        ("printf '\\357\\273\\277one\\r\\ntwo\\r\\n' | ask hi", "one\ntwo\nhi"),
        ("printf 'one' | ask", "one"),
        ("printf 'one' | ask -", "one"),
        ("(sleep 1; echo one) | ask hi", "one\nhi"),
        ("(sleep 4; echo one) | ask - hi", "one\nhi"),
        ("(printf 'one\\n'; sleep 4; echo two) | ask hi", "one\ntwo\nhi"),
        ("echo one > f; ask hi < f", "one\nhi"),
        ("echo one | timeout 60 ask hi", "one\nhi"),
        ("ask hi < /dev/null", "hi"),
        ("ask hi <&-", "hi"),
        (": | ask hi", "hi"),
    ],
)
def test_what_is_meant_is_read(shell, script, prompt):
    prompts, said = shell(script)
    assert prompts == [prompt] and said == ""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("printf 'one\\ntwo\\nthree\\n' | while read -r x; do ask \"$x\"; done", marks=LINUX),
        pytest.param("printf 'one\\ntwo\\nthree\\n' | while read -r x; do timeout 60 ask \"$x\"; done", marks=LINUX),
        pytest.param(
            'printf \'one\\ntwo\\nthree\\n\' | while read -r x; do y=$(ask "$x"); echo "$y"; done', marks=LINUX
        ),
        "printf 'one\\ntwo\\nthree\\n' > f; while read -r x; do ask \"$x\"; done < f",
        "printf 'one\\ntwo\\nthree\\n' | xargs -n 1 ask",
    ],
)
def test_lines_of_a_loop_stay_there(shell, script):
    prompts, said = shell(script)
    assert prompts == ["one", "two", "three"] and said == ""


def test_pipe_that_stays_open_and_says_nothing(shell):
    reader, writer = os.pipe()
    try:
        prompts, said = shell("exec ask hi", stdin=reader)
    finally:
        os.close(reader)
        os.close(writer)
    assert prompts == ["hi"]
    assert "nothing came on stdin within 3 s" in said and "a lone - waits for it" in said


@pytest.mark.parametrize(
    "data, says",
    [
        (b"gr\xf6\xdfer", "not UTF-8 text (byte 0xF6 at 2)"),
        ("größer".encode("utf-16"), "is UTF-16 text"),
        (b"a\0b", "holds a NUL character"),
        (b"\r\n \n", "the prompt is empty"),
    ],
)
def test_stdin_that_is_no_prompt(letters, home, data, says):
    words = ["run", "-m", str(letters.gguf), "--no-heads", "-t", "1", "-n", "1"]
    done = warm.run(*words, input=data)
    assert done.returncode == 2 and done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert says in done.stderr.decode()

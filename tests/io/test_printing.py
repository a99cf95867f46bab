"""Text that goes out: escapes, encodings, and streams that are closed or full. Every stream case is a real process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from autodeco_edge.io.printing import BIDI, JSON, one_line, safe_line, safe_text, say

CONTROLS = [*range(32), *range(0x7F, 0xA0), *BIDI, 0x2028, 0x2029]
FULL = "/dev/full"


def test_nothing_that_acts_is_left():
    foreign = "".join(map(chr, CONTROLS)) + "größer 日本 🎉 \u0301\u200d"
    assert not set(map(ord, safe_line(foreign))) & set(CONTROLS)
    assert set(map(ord, safe_text(foreign))) & set(CONTROLS) == {9, 10}
    for safe in (safe_line, safe_text):
        assert safe(foreign).endswith("größer 日本 🎉 \u0301\u200d"), "letters, emoji and their joiners stay"
    assert safe_line("a\nb\t\x1b[2J\x9b\u202e\udce9") == r"a\nb\t\x1b[2J\x9b\u202e\xe9"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(monkeypatch, line: str, columns: int, term: str = "xterm", **more) -> list[str]:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Terminal())
    say(line, **more)
    return sys.stderr.getvalue().split("\n")


def test_a_terminal_gets_lines_broken_between_words(monkeypatch):
    text = "a line of words, well-known ones, and /a/path/that/is/too/long/to/stand/in/one"
    found = said(monkeypatch, text, 30)
    assert " ".join(found).split() == text.split(), "no word is broken, nothing is lost"
    assert all(len(line) < 30 for line in found if "/" not in line)
    assert said(monkeypatch, "/name    " + "word " * 9, 30, indent=9)[1].startswith(" " * 9 + "word")
    assert said(monkeypatch, "word " * 9, 10, indent=9)[1] == "word word", "a margin that leaves no room is none"
    assert said(monkeypatch, "", 30) == ["", ""]
    assert said(monkeypatch, text, 30, "dumb") == [text, ""]
    monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    assert said(monkeypatch, text, 30) == [text, ""], "a line of a file is one line"


def test_a_line_in_parts_is_broken_between_them(monkeypatch):
    line = "[reply 7 at 20/s · context 9/512 · mean T 0.52 · seed 3]"
    assert said(monkeypatch, line, 52) == ["[reply 7 at 20/s · context 9/512 · mean T 0.52 ·", "seed 3]", ""]
    for columns in range(1, 70):
        shown = said(monkeypatch, line, columns)
        assert " ".join(shown).split() == line.split() and "\0" not in "".join(shown)
        if columns > 21:
            assert any("seed 3]" in each for each in shown), "a number stands with its word"
    long = "plain: a part that is longer than the window is wide · seed 3"
    assert max(map(len, said(monkeypatch, long, 30))) < 30


def test_json_stays_json():
    text = "".join(map(chr, CONTROLS))
    line = json.dumps({"text": text}, ensure_ascii=False).translate(JSON)
    assert json.loads(line) == {"text": text}
    assert not set(map(ord, line)) & set(CONTROLS)


def test_error_that_quotes_much_is_one_short_line():
    assert one_line("a\n b\r\nc") == "a b c"
    assert len(one_line("x" * 100_000)) < 1300 and one_line("x" * 1200) == "x" * 1200


# ---- streams ---------------------------------------------------------------------------------------

PROGRAM = """
import sys
from autodeco_edge.io.printing import close_stdout, open_streams, say
open_streams()
code = 0
try:
    say("note: \\x1b[2J caf\\udce9")
    for _ in range(int(sys.argv[1])):
        print("größer 日本 🎉")
    code = 3
except Exception as error:
    say(type(error).__name__)
    code = 4
failure = close_stdout()
sys.exit(5 if failure and code == 3 else code)
"""


def program(shell: str, lines: int = 1, **variables: str) -> subprocess.CompletedProcess:
    command = f'"{sys.executable}" -c "$PROGRAM" {lines} {shell}'
    environment = {**os.environ, "PROGRAM": PROGRAM, **variables}
    return subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, env=environment)


@pytest.mark.parametrize(
    "redirection", ["", ">&-", "2>&-", "<&-", "<&- >&- 2>&-", f"2>{FULL}", "</dev/null >/dev/null"]
)
@pytest.mark.parametrize("lines", [1, 5000])
def test_work_goes_on_whatever_is_closed(redirection, lines):
    done = program(redirection, lines)
    assert done.returncode == 3, (done.returncode, done.stderr)
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr
    if "2>" not in redirection:
        assert done.stderr == b"note: \\x1b[2J caf\\xe9\n"


@pytest.mark.skipif(not os.path.exists(FULL), reason="no /dev/full here")
@pytest.mark.parametrize("redirection", [f">{FULL}", "1</dev/null", f">{FULL} 2>{FULL}"])
def test_stdout_that_fails_is_said_once(redirection):
    assert program(redirection, 1).returncode == 5, "at the end, where a small one is written"
    done = program(redirection, 5000)
    assert done.returncode == 4 and b"Traceback" not in done.stderr
    assert f"2>{FULL}" in redirection or done.stderr.split(b"\n")[1:] == [b"StdoutError", b""]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk", "latin-1", "utf-8:strict", "utf-16", "ascii:strict"])
def test_encoding_that_lacks_a_character(encoding):
    done = program("", PYTHONIOENCODING=encoding)
    assert done.returncode == 3, done.stderr
    shown = done.stdout.decode(encoding.partition(":")[0])
    assert shown.startswith("gr") and shown.endswith(("🎉\n", "\\U0001f389\n"))
    assert ("ö" in shown) == (encoding.partition(":")[0] not in ("ascii", "gbk"))


def test_reader_that_has_seen_enough():
    done = program("| head -1", 100_000)
    assert done.stdout.decode() == "größer 日本 🎉\n" and b"Traceback" not in done.stderr


def test_terminal_that_somebody_made_non_blocking(tmp_path):
    """A pipe that is full and does not block: as a terminal that another program left so."""
    code = (
        "import os, sys, threading, time\n"
        "r, w = os.pipe(); os.set_blocking(w, False); os.dup2(w, 1); os.close(w)\n"
        "read = []\n"
        "def reader():\n    time.sleep(0.3)\n    while part := os.read(r, 65536): read.append(part)\n"
        "t = threading.Thread(target=reader); t.start()\n"
        "from autodeco_edge.io.printing import open_streams, close_stdout\n"
        "open_streams(); print('x' * 1_000_000); assert close_stdout() is None\n"
        "os.close(1); t.join(); sys.exit(0 if len(b''.join(read)) == 1_000_001 else 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr

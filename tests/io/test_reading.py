"""Text that comes in: what is text, what may be opened, how deep it may nest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from autodeco_edge.io.reading import (
    MAX_DEPTH,
    check_text,
    decode,
    parse_json,
    parse_toml,
    read_bytes,
    read_text,
    user_path,
)

TEXT = "größer\n日本 🎉\n"


@pytest.mark.parametrize(
    "data", [TEXT.encode(), TEXT.encode("utf-8-sig"), TEXT.replace("\n", "\r\n").encode("utf-8-sig")]
)
def test_text_with_and_without_mark_and_with_either_line_end(data):
    assert decode(data, "f") == TEXT


@pytest.mark.parametrize(
    "data, says",
    [
        (TEXT.encode("utf-16"), "f: is UTF-16 text; convert it to UTF-8 first"),
        (TEXT.encode("utf-32"), "f: is UTF-32 text"),
        (b"\xfe\xff\x00a", "f: is UTF-16 text"),
        ("plain".encode("utf-16-le"), "holds a NUL character"),
        (b"caf\xe9", r"f: not UTF-8 text \(byte 0xE9 at 3\)"),
        (b"\xed\xa0\xbd", "not UTF-8 text"),  # half a pair, in the bytes of its own
        (b"\xf0\x86\x97\xa5", "not UTF-8 text"),  # overlong
        (b"\xf0\x9f", "not UTF-8 text"),
    ],
)
def test_what_is_no_text(data, says):
    with pytest.raises(FormatError, match=says):
        decode(data, "f")


def test_argument_that_is_no_text():
    assert check_text(TEXT, "--system") == TEXT
    assert check_text(os.fsdecode("größer".encode()), "--system") == "größer"
    escaped = "größer".encode().decode("ascii", "surrogateescape")  # how it arrives in an ASCII locale
    assert check_text(escaped, "--system") == "größer"
    for text in ("caf\udce9", "\ud83d", "\ud83d\udc00x"):
        with pytest.raises(UsageError, match="--system: is not UTF-8 text"):
            check_text(text, "--system")
    with pytest.raises(UsageError, match="NUL"):
        check_text("a\0b", "--system")


def test_home_in_paths(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    assert user_path(Path("~/a")) == tmp_path / "a"
    assert user_path("a~/b") == Path("a~/b")
    (tmp_path / "a").write_text("x")
    assert read_text("~/a") == "x"
    with pytest.raises(UsageError, match="no such user"):
        user_path("~nobody-of-this-name/a")
    monkeypatch.chdir(tmp_path)
    Path("~odd").write_text("y")
    assert read_text("~odd") == "y", "a file that is called so"
    with pytest.raises(UsageError, match="not a file name"):
        user_path("a\0b")


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(MissingInputError, match=r"cannot be read \(No such file or directory\); give a schema"):
        read_text(tmp_path / "nowhere", "give a schema")
    with pytest.raises(MissingInputError, match="too long"):
        read_text("x" * 5000)
    with pytest.raises(FormatError, match="it is a folder"):
        read_text(tmp_path)
    (tmp_path / "large").write_bytes(b"x" * 101)
    assert len(read_bytes(tmp_path / "large", limit=101)) == 101
    with pytest.raises(FormatError, match="larger than 100 bytes"):
        read_bytes(tmp_path / "large", limit=100)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(MissingInputError, match="cannot be read"):
        read_text(tmp_path / "loop")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes by name")
def test_pipes_and_devices_never_block(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FormatError, match="it is a pipe"):
        read_text(pipe)
    assert read_text(pipe, streams=True) == "", "nobody writes to it"
    with pytest.raises(FormatError, match="it is a device"):
        read_text("/dev/zero")
    with pytest.raises(FormatError, match="larger than 1000 bytes"):
        read_text("/dev/zero", limit=1000, streams=True)
    assert read_text("/dev/null", streams=True) == ""


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd here")
def test_process_substitution_is_read_to_its_end():
    reader, writer = os.pipe()

    def write() -> None:
        for part in (b"\xef\xbb\xbfone\r\n", b"two"):
            os.write(writer, part)
        os.close(writer)

    timer = threading.Timer(0.2, write)  # opened before there is anything
    timer.start()
    try:
        assert read_text(f"/dev/fd/{reader}", streams=True) == "one\ntwo"
    finally:
        timer.join()
        os.close(reader)


# ---- JSON and TOML -------------------------------------------------------------------------------


def test_json():
    assert parse_json('\ufeff{"a": [1, "🎉", "\\ud83c\\udf89"]}', "f") == {"a": [1, "🎉", "🎉"]}
    assert parse_json(b'\xef\xbb\xbf{"a": 1}\r\n', "f") == {"a": 1}
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_json(deep, "f")
    assert parse_json("[" + "[]," * 5000 + "[]]", "f"), "many brackets are not deep ones"
    assert parse_json('{"a": NaN, "b": "\\ud83d"}', "f", lenient=True)["b"] == "\ud83d"


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", "[Infinity]", '"\\ud83d"', '{"\\ud83d": 1}', '[{"a": ["\\udc00x"]}]', "9" * 5000, "[" * 100_000]
    + [
        "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
        '{"a":' * 900 + "1" + "}" * 900,
        '{"a":' * 90_000,
        "[[]",
        "{} {}",
    ],
)
def test_json_that_is_refused(text):
    with pytest.raises(FormatError, match="f: not valid (JSON|Unicode).*; give a schema"):
        parse_json(text, "f", "give a schema")


@pytest.mark.parametrize(
    "text", ["a", "a = ", "a = " + "[" * 5000, "a = " + "{a=" * 5000, "a = 1\na = 2", "a = 1" + "0" * 5000]
)
def test_toml_that_is_refused(text):
    with pytest.raises(FormatError, match="f: not valid TOML"):
        parse_toml(text, "f")


def test_everything_hostile_is_an_error_on_purpose(tmp_path):
    """What the fuzzer hands to commands, handed to the door itself."""
    from autodeco_edge.errors import AutodecoError
    from tests.support.hostile import TEXTS, make

    for path in make(tmp_path / "files"):
        for streams in (False, True):
            try:
                parse_json(read_text(path, streams=streams, limit=2**20), path)
            except AutodecoError as error:
                assert error.exit_code in (2, 65, 66)
    for text in TEXTS:
        for call in (
            lambda t: check_text(t, "x"),
            user_path,
            lambda t: parse_json(t, "x"),
            lambda t: parse_toml(t, "x"),
        ):
            try:
                call(text)
            except AutodecoError as error:
                assert error.exit_code in (2, 65, 66)


# ---- where the door stands -------------------------------------------------------------------------


def test_without_a_home_it_is_one_line():
    """A container's user of no name: HOME is not set and the system knows no home."""
    pytest.importorskip("pwd")
    code = "import os, pwd\ndef nobody(*_): raise KeyError\npwd.getpwuid = nobody\nfrom autodeco_edge.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if k != "HOME" and not k.startswith(("XDG_", "AUTODECO_"))}
    done = subprocess.run([sys.executable, "-c", code, "config"], capture_output=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"autodeco-edge: error: no home folder is known for this user; set HOME\n"

"""Text out of a file or from a hub as the name of a file: inside its folder, on every system, never two in one."""

import os

import pytest

from autodeco_edge.paths import MAX_NAME_BYTES, is_safe_name, safe_name

GOOD = [
    "llama",
    "gpt-oss",
    "user--repo",
    "model (1).gguf",
    "Modell für alle.gguf",
    "日本語.gguf",
    ".gitattributes",
    "CONTRIBUTING.md",
    "com10",
    "a" * 240,
]
BAD = [
    "", ".", "..", "...", "x/../../../../victim/planted", "../x", "/etc/passwd", "a/b", "a\\b", "C:x", "C:\\x", "\\\\host\\share", "a\0b", "\0",
    "x" * 241, "é" * 121, "x" * 100_000, "CON", "con", "nul.gguf", "Aux.tar.gz", "COM1", "lpt9.txt", "com¹", "CONIN$", "prn ", "nul .txt", "a.", "a ", " a", "a. .",
    "a\nb", "a\x1b[2J", "a\x7f", "a\u202eb", "a\u200bb", "\ud800", "a*b", "a?", 'a"b', "<a>", "a|b", "\ufeff", "con\n", "~/x",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_a_plain_name_stays_as_it_is(text):
    assert is_safe_name(text) and safe_name(text) == text


@pytest.mark.parametrize("text", BAD, ids=lambda text: ascii(text)[:20])
def test_anything_else_becomes_a_name_inside_its_folder(tmp_path, text):
    name = safe_name(text)
    assert not is_safe_name(text) and is_safe_name(name)
    path = tmp_path / name
    path.write_bytes(b"x")
    assert os.listdir(tmp_path) == [name] and path.resolve().parent == tmp_path.resolve()


def test_no_two_texts_share_a_name():
    assert len({safe_name(text).lower() for text in GOOD + BAD if text not in ("CON", "con")}) == len(GOOD + BAD) - 2
    assert safe_name("a/b") != safe_name("a\\b") != safe_name("a-b")


def test_room_is_left_for_a_suffix(tmp_path):
    for text in ("x" * MAX_NAME_BYTES, "日" * 5000, "x/" * 5000):
        (tmp_path / (safe_name(text) + ".gguf")).write_bytes(b"")

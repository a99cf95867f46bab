"""What a writer may write over: no input, whichever way it is spelt, and nothing that is none of ours."""

import os
import socket

import pytest

from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from autodeco_edge.io.atomic import refuse_foreign, refuse_inputs
from autodeco_edge.io.regular import open_regular, read_regular


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF the only copy")
    os.symlink(path, tmp_path / "link")
    os.symlink(tmp_path / "link", tmp_path / "link-to-link")
    os.symlink(tmp_path, tmp_path / "here")
    os.link(path, tmp_path / "hard")
    return path


@pytest.mark.parametrize(
    "output", ["m.gguf", "./m.gguf", "sub/../m.gguf", "link", "link-to-link", "hard", "here/m.gguf"]
)
@pytest.mark.parametrize("given", ["m.gguf", "link", "hard"])
def test_an_input_is_never_an_output(model, output, given):
    with pytest.raises(UsageError, match="is an input file"):
        refuse_inputs(output, [None, "elsewhere", given])
    with pytest.raises(UsageError):
        refuse_inputs(str(model.parent / output), [os.path.abspath(given)])


def test_files_that_are_not_there_yet(model):
    """An input that a download will bring, a link whose target is missing."""
    os.symlink("later.gguf", "promise")
    for output, given in (("new.gguf", "./sub/../new.gguf"), ("later.gguf", "promise"), ("promise", "here/later.gguf")):
        with pytest.raises(UsageError):
            refuse_inputs(output, [given])


def test_a_folder_that_is_read_is_no_output(model):
    with pytest.raises(UsageError):
        refuse_inputs("sub", ["here/sub"])


def test_other_files_are_let_pass(model):
    (model.parent / "same").write_bytes(model.read_bytes())
    refuse_inputs("same", [model, "link", None, "nowhere", "nul\0byte", "x" * 5000])
    refuse_inputs("nul\0byte", [model])
    refuse_inputs("new.gguf", [model, "sub"])
    refuse_inputs("/dev/null", ["/dev/null"])


def test_only_what_is_ours_is_written_over(model):
    def is_ours(path):
        if path.read_bytes() == b"damaged":
            raise FormatError("damaged")
        return path.read_bytes() == b"ours"

    for name, content in (("ours", b"ours"), ("empty", b"")):
        (model.parent / name).write_bytes(content)
        refuse_foreign(name, is_ours, "a trace")
    for name in ("nowhere", "/dev/null", "nul\0byte", "nowhere/at/all"):
        refuse_foreign(name, is_ours, "a trace")
    (model.parent / "damaged").write_bytes(b"damaged")
    for name in ("m.gguf", "link", "damaged"):
        with pytest.raises(UsageError, match="exists and is not a trace; choose another output, or remove it first"):
            refuse_foreign(name, is_ours, "a trace")


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    os.symlink("pipe", "link")
    os.symlink("loop", "loop")
    for path, kind in (
        ("pipe", "a pipe"), ("link", "a pipe"), (".", "a folder"), ("/dev/zero", "a device"), ("socket", "a socket"), ("/dev/tty", "a device")
    ):  # fmt: skip
        with pytest.raises(FormatError, match=f"not a regular file \\({kind}\\)"):
            open_regular(path)
    for path in ("nowhere", "loop", "nul\0byte", "pipe/x", "x" * 5000):
        with pytest.raises(MissingInputError):
            read_regular(path, 10)


def test_a_file_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    assert read_regular(path, 10) == b"0123456789"
    with pytest.raises(FormatError, match="10 bytes; allowed: up to 9"):
        read_regular(path, 9)
    os.truncate(path, 1 << 40)  # sparse: refused before it is read
    with pytest.raises(FormatError):
        read_regular(path, 1 << 20)

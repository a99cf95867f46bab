"""Faults while writing: the old file or the complete new one, never a part, never a litter."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.export import write_heads
from autodeco_edge.convert.merge import merge_single_file
from autodeco_edge.convert.verify import verify_file
from autodeco_edge.errors import OutputError, StorageError
from autodeco_edge.io import atomic
from convert_makers import make_base, make_folder

OLD = b"the old content"


@pytest.fixture
def place(tmp_path):
    """(checkpoint, base, folder with an old file in it)"""
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(OLD)
    return checkpoint, make_base(tmp_path / "base.gguf"), folder


def untouched(folder):
    return os.listdir(folder) == ["m.gguf"] and (folder / "m.gguf").read_bytes() == OLD


class FailingWrite:
    """Stands in for os.write: short writes, and an error at the ``fail_at``-th call."""

    def __init__(self, fail_at, error):
        self.fail_at, self.error, self.calls = fail_at, error, 0

    def __call__(self, fd, data):
        self.calls += 1
        if self.calls == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))
        return os.write(fd, data[:30_000])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_every_nth_write_fails(place, monkeypatch, error):
    checkpoint, base, folder = place
    for fail_at in range(1, 50):
        monkeypatch.setattr(atomic, "_os_write", FailingWrite(fail_at, error))
        try:
            merge_single_file(checkpoint, base, folder / "m.gguf")
        except StorageError as failed:
            assert os.strerror(error) in str(failed) and untouched(folder)
        else:
            break
    assert 5 < fail_at < 49, "every write was failed once, then one run got through"
    assert verify_file(checkpoint, folder / "m.gguf") and os.listdir(folder) == ["m.gguf"]


@pytest.mark.parametrize("call, expected", [("fsync", StorageError), ("replace", OutputError), ("open", OutputError)])
def test_other_calls_fail(place, monkeypatch, call, expected):
    checkpoint, _, folder = place
    real_open = os.open

    def fail(*args, **kwargs):
        if call == "open" and not args[1] & os.O_CREAT:
            return real_open(*args, **kwargs)
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(expected, match="Read-only file system"):
        write_heads(checkpoint, folder / "m.gguf")
    monkeypatch.undo()
    assert untouched(folder)


def test_interrupt_leaves_nothing(place, monkeypatch):
    checkpoint, _, folder = place

    def interrupt(fd, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_os_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_heads(checkpoint, folder / "m.gguf")
    assert untouched(folder)


SCRIPT = """
import sys
from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.merge import merge_single_file
from autodeco_edge.errors import AutodecoError
checkpoint = read_checkpoint(sys.argv[1])
print("ready", flush=True)
while True:
    try:
        merge_single_file(checkpoint, sys.argv[2], sys.argv[3])
    except AutodecoError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if len(sys.argv) > 4:
        break
"""


def child(place, *more, **options):
    _, base, folder = place
    command = [sys.executable, "-c", SCRIPT, str(folder.parent / "heads"), str(base), str(folder / "m.gguf"), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_file_size_limit_in_a_child(place):
    """A real refusal of the operating system: RLIMIT_FSIZE stands in for a full disk."""
    with child(
        place, "once", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    ) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 74, err
    assert "writing failed: File too large" in err and err.count("\n") == 1
    assert untouched(place[2])


def test_kill_leaves_the_old_or_the_complete_file(place):
    """SIGKILL at different moments of a loop that does nothing but merge (AUTODECO_TEST_KILLS: how many)."""
    checkpoint, base, folder = place
    for i in range(int(os.environ.get("AUTODECO_TEST_KILLS", "12"))):
        (folder / "m.gguf").write_bytes(OLD)
        with child(place) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.0007 * (i % 20))
            process.send_signal(signal.SIGKILL)
            process.wait()
        content = (folder / "m.gguf").read_bytes()
        if content != OLD:
            assert verify_file(checkpoint, folder / "m.gguf")
        for name in os.listdir(folder):
            assert name == "m.gguf" or (name.startswith(".m.gguf.") and name.endswith(".part"))
    merge_single_file(checkpoint, base, folder / "m.gguf")
    assert verify_file(checkpoint, folder / "m.gguf")


def test_two_converters_at_once(place):
    checkpoint, _, folder = place
    children = [child(place) for _ in range(2)]
    for process in children:
        process.stdout.readline()
    deadline = time.monotonic() + 1.0
    checked = 0
    while time.monotonic() < deadline:
        if (folder / "m.gguf").read_bytes() != OLD:
            assert verify_file(checkpoint, folder / "m.gguf")
            checked += 1
    for process in children:
        assert process.poll() is None
        process.kill()
        process.communicate()
    assert checked > 5


def test_permissions_follow_the_umask(place):
    checkpoint, _, folder = place
    old = os.umask(0o027)
    try:
        write_heads(checkpoint, folder / "new.gguf")
    finally:
        os.umask(old)
    assert (folder / "new.gguf").stat().st_mode & 0o777 == 0o640

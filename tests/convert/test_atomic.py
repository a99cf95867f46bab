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


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The file that is there before: heads of another type, so that no writer below writes the same bytes."""
    folder = tmp_path_factory.mktemp("old")
    write_heads(read_checkpoint(make_folder(folder / "heads")), folder / "old.gguf", outtype="f32")
    return (folder / "old.gguf").read_bytes()


@pytest.fixture
def place(tmp_path, old):
    """(checkpoint, base, folder with an old file in it)"""
    checkpoint = read_checkpoint(make_folder(tmp_path / "heads"))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(old)
    return checkpoint, make_base(tmp_path / "base.gguf"), folder


def untouched(folder, old):
    return os.listdir(folder) == ["m.gguf"] and (folder / "m.gguf").read_bytes() == old


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
def test_every_nth_write_fails(place, old, monkeypatch, error):
    checkpoint, base, folder = place
    for fail_at in range(1, 50):
        monkeypatch.setattr(atomic, "_os_write", FailingWrite(fail_at, error))
        try:
            merge_single_file(checkpoint, base, folder / "m.gguf")
        except StorageError as failed:
            assert os.strerror(error) in str(failed) and untouched(folder, old)
        else:
            break
    assert 5 < fail_at < 49, "every write was failed once, then one run got through"
    assert verify_file(checkpoint, folder / "m.gguf") and os.listdir(folder) == ["m.gguf"]


@pytest.mark.parametrize("call, expected", [("fsync", StorageError), ("replace", OutputError), ("open", OutputError)])
def test_other_calls_fail(place, old, monkeypatch, call, expected):
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
    assert untouched(folder, old)


def test_interrupt_leaves_nothing(place, old, monkeypatch):
    checkpoint, _, folder = place

    def interrupt(fd, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_os_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_heads(checkpoint, folder / "m.gguf")
    assert untouched(folder, old)


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


def test_file_size_limit_in_a_child(place, old):
    """A real refusal of the operating system: RLIMIT_FSIZE stands in for a full disk."""
    with child(
        place, "once", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    ) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 74, err
    assert "writing failed: File too large" in err and err.count("\n") == 1
    assert untouched(place[2], old)


def test_kill_leaves_the_old_or_the_complete_file(place, old):
    """SIGKILL at different moments of a loop that does nothing but merge (AUTODECO_TEST_KILLS: how many)."""
    checkpoint, base, folder = place
    for i in range(int(os.environ.get("AUTODECO_TEST_KILLS", "12"))):
        (folder / "m.gguf").write_bytes(old)
        with child(place) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.0007 * (i % 20))
            process.send_signal(signal.SIGKILL)
            process.wait()
        content = (folder / "m.gguf").read_bytes()
        if content != old:
            assert verify_file(checkpoint, folder / "m.gguf")
        for name in os.listdir(folder):
            assert name == "m.gguf" or (name.startswith(".m.gguf.") and name.endswith(".part"))
    merge_single_file(checkpoint, base, folder / "m.gguf")
    assert verify_file(checkpoint, folder / "m.gguf")


def test_two_converters_at_once(place, old):
    checkpoint, _, folder = place
    children = [child(place) for _ in range(2)]
    for process in children:
        process.stdout.readline()
    deadline = time.monotonic() + 1.0
    checked = 0
    while time.monotonic() < deadline:
        if (folder / "m.gguf").read_bytes() != old:
            assert verify_file(checkpoint, folder / "m.gguf")
            checked += 1
    for process in children:
        assert process.poll() is None
        process.kill()
        process.communicate()
    assert checked > 5


def test_permissions_follow_the_umask(place):
    checkpoint, _, folder = place
    before = os.umask(0o027)
    try:
        write_heads(checkpoint, folder / "new.gguf")
    finally:
        os.umask(before)
    assert (folder / "new.gguf").stat().st_mode & 0o777 == 0o640


# ---- what a kill leaves behind ------------------------------------------------------------------


def test_the_next_run_removes_what_a_kill_left(place):
    checkpoint, _, folder = place
    mine, other = folder / f".m.gguf.{'0' * 12}.part", folder / f".other.gguf.{'a' * 12}.part"
    for path in (mine, other, folder / ".m.gguf.part", folder / f".m.gguf.{'x' * 12}.part"):
        path.write_bytes(b"half")
    (folder / f".m.gguf.{'1' * 12}.part").symlink_to(folder.parent / "base.gguf")
    write_heads(checkpoint, folder / "m.gguf")
    assert not mine.exists() and len(os.listdir(folder)) == 5, "no other file's, nothing of another name, no link"
    atomic.sweep_parts(folder)
    assert not other.exists() and len(os.listdir(folder)) == 4


def test_a_killed_writer_leaves_nothing_for_long(place):
    checkpoint, _, folder = place
    code = (
        "import sys, time; from pathlib import Path; from autodeco_edge.io.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as out:\n    out.write(bytes(1000)); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder / "m.gguf")], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        atomic.sweep_parts(folder)
        assert len(os.listdir(folder)) == 2, "its writer is alive"
        process.kill()
    atomic.sweep_parts(folder)
    assert os.listdir(folder) == ["m.gguf"]


def test_a_sweep_between_creation_and_lock(tmp_path, monkeypatch):
    real, swept = atomic._lock, []

    def late(fd):
        if not swept:
            swept.append(True)
            atomic.sweep_parts(tmp_path)
        return real(fd)

    monkeypatch.setattr(atomic, "_lock", late)
    with atomic.atomic_write(tmp_path / "f") as out:
        out.write(b"whole")
    assert swept and os.listdir(tmp_path) == ["f"] and (tmp_path / "f").read_bytes() == b"whole"


def test_sweeps_beside_writers(tmp_path):
    """Writers of one name in four threads, each sweeping for itself: every write gets through."""
    from concurrent.futures import ThreadPoolExecutor

    def write(i):
        with atomic.atomic_write(tmp_path / "f") as out:
            out.write(b"%d" % i)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(400)))
    assert os.listdir(tmp_path) == ["f"]

"""Record files: what a kill, a full disk and another setting leave of them."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from autodeco_edge.errors import BusyError, FormatError, MismatchError, OutputError, UsageError
from autodeco_edge.io import lock
from autodeco_edge.records import RecordFile

HEADER = {"model": "a", "seed": 1}


def write(path, rows, resume=False):
    with RecordFile(path, HEADER, resume=resume) as file:
        for row in rows:
            file.append(row)
        return list(file.rows)


def test_rows_come_back(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    assert write(path, [{"i": 0}, {"text": "ä\n"}]) == [{"i": 0}, {"text": "ä\n"}]
    assert write(path, [{"i": 2}], resume=True) == [{"i": 0}, {"text": "ä\n"}, {"i": 2}]
    assert json.loads(path.read_text().splitlines()[0]) == HEADER


def test_a_file_is_not_overwritten(tmp_path):
    write(tmp_path / "rows.jsonl", [{"i": 0}])
    with pytest.raises(UsageError, match="exists; pass --resume"):
        RecordFile(tmp_path / "rows.jsonl", HEADER, resume=False)
    assert write(tmp_path / "rows.jsonl", [], resume=True) == [{"i": 0}]


def test_other_settings_are_named(tmp_path):
    write(tmp_path / "rows.jsonl", [{"i": 0}])
    with pytest.raises(MismatchError, match=r"other settings \(seed, task; seed was 1, is 2\)"):
        RecordFile(tmp_path / "rows.jsonl", {"model": "a", "seed": 2, "task": "t"}, resume=True)


def test_every_cut_keeps_the_whole_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"i": i, "text": "x" * i} for i in range(4)]
    write(path, rows)
    data = path.read_bytes()
    for n in range(len(data) + 1):
        path.write_bytes(data[:n])
        whole = max(0, data[:n].count(b"\n") - 1)
        assert write(path, [{"after": 1}], resume=True) == [*rows[:whole], {"after": 1}]
        assert write(path, [], resume=True) == [*rows[:whole], {"after": 1}]


@pytest.mark.parametrize("line", [b"not JSON\n", b"[1]\n", b"\xff\n"])
def test_a_foreign_file_is_refused_and_kept(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line)
    with pytest.raises(FormatError, match="line 1"):
        RecordFile(path, HEADER, resume=True)
    assert path.read_bytes() == line


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        RecordFile(tmp_path / "file" / "rows.jsonl", HEADER, resume=False)


CHILD = """
import sys
from autodeco_edge.records import RecordFile
file = RecordFile(sys.argv[1], {"model": "a", "seed": 1}, resume=True)
for i in range(len(file.rows), 10**6):
    file.append({"i": i})
    print(i, flush=True)
"""


def test_kill_loses_no_row_that_was_appended(tmp_path):
    path = tmp_path / "rows.jsonl"
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True)
        last = [int(child.stdout.readline()) for _ in range(50)][-1]
        child.send_signal(signal.SIGKILL)
        child.communicate()
        rows = write(path, [], resume=True)
        assert [row["i"] for row in rows] == list(range(len(rows))) and len(rows) > last


def test_full_disk_is_one_line_and_keeps_what_is_there(tmp_path):
    path = tmp_path / "rows.jsonl"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    code = CHILD.replace("import sys\n", "import sys\nfrom autodeco_edge.errors import StorageError\n", 1)
    code = code.replace("    file.append", "    try: file.append", 1).replace(
        "    print(i, flush=True)", "    except StorageError as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, preexec_fn=limit)
    assert "writing failed" in done.stderr and "--resume" in done.stderr and done.stderr.count("\n") == 1
    assert os.path.getsize(path) <= 1000
    rows = write(path, [], resume=True)
    assert [row["i"] for row in rows] == list(range(len(rows))) and len(rows) > 10


# ---- two writers -------------------------------------------------------------------


def test_one_writer_at_a_time(tmp_path):
    """In one process, as in two: the second is turned away, and the first goes on as if nothing had been."""
    path = tmp_path / "rows.jsonl"
    with RecordFile(path, HEADER, resume=False) as first:
        first.append({"i": 0})
        for resume in (True, False):
            with pytest.raises(BusyError, match=f"in use by process {os.getpid()} on "):
                RecordFile(path, HEADER, resume=resume)
        first.append({"i": 1})
    assert os.listdir(tmp_path) == ["rows.jsonl"]
    assert write(path, [], resume=True) == [{"i": 0}, {"i": 1}]


@pytest.mark.parametrize("name", ("r" * 255, "\u6587" * 85))
def test_the_longest_names_can_be_locked(tmp_path, name):
    assert write(tmp_path / name, [{"i": 0}]) == [{"i": 0}]
    assert os.listdir(tmp_path) == [name]


def test_what_a_kill_leaves_of_a_lock_locks_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    child = subprocess.Popen([sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True)
    child.stdout.readline()
    with pytest.raises(BusyError, match=f"process {child.pid} on"):
        RecordFile(path, HEADER, resume=True)
    child.kill()
    child.communicate()
    assert (tmp_path / ".rows.jsonl.lock").exists()
    write(path, [], resume=True)
    assert os.listdir(tmp_path) == ["rows.jsonl"]


RACER = """
import sys
from autodeco_edge.errors import BusyError
from autodeco_edge.records import RecordFile
while True:
    try:
        with RecordFile(sys.argv[1], {"model": "a", "seed": 1}, resume=True) as file:
            n = len(file.rows)
            if n >= 400:
                break
            for i in range(n, n + 4):
                file.append({"i": i})
    except BusyError:
        pass
"""


def test_writers_that_take_turns_lose_and_double_nothing(tmp_path):
    """Four processes open, append and close 100 times: the lock file comes and goes under all of them."""
    path = tmp_path / "rows.jsonl"
    children = [subprocess.Popen([sys.executable, "-c", RACER, path], stderr=subprocess.PIPE) for _ in range(4)]
    assert [child.communicate(timeout=120)[1] for child in children] == [b""] * 4
    assert write(path, [], resume=True) == [{"i": i} for i in range(400)]


def spoil_append(path):
    with path.open("ab") as other:
        other.write(b'{"i": 7}\n')


def spoil_truncate(path):
    os.truncate(path, 3)


def spoil_replace(path):
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


SPOILT = {"append": spoil_append, "truncate": spoil_truncate, "replace": spoil_replace, "remove": os.unlink}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_foreign_tail_is_noticed_and_not_written_to(tmp_path, spoil):
    path = tmp_path / "rows.jsonl"
    with RecordFile(path, HEADER, resume=False) as file:
        file.append({"i": 0})
        spoil(path)
        before = path.read_bytes() if path.exists() else None
        for _ in range(2):
            with pytest.raises(BusyError, match="changed it while|was removed while"):
                file.append({"i": 1})
        assert (path.read_bytes() if path.exists() else None) == before
        assert file.rows == [{"i": 0}]


def test_somebodys_file_without_a_line_end_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    for data in (b"precious", b'{"model": "b', b'{"model": "a", "seed": 1} and more'):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="holds no records"):
            RecordFile(path, HEADER, resume=True)
        assert path.read_bytes() == data


def test_without_locks_there_is_a_warning_and_the_tail_is_watched(tmp_path, monkeypatch, capfd):
    """As on a file system that has none."""

    def no_locks(fd):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_try", no_locks)
    path = tmp_path / "rows.jsonl"
    with RecordFile(path, HEADER, resume=False) as one, RecordFile(path, HEADER, resume=True) as other:
        one.append({"i": 0})
        with pytest.raises(BusyError):
            other.append({"i": 1})
    assert capfd.readouterr().err.count("no lock can be had here") == 2
    assert write(path, [], resume=True) == [{"i": 0}]

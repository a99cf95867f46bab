"""Transfers that go wrong: cut, killed, lied to, out of room. Never a wrong file under a final name."""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import threading
import time

import pytest

from autodeco_edge.errors import FormatError, OutputError, StorageError, UsageError
from autodeco_edge.hub import download, resolve
from tests.support.letters import write_model

from .conftest import BASE, GGUF_NAME, HEADS, cli, command

N_KILLS = 20
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


@pytest.fixture
def data(letters) -> bytes:
    return letters.gguf.read_bytes()


@pytest.fixture
def small_chunks(monkeypatch):
    """huggingface_hub hands on 10 MB at a time, more than the tiny model has."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4096)


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> bytes:
    """A model of 32 MB, most of it one long text in its metadata."""
    text = random.Random(1).randbytes(16_000_000).hex()
    path = write_model(tmp_path_factory.mktemp("big") / "big.gguf", keys=lambda w: w.add_string("letters.text", text))
    return path.read_bytes()


def partial_sizes(home) -> list[int]:
    return [path.stat().st_size for path in home.hub_cache.rglob("*.incomplete")]


def begin(request) -> int:
    return int((request.range or "bytes=0-")[6:-1])


# ---- cut and killed -----------------------------------------------------------------------------


def test_a_cut_connection_goes_on_by_itself(hub, data, small_chunks):
    hub.cuts = [40_960]
    assert resolve(BASE, progress=False).model.read_bytes() == data
    assert [r.range for r in hub.gets(GGUF_NAME)] == [None, "bytes=40960-"]


def test_a_connection_cut_for_good_goes_on_the_next_time(hub, home, data, small_chunks, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)  # the pauses between huggingface_hub's own attempts
    hub.cuts = [49_152, *[0] * 20]
    with pytest.raises(StorageError, match="cut after 49.2 kB of .*run the command again, it goes on from there"):
        resolve(BASE, progress=False)
    assert partial_sizes(home) == [49_152] and home.final_files == []
    hub.cuts.clear()
    hub.requests.clear()
    assert resolve(BASE, progress=False).model.read_bytes() == data
    assert [r.range for r in hub.gets(GGUF_NAME)] == ["bytes=49152-"]
    assert partial_sizes(home) == []


def test_kill_9_at_any_point(hub, home, big):
    """Twenty real processes die somewhere in the transfer; the next one goes on where the last one died."""
    dice = random.Random(5)
    hub.add(BASE, GGUF_NAME, big)
    n_resumed = 0
    for kill in range(N_KILLS):
        _kill_after(hub, dice.randrange(len(big)), len(big))
        assert all(path.read_bytes() == big for path in home.final_files)
        if home.final_files or kill == N_KILLS - 1 or dice.random() < 0.3:
            n_resumed += _finish(hub, home, big)
    assert n_resumed >= 3


def _kill_after(hub, n_bytes: int, size: int) -> None:
    """A pull that is killed once the hub has sent it ``n_bytes`` more; at a pace that lets the kill hit inside."""
    hub.n_sent, hub.bytes_per_second = 0, 4 * size
    process = subprocess.Popen(command("pull", BASE, "-q"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while hub.n_sent < n_bytes and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()


def _finish(hub, home, data: bytes) -> bool:
    """The next download is whole, and asks for no byte that is on the disk. Returns whether some were."""
    sizes = [] if home.final_files else partial_sizes(home) or [0]
    before = len(hub.gets(GGUF_NAME))
    hub.bytes_per_second = 0
    assert resolve(BASE, progress=False, refresh=True).model.read_bytes() == data
    asked = [begin(request) for request in hub.gets(GGUF_NAME)[before:]]
    assert asked == [size for size in sizes if size < len(data)]
    shutil.rmtree(home.hub_cache)
    return any(asked)


def test_ctrl_c_ends_at_once_and_keeps_what_came(hub, home, big):
    hub.add(BASE, GGUF_NAME, big)
    hub.bytes_per_second = len(big)
    process = subprocess.Popen(command("pull", BASE), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(size > 0 for size in partial_sizes(home)):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (130, "", 1), err  # the line that announces the download
    assert time.monotonic() - begun < 5  # a loaded machine; 0.1 s alone
    assert _finish(hub, home, big)


def test_two_pulls_at_once_fetch_one_file(hub, home, data):
    hub.bytes_per_second = 4 * len(data)
    found = []
    threads = [threading.Thread(target=lambda: found.append(resolve(BASE, progress=False).model)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() for path in found] == [data] * 4 and len(hub.gets(GGUF_NAME)) == 1


def test_large_files_from_another_host_get_the_range_and_not_the_token(hub, data, small_chunks, monkeypatch):
    """As on the real hub: a file in large-file storage is a redirect to a content network."""
    monkeypatch.setenv("HF_TOKEN", "hf_letters")
    hub.cdn = f"http://localhost:{hub.port}"
    hub.cuts = [40_960]
    assert resolve(BASE, progress=False).model.read_bytes() == data
    away = [r for r in hub.gets(GGUF_NAME) if r.host.startswith("localhost")]
    assert [(r.range, r.authorization) for r in away] == [(None, None), ("bytes=40960-", None)]
    assert all(r.authorization for r in hub.requests if not r.host.startswith("localhost"))


def test_a_file_cut_short_on_disk_is_mended_by_the_next_pull(hub, data):
    model = resolve(BASE, progress=False).model
    model.resolve().write_bytes(data[:1000])
    assert resolve(BASE, progress=False, refresh=True).model.read_bytes() == data


# ---- lied to ------------------------------------------------------------------------------------


def corrupted(data: bytes) -> bytes:
    return data[:-10] + bytes(10)


@pytest.mark.parametrize(
    "served, words",
    [
        (corrupted, "has the checksum"),
        (lambda data: POINTER.ljust(len(data), b"\n"), "is a Git LFS pointer"),
        (lambda data: POINTER, "is a Git LFS pointer"),
        (lambda data: b"<html>log in</html>".ljust(len(data)), "is no GGUF"),
    ],
)
def test_what_is_not_the_announced_file_is_removed(hub, home, data, served, words):
    hub.add(BASE, GGUF_NAME, data, served=served(data))
    with pytest.raises(FormatError) as caught:
        resolve(BASE, progress=False)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert partial_sizes(home) == [] and home.final_files == [] and list(home.hub_cache.rglob("*.gguf")) == []
    hub.add(BASE, GGUF_NAME, data)
    assert resolve(BASE, progress=False).model.read_bytes() == data


def test_a_pointer_that_the_repository_itself_holds(hub, home):
    hub.add("someone/pointer-GGUF", "m-Q8_0.gguf", POINTER)
    with pytest.raises(FormatError, match="is a Git LFS pointer"):
        resolve("someone/pointer-GGUF", progress=False)
    assert home.final_files == []


def test_a_wrong_small_file_is_noticed_too(hub, home):
    hub.add(HEADS, "config.json", b'{"a": 1}', served=b'{"a": 2}')
    with pytest.raises(FormatError, match="config.json: the file that came has the checksum"):
        resolve("letters", progress=False)


def test_a_part_that_is_longer_than_the_file_is_not_used(hub, home, data):
    blobs = home.hub_cache / f"models--{BASE.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.repos[BASE][GGUF_NAME].oid}.incomplete").write_bytes(data + b"more")
    assert resolve(BASE, progress=False).model.read_bytes() == data


def test_a_damaged_part_from_before_is_not_kept(hub, home, data):
    """A half file whose bytes went bad: the checksum finds it, and the next time starts afresh."""
    blobs = home.hub_cache / f"models--{BASE.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.repos[BASE][GGUF_NAME].oid}.incomplete").write_bytes(b"GGUF" + bytes(50_000))
    with pytest.raises(FormatError, match="it was removed, run the command again"):
        resolve(BASE, progress=False)
    assert resolve(BASE, progress=False).model.read_bytes() == data


def test_beyond_the_http_limit_huggingface_hub_transfers_and_the_checks_stay(hub, home, data, monkeypatch):
    monkeypatch.setattr(download, "HTTP_LIMIT", 1000)
    hub.add(BASE, GGUF_NAME, data, served=corrupted(data))
    with pytest.raises(FormatError, match="has the checksum"):
        resolve(BASE, progress=False)
    assert home.final_files == [] and list(home.hub_cache.rglob("*.gguf")) == []
    hub.add(BASE, GGUF_NAME, data)
    assert resolve(BASE, progress=False).model.read_bytes() == data


@pytest.mark.parametrize(
    "name", ["../../../evil-Q8_0.gguf", "a/../../evil-Q8_0.gguf", "..\\\\evil-Q8_0.gguf", "/evil-Q8_0.gguf"]
)
def test_names_that_leave_their_folder_do_not_count(hub, home, data, name):
    hub.add("someone/evil-GGUF", name, data)
    with pytest.raises(UsageError, match="no GGUF model in it"):
        resolve("someone/evil-GGUF", progress=False)
    assert not home.hub_cache.exists()


# ---- out of room --------------------------------------------------------------------------------


def test_no_room_is_said_before_the_first_byte(hub, home, data):
    hub.add(BASE, GGUF_NAME, data, size=10**15)
    with pytest.raises(OutputError, match=r"1e\+03 TB to download, but .* are free in .*; free some space"):
        resolve(BASE, progress=False)
    assert hub.gets(GGUF_NAME) == [] and not home.hub_cache.exists()


def test_a_write_that_fails_half_way(hub, home, data):
    done = cli("pull", BASE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, 70_000)))
    assert done.returncode == 74, done.stderr
    assert done.stderr.count("\n") == 2 and "writing failed" in done.stderr and "Traceback" not in done.stderr
    assert home.final_files == []
    done = cli("pull", BASE)
    assert done.returncode == 0 and home.final_files[0].read_bytes() == data
    assert begin(hub.gets(GGUF_NAME)[-1]) > 0


def test_a_cache_that_cannot_be_written(hub, home):
    home.hub_cache.write_text("a file in the place of the folder")
    with pytest.raises(OutputError, match="cannot write to .*; check its rights, or move HF_HOME"):
        resolve(BASE, progress=False)

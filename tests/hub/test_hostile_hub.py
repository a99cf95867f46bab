"""What comes from outside and would become a path or an address: HF_ENDPOINT, names, links planted in the cache."""

from __future__ import annotations

import os

import pytest

from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.sources import locate
from autodeco_edge.errors import FormatError, UsageError
from autodeco_edge.hub import resolve
from autodeco_edge.hub.cache import heads_path, remove_heads, storage
from autodeco_edge.hub.remote import list_repo
from autodeco_edge.paths import hub_endpoint
from tests.support.letters import write_model

from .conftest import BASE, GGUF_NAME, HEADS, cli

# ---- HF_ENDPOINT --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["{url}/", "{url}//", "  {url}\n", "{host}", "{host}/", "HTTP://{host}", "http://me:pw@{host}/"]
)
def test_the_address_of_the_hub_as_people_write_it(hub, letters, monkeypatch, form):
    host = hub.url.removeprefix("http://")
    monkeypatch.setenv("HF_ENDPOINT", form.format(url=hub.url, host=host))
    found = resolve(BASE, HEADS, progress=False)
    assert found.model.read_bytes() == letters.gguf.read_bytes() and found.heads
    assert all(request.path.startswith(("/api/models/", "/someone/")) for request in hub.requests)


def test_a_hub_under_a_path(hub, letters, monkeypatch):
    hub.prefix = "/mirror/hf"
    monkeypatch.setenv("HF_ENDPOINT", hub.url + "/mirror/hf/")
    assert resolve(BASE, HEADS, progress=False).model.read_bytes() == letters.gguf.read_bytes()


def test_the_converter_asks_the_same_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f" {hub.url}/ ")
    assert [path.name for path in locate(HEADS).files] == ["model.safetensors"]


@pytest.mark.parametrize(
    "text, address",
    [
        ("", None), ("  ", None), ("hf-mirror.example", "https://hf-mirror.example"), ("hub.example:8443/hf/", "https://hub.example:8443/hf"),
        ("localhost:8000", "http://localhost:8000"), ("127.0.0.1", "http://127.0.0.1"), ("[::1]:80", "http://[::1]:80"),
        ("localhost.example", "https://localhost.example"), ("https://huggingface.co/", "https://huggingface.co"),
    ],
)  # fmt: skip
def test_addresses(monkeypatch, text, address):
    monkeypatch.setenv("HF_ENDPOINT", text)
    assert hub_endpoint() == address


@pytest.mark.parametrize(
    "text", ["ftp://host", "file:///etc/passwd", "http://", "https:///x", "http://a b", "http://host:port", "http://host/?q=1", "http://host/#x",
             "http://[::1", "http://host:99999", "http://höst", "://", "a\x1b[2Jb"]
)  # fmt: skip
def test_what_is_no_address_is_a_usage_error(monkeypatch, home, text):
    monkeypatch.setenv("HF_ENDPOINT", text)
    with pytest.raises(UsageError, match="HF_ENDPOINT: expected the address of a hub"):
        resolve(BASE, progress=False)
    with pytest.raises(UsageError):
        locate(HEADS)


def test_a_wrong_address_is_one_line(home, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "ftp://host")
    done = cli("pull", BASE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "Traceback" not in done.stderr


# ---- names --------------------------------------------------------------------------------------

HOSTILE = [
    "x/../../../../victim/planted",
    "../../victim/planted",
    "/tmp/victim/planted",
    "..",
    ".",
    "a\0b",
    "x" * 300,
    "CON",
    "a\nb",
    "a\x1b[2J",
    "llama.",
    "a/b",
    "a\\b",
    " ",
]


@pytest.mark.parametrize("arch", HOSTILE, ids=lambda text: ascii(text)[:12])
def test_an_architecture_never_becomes_a_path(hub, home, tmp_path, arch):
    """Written as the name of the file of converted heads, it led out of the cache."""

    def rename(writer) -> None:
        writer.kv_data[0]["general.architecture"].value = arch

    path = write_model(tmp_path / "m.gguf", keys=rename)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FormatError):
        open_base(path)
    with pytest.raises(FormatError):
        resolve(str(path), HEADS, progress=False)
    if arch == HOSTILE[0]:
        done = cli("run", "-m", path, "--heads", HEADS, "-n", "1", "hi")
        assert done.returncode == 65 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    planted = [p for p in tmp_path.rglob("*.gguf") if p != path] + [p for p in tmp_path.parent.rglob("planted*")]
    assert not planted and before


@pytest.mark.parametrize("text", [*HOSTILE, "", "a*b", "\ud800"], ids=lambda text: ascii(text)[:12])
def test_places_in_the_cache_stay_in_it(home, text):
    assert heads_path(text, "0" * 40, text).parent == home.cache / "heads"
    assert storage(text).parent == home.hub_cache
    for path in (heads_path(text, "0" * 40, text), storage(text)):
        assert not path.exists()  # a name that the file system takes


def test_the_heads_of_one_repository_are_removed_alone(home):
    """Text of models.toml in a pattern: it is no pattern."""
    folder = home.cache / "heads"
    folder.mkdir(parents=True)
    for repo in ("a/b", "c/d", "[a]/b"):
        heads_path(repo, "0" * 40, "f").write_bytes(b"x")
    assert remove_heads("*") == remove_heads("?/?") == 0
    remove_heads("[a]/b")
    assert heads_path("a/b", "0" * 40, "f").exists() and not heads_path("[a]/b", "0" * 40, "f").exists()


@pytest.mark.parametrize(
    "name", ["../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "a//x.gguf", "C:\\x.gguf", "nul.gguf", "a./x.gguf", "x\0.gguf", "x\n.gguf", "x" * 300 + ".gguf",
             "/".join(["d"] * 600) + "/x.gguf", ".. /x.gguf", "\u202efugg.gguf", "", "~\\x"]
)  # fmt: skip
def test_file_names_of_a_hostile_hub_are_left_out(hub, name):
    hub.add("someone/hostile", name, b"GGUF")
    hub.add("someone/hostile", "sub dir/modèle-Q8_0.gguf", b"GGUF")
    assert list(list_repo("someone/hostile").files) == ["sub dir/modèle-Q8_0.gguf"]


# ---- links --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["symlink", "hard link", "dangling", "pipe"])
def test_nothing_is_appended_outside_the_cache(hub, home, letters, tmp_path, how):
    """Something planted at the name of an unfinished download."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"GGUF" if how != "dangling" else b"")
    blobs = storage(BASE) / "blobs"
    blobs.mkdir(parents=True)
    partial = blobs / f"{hub.repos[BASE][GGUF_NAME].oid}.incomplete"
    if how == "hard link":
        os.link(victim, partial)
    elif how == "pipe":
        os.mkfifo(partial)
    else:
        partial.symlink_to(victim if how == "symlink" else tmp_path / "new-file")
    assert resolve(BASE, progress=False).model.read_bytes() == letters.gguf.read_bytes()
    assert victim.read_bytes() == (b"GGUF" if how != "dangling" else b"") and not (tmp_path / "new-file").exists()


def test_a_link_at_the_place_of_a_lock(hub, home, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"not to be emptied")
    locks = home.hub_cache / ".locks" / storage(BASE).name
    locks.mkdir(parents=True)
    (locks / f"{hub.repos[BASE][GGUF_NAME].oid}.lock").symlink_to(victim)
    resolve(BASE, progress=False)
    assert victim.read_bytes() == b"not to be emptied"


def test_a_folder_at_the_place_of_a_download(hub, home):
    (storage(BASE) / "blobs" / f"{hub.repos[BASE][GGUF_NAME].oid}.incomplete").mkdir(parents=True)
    done = cli("pull", BASE)
    assert (done.returncode, done.stderr.count("Traceback")) == (73, 0), done.stderr


def test_converted_heads_leave_no_parts(hub, home):
    folder = home.cache / "heads"
    folder.mkdir(parents=True)
    for name in ("someone--else@0-f.gguf", "x"):
        (folder / f".{name}.{'0' * 12}.part").write_bytes(bytes(1000))
    heads = resolve(BASE, HEADS, progress=False).heads
    assert os.listdir(folder) == [heads.name]

"""What is on this disk: the Hugging Face cache, and the heads converted from it.

Owns the places and the look-ups. ``models--user--name/{refs,snapshots,blobs}`` is the layout that
huggingface_hub documents; refs/main is moved when all files of a model are there. Knows no network.
"""

from __future__ import annotations

import glob
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import AutodecoError
from ..io.atomic import atomic_write
from ..io.regular import read_regular
from ..paths import cache_dir, hub_endpoint, safe_name
from .variants import Variant, find_variants

_REPO_PREFIX = "models--"


@dataclass(frozen=True)
class Cached:
    """A model that is whole on this disk. ``last_used``: seconds since 1970."""

    repo: str
    variant: Variant
    paths: tuple[Path, ...]

    @property
    def n_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)

    @property
    def last_used(self) -> float:
        return self.paths[0].stat().st_atime


def hub_cache() -> Path:
    """HF_HUB_CACHE, else where huggingface_hub says."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    hub_endpoint()  # what is no address is said here; huggingface_hub would fail when it is imported
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def storage(repo: str) -> Path:
    """The folder of one repository."""
    return hub_cache() / (_REPO_PREFIX + _slug(repo))


def snapshots(repo: str) -> list[Path]:
    """Folders of the commits on disk: that of refs/main first, then the newest."""
    folder = storage(repo)
    try:
        found = sorted((folder / "snapshots").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    main = _read_ref(folder)
    return sorted(found, key=lambda path: path.name != main)


def _read_ref(folder: Path) -> str:
    try:
        return read_regular(folder / "refs" / "main", 1000).decode().strip()
    except (AutodecoError, UnicodeDecodeError):
        return ""


def set_main(repo: str, commit: str) -> None:
    """From now on ``commit`` is what this repository's name means without a network."""
    ref = storage(repo) / "refs" / "main"
    if _read_ref(storage(repo)) == commit:
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(ref) as out:
        out.write(commit.encode())


def cached_models(repo: str) -> list[Cached]:
    """Every whole GGUF model of a repository on disk, each quantisation once."""
    found: dict[str, Cached] = {}
    for snapshot in snapshots(repo):
        names = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*.gguf") if path.exists()]
        for variant in find_variants(names):
            paths = tuple(snapshot / name for name in variant.files)
            found.setdefault(variant.quant or variant.files[0], Cached(repo, variant, paths))
    return list(found.values())


def cached_repos() -> list[str]:
    """Repositories in the cache that hold a GGUF model."""
    try:
        folders = sorted(hub_cache().glob(_REPO_PREFIX + "*--*"))
    except OSError:
        return []
    names = [folder.name.removeprefix(_REPO_PREFIX).replace("--", "/", 1) for folder in folders]
    return [name for name in names if cached_models(name)]


def mark_used(cached: Cached) -> None:
    """The access time of a file is its last use here; many systems no longer keep it by themselves."""
    for path in cached.paths:
        try:
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        except OSError:  # a read-only cache
            return


def converted_heads(repo: str) -> list[Path]:
    """Heads files made from a heads repository, for whichever bases."""
    return sorted(heads_folder().glob(glob.escape(_slug(repo)) + "@*.gguf"))


def heads_folder() -> Path:
    return cache_dir() / "heads"


def heads_path(repo: str, commit: str, base: str) -> Path:
    """The place of the heads of ``repo`` at ``commit`` for the base model with fingerprint ``base``."""
    return heads_folder() / (safe_name(f"{_slug(repo)}@{commit[:12]}-{base}") + ".gguf")


def _slug(repo: str) -> str:
    return safe_name(repo.replace("/", "--"))


# ---- removal ------------------------------------------------------------------------------------


def remove_repo(repo: str) -> int:
    """Everything of a repository, unfinished downloads too. Returns the bytes that were freed."""
    folder = storage(repo)
    n_bytes = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(hub_cache() / ".locks" / folder.name, ignore_errors=True)
    return n_bytes


def remove_model(cached: Cached) -> int:
    """One quantisation out of every commit on disk. Returns the bytes that were freed."""
    n_bytes = 0
    for name in cached.variant.files:
        pointers = [path for snapshot in snapshots(cached.repo) if (path := snapshot / name).exists()]
        for path in {path.resolve() for path in pointers} | set(pointers):
            n_bytes += 0 if path.is_symlink() else path.stat().st_size
            path.unlink()
    return n_bytes


def remove_heads(repo: str) -> int:
    """The converted heads of a repository. Returns the bytes that were freed."""
    paths = converted_heads(repo)
    n_bytes = sum(path.stat().st_size for path in paths)
    for path in paths:
        path.unlink()
    return n_bytes

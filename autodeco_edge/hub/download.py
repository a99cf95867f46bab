"""Files of one commit onto this disk, checked before they get their final names.

Owns the order of things: room on the disk, transfer into ``blobs/<checksum>.incomplete``, size, kind and
checksum, rename, and only then the link in ``snapshots/``. A transfer that was cut, or killed, goes on where
it stopped. huggingface_hub moves the bytes; its own download starts a killed transfer again from nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import FormatError, OutputError, StorageError
from ..io.printing import say
from ..paths import hub_endpoint
from .cache import hub_cache, set_main, storage
from .remote import Listing, RemoteFile, is_cut, plain_errors

HTTP_LIMIT = 50_000_000_000  # the hub serves no larger file over plain HTTP
_GGUF = b"GGUF"
_LFS_POINTER = b"version https://git-lfs"
_HEAD_BYTES = 64
_CHUNK = 1 << 20


def fetch(listing: Listing, names: Sequence[str], *, progress: bool) -> list[Path]:
    """The paths of ``names`` in the cache, fetched where they are missing.

    Raises OutputError when the disk has no room, StorageError for a transfer or a write cut short,
    FormatError for a file that is not what the hub announced, and what ``plain_errors`` makes of a refusal.
    """
    files = [listing.files[name] for name in names]
    missing = [file for file in files if not _is_here(listing, file)]
    if missing:
        _check_room(listing, missing)
        with _quiet_hub(progress):
            for file in missing:
                _say(progress, f"downloading {file.name} ({size_text(file.size)}) from {listing.repo}")
                _fetch_file(listing, file)
    with plain_errors(listing.repo):
        set_main(listing.repo, listing.commit)
    return [_pointer(listing, file) for file in files]


def _is_here(listing: Listing, file: RemoteFile) -> bool:
    """Whether the file is in the cache. One of the wrong size (damaged since) is taken away."""
    paths = [path for path in (_pointer(listing, file), _blob(listing, file)) if path.exists()]
    if all(path.stat().st_size == file.size for path in paths):
        return _pointer(listing, file).exists()
    with plain_errors(listing.repo):
        for path in paths:
            path.unlink()
    return False


def _pointer(listing: Listing, file: RemoteFile) -> Path:
    return storage(listing.repo) / "snapshots" / listing.commit / file.name


def _blob(listing: Listing, file: RemoteFile) -> Path:
    return storage(listing.repo) / "blobs" / file.oid


def _fetch_file(listing: Listing, file: RemoteFile) -> None:
    from huggingface_hub import hf_hub_download

    what, blob = f"{listing.repo}/{file.name}", _blob(listing, file)
    if file.size <= HTTP_LIMIT:
        _fetch_blob(listing, file, what, blob)
    with plain_errors(what):
        # With the blob in place this only links it; beyond the limit it is the transfer itself.
        path = hf_hub_download(
            listing.repo, file.name, revision=listing.commit, cache_dir=hub_cache(), endpoint=hub_endpoint()
        )
    real = Path(path).resolve()
    if real != blob.resolve() or file.size > HTTP_LIMIT:
        _check(real, file, what, also=Path(path))


def _fetch_blob(listing: Listing, file: RemoteFile, what: str, blob: Path) -> None:
    from huggingface_hub.utils import WeakFileLock

    lock = hub_cache() / ".locks" / storage(listing.repo).name / f"{file.oid}.lock"
    with plain_errors(what):
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        _unlink_unless_ours(lock)  # the lock is opened for writing and emptied, wherever a link leads
        with WeakFileLock(lock):  # of two downloads the second waits, and finds the file
            if not blob.exists():
                partial = blob.with_name(blob.name + ".incomplete")
                _transfer(listing, file, what, partial)
                _check(partial, file, what)
                os.replace(partial, blob)


def _transfer(listing: Listing, file: RemoteFile, what: str, partial: Path) -> None:
    """Appends what is missing to ``partial``. What came before an error stays there, if it can be right."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(listing.repo, file.name, revision=listing.commit, endpoint=hub_endpoint())
    try:
        with _open_partial(partial) as out:
            if out.tell() > file.size:
                out.seek(0)
                out.truncate()
            http_get(
                url,
                out,
                resume_size=out.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name.rpartition("/")[2],
            )
            out.flush()
            os.fsync(out.fileno())
    except Exception as error:
        if partial.is_file():
            _check_kind(partial, file, what)
        if is_cut(error):
            raise StorageError(
                f"{what}: the connection was cut after {size_text(partial.stat().st_size)} of {size_text(file.size)}; "
                "run the command again, it goes on from there"
            ) from None
        raise


def _open_partial(partial: Path) -> BinaryIO:
    """For appending, at its end. Something else of that name, such as a link that leads out of the cache, is put away."""
    _unlink_unless_ours(partial)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    out = os.fdopen(os.open(partial, flags, 0o666), "ab")
    out.seek(0, os.SEEK_END)
    return out


def _unlink_unless_ours(path: Path) -> None:
    """Removes what is no file of its own: a link, another name of a file elsewhere, a pipe. OSError for a folder."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            path.unlink()


# ---- checks -------------------------------------------------------------------------------------


def _check_room(listing: Listing, files: Sequence[RemoteFile]) -> None:
    """Raises OutputError unless the disk of the cache can take what is still to come."""
    needed = sum(file.size - _n_partial(_blob(listing, file), file) for file in files)
    folder = hub_cache()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{listing.repo}: {size_text(needed)} to download, but {size_text(free)} are free in {hub_cache()}; "
            "free some space, choose a smaller quantisation, or move HF_HOME to another disk"
        )


def _n_partial(blob: Path, file: RemoteFile) -> int:
    """Bytes of a file that are on the disk already."""
    if blob.exists():
        return file.size
    partial = blob.with_name(blob.name + ".incomplete")
    return min(partial.stat().st_size, file.size) if partial.is_file() and not partial.is_symlink() else 0


def _check(path: Path, file: RemoteFile, what: str, also: Path | None = None) -> None:
    """Size, kind and checksum of a whole file; a wrong one is removed (``also`` its link) and FormatError raised."""
    _check_kind(path, file, what)
    n_bytes = path.stat().st_size
    if n_bytes != file.size:
        reason = f"has {n_bytes} bytes, the hub announced {file.size}"
    elif (digest := _digest(path, file)) != file.oid:
        reason = f"has the checksum {digest[:16]}..., the hub announced {file.oid[:16]}..."
    else:
        return
    for wrong in (path, also or path):
        wrong.unlink(missing_ok=True)
    raise FormatError(f"{what}: the file that came {reason}; it was removed, run the command again")


def _check_kind(path: Path, file: RemoteFile, what: str) -> None:
    """Removes what can never become the file: a Git LFS pointer, or a page in the place of a model."""
    with path.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    if head.startswith(_LFS_POINTER):
        reason = "is a Git LFS pointer, not the file itself; the repository was uploaded without its large files"
    elif file.name.endswith(".gguf") and head[:4] != _GGUF[: len(head)]:
        reason = f"is no GGUF (it begins with {head[:4]!r}); give another repository or quantisation"
    else:
        return
    path.unlink()
    raise FormatError(f"{what}: what came {reason}")


def _digest(path: Path, file: RemoteFile) -> str:
    r"""sha256 in large-file storage, else the id that git gives a blob: sha1 over "blob <size>\0" and the bytes."""
    with path.open("rb") as opened:
        if file.lfs:
            return hashlib.file_digest(opened, "sha256").hexdigest()
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        while data := opened.read(_CHUNK):
            digest.update(data)
        return digest.hexdigest()


# ---- what the user sees -------------------------------------------------------------------------


@contextmanager
def _quiet_hub(progress: bool) -> Iterator[None]:
    """Progress bars on a terminal only, and none of huggingface_hub's own warnings."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    had_bars, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    logging.set_verbosity_error()
    if not (progress and sys.stderr.isatty()):
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            enable_progress_bars()


def _say(progress: bool, line: str) -> None:
    if progress:
        say(line)


def size_text(n_bytes: int) -> str:
    """Bytes for people: ``4.68 GB``."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes} bytes"

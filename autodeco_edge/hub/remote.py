"""What the hub says of a repository, and what its refusals mean.

Owns the list of files with their sizes and checksums, and the translation of every failure of
huggingface_hub into one line with a next step. Downloads nothing and knows no cache.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import AutodecoError, BusyError, FormatError, MissingInputError, OutputError, StorageError
from ..io.printing import first_line
from ..paths import hub_endpoint, is_safe_name

_MAX_PATH = 1000  # characters; systems take 4096 bytes for a whole path
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "hf_xet")


class NoSuchRepoError(MissingInputError):
    """The hub does not show this repository: another candidate may do."""


@dataclass(frozen=True)
class RemoteFile:
    """``oid``: sha256 of a file in large-file storage (``lfs``), else its git blob id (sha1)."""

    name: str
    size: int
    oid: str
    lfs: bool


@dataclass(frozen=True)
class Listing:
    """The files of one commit."""

    repo: str
    commit: str
    files: dict[str, RemoteFile]


def list_repo(repo: str) -> Listing:
    """Files of the newest commit. Raises NoSuchRepoError, MissingInputError, BusyError or FormatError."""
    endpoint = hub_endpoint()  # before the import, which fails where this is no address
    from huggingface_hub import HfApi

    with plain_errors(repo):
        info = HfApi(endpoint=endpoint).model_info(repo, files_metadata=True)
    if not re.fullmatch(r"[0-9a-f]{40}", info.sha or ""):
        raise FormatError(f"{repo}: the hub names no commit; is HF_ENDPOINT a Hugging Face hub?")
    files = [_remote_file(repo, sibling) for sibling in info.siblings or []]
    return Listing(repo, info.sha, {file.name: file for file in files if _is_plain(file.name)})


def _is_plain(name: str) -> bool:
    """A name that stays inside its folder, on every system."""
    return len(name) <= _MAX_PATH and all(map(is_safe_name, name.split("/")))


def _remote_file(repo: str, sibling) -> RemoteFile:
    lfs = sibling.lfs
    size, oid = (lfs.size, lfs.sha256) if lfs else (sibling.size, sibling.blob_id)
    if type(size) is not int or size < 0 or not re.fullmatch(r"[0-9a-f]{64}" if lfs else r"[0-9a-f]{40}", oid or ""):
        raise FormatError(f"{repo}: the hub gives no size or checksum for {sibling.rfilename!r}; try again later")
    return RemoteFile(sibling.rfilename, size, oid, bool(lfs))


# ---- failures -----------------------------------------------------------------------------------


@contextmanager
def plain_errors(what: str) -> Iterator[None]:
    """Turns what huggingface_hub raises inside into an AutodecoError about ``what``."""
    try:
        yield
    except AutodecoError:
        raise
    except Exception as error:
        if (plain := _translated(what, error)) is None:
            raise
        raise plain from None


def _translated(what: str, error: Exception) -> AutodecoError | None:
    """None for what is no failure of the network, the hub or the disk: that is a bug and must be seen."""
    from huggingface_hub.utils import HFValidationError

    response = getattr(error, "response", None)
    if response is not None:
        return _refusal(what, response)
    if isinstance(error, (json.JSONDecodeError, KeyError)):
        return MissingInputError(
            f"{what}: the answer is not that of a hub; check HF_ENDPOINT, and whether the network wants a log-in first"
        )
    if isinstance(error, HFValidationError):
        return MissingInputError(f"{what}: not a repository name; write user/repo")
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageError(f"{what}: writing failed: {error.strerror}; free some space and run the command again")
    if isinstance(error, OSError) and error.errno in _CLOSED:
        return OutputError(
            f"{what}: cannot write to {error.filename} ({error.strerror}); check its rights, or move HF_HOME elsewhere"
        )
    if isinstance(error, OSError) or _is_transport(error):
        return _unreachable(what, error)
    return None


_WHY = {
    "its name is not known": ("Name or service not known", "getaddrinfo", "nodename nor servname", "name resolution"),
    "it refuses the connection": ("Connection refused", "actively refused"),
    "no answer in time": ("Timeout", "timed out"),
    "its certificate is not trusted": ("CERTIFICATE", "certificate"),
    "no network": ("Network is unreachable", "No route to host"),
}


def is_cut(error: Exception) -> bool:
    """Whether a connection that stood ended before the file did (shorter than announced: an OSError without a number)."""
    if getattr(error, "response", None) is not None or "Connect" in type(error).__name__:
        return False
    return _is_transport(error) or (isinstance(error, OSError) and error.errno is None)


def _is_transport(error: Exception) -> bool:
    """An error of the HTTP library, whichever this version of huggingface_hub uses."""
    return type(error).__module__.split(".")[0] in _TRANSPORTS


def _refusal(what: str, response) -> AutodecoError:
    status, code = response.status_code, response.headers.get("X-Error-Code")
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        after = f"wait {wait} s" if wait.isdigit() else "wait a few minutes"
        return BusyError(f"{what}: the hub's rate limit is reached (429); {after}, or set HF_TOKEN for a higher one")
    if status == 403 or code == "GatedRepo":
        return NoSuchRepoError(
            f"{what}: access refused ({status}); accept its terms on its page, then set HF_TOKEN to a token that may read it"
        )
    if status == 401:
        return NoSuchRepoError(
            f"{what}: not there, or private (401); check the name, or set HF_TOKEN to a token that may read it"
        )
    if status == 404:
        return NoSuchRepoError(f"{what}: no such repository or file on the hub (404); check the name")
    if status >= 500:
        return BusyError(f"{what}: the hub is out of order ({status}); try again later")
    return MissingInputError(f"{what}: the hub refuses ({status}); check the name and HF_ENDPOINT")


def _unreachable(what: str, error: Exception) -> MissingInputError:
    return MissingInputError(
        f"{what}: the hub cannot be reached ({_why(error)}); check the network and HF_ENDPOINT, or use a model on this disk"
        " (`autodeco-edge list`)"
    )


def _why(error: Exception) -> str:
    """In our words where it is one of the common reasons: what libraries say of them differs by system and version."""
    said = f"{type(error).__name__} {error}"
    return next((words for words, signs in _WHY.items() if any(s in said for s in signs)), first_line(error))

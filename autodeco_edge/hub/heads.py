"""Heads from the hub: fetched, converted once for their base, and kept.

Owns the choice of files in a heads repository (megabytes, never the shards of a base model) and the place of
the converted file. The conversion is autodeco_edge.convert's. The name of a converted file holds the commit of
the heads and a fingerprint of the base that all its quantisations share.
"""

from __future__ import annotations

from pathlib import Path

from ..convert.base import BaseInfo, open_base
from ..convert.layout import Means
from ..errors import FormatError, MissingInputError
from ..io import digest
from ..io.atomic import sweep_parts
from .cache import heads_path, snapshots
from .download import fetch, size_text
from .remote import Listing, list_repo

MAX_BYTES = 1 << 30  # all released heads are below 8 MB; what is larger holds a base model
_SIDE_FILES = ("config.json", "README.md")
_WHOLE = ("model.safetensors", "autodeco_heads.safetensors")
_INDEX = ".safetensors.index.json"


def heads_for(repo: str, base: Path, *, means: Means, offline: bool, refresh: bool = False, progress: bool) -> Path:
    """The heads file of ``repo`` for the model ``base``.

    means     mean T and P to write into a new file; None in it leaves that one to the checkpoint
    offline   use what is on this disk only
    refresh   ask the hub for a newer commit even if there is one on this disk

    Raises MismatchError for heads of another base, MissingInputError when they are not to be had.
    """
    info = base_info(base)
    snapshot = None
    if not refresh:
        snapshot = next((path for path in snapshots(repo) if any(path.glob("*.safetensors"))), None)
    if snapshot is None:
        if offline:
            raise MissingInputError(f"{repo}: these heads are not on this disk; run once without --offline")
        snapshot = _fetch_snapshot(repo, progress)
    target = heads_path(repo, snapshot.name, fingerprint(info))
    if not target.exists():
        _convert(snapshot, target, info, means)
    return target


def _convert(snapshot: Path, target: Path, info: BaseInfo, means: Means) -> None:
    from ..convert.checkpoint import read_checkpoint
    from ..convert.export import write_heads

    checkpoint = read_checkpoint(snapshot, n_embd=info.n_embd)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_parts(target.parent)  # the folder is ours: no kill leaves anything for long
    write_heads(checkpoint, target, base=info, mean_temperature=means.temperature, mean_top_p=means.top_p)


# ---- the base -----------------------------------------------------------------------------------


def base_info(path: Path) -> BaseInfo:
    """Identity of a base model, of the first part of a split one with all its parts."""
    file, info = open_base(path)
    file.close()
    return info


def fingerprint(info: BaseInfo) -> str:
    """The same for every quantisation of a base; the architecture's name where the file says too little."""
    if info.tokenizer_sha256 is None or info.norm_sha256 is None:
        return info.arch
    return digest.fingerprint(f"{info.arch} {info.n_embd} {info.tokenizer_sha256} {info.norm_sha256}", 12)


# ---- the files ----------------------------------------------------------------------------------


def _fetch_snapshot(repo: str, progress: bool) -> Path:
    """Config, card and the files that hold heads, all or nothing; returns their folder."""
    listing = list_repo(repo)
    names = _head_files(listing, progress)
    n_bytes = sum(listing.files[name].size for name in names)
    if n_bytes > MAX_BYTES:
        raise FormatError(
            f"{repo}: the heads lie in files of {size_text(n_bytes)}, so this is a whole model; give a repository "
            "of heads alone, or convert a local copy with `autodeco-edge convert`"
        )
    side = [name for name in _SIDE_FILES if name in listing.files]
    return fetch(listing, [*side, *names], progress=progress)[-1].parent


def _head_files(listing: Listing, progress: bool) -> list[str]:
    """Those shards that an index names for heads, else the one file of the official layouts."""
    from ..convert.sources import index_of_heads

    indexes = [name for name in listing.files if name.endswith(_INDEX) and "/" not in name]
    if indexes:
        shards = set(index_of_heads(tuple(fetch(listing, indexes, progress=progress))).values())
        if found := sorted(shards & listing.files.keys()):
            return found
    for name in _WHOLE:
        if name in listing.files:
            return [name]
    raise MissingInputError(
        f"{listing.repo}: no AutoDeco heads in it; expected {' or '.join(_WHOLE)}, there are "
        f"{', '.join(sorted(listing.files)[:5]) or 'no files'}"
    )

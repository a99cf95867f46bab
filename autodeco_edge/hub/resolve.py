"""From what a user types to the files of a model and its heads.

Owns the meaning of a model argument: a file, a name of the registry, or ``user/repo``, both with an optional
``:QUANT``. What is installed or on this disk is used without asking the network; ``pull`` asks for something newer.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AutodecoError, MissingInputError, UsageError
from .registry import RegistryEntry, load_registry

if TYPE_CHECKING:
    from .cache import Cached

NO_HEADS = "none"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_HUB = re.compile(r"(?:https://)?(?:hf\.co|huggingface\.co)/")  # as ollama and a browser have it


@dataclass(frozen=True)
class Resolved:
    """
    model   GGUF to load, the first part of a split one
    heads   heads file, or None: then those inside the model, if any ("auto" of the engine)
    name    short name for people: ``qwen3-30b-a3b:Q8_0``, or the stem of a file
    note    one remark for the user, or None
    """

    model: Path
    heads: Path | None
    name: str
    note: str | None


def resolve(
    model: str,
    heads: str | None = None,
    *,
    quant: str | None = None,
    offline: bool = False,
    progress: bool = True,
    refresh: bool = False,
) -> Resolved:
    """The files behind ``model``, downloaded and converted where they are not on this disk.

    heads     a file, ``user/repo``, "none", or None: those of the registry, else those inside the model
    quant     quantisation, such as ``Q8_0``; ``:QUANT`` behind a name is the same
    offline   no network at all; HF_HUB_OFFLINE=1 is the same
    progress  lines and, on a terminal, bars on stderr
    refresh   ask the hub for newer files even if there are some on this disk

    A path imports nothing of the hub. Raises MissingInputError (66) for what is nowhere to be had, UsageError
    (2) for a quantisation that does not exist, OutputError (73) for a disk without room, StorageError (74) for
    a cut connection, BusyError (75) for a rate limit, FormatError and MismatchError (65) for wrong files.
    """
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    request = _Request(offline=offline, refresh=refresh and not offline, progress=progress)
    if os.path.isfile(model):
        path = Path(model)
        return Resolved(path, request.heads(heads, path, None), path.stem, None)
    entry, asked = find_entry(model)
    wanted = quant or asked
    path, used = request.model(entry, wanted)
    note = None
    if heads is None and entry.heads is None and not _is_repo(entry.name):
        note = f"no heads are published for {entry.name}; give some with --heads, or use it without"
    return Resolved(path, request.heads(heads or entry.heads, path, entry), _name(entry, used), note)


def is_here(model: str) -> bool:
    """Whether it is a file, or a name whose file no hub brings: nothing can be newer."""
    if os.path.isfile(model):
        return True
    entry, quant = find_entry(model)
    return any(os.path.isfile(os.path.expanduser(base)) for base in entry.base) or bool(_installed(entry, quant))


def find_file(model: str) -> tuple[Path, Path | None]:
    """A path as it is, else the model of that name on this disk and its heads, without a network."""
    if os.path.exists(model) or model.endswith(".gguf"):
        return Path(model), None
    try:
        found = resolve(model, offline=True, progress=False)
    except MissingInputError:  # the model alone may be here
        found = resolve(model, NO_HEADS, offline=True, progress=False)
    return found.model, found.heads


def find_entry(model: str) -> tuple[RegistryEntry, str | None]:
    """The registry entry, or one made up for ``user/repo``; and what stands behind ``:``, if anything."""
    name, _, quant = _HUB.sub("", model, count=1).partition(":")
    registry = load_registry()
    if name in registry:
        return registry[name], quant or None
    if os.path.isdir(model):
        raise MissingInputError(f"{model}: is a folder; give a GGUF file in it, or a name from `autodeco-edge list`")
    if _is_repo(name) and not model.endswith(".gguf"):
        return RegistryEntry(name, (name,)), quant or None
    close = difflib.get_close_matches(name.lower(), registry, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else "`autodeco-edge list` shows the names"
    raise MissingInputError(
        f"{model}: no such file, name or repository (user/repo; ollama's names are not known here); {hint}"
    )


def _is_repo(text: str) -> bool:
    return bool(_REPO.fullmatch(text))


def _name(entry: RegistryEntry, quant: str) -> str:
    return f"{entry.name}:{quant}" if quant else entry.name


@dataclass(frozen=True)
class _Request:
    """How far one call may go."""

    offline: bool
    refresh: bool
    progress: bool

    def model(self, entry: RegistryEntry, quant: str | None) -> tuple[Path, str]:
        """Path of the GGUF and its quantisation ("" where the file does not say)."""
        for base in entry.base:
            if os.path.isfile(path := os.path.expanduser(base)):
                return Path(path), ""
        if found := _installed(entry, quant):
            return found
        if not self.refresh and (found := _on_disk(entry, quant)):
            return found
        if self.offline:
            what = _name(entry, quant or "")
            how = f"{entry.how_to_install} or " if _package_has(entry, quant) else ""
            raise MissingInputError(f"{what}: not on this disk; run {how}`autodeco-edge pull {what}` with a network")
        try:
            return self._download(entry, quant)
        except AutodecoError as error:
            if isinstance(error, UsageError) or not _package_has(entry, quant):
                raise
            raise type(error)(f"{error}; or run {entry.how_to_install}, which brings {entry.name}") from None

    def _download(self, entry: RegistryEntry, quant: str | None) -> tuple[Path, str]:
        """From the first repository that is there and has the quantisation. If none has, a repository that lacks
        it says more than one that is gone."""
        from .download import fetch
        from .remote import NoSuchRepoError, list_repo
        from .variants import choose, find_variants

        refusals: list[NoSuchRepoError | UsageError] = []
        for repo in entry.base:
            try:
                listing = list_repo(repo)
                variant = choose(find_variants(listing.files), quant or entry.quant, repo)
            except (NoSuchRepoError, UsageError) as error:
                refusals.append(error)
                continue
            return fetch(listing, variant.files, progress=self.progress)[0], variant.quant
        raise next((error for error in refusals if isinstance(error, UsageError)), refusals[0])

    def heads(self, heads: str | None, base: Path, entry: RegistryEntry | None) -> Path | None:
        """A heads file for ``base``; None leaves it to the model."""
        if heads is None or heads == NO_HEADS:
            return None
        if os.path.exists(path := os.path.expanduser(heads)):
            return Path(path)  # the engine says what a folder is
        if not _is_repo(heads) or heads.endswith(".gguf"):
            raise MissingInputError(f"{heads}: no such heads; give a heads file, user/repo, or {NO_HEADS}")
        from ..convert.layout import Means
        from .heads import heads_for

        own = entry is not None and heads == entry.heads
        means = Means(entry.mean_temperature, entry.mean_top_p) if own else Means()
        return heads_for(heads, base, means=means, offline=self.offline, refresh=self.refresh, progress=self.progress)


def _package_has(entry: RegistryEntry, quant: str | None) -> bool:
    """Whether to install the package would help: it carries the default quantisation."""
    return entry.package is not None and (quant is None or quant.upper() == (entry.quant or "").upper())


def _installed(entry: RegistryEntry, quant: str | None) -> tuple[Path, str] | None:
    """What the distribution of the entry carries, if it is installed."""
    if entry.distribution is None:
        return None
    from .installed import installed_models

    return _pick(installed_models(entry.distribution), entry, quant)


def _on_disk(entry: RegistryEntry, quant: str | None) -> tuple[Path, str] | None:
    from .cache import cached_models

    found = (_pick(cached_models(repo), entry, quant) for repo in entry.base)
    return next((picked for picked in found if picked), None)


def _pick(models: list[Cached], entry: RegistryEntry, quant: str | None) -> tuple[Path, str] | None:
    """Without a quantisation asked for, whichever is here, the preferred one first."""
    from .cache import mark_used
    from .variants import choose

    by_variant = {cached.variant: cached for cached in models}
    for wanted in (quant,) if quant else (entry.quant, None):
        with contextlib.suppress(UsageError):
            variant = choose(list(by_variant), wanted, entry.name)
            mark_used(by_variant[variant])
            return by_variant[variant].paths[0], variant.quant
    return None

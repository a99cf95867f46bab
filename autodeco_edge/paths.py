"""Where autodeco-edge keeps its own files: a cache folder and a config folder for each user.

Owns the two places and the environment variables that move them. Makes no folder and reads no file.
Downloads are not here: they lie in the Hugging Face cache, which other programs share.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

APP = "autodeco-edge"


def cache_dir() -> Path:
    """Converted heads and other things that can be made again; AUTODECO_CACHE moves it."""
    return _place("AUTODECO_CACHE", "XDG_CACHE_HOME", ".cache", "Caches", "LOCALAPPDATA")


def config_dir() -> Path:
    """Files written by the user, such as models.toml; AUTODECO_CONFIG moves it."""
    return _place("AUTODECO_CONFIG", "XDG_CONFIG_HOME", ".config", "Application Support", "APPDATA")


def _place(own: str, xdg: str, unix: str, mac: str, windows: str) -> Path:
    if chosen := os.environ.get(own):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get(windows) or Path.home() / "AppData") / APP
    if sys.platform == "darwin":
        return Path.home() / "Library" / mac / APP
    base = os.environ.get(xdg, "")  # the XDG rules: a relative path counts as not set
    return (Path(base) if os.path.isabs(base) else Path.home() / unix) / APP

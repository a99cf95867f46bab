"""Where autodeco-edge keeps its own files, and which names a file may have.

Owns the cache and the config folder of a user, the environment variables that move them, the address of the
hub, and ``safe_name``: the one way from text out of a file or from a hub into a path. Makes no folder and reads
no file.
Downloads are not here: they lie in the Hugging Face cache, which other programs share.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from .errors import UsageError

APP = "autodeco-edge"
MAX_NAME_BYTES = 240  # file systems take 255; a writer adds a suffix of its own
_HASH_DIGITS = 12
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)


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
        return Path(os.environ.get(windows) or home() / "AppData") / APP
    if sys.platform == "darwin":
        return home() / "Library" / mac / APP
    base = os.environ.get(xdg, "")  # the XDG rules: a relative path counts as not set
    return (Path(base) if os.path.isabs(base) else home() / unix) / APP


def home() -> Path:
    """The user's home. Raises UsageError where there is none, as for a container's user of no name."""
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError("no home folder is known for this user; set HOME") from None


def hub_endpoint() -> str | None:
    """HF_ENDPOINT as people write it (a slash at the end, blanks around it, no scheme), as huggingface_hub wants it.

    A path before the hub's own is kept. None leaves it to huggingface_hub. Raises UsageError for what is no address.
    """
    written = os.environ.get("HF_ENDPOINT", "").strip()
    if not written:
        return None
    is_local = re.match(r"(localhost|127\.[\d.]+|\[::1\])(:|/|$)", written)
    address = written if "://" in written else f"{'http' if is_local else 'https'}://{written}"
    try:
        parts = urlsplit(address)
        sound = parts.scheme.lower() in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a broken IPv6 address
        sound = False
    if not sound or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", address):
        raise UsageError(f"HF_ENDPOINT: expected the address of a hub, such as https://huggingface.co; got {written!r}")
    return address.rstrip("/")


def is_safe_name(text: str) -> bool:
    """Whether ``text`` is the name of a file inside its folder, and the same one on Linux, macOS and Windows.

    Not so: nothing, ``.`` and ``..``, separators, drive letters, control and invisible characters, halves of
    surrogate pairs, names that Windows keeps for devices or shortens, and more than 240 bytes.
    """
    if not text or not text.isprintable() or re.search(r'[<>:"/\\|?*]', text):
        return False
    if text.endswith((".", " ")) or text.startswith(" ") or _DEVICES.fullmatch(text):
        return False
    return len(text.encode()) <= MAX_NAME_BYTES


def safe_name(text: str) -> str:
    """``text`` where it is safe as the name of a file, else its harmless characters and a hash of all of it.

    Two texts never share a name, apart from case where the file system ignores it.
    """
    if is_safe_name(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[: MAX_NAME_BYTES // 2].strip("-.")
    return f"{plain}-{digest}" if plain and not _DEVICES.fullmatch(plain) else f"name-{digest}"

"""What tells one thing from another: seeds of draws, fingerprints of texts, identities of large files.

Owns the hashes that runs are resumed and repeated by: a change here makes other draws, and refuses every run that is under
way.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

PORTION = 1 << 20  # bytes at either end of a file that tell it from another


def seed_of(*parts: object) -> int:
    """64 bits: the same for the same parts, wherever and whenever they are asked for."""
    return int.from_bytes(hashlib.sha256("\n".join(map(str, parts)).encode()).digest()[:8], "big")


def fingerprint(text: str | bytes, n_digits: int = 16) -> str:
    """Hexadecimal digits."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:n_digits]


def identity(path: Path) -> str:
    """Name, size and a hash of both ends: tells models apart without reading gigabytes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = file.read(PORTION)
        file.seek(max(0, size - PORTION))
        ends += file.read(PORTION)
    return f"{path.name} {size} {fingerprint(ends)}"

"""What `pack` made, made whole again on the other machine."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any


def load_problems(folder: Path) -> tuple[list[dict[str, Any]], list[bytes]]:
    data = json.loads(gzip.decompress((folder / "problems.json.gz").read_bytes()))
    return data["problems"], [bytes.fromhex(v) for v in data["vocab"]]


def join_parts(folder: Path) -> Path:
    """The model whole again."""
    whole = folder / "model.gguf"
    if not whole.exists():
        parts = sorted(folder.glob("model.part*"))
        if not parts:
            raise SystemExit(f"{folder}: no model.part*; carry both folders of `pack` and copy them together")
        with (folder / "model.joining").open("wb") as out:
            for part in parts:
                out.write(part.read_bytes())
        digest = hashlib.sha256((folder / "model.joining").read_bytes()).hexdigest()
        if digest != (folder / "model.sha256").read_text().strip():
            raise SystemExit(f"{folder}: the parts do not make the model that was packed ({len(parts)} parts)")
        os.replace(folder / "model.joining", whole)
    return whole

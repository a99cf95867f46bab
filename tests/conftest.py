"""Fixtures that several test folders share: tiny real models, made once a session.

The repository root goes to the end of the path, behind site-packages: `demo` and `tests.support` are
found there, while `autodeco_edge` is the installed one, with its native library.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background hands down "ignored"
os.environ["PYTHONSAFEPATH"] = "1"  # the same for child interpreters: no working directory at the front

from tests.support import checkpoints, families, llama_source  # noqa: E402


@dataclass(frozen=True)
class TinyModel:
    """One family on disk: Hugging Face folder, F32 GGUF, heads checkpoint (F32), heads file."""

    name: str
    hf: Path
    gguf: Path
    checkpoint: Path
    heads: Path


_made: dict[str, TinyModel] = {}


def _make(name: str, folder: Path) -> TinyModel:
    from autodeco_edge.convert.base import open_base
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads

    family = next(f for f in families.FAMILIES if f.name == name)
    hf, gguf = families.make(family, folder)
    checkpoint = checkpoints.random_heads(folder / f"{name}-heads", families.HIDDEN, seed=7)
    heads = folder / f"{name}-heads.gguf"
    _, base = open_base(gguf)
    write_heads(read_checkpoint(checkpoint), heads, base=base)
    return TinyModel(name, hf, gguf, checkpoint, heads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """``tiny(name)`` makes a family's model on first use."""
    if llama_source.llama_source() is None:
        pytest.skip("the llama-cpp-python source distribution can be neither found nor fetched")
    folder = tmp_path_factory.mktemp("families")

    def get(name: str) -> TinyModel:
        if name not in _made:
            _made[name] = _make(name, folder)
        return _made[name]

    return get


@pytest.fixture(scope="session")
def qwen2(tiny) -> TinyModel:
    return tiny("qwen2")


@pytest.fixture(scope="session")
def golden() -> dict:
    import json

    return json.loads((ROOT / "tests" / "golden" / "golden.json").read_text())

"""A hub of its own for each test, empty caches, and the tiny model in its repositories."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.hub import Hub
from tests.support.letters import Letters, make_letters

BASE, HEADS = "someone/letters-GGUF", "someone/AutoDeco-letters"
GGUF_NAME = "letters-Q8_0.gguf"
MODELS_TOML = f"""
[letters]
title = "Letters"
base = ["someone/gone-GGUF", "{BASE}"]
heads = "{HEADS}"
mean_temperature = 0.5
mean_top_p = 0.25
"""


@dataclass(frozen=True)
class Home:
    """Where one test's user keeps things."""

    hub_cache: Path
    cache: Path
    config: Path

    @property
    def final_files(self) -> list[Path]:
        """Everything that has a name as if it were whole."""
        found = [path for path in self.hub_cache.rglob("*") if path.is_file() and ".locks" not in path.parts]
        return [path for path in found if not path.name.endswith(".incomplete") and "blobs" in path.parts]


@pytest.fixture(scope="session")
def letters(tmp_path_factory) -> Letters:
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    home = Home(tmp_path / "hub", tmp_path / "cache", tmp_path / "config")
    monkeypatch.setenv("HF_HUB_CACHE", str(home.hub_cache))
    monkeypatch.setenv("AUTODECO_CACHE", str(home.cache))
    monkeypatch.setenv("AUTODECO_CONFIG", str(home.config))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read once, when it is imported
    home.config.mkdir()
    (home.config / "models.toml").write_text(MODELS_TOML)
    return home


@pytest.fixture
def hub(home, letters, monkeypatch):
    """Holds the model and its heads, and a shard that nobody may fetch beside them."""
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.add(BASE, GGUF_NAME, letters.gguf.read_bytes())
    hub.add(BASE, "README.md", b"letters\n")
    for path in letters.checkpoint.iterdir():
        hub.add(HEADS, path.name, path.read_bytes())
    hub.add(HEADS, "weights/model-00001-of-00002.safetensors", b"base model" * 10)
    yield hub
    hub.close()


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "autodeco_edge", *map(str, args)]


def cli(*args: object, **options) -> subprocess.CompletedProcess:
    """The command as a process of its own."""
    return warm.run(*args, text=True, **options)

"""The names in the package, the user's own, and the folders they are read from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from autodeco_edge import paths
from autodeco_edge.errors import AutodecoError, FormatError
from autodeco_edge.hub.registry import load_registry


def write(home, text: str) -> None:
    (home.config / "models.toml").write_text(text)


def test_the_packaged_names(home):
    write(home, "")
    registry = load_registry()
    assert list(registry) == [
        "demo",
        "smollm2-135m",
        "llama-nemotron-8b",
        "r1-distill-qwen-7b",
        "qwen3-30b-a3b",
        "gpt-oss-20b",
        "gpt-oss-120b",
        "qwen3-235b-a22b-thinking",
        "deepseek-v3.1",
    ]
    for entry in registry.values():
        assert all(repo.count("/") == 1 or Path(repo).is_file() for repo in entry.base) and entry.title
    assert [name for name, entry in registry.items() if entry.heads is None] == ["deepseek-v3.1"]


def test_the_users_file_extends_and_overrides_key_by_key(home):
    write(home, '[mine]\nbase = "me/mine-GGUF"\n[gpt-oss-20b]\nquant = "F16"\nheads = "me/heads"\n')
    registry = load_registry()
    assert registry["mine"].base == ("me/mine-GGUF",) and registry["mine"].heads is None
    changed = registry["gpt-oss-20b"]
    assert (changed.quant, changed.heads, changed.mean_temperature) == ("F16", "me/heads", 1.032)
    assert changed.base[0] == "ggml-org/gpt-oss-20b-GGUF"


@pytest.mark.parametrize(
    "text, words",
    [
        ("[a", "not valid TOML"),
        ("a = 1", "stands outside a table"),
        ("[a]\nbase = 'x/y'\nhead = 'x/y'", "unknown key 'head'; allowed: base, title, heads"),
        ("[a]\nheads = 'x/y'", "[a] base: expected a repository"),
        ("[a]\nbase = []", "[a] base: expected a repository"),
        ("[a]\nbase = ['x/y', 3]", "[a] base: expected a repository"),
        ("[a]\nbase = 'x/y'\nquant = 4", "[a] quant: expected text; got 4"),
        ("[a]\nbase = 'x/y'\nmean_temperature = 2.5", "mean_temperature: allowed above 0, up to 2; got 2.5"),
        ("[a]\nbase = 'x/y'\nmean_top_p = true", "mean_top_p: allowed above 0, up to 1; got True"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(home, text, words):
    write(home, text)
    with pytest.raises(FormatError) as caught:
        load_registry()
    assert words in str(caught.value) and "models.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_a_folder(home):
    (home.config / "models.toml").unlink()
    (home.config / "models.toml").mkdir()
    with pytest.raises(AutodecoError, match="it is a folder, not a file"):
        load_registry()


# ---- folders ------------------------------------------------------------------------------------


@pytest.fixture
def user(monkeypatch) -> Path:
    for name in ("AUTODECO_CACHE", "AUTODECO_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/u"))
    return Path("/u")


@pytest.mark.parametrize(
    "platform, env, cache, config",
    [
        ("linux", {}, "/u/.cache/autodeco-edge", "/u/.config/autodeco-edge"),
        ("linux", {"XDG_CACHE_HOME": "/c", "XDG_CONFIG_HOME": "rel"}, "/c/autodeco-edge", "/u/.config/autodeco-edge"),
        ("darwin", {}, "/u/Library/Caches/autodeco-edge", "/u/Library/Application Support/autodeco-edge"),
        ("win32", {"LOCALAPPDATA": "/l", "APPDATA": "/r"}, "/l/autodeco-edge", "/r/autodeco-edge"),
        ("linux", {"AUTODECO_CACHE": "/x", "AUTODECO_CONFIG": "/y"}, "/x", "/y"),
    ],
)
def test_places(user, monkeypatch, platform, env, cache, config):
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert (paths.cache_dir().as_posix(), paths.config_dir().as_posix()) == (cache, config)

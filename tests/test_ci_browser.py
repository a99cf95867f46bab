"""A browser that cannot be had is no reason for a run to fail, or to wait."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "browser"
TOOLS = ("bash", "timeout", "sleep", "touch", "chmod")
ABSENT, THERE = "page tests skipped: no Chromium", "page tests: in a real browser"
PACKAGES = {
    "none": (None, ABSENT),
    "out of reach": ("exit 100", ABSENT),
    "a mirror that hangs": ("sleep 600", ABSENT),
    "one that asks": ("read answer; sleep 600", ABSENT),
    "there": ('for last; do :; done; case "$*" in *install*) touch "$HERE/chromium"; chmod +x "$HERE/chromium";; esac', THERE),
}  # fmt: skip


def run(folder: Path, packages: str | None, user: int) -> tuple[str, float]:
    if not (SCRIPT.exists() and all(map(shutil.which, TOOLS))):
        pytest.skip("no checkout, or no coreutils")
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool))
    fakes = {"id": f"echo {user}"} | ({"apt-get": packages} if packages else {})
    for name, lines in fakes.items():
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{lines}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": str(folder), "HERE": str(folder), "BROWSER_SECONDS": "1"}
    start = time.monotonic()
    done = subprocess.run([shutil.which("bash"), SCRIPT], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip(), time.monotonic() - start


@pytest.mark.parametrize("name", PACKAGES)
def test_it_says_what_came_of_it(tmp_path, name):
    packages, wanted = PACKAGES[name]
    said, took = run(tmp_path, packages, user=0)
    assert said == wanted and took < 40


def test_only_root_installs(tmp_path):
    said, _ = run(tmp_path, PACKAGES["there"][0], user=1000)
    assert said == ABSENT and not (tmp_path / "chromium").exists()


def test_one_that_is_there_is_taken(tmp_path):
    (tmp_path / "google-chrome").symlink_to(shutil.which("bash") or os.devnull)
    assert run(tmp_path, "exit 100", user=0)[0] == THERE

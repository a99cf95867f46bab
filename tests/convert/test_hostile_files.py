"""Hostile files through every command that opens a file: an exit code of the list, one line, no signal, no wait.

AUTODECO_TEST_HOSTILE=all tries every file with every command; otherwise each file meets every kind of command that
fits it, but not every one of that kind.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from autodeco_edge.convert.checkpoint import read_checkpoint
from autodeco_edge.convert.merge import merge_single_file
from tests.support.hostile_files import hostile_files, try_commands, wrong
from tests.support.letters import make_letters

REFUSED = (2, 65, 66)
SECONDS = 5 * (4 if (os.cpu_count() or 1) < 4 else 1)  # 5 on an idle machine; the machine of a test may be busy
ALL = os.environ.get("AUTODECO_TEST_HOSTILE") == "all"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(letters, hostile files by name, a folder where nothing may appear)"""
    folder = tmp_path_factory.mktemp("hostile")
    letters = make_letters(folder)
    merge_single_file(read_checkpoint(letters.checkpoint), letters.gguf, folder / "single.gguf")
    sound = {
        "model": letters.gguf,
        "heads": letters.heads,
        "single": folder / "single.gguf",
        "checkpoint": letters.checkpoint / "model.safetensors",
    }
    files = hostile_files(folder / "files", sound)
    (folder / "out").mkdir()
    return letters, files, folder / "out"


def some(files, every: int, at: int) -> list:
    paths = list(files.values())
    return paths if ALL else paths[at::every]


def test_there_are_three_hundred(place):
    assert len(place[1]) >= 300
    assert sum(path.stat().st_blocks * 512 for path in place[1].values()) < 100e6


def tried(commands, out, codes=REFUSED):
    ended = try_commands(commands)
    faults = wrong(ended, lambda one: one.status in codes and (one.status == 0 or one.output.count("\n") <= 2), SECONDS)
    assert not faults, "\n".join(faults[:20])
    return ended


def test_show(place):
    """A file whose damage lies outside of what is shown is shown."""
    _, files, out = place
    ended = try_commands([["show", path] for path in some(files, 6, 0)])
    faults = wrong(ended, lambda one: one.status in (0, *REFUSED), SECONDS)
    assert not faults, "\n".join(faults[:20])
    assert sum(one.status in REFUSED for one in ended) > 0.5 * len(ended)


def test_convert_and_merge(place):
    """As heads and as base. Damage in the values of weights cannot be seen and converts."""
    letters, files, out = place
    commands = []
    for path in some(files, 12, 1):
        commands.append(["convert", path, "-o", out / "h.gguf", "--base", letters.gguf, "--dry-run"])
        commands.append(["convert", letters.checkpoint, "-o", out / "h.gguf", "--base", path, "--dry-run"])
        commands.append(["merge", letters.checkpoint, "-o", out / "m.gguf", "--base", path, "--dry-run"])
    ended = try_commands(commands)
    faults = wrong(ended, lambda one: one.status in (0, *REFUSED), SECONDS)
    assert not faults, "\n".join(faults[:20])
    assert sum(one.status in REFUSED for one in ended) > 0.7 * len(ended)
    assert list(out.iterdir()) == []


def test_verify(place):
    letters, files, out = place
    commands = [["verify", letters.checkpoint, path] for path in some(files, 8, 2)]
    tried(commands, out, (0, *REFUSED))


@pytest.mark.parametrize("option", ["-m", "--heads"])
def test_run(place, option):
    """llama.cpp sees what our reader lets pass. 1: a sound file whose weights were damaged into NaN."""
    letters, files, out = place
    given = ["--no-heads"] if option == "-m" else ["-m", letters.gguf]
    paths = some(files, 10, 3)
    commands = [["run", option, path, *given, "-n", "2", "-c", "64", "-t", "1", "--raw", "hi"] for path in paths]
    ended = try_commands(commands)
    faults = wrong(ended, lambda one: one.status in (0, 1, 71, *REFUSED), SECONDS)
    assert not faults, "\n".join(faults[:20])
    assert sum(one.status in REFUSED for one in ended) > 0.7 * len(ended)


def test_a_sample_as_processes_of_their_own(place):
    """The driver above forks: once as a user does it."""
    letters, files, _ = place
    for path in list(files.values())[::90]:
        for args in (["show", path], ["run", "-m", path, "-n", "1", "--raw", "hi"]):
            done = subprocess.run(
                [sys.executable, "-m", "autodeco_edge", *map(str, args)],
                capture_output=True, text=True, errors="replace", timeout=60, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode in (0, 1, *REFUSED) and "Traceback" not in done.stderr, (args, done)

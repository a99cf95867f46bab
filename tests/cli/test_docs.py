"""The pages about the command line say what the program says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from autodeco_edge.cli.commands import COMMANDS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_command_reference_is_up_to_date():
    done = subprocess.run([sys.executable, DOCS / "make_cli_reference.py", "--check"], timeout=60)
    assert done.returncode == 0, "run  python docs/make_cli_reference.py"


def test_tour_names_every_slash_command_and_only_options_that_exist():
    text = (DOCS / "chat.md").read_text(encoding="utf-8")
    assert all(f"`{command.usage}`".replace("|", "\\|") in text for command in COMMANDS)
    reference = (DOCS / "cli.md").read_text(encoding="utf-8")
    known = set(re.findall(r"`--([a-z-]+)`", reference)) | {"install-completion"}
    assert set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", text)) <= known


def test_tour_shows_pictures_that_are_there():
    text = (DOCS / "chat.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((images/[^)]+)\)", text)
    assert pictures and all((DOCS / picture).exists() for picture in pictures)

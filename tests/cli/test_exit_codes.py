"""Exit codes: each that an error class has stands in the reference, and 1 is for work that was done in vain."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from autodeco_edge import errors
from tests.support import warm

REFERENCE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def cli(*args, **variables) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "stdin": subprocess.DEVNULL, "text": True, "timeout": 60}
    return warm.run(*args, env={**os.environ, **variables}, **options)


def test_every_code_is_in_the_reference():
    line = next(line for line in REFERENCE.splitlines() if line.startswith("Exit codes:"))
    said = {int(n) for n in re.findall(r"\b\d+\b", line)}
    ours = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.AutodecoError)}
    assert said == ours | {0, 130}


def test_collect_of_a_model_that_is_never_right(home, letters, tmp_path):
    problems, output = tmp_path / "p.jsonl", tmp_path / "o.jsonl"
    problems.write_text(json.dumps({"problem": "2 + 2", "gt": "4"}) + "\n")
    done = cli("collect", "-m", letters.gguf, "--problems", problems, "-o", output, "-n", 2, "--max-tokens", 4, "-t", 1)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(
        "autodeco-edge: error: no reply of 2 was right"
    )


def test_doctor_that_finds_something(home):
    done = cli("doctor", AUTODECO_LIBRARY="/nowhere/lib.so")
    assert done.returncode == 1 and "FAILED" in done.stdout and "check(s) failed; reinstall" in done.stderr


def test_a_group_that_is_a_command_is_in_the_reference():
    assert "## autodeco-edge eval\n" in REFERENCE and "`--methods`" in REFERENCE

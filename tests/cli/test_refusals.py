"""What the parser refuses: one line in our words that names what, what is allowed, what came, and where the help is."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support import warm

HELP = "see autodeco-edge run --help"
LINES = {
    "run --temp hot Hi": f"--temp: expected a number; got 'hot'; {HELP}",
    "run -n 1.5 Hi": f"--max-tokens: expected a whole number; got '1.5'; {HELP}",
    "run --temp= Hi": f"--temp: expected a number; got ''; {HELP}",
    "run --top-k 99999999999x": f"--top-k: expected a whole number; got '99999999999x'; {HELP}",
    "serve --port http": "--port: expected a whole number; got 'http'; see autodeco-edge serve --help",
    "bench decode --rounds x": "--rounds: expected a whole number; got 'x'; see autodeco-edge bench decode --help",
    "run --temp": "--temp: a value is missing",
    "run -m": "-m: a value is missing",
    "run --json=yes": "--json: takes no value",
    "run --nosuch": f"--nosuch: no such option; {HELP}",
    "run --tempp 1": "--tempp: no such option; did you mean --temp?",
    "run -Q": f"-Q: no such option; {HELP}",
    "convert": "HEADS is missing; see autodeco-edge convert --help",
    "train": "--output is missing; see autodeco-edge train --help",
    "plot -o x.svg": "TRACES is missing; see autodeco-edge plot --help",
    "convert a b c": "one word too many: b c; see autodeco-edge convert --help",
    "ls": "ls: no such command; did you mean list?",
    "chatter": "chatter: no such command; see autodeco-edge --help",
    "bench stepp": "stepp: no such command; did you mean step?",
}


def refused(*words: str, **variables: str) -> str:
    options = {"capture_output": True, "stdin": subprocess.DEVNULL, "text": True, "timeout": 60}
    done = warm.run(*words, env={**os.environ, **variables}, **options)
    assert done.returncode == 2 and not done.stdout, done
    assert done.stderr.startswith("autodeco-edge: error: ") and done.stderr.count("\n") == 1
    return done.stderr.removeprefix("autodeco-edge: error: ").rstrip("\n")


@pytest.mark.parametrize("line", LINES)
def test_what_the_parser_refuses_is_said_in_our_words(line, home):
    assert refused(*line.split()) == LINES[line]


def test_variables_and_the_configuration_file_are_named(home):
    assert refused("run", "Hi", AUTODECO_TEMP="hot") == f"AUTODECO_TEMP: expected a number; got 'hot'; {HELP}"
    assert refused("run", "Hi", AUTODECO_RAW="so") == f"AUTODECO_RAW: expected true or false; got 'so'; {HELP}"
    home.mkdir()
    (home / "config.toml").write_text('top-k = "many"\n')
    assert refused("run", "Hi") == f"{home / 'config.toml'}: top-k: expected a whole number; got 'many'"

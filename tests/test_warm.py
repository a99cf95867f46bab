"""tests/support/warm.py: a forked command is what a new interpreter would have been, or a new interpreter is started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.support import warm

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="no forks are made here")

SEEN = """
import json, os, sys
json.dump([sys.argv, os.getcwd(), sorted(os.environ.items()), sys.stdin.read(), __name__, sys.stdout.encoding, sys.stdout.isatty(),
           sorted(os.listdir('/proc/self/fd'))[:3], os.umask(0), sys.executable, sys.flags.safe_path], sys.stdout)
print('x' * 100_000, file=sys.stderr)
"""
FATES = {
    "code": "import sys; sys.exit(7)",
    "message": "import sys; sys.exit('no')",
    "signal": "import os; os.kill(os.getpid(), 9)",
    "abort": "import os; os.abort()",
    "error": "raise SystemError",
    "at exit": "import atexit; atexit.register(print, 'bye'); print('hello')",
    "full stdout": "import os; os.close(1); print('hello')",
    "threads": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()",
}


def both(*args: object, **options) -> tuple[subprocess.CompletedProcess, subprocess.CompletedProcess]:
    """By a fork and by a new interpreter."""
    words, options = [sys.executable, *map(str, args)], {"env": dict(os.environ), **options}
    more = {} if "input" in options else {"stdin": subprocess.DEVNULL}
    assert warm._alike(words, {"capture_output": True, **options})
    new = subprocess.run(words, capture_output=True, timeout=60, **more, **options)
    return warm.python(*args, modules=warm.COMMANDS, **options), new


@pytest.mark.parametrize("given", [None, b"", b"some\xc3\xb6 bytes" * 50_000])
def test_a_fork_sees_what_a_new_interpreter_sees(monkeypatch, tmp_path, given):
    monkeypatch.setenv("AUTODECO_TEMP", "0.5")
    monkeypatch.delenv("HOME", raising=False)
    options = {"cwd": tmp_path} if given is None else {"cwd": tmp_path, "input": given}
    fork, new = both("-c", SEEN, "an argument", "--more", **options)
    assert json.loads(fork.stdout) == json.loads(new.stdout)
    assert (fork.returncode, fork.stderr) == (new.returncode, new.stderr)


@pytest.mark.parametrize("code", FATES.values(), ids=FATES)
def test_a_fork_ends_as_a_new_interpreter_ends(code):
    fork, new = both("-c", code, text=True)
    assert (fork.returncode, fork.stdout, fork.stderr[-9:]) == (new.returncode, new.stdout, new.stderr[-9:])


def test_commands():
    for words in (["--version"], ["config"], ["show", "nothing"], ["run", "--help"], ["run", "-n", "x"], []):
        fork, new = both("-m", "autodeco_edge", *words)
        assert (fork.returncode, fork.stdout, fork.stderr) == (new.returncode, new.stdout, new.stderr)


def test_time_is_limited():
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        warm.python("-c", "import time; time.sleep(60)", modules=warm.COMMANDS, timeout=0.5)
    assert time.monotonic() - start < 30


def test_nothing_that_a_fork_cannot_have_is_given_to_one():
    plain = {"capture_output": True, "env": dict(os.environ)}
    assert warm._alike(["python", "-c", "0"], plain)
    assert not warm._alike(["python", "-c", "0"], {**plain, "preexec_fn": print})
    assert not warm._alike(["python", "-c", "0" * 200_000], plain)
    for name in (
        "LC_ALL",
        "LD_PRELOAD",
        "PYTHONHASHSEED",
        "OMP_NUM_THREADS",
        "AUTODECO_LIBRARY",
        "AUTODECO_SIMULATE_AMX_TRAP",
    ):
        assert not warm._alike(["python", "-c", "0"], {**plain, "env": {**os.environ, name: "another"}}), name


def test_the_server_has_read_no_variable_that_tests_set():
    """huggingface_hub reads its own when it is imported, and tests give every command others."""
    code = "import sys; print('huggingface_hub' in sys.modules, 'llama_cpp' in sys.modules)"
    assert warm.python("-c", code, modules=warm.COMMANDS, text=True).stdout == "False True\n"

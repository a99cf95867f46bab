"""Ctrl-C before the program can hear it and after it has ended: 130 or the program's own code, no traceback; SIGTERM of a
server that has not begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

if sys.platform == "win32":
    pytest.skip("no signals between processes", allow_module_level=True)

KILL = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2)\n"


def run(folder, name: str, text: str, *args: str, **more) -> subprocess.CompletedProcess:
    """The command with a module of ours in the place of ``name``, in an interpreter of its own."""
    (folder / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "autodeco_edge", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path}, **more
    )


@pytest.fixture(autouse=True)
def heard():
    """As a shell starts a program; whoever runs the tests may ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_while_it_is_imported(tmp_path):
    done = run(tmp_path, "typer", KILL, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_after_it_has_ended(tmp_path):
    late = f"import atexit\natexit.register(lambda: exec({KILL!r}))\n"
    done = run(tmp_path, "sitecustomize", late, "--version")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.strip()


def test_while_the_command_works(tmp_path):
    done = run(tmp_path, "plotext", KILL, "plot", str(trace(tmp_path)))
    assert done.returncode == 130 and "Traceback" not in done.stderr


def test_while_text_is_executed(tmp_path):
    """Inside exec, as a dataclass is made: Python then ended by the signal, though the interrupt was caught."""
    done = run(tmp_path, "plotext", f"exec({KILL!r})\n", "plot", str(trace(tmp_path)))
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("module", ["typer", "uvicorn"])
def test_a_server_that_is_told_to_end_before_it_has_begun(tmp_path, module):
    """At the first import and at one of the last."""
    pytest.importorskip("fastapi")
    terminate = KILL.replace("SIGINT", "SIGTERM")
    done = run(tmp_path, module, terminate, "serve", "--port", "0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if module == "typer":
        assert run(tmp_path, module, terminate, "plot").returncode == -signal.SIGTERM, "as any program"


def test_ctrl_c_while_a_server_is_imported(tmp_path):
    pytest.importorskip("fastapi")
    done = run(tmp_path, "uvicorn", f"exec({KILL!r})\n", "serve", "--port", "0")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ignored_by_whoever_started_it(tmp_path):
    """nohup, and a shell's `&`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    done = run(tmp_path, "plotext", KILL + "raise ImportError('late')\n", "plot", str(trace(tmp_path)))
    assert done.returncode not in (130, -signal.SIGINT)


def trace(folder):
    path = folder / "t.jsonl"
    path.write_text('{"text": "a", "temperature": 1.0, "top_p": 1.0}\n{"done": true}\n')
    return path

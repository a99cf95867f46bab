"""llama.cpp's log: what is kept of it, and that it never calls back into Python while tokens are drawn."""

from __future__ import annotations

import ctypes
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine import library as _lib
from autodeco_edge.engine.model import Model
from autodeco_edge.errors import FormatError
from tests.support.letters import make_letters

N_INTERRUPTS = 200


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def fail_to_load(path) -> None:
    """By llama.cpp itself: Model looks at a file first."""
    import llama_cpp

    path.write_bytes(b"GGUF" + b"x" * 40)
    assert not llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())


def test_the_reason_is_llama_cpps(letters, tmp_path):
    path = tmp_path / "sound.gguf"  # but of an architecture that nobody knows
    path.write_bytes(letters.gguf.read_bytes().replace(b"llama", b"lxama"))
    with pytest.raises(FormatError, match="unknown model architecture: 'lxama'"):
        Model(path)


def test_lines_are_kept_until_they_are_cleared(tmp_path):
    fail_to_load(tmp_path / "bad.gguf")
    assert any("failed to read header" in line for line in _lib.log.lines)
    _lib.log.clear()
    assert (_lib.log.lines, _lib.log.last_error()) == ([], "")


def test_the_last_twelve_lines_are_kept(tmp_path):
    _lib.log.clear()
    for i in range(20):
        fail_to_load(tmp_path / f"{i}.gguf")
        assert len(_lib.log.lines) <= 12
    assert len(_lib.log.lines) > 0


def test_a_thread_sees_its_own_lines(tmp_path):
    _lib.log.clear()
    thread = threading.Thread(target=fail_to_load, args=(tmp_path / "bad.gguf",))
    thread.start()
    thread.join()
    assert _lib.log.lines == []


def test_verbose_prints_to_stderr(letters):
    code = "import sys; from autodeco_edge import Model; from autodeco_edge.engine import library; library.log.set_verbose(True); Model(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, letters.gguf], capture_output=True, text=True)
    assert "llama_model_loader" in done.stderr and done.stdout == ""


def losses(engine: Engine, rng: random.Random) -> Iterator[bool]:
    """For each of many generations: was the interrupt lost that came at a random moment of it?"""
    prompt = engine.model.tokenize(b"one red fox")
    for _ in range(N_INTERRUPTS):
        timer = threading.Timer(rng.uniform(0.0, 0.01), signal.raise_signal, [signal.SIGINT])
        try:
            timer.start()
            for _ in engine.generate(prompt, SamplingParams(seed=1), stop_at_end=False):
                pass
            yield True
        except KeyboardInterrupt:
            yield False
        finally:
            timer.join()


def test_no_interrupt_is_lost_while_tokens_are_drawn(letters):
    with Engine(letters.gguf, letters.heads, n_ctx=512, n_threads=1) as engine:
        assert not any(losses(engine, random.Random(0)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_callback_into_python_does_lose_them(letters, capfd):
    """Why the log is kept in C: with a Python callback, some are lost."""
    import llama_cpp

    @llama_cpp.llama_log_callback
    def callback(_level, _text, _data):
        time.sleep(0)  # some work, as a log has

    with Engine(letters.gguf, letters.heads, n_ctx=512, n_threads=1) as engine:
        llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
        try:
            assert any(losses(engine, random.Random(0)))
        finally:
            _lib.library().autodeco_log_capture()

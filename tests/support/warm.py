"""Processes of Python without the time that Python needs to import: a third of a second the command line, two PyTorch.

Owns a server that has imported, and forks a child for each call. The child has its own streams, folder, variables and
arguments, and ends as any process ends: with an exit code, or by the signal that ended it. ``run`` and ``python`` take
what ``subprocess.run`` takes; what a fork would not do as a new interpreter does (see ``_alike``) a new interpreter does.

``python warm.py SOCKET MODULE...`` is the server.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import autodeco_edge.engine  # noqa: F401, sets a variable

# What commands import, a room at a time. Not huggingface_hub: it reads variables once, and tests set them.
_ROOMS = ("bench", "cli", "collect", "convert", "dropin", "engine", "eval", "hub", "text")
COMMANDS = ("typer._adapters", "llama_cpp", "gguf", *(f"autodeco_edge.{room}.*" for room in _ROOMS))
TORCH = ("torch", "safetensors.torch", *COMMANDS)
# Read while the command runs. Any other may act earlier: in the linker, in Python, in OpenMP, in a module of the server.
_LATE = re.compile(
    r"AUTODECO_(?!LIBRARY|SIMULATE|THREAD_WAIT)|XDG_|HF_|OPENAI_|PYTEST_|TORCHINDUCTOR_"
    r"|(HOME|TERM|COLORTERM|NO_COLOR|NO_PROXY|no_proxy)$"
)
_OPTIONS = {"stdin", "input", "capture_output", "text", "timeout", "check", "cwd", "env"}
_LONGEST = 100_000  # characters of an argument; the kernel's own limit is a little more
_PACKAGE = {"GGML_NO_BACKTRACE": "1"}  # autodeco_edge sets it wherever it is imported
_BEFORE = dict(os.environ)  # conftest.py imports this module before any test has set a variable


# ---- for tests ---------------------------------------------------------------------------------


def command(*args: object) -> list:
    return [sys.executable, "-m", "autodeco_edge", *map(_word, args)]


def run(*args: object, modules: tuple[str, ...] = COMMANDS, **options: Any) -> subprocess.CompletedProcess:
    """The command line, as ``python`` runs it."""
    return python("-m", "autodeco_edge", *args, modules=modules, **options)


def python(*args: object, modules: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess:
    """``subprocess.run([sys.executable, *args], **options)`` by a server of ``modules``. The arguments begin with ``-m
    MODULE`` or ``-c CODE``. Unless told otherwise output is captured, and stdin empty."""
    options = {"capture_output": True, "timeout": 300, **options}
    options["env"] = dict(
        options.get("env") or os.environ
    )  # readline, which pytest imports, adds to what a child inherits
    if options.get("input") is None:
        options.setdefault("stdin", subprocess.DEVNULL)
    words = [sys.executable, *map(_word, args)]
    if not _alike(words, options):
        return subprocess.run(words, **options)
    done = _forked(words, modules, options)
    if options.get("check"):
        done.check_returncode()
    return done


def _word(word: object) -> str | bytes:
    return word if isinstance(word, bytes) else str(word)


def _alike(words: list, options: dict) -> bool:
    """Whether a fork of the server does what a new interpreter would do."""
    ours = options["env"]
    names = {name for name, value in {*ours.items()} ^ {*_BEFORE.items()} if _PACKAGE.get(name) != value}
    return (
        hasattr(os, "pidfd_open")
        and options.keys() <= _OPTIONS
        and options["capture_output"]
        and options.get("stdin") in (None, subprocess.DEVNULL)
        and all(map(_LATE.match, names))
        and all(len(word) < _LONGEST for word in words)
    )


def _forked(words: list, modules: tuple[str, ...], options: dict) -> subprocess.CompletedProcess:
    request = {
        "arguments": [os.fsdecode(word) for word in words[1:]],
        "folder": os.fspath(options.get("cwd") or os.getcwd()),
        "variables": options["env"],
        "umask": os.umask(0o77),
    }
    os.umask(request["umask"])
    given = options.get("input")
    given = given.encode() if isinstance(given, str) else given
    code, out, err = _server(modules).call(request, given, options["timeout"], words)
    if options.get("text"):
        out, err = (io.TextIOWrapper(io.BytesIO(data)).read() for data in (out, err))
    return subprocess.CompletedProcess(words, code, out, err)


@cache
def _server(modules: tuple[str, ...]) -> Server:
    return Server(modules)


class Server:
    """Ends when the socket does: with the process that made it, however that ends."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            line = [sys.executable, "-P", __file__, str(theirs.fileno()), *modules]
            self._process = subprocess.Popen(
                line, env=_BEFORE, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def call(self, request: dict, given: bytes | None, timeout: float | None, words: list) -> tuple[int, bytes, bytes]:
        """(exit code or minus the signal, stdout, stderr) of a child."""
        (out, out_end), (err, err_end), (reply, reply_end) = os.pipe(), os.pipe(), os.pipe()
        source, feed = os.pipe() if given is not None else (os.open(os.devnull, os.O_RDONLY), None)
        self._send(request, (source, out_end, err_end, reply_end))
        with open(reply, "rb") as answer, ThreadPoolExecutor(4) as pool:
            pid = int(answer.readline() or self._gone())
            if feed is not None:
                pool.submit(_write, feed, given)
            rest = [pool.submit(_read, out), pool.submit(_read, err), pool.submit(answer.readline)]
            late = wait(rest, timeout).not_done
            if late and not rest[2].done():
                os.kill(pid, signal.SIGKILL)
            out, err, status = (future.result() for future in rest)
        if late:
            raise subprocess.TimeoutExpired(words, timeout, out, err)
        return os.waitstatus_to_exitcode(int(status or self._gone())), out, err

    def _send(self, request: dict, ends: tuple[int, ...]) -> None:
        text = os.memfd_create("request")
        os.write(text, json.dumps(request).encode())
        fds = array.array("i", (text, *ends))
        try:
            self._socket.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except BrokenPipeError:
            self._gone()
        for fd in fds:
            os.close(fd)

    def _gone(self) -> int:
        raise RuntimeError(f"the server of the command line ended with {self._process.wait()}")


def _read(fd: int) -> bytes:
    with open(fd, "rb") as file:
        return file.read()


def _write(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb", buffering=0) as file:  # or it has seen enough
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


# ---- the server --------------------------------------------------------------------------------


def serve(control: socket.socket) -> dict | None:
    """A child for each request. Returns the request in the child; None in the server, when nobody is there any more."""
    with control, selectors.DefaultSelector() as ready:
        ready.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.data:
                    _bury(ready, key)
                    continue
                _, rights, _, _ = control.recvmsg(1, socket.CMSG_SPACE(5 * 4))
                if not rights:
                    return None
                text, *streams, reply = array.array("i", rights[0][2])
                pid = os.fork()
                if not pid:
                    for other in ready.get_map().values():
                        if other.data:
                            os.close(other.fd)
                            os.close(other.data[1])
                    os.close(reply)
                    return _become(text, streams)
                for fd in (text, *streams):
                    os.close(fd)
                os.write(reply, b"%d\n" % pid)
                ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, reply))


def _bury(ready: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, reply = key.data
    ready.unregister(key.fd)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it
        os.write(reply, b"%d\n" % status)
    os.close(reply)
    os.close(key.fd)


def _become(text: int, streams: list[int]) -> dict:
    """The process that was asked for: its streams, folder, variables."""
    with open(text, "rb") as file:
        file.seek(0)
        request = json.load(file)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = _like(getattr(sys, name), number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["variables"])
    return request


def _like(old: io.TextIOWrapper, number: int) -> io.TextIOWrapper:
    """A stream on a descriptor, buffered and encoded as this interpreter does it."""
    unbuffered = old.write_through and number > 0
    file = open(number, "wb" if number else "rb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(file, old.encoding, old.errors, None, old.line_buffering, unbuffered)


def _execute(arguments: list[str]) -> None:
    """What the interpreter does with its arguments."""
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), module.__dict__)


def load(name: str) -> None:
    """A module, if there is one (typer's own differ from version to version), or with ``.*`` behind it all of a package."""
    if not name.endswith(".*"):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
        return
    package = importlib.import_module(name.removesuffix(".*"))
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        load(name)
    gc.freeze()
    request = serve(control)
    if request is not None:
        _execute(request["arguments"])


if __name__ == "__main__":
    main()

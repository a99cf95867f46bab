"""The process around the application: sockets, signals, and the order of the end.

Owns binding, what is said on stderr, and the shutdown: no more requests, then some seconds for what runs, then the end of
it in a form that its readers understand. Knows no routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import BusyError, UsageError
from ..io.printing import say
from .app import House
from .connection import Connection
from .encoding import event
from .errors import error_of, respond, shutting_down

_LAST_SECONDS = 1.0  # for answers to be written after their replies were ended
_LAST_WORD_SECONDS = 0.2  # for one that had to be interrupted even so
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGE = 2**17  # bytes
_LEAST_FILES, _SPARE_FILES = 48, 16  # an idle server has a dozen; what a reply opens (modules, at first) is closed soon
_SILENT_SECONDS = 60.0
_LOAD_SECONDS = 1.0  # that the end waits for a model that is still being loaded


class Seldom:
    """Chatter that may come a thousand times a second: a line is said, and not again within a minute."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}

    def __call__(self, line: str) -> None:
        now = time.monotonic()
        if now >= self._next.get(line, 0.0):
            self._next[line] = now + _SILENT_SECONDS
            say(line)


say_now_and_then = Seldom()


class DoorSocket(socket.socket):
    """Takes no more connections than leave the process some files to open: who comes then is turned away at once. Without
    any left, asyncio would try its 2,048 times a second, with a line for each.

    n_files  that the process may have open
    """

    n_files = float("inf")

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        if connection.fileno() >= self.n_files - _SPARE_FILES:  # numbers are given from below
            connection.close()
            say_now_and_then(f"warning: no more connections: ulimit -n {self.n_files} leaves no room for them")
            raise ConnectionAbortedError  # as if it had left again before it was taken
        return connection, address


def bind(host: str, port: int) -> DoorSocket:
    """Raises UsageError for an address that is none and for too few files, BusyError for an address that is taken."""
    n_files = _files_allowed()
    if n_files < _LEAST_FILES:
        raise UsageError(f"ulimit -n {n_files}: serve opens up to {_LEAST_FILES} files and connections; raise it")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = DoorSocket(family, kind, protocol)
        sock.n_files = n_files
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: no such address ({error.strerror})") from None
    except (OSError, OverflowError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or error
        raise BusyError(f"cannot listen on {host} port {port} ({words}); choose another --port") from None
    return sock


def _files_allowed() -> float:
    if sys.platform == "win32":
        return float("inf")
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else soft


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Signals are ours, not uvicorn's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class LastWord:
    """An answer for everybody whom the end of the server interrupts: 503 where nothing was said yet, an error at the end of
    a stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind: bytes | None = None  # of the answer, once it has begun

        async def watched(message: Message) -> None:
            nonlocal kind
            if message["type"] == "http.response.start":
                kind = dict(message["headers"]).get(b"content-type", b"")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            if kind is not None and not kind.startswith(b"text/event-stream"):
                raise
            if kind is None:
                await respond(shutting_down(Connection="close"))(scope, receive, send)
            else:
                await send({"type": "http.response.body", "body": event(error_of(shutting_down()))})


class Runner:
    """One server from its first request to its last. ``run`` returns the signal that ended it."""

    def __init__(self, house: House, app: Any) -> None:
        self._house, self._service = house, house.service
        self._signal: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.server = Server(
            uvicorn.Config(
                LastWord(app),
                http=Connection,
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=None,
            )
        )

    def run(self, sock: socket.socket) -> int | None:
        """Raises what loading the model failed with."""
        quiet_logs()
        give_back_memory()
        asyncio.run(self._serve(sock))
        if self._service.failure:
            raise self._service.failure
        return self._signal

    async def _serve(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        if self._signal is not None:  # it came before there was a loop
            return
        self._service.start()
        watch = asyncio.create_task(self._watch())
        try:
            await self.server.serve([sock])
        finally:
            watch.cancel()
            await self._interrupt()
            self._service.close()
            await asyncio.to_thread(self._service.join, _LOAD_SECONDS if self._service.is_loading else 60.0)

    async def _interrupt(self) -> None:
        """Who still waits hears of the end; and nobody who does not read can hold it up."""
        state = self.server.server_state
        for task in state.tasks:
            task.cancel()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=_LAST_WORD_SECONDS)
        for connection in list(state.connections):
            connection.transport.abort()

    async def _watch(self) -> None:
        """The end, where the model could not be loaded or the engine's thread has ended by itself."""
        await self._service.ready.wait()
        if self._service.engine:
            n = self._service.engine.n_ctx
            say(f"ready: {self._house.names[0]}, {self._house.limits.parallel} slots of {n} tokens")
            await self._service.over.wait()
        self.server.should_exit = self.server.force_exit = True

    # ---- the end -----------------------------------------------------------------------

    def on_signal(self, number: int, _frame: Any = None) -> None:
        """From the signal's handler."""
        if self._loop is None:
            self._signal = number
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the process is about to
            self._loop.call_soon_threadsafe(self.stop, number)

    def stop(self, number: int | None = None) -> None:
        """Once: take nothing more and let run what runs. Twice: end what runs, and wait no longer than for that to be written."""
        if self._service.draining:
            self._end_after(0.0)
            return
        self._signal, self._service.draining = number, True
        seconds = self._house.limits.drain if self._service.n_open else 0.0
        if self._service.n_open:
            say(f"ending: up to {seconds:g} seconds for {self._service.n_open} replies")
        self.server.should_exit = True
        self._end_after(seconds)

    def _end_after(self, seconds: float) -> None:
        assert self._loop
        self._loop.call_later(seconds, self._service.cut, "shutdown")
        self._loop.call_later(seconds + _LAST_SECONDS, setattr, self.server, "force_exit", True)


@contextlib.contextmanager
def signals_to(runner: Runner) -> Iterator[None]:
    """SIGINT and SIGTERM end the server while the block runs. For the main thread of a process that ends behind it: there
    they are ignored, for its exit code is known by then."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    for number in numbers:
        signal.signal(number, runner.on_signal)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def leave(house: House, code: int) -> int:
    """The exit code; where a model is still being loaded or a grammar made, which nothing can interrupt, the process ends
    here."""
    if not house.has_ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _OneLine(logging.Handler):
    """What libraries have to say, without values: an exception's message may quote a prompt."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "no exception"
        say_now_and_then(f"{record.levelname.lower()}: {record.name} ({kind}, {record.module}:{record.lineno})")


def quiet_logs() -> None:
    AppStatus.disable_automatic_graceful_drain()  # sse-starlette would end every stream at the first signal
    for name in ("uvicorn", "uvicorn.error", "asyncio", "sse_starlette.sse"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_OneLine(logging.ERROR)], False
        logger.setLevel(logging.ERROR)


def give_back_memory() -> None:
    """What is freed of large blocks goes back to the system. By itself glibc keeps such blocks once it has seen one freed,
    and of grammars, which one thread makes and another frees, more and more of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_TRIM_THRESHOLD, _LARGE)

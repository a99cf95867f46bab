"""Native objects owned by Python: who may use one, and when it is freed.

Owns the rules that every class with a pointer shares: one process, nothing after close, one call at a time
where the object is not made for more, nothing freed while it is in use, no copies, a quiet end of the
interpreter. Knows nothing of what the pointers point to.
"""

from __future__ import annotations

import atexit
import inspect
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NoReturn, Self, SupportsIndex

from ..errors import BusyError, UsageError

_GENERATORS = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_EXIT_WAIT_S = 60.0  # for calls that daemon threads are in when the interpreter ends

_handles: weakref.WeakSet[Handle] = weakref.WeakSet()
_calls: dict[int, int] = {}  # id of each call that runs now: its thread
_ending: int | None = None  # the thread that ends the interpreter
_process = object()  # another one in a forked child


class Handle:
    """A native object: freed once, when it is closed and neither a call nor another object uses it any more.

    what       its name in messages: "the model"
    pointer    what ``call`` hands out
    free       called once with the pointer
    needs      Handles that must outlive it: a context needs its model
    exclusive  one call at a time: a second one is refused with BusyError

    >>> native = Handle("the model", pointer, llama_model_free)
    >>> with native.call() as pointer: ...
    """

    def __init__(
        self,
        what: str,
        pointer: Any,
        free: Callable[[Any], None],
        *,
        needs: Iterable[Handle] = (),
        exclusive: bool = False,
    ) -> None:
        self.what, self._pointer, self._free = what, pointer, free
        self._process = _process
        self._lock = threading.RLock()  # reentrant: a finalizer may run in the middle of anything
        self._exclusive = exclusive
        self._caller: Callable[[], _Call | None] = _nobody
        self._closed, self._users = False, 1  # the owner is the first user
        self._needs: list[Handle] = []
        for other in needs:
            self.need(other)
        _handles.add(self)

    def check(self) -> None:
        """Raises BusyError in a forked child, UsageError after close."""
        if self.is_foreign:
            raise BusyError(f"{self.what} was made in another process; make another one after the fork")
        if self._closed:
            raise UsageError(f"{self.what} is closed; make another one")

    @property
    def pointer(self) -> Any:
        """For a caller that keeps the owner alive and open by itself; others take ``call``. Raises as ``check``."""
        self.check()
        return self._pointer

    @property
    def is_foreign(self) -> bool:
        """Whether a parent process made it."""
        return self._process is not _process

    @property
    def closed(self) -> bool:
        return self._closed

    def call(self, *, shared: bool = False) -> _Call:
        """``with handle.call() as pointer``: it is not freed inside. Raises as ``check``, BusyError out of turn.

        shared: a call that may run beside others, of an exclusive handle too
        """
        return _Call(self, shared)

    # ---- what it needs, and who needs it -----------------------------------------------

    def need(self, other: Handle) -> None:
        """From now on ``other`` outlives this one."""
        other.borrow()
        self._needs.append(other)

    def drop(self, other: Handle) -> None:
        """The end of ``need``."""
        self._needs.remove(other)
        other.release()

    def borrow(self, call: _Call | None = None) -> Any:
        """The pointer, valid until ``release``, which must follow exactly once."""
        self.check()  # before the lock, which another thread may have held at a fork
        with self._lock:
            self.check()
            if call and self._exclusive and not call.shared:
                self._take_turn(call)
            self._users += 1
        return self._pointer

    def _take_turn(self, call: _Call) -> None:
        before = self._caller()
        if before is not None and before.was_left():
            self._users -= 1  # what its __exit__ did not come to
        elif before is not None:
            raise BusyError(f"{self.what} is in use by another call; make one for each thread, or wait")
        self._caller = weakref.ref(call)

    def release(self, call: _Call | None = None) -> None:
        if self.is_foreign:
            return  # the parent frees it
        with self._lock:
            if call and self._caller() is call:
                self._caller = _nobody
            self._users -= 1
            last = self._users == 0
        if last:
            self._free(self._pointer)
            while self._needs:
                self._needs.pop().release()

    def close(self) -> None:
        """Refuse all further use; freed now, or by the last user."""
        if self.is_foreign:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.release()


class _Call:
    """One call: a user of its handle, and waited for at the end of the interpreter.

    A Ctrl-C between two lines of ``__exit__`` may lose the rest of it. So the handle knows its caller by a weak
    reference, and the turn is free again when the call's object is gone. Whoever handles the Ctrl-C still holds it,
    by the traceback: there the turn is free when the function of the ``with`` has been left.
    """

    __slots__ = ("__weakref__", "_frame", "_handle", "_thread", "shared")

    def __init__(self, handle: Handle, shared: bool) -> None:
        self._handle, self.shared = handle, shared
        self._frame: FrameType | None = None
        self._thread = 0

    def was_left(self) -> bool:
        """Whether this thread made the call and is out of the function that made it. A generator may be waiting."""
        if self._frame is None or self._thread != threading.get_ident() or self._frame.f_code.co_flags & _GENERATORS:
            return False
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is None

    def __enter__(self) -> Any:
        self._frame, self._thread = sys._getframe(1), threading.get_ident()
        _calls[id(self)] = threading.get_ident()
        try:
            if _ending is not None and threading.get_ident() != _ending:
                _stop()
            return self._handle.borrow(self)
        except BaseException:
            _calls.pop(id(self), None)
            raise

    def __exit__(self, *exc: object) -> None:
        self._handle.release(self)
        self._frame = None
        _calls.pop(id(self), None)


class Owner:
    """Base of the classes that own a Handle in ``native``: closed once, never copied."""

    native: Handle

    def close(self) -> None:
        """Free it, or let its last user do so. May be called twice, and from any thread."""
        native = getattr(self, "native", None)  # a constructor that failed has none
        if native is not None:
            native.close()

    def __del__(self) -> None:
        if _at_exit is not None:  # else the modules are being taken down, and everything is closed
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        """copy, deepcopy and pickle come here: two owners would free one pointer twice."""
        raise UsageError(f"{type(self).__name__}: cannot be copied or pickled; make another one from its file")


def _nobody() -> None:
    """The caller of a handle that nobody calls."""


def _stop() -> NoReturn:
    """A daemon thread goes no further once the interpreter ends; Python would stop it a moment later."""
    me = threading.get_ident()
    for call in [call for call, thread in list(_calls.items()) if thread == me]:  # with those around this one
        _calls.pop(call, None)
    while True:
        threading.Event().wait()


def _others_are_calling() -> bool:
    me, alive = threading.get_ident(), sys._current_frames().keys()
    return any(thread != me and thread in alive for thread in list(_calls.values()))


def _at_exit() -> None:
    """Let the calls of daemon threads end, and free everything while the modules are still there.

    The libraries' own destructors, which run last, crash under a call, and on objects that live.
    """
    global _ending
    _ending = threading.get_ident()
    deadline = time.monotonic() + _EXIT_WAIT_S
    while _others_are_calling() and time.monotonic() < deadline:
        time.sleep(0.001)
    if not _others_are_calling():
        for handle in list(_handles):
            handle.close()


def _after_fork() -> None:
    """The child has the parent's memory, but none of its threads: it may neither use nor free what was made there."""
    global _process
    _process = object()
    _calls.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

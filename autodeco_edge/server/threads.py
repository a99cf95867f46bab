"""Work beside the event loop: a few threads, in which callers take turns.

Owns how much of it goes on at once, and how much may wait. A thread cannot be stopped: its place is free when its work has
ended, and not when somebody has stopped waiting for it. Knows no requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from .errors import ApiError
from .fair_queue import FairQueue

T = TypeVar("T")


class _Work:
    def __init__(self, function: Callable[[], Any], result: asyncio.Future[Any]) -> None:
        self.function, self.result = function, result


class Threads:
    """
    n     threads
    room  pieces of work that wait; more are turned away with 429

    For one event loop, and to be called from there.
    """

    def __init__(self, n: int, room: int) -> None:
        self._n_free, self._n, self._room = n, n, room
        self._queue: FairQueue[_Work] = FairQueue()
        self._pool = ThreadPoolExecutor(n, "beside")

    @property
    def are_idle(self) -> bool:
        return self._n_free == self._n

    async def run(self, caller: Hashable, function: Callable[[], T]) -> T:
        """What the function gives or raises. Cancelled before its turn it leaves the row; after that it waits for the
        function's end, unless it is cancelled once more."""
        if len(self._queue) >= self._room:
            raise ApiError(429, "too many requests are being prepared; try again later", Retry_After="1")
        work = _Work(function, asyncio.get_running_loop().create_future())
        self._queue.put(caller, work)
        self._begin()
        try:
            return await asyncio.shield(work.result)
        except asyncio.CancelledError:
            if not self._queue.remove(caller, work):
                await asyncio.wait((work.result,))
            raise

    def _begin(self) -> None:
        while self._n_free and (work := self._queue.get()):
            self._n_free -= 1
            self._pool.submit(self._do, asyncio.get_running_loop(), work)

    def _do(self, loop: asyncio.AbstractEventLoop, work: _Work) -> None:
        result, error = None, None
        try:
            result = work.function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended before us
            loop.call_soon_threadsafe(self._end, work, result, error)

    def _end(self, work: _Work, result: Any, error: BaseException | None) -> None:
        self._n_free += 1
        if error is None:
            work.result.set_result(result)
        else:
            work.result.set_exception(error)
            work.result.exception()  # nobody may be left to hear of it
        self._begin()

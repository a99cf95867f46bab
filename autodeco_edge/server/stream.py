"""A reply on its way: gathered whole, or in server-sent events as it is drawn.

Owns the loop over what the engine's thread hands over, the events, and what happens when the reader leaves. Knows the
objects (answers.py) only by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ..engine.sampler import Step
from ..io.printing import one_line, say
from .answers import ReplyWriter
from .encoding import event
from .errors import ApiError, error_of
from .limits import PING_SECONDS, SEND_SECONDS
from .replies import Delta, ReplyReader
from .service import Exchange

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody reads the answer any more."""


Piece = tuple[int, Delta, int, bool]  # choice, what is new, calls that it had before, whether it is over


async def progress(exchange: Exchange, readers: list[ReplyReader]) -> AsyncIterator[list[Piece]]:
    """What came at once, until all choices are over."""
    over: set[int] = set()
    async for news in exchange:
        pieces: list[Piece] = []
        for index, steps, ended in news:
            if index not in over:
                pieces += pieces_of(index, readers[index], steps, ended)
        over |= {index for index, *_, is_over in pieces if is_over}
        for index in over:
            exchange.jobs[index].cancel()  # one that a stop string has ended still draws
        yield pieces
        if len(over) == len(readers):
            return


def pieces_of(index: int, reader: ReplyReader, steps: Sequence[Step], ended: bool) -> Iterator[Piece]:
    """A piece a token, whether they came one by one or at once; none for a token of which nothing can be shown yet."""
    parts: list[Sequence[Step]] = [steps[i : i + 1] for i in range(max(len(steps), 1))]
    for i, part in enumerate(parts):
        n_called = reader.n_called
        delta = reader.feed(part)
        over = reader.stopped or (ended and i == len(parts) - 1)
        if over:
            delta.add(reader.finish())
        if over or not delta.is_empty:
            yield index, delta, n_called, over
        if over:
            return


async def whole(exchange: Exchange, readers: list[ReplyReader], answer: ReplyWriter) -> str:
    """JSON text."""
    replies = [answer.gathered() for _ in readers]
    async for pieces in progress(exchange, readers):
        for index, delta, _, _ in pieces:
            replies[index].add(delta)
    return answer.whole(replies, readers, exchange.jobs)


async def events(
    exchange: Exchange, readers: list[ReplyReader], answer: ReplyWriter, include_usage: bool
) -> AsyncIterator[bytes]:
    """The chunks, the last of which carries the summary, and [DONE]; or an error in their place."""
    usage: dict[str, Any] = {"usage": None} if include_usage else {}
    left = len(readers)
    try:
        for index in range(len(readers)):
            if (opening := answer.opening(index)) is not None:
                yield event(answer.chunk([opening], **usage))
        async for pieces in progress(exchange, readers):
            chunks = []
            for index, delta, n_called, over in pieces:
                if over:
                    left -= 1
                    choice = answer.ending(index, delta, n_called, readers[index], exchange.jobs[index])
                else:
                    choice = answer.piece(index, delta, n_called)
                more = answer.summary(exchange.jobs) if left == 0 and not include_usage else {}
                chunks.append(event(answer.chunk([choice], **usage, **more)))
            if chunks:
                yield b"".join(chunks)
        if include_usage:
            more = answer.summary(exchange.jobs)
            yield event(answer.chunk([], usage=answer.usage(readers, exchange.jobs), **more))
        yield b"data: [DONE]\n\n"
    except Exception as error:
        if not isinstance(error, ApiError):
            say(f"error: {type(error).__name__} in a stream: {one_line(error)[:300]}")
        yield event(error_of(error))


class Events(EventSourceResponse):
    """The exchange ends with the response, however that ends, begun or not."""

    def __init__(self, exchange: Exchange, content: AsyncIterator[bytes], on_gone: Any) -> None:
        super().__init__(content, ping=PING_SECONDS, sep="\n", send_timeout=SEND_SECONDS)
        self._exchange, self._on_gone, self._complete = exchange, on_gone, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._complete = True

        try:
            await super().__call__(scope, receive, counted)
        finally:
            self._exchange.close()
            if not self._complete:
                self._on_gone()


async def until_gone(request: Request, work: Coroutine[Any, Any, T], on_gone: Callable[[], None] | None = None) -> T:
    """The work's result. Raises ClientGone when the client leaves: ``on_gone`` is called, the work cancelled, and its end
    waited for, which takes a while where a thread is at it."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if on_gone:
            on_gone()
        task.cancel()
        await asyncio.wait((task,))
        raise ClientGone
    finally:
        for each in (task, gone):
            each.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

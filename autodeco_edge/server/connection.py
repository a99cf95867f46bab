"""One connection: how long the head of a request and the reading of an answer may take, and how many connections there are.

Owns what uvicorn leaves open: a client that sends a byte now and then would hold its connection for ever, and a body may
have two lengths or a million pieces. Its answers to what is no HTTP have the shape of all others.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .errors import body_of
from .limits import HEADER_BYTES, HEADER_SECONDS, MAX_CHUNKS, MAX_CONNECTIONS, SEND_SECONDS


class _Strict(h11.Connection):
    """A request whose body has two lengths is none: a proxy may take the other, and the rest for a request of somebody's.
    Neither is one in crumbs: each costs the event loop as much as a large piece."""

    _n_pieces = 0  # of a body

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Data):
            self._n_pieces += 1
            if self._n_pieces > MAX_CHUNKS:
                raise h11.RemoteProtocolError("a body in too many pieces")
        if isinstance(event, h11.Request):
            self._n_pieces = 0
            named = {name for name, _ in event.headers}
            if b"transfer-encoding" in named and (b"content-length" in named or event.http_version < b"1.1"):
                raise h11.RemoteProtocolError("Transfer-Encoding beside Content-Length, or in HTTP/1.0")
        return event


class Connection(H11Protocol):
    header_seconds = HEADER_SECONDS
    max_connections = MAX_CONNECTIONS
    send_seconds = SEND_SECONDS
    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Strict(h11.SERVER, HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            self._stop_waiting()
        else:
            self._expect_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering:
            self._expect_head()
        if self._unread is None:
            self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _expect_reading(self, before: int | None = None) -> None:
        """An answer that is complete lies here until it is read; of which nothing is read for a while, nothing will be."""
        left = self.transport.get_write_buffer_size()
        if left and left == before:
            self.transport.abort()
        elif left:
            self._unread = self.loop.call_later(self.send_seconds, self._expect_reading, left)
        else:
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        body = json.dumps(body_of(400, "this is no valid HTTP request")).encode()
        headers: list[Any] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events = (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()

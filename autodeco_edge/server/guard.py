"""The door: who may come in, and with how much.

Owns the Host check, the keys, the type and the size of a body, before any route is looked for: what is not let through
here reaches nothing. Plain ASGI, so that it stands in front of everything. Knows no routes but those that need no key.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, respond
from .limits import BODY_SECONDS, MAX_BODY, MAX_COMING

OPEN = ("/health",)  # routes without a key
OWNER = "autodeco.owner"  # of a scope: by which key the request came in, '' without keys


def caller_of(scope: Scope) -> str:
    """Whose turn it is: the key's owner, else the address that the request comes from."""
    client = scope.get("client")
    return scope[OWNER] or (client[0] if client else "")


class Keys:
    """Keys are kept and compared as hashes, every one of them each time, so that the time tells nothing."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def owner(self, authorization: list[bytes]) -> str | None:
        """A name for the key of a request's one Authorization header; None where it has none that is right."""
        scheme, _, key = authorization[0].partition(b" ") if len(authorization) == 1 else (b"", b"", b"")
        given, found = hashlib.sha256(key).digest(), None
        for known in self._hashes:
            if hmac.compare_digest(given, known):
                found = known.hex()[:16]
        return found if scheme.lower() == b"bearer" else None


class Hosts:
    """Names that a Host header may say. An address or localhost always may: a page of somebody else's, whose name points
    here, can only say its own name."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    def allow(self, hosts: list[bytes]) -> bool:
        if len(hosts) != 1:
            return False
        name = _without_port(hosts[0].decode("latin-1").strip().lower())
        return "*" in self._names or name in self._names or _is_address(name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.partition(":")[0].rstrip(".") if host.count(":") <= 1 else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """free: paths that a GET may have without a key, beside /health."""

    def __init__(
        self, app: ASGIApp, keys: Keys, hosts: Hosts, max_body: int = MAX_BODY, free: Iterable[str] = ()
    ) -> None:
        self._app, self._keys, self._hosts, self._max_body = app, keys, hosts, max_body
        self._free, self._coming = frozenset([*OPEN, *free]), _Coming()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            try:
                self._check(scope)
            except ApiError as error:
                await respond(error)(scope, receive, send)
                return
            with _Body(receive, self._max_body, self._coming) as body:
                await self._app(scope, body, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]
        if not self._hosts.allow(_all(headers, b"host")):
            raise ApiError(421, "this host name is not served here; start the server with --allow-host NAME")
        scope[OWNER] = ""
        if self._keys and not (scope["path"] in self._free and scope["method"] == "GET"):
            owner = self._keys.owner(_all(headers, b"authorization"))
            if owner is None:
                raise ApiError(
                    401, "no valid API key; send it as  Authorization: Bearer KEY", WWW_Authenticate="Bearer"
                )
            scope[OWNER] = owner
        if scope["method"] == "POST":
            self._check_body(headers)

    def _check_body(self, headers: list[tuple[bytes, bytes]]) -> None:
        kind = b",".join(_all(headers, b"content-type")).partition(b";")[0].strip().lower()
        if kind != b"application/json":  # also what a page of somebody else's cannot send without being asked first
            raise ApiError(415, "Content-Type: allowed application/json")
        if _all(headers, b"content-encoding"):
            raise ApiError(415, "Content-Encoding: not supported; send the body as it is")
        length = b"".join(_all(headers, b"content-length"))
        if length.isdigit() and (len(length) > 18 or int(length) > self._max_body):
            raise _too_large(self._max_body)


class _Coming:
    """What has come of bodies that are not whole: who sends slowly would fill the memory, a megabyte a connection."""

    n_bytes = 0


class _Body:
    """A receive channel that ends with an error where a body is too large, too long in coming, or one of too many."""

    def __init__(self, receive: Receive, max_body: int, coming: _Coming) -> None:
        self._receive, self._left, self._max_body = receive, max_body, max_body
        self._whole, self._coming, self._n_come = False, coming, 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {BODY_SECONDS:g} seconds", Connection="close") from None
        n_bytes = len(message.get("body", b""))
        self._left -= n_bytes
        self._whole = not message.get("more_body", False)
        if self._left < 0:
            raise _too_large(self._max_body)
        self._count(0 if self._whole else self._n_come + n_bytes)
        if self._coming.n_bytes > MAX_COMING:
            raise ApiError(429, "too much is being sent at once; try again later", Retry_After="1", Connection="close")
        return message

    def _count(self, n_bytes: int) -> None:
        self._coming.n_bytes += n_bytes - self._n_come
        self._n_come = n_bytes

    def __enter__(self) -> _Body:
        return self

    def __exit__(self, *_: object) -> None:
        self._count(0)


def _too_large(max_body: int) -> ApiError:
    return ApiError(413, f"the body is larger than {max_body} bytes", Connection="close")


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]

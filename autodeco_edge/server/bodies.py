"""The body of a request, as what its route takes.

Owns where a body is read and checked: a small one at once, a large one in a thread beside the event loop, in which callers
take turns. So many short messages cost others nothing, and who leaves before its turn costs nothing at all. Knows no routes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..errors import AutodecoError
from ..io.reading import parse_json
from .errors import ApiError, invalid
from .guard import caller_of
from .stream import ClientGone, until_gone
from .threads import Threads

SMALL = 2**14  # bytes, of which the most laborious are read in some three milliseconds


class Bodies:
    """
    room     bodies that wait for their turn; more are turned away with 429
    on_gone  called for each client that leaves before it has its answer
    """

    def __init__(self, room: int, on_gone: Callable[[], None]) -> None:
        self._threads, self.on_gone = Threads(1, room), on_gone

    @property
    def are_idle(self) -> bool:
        return self._threads.are_idle

    async def read(self, request: Request, model: type[BaseModel]) -> BaseModel | None:
        """None without a body. Raises ApiError for one that is wrong, ClientGone, ClientDisconnect."""
        data = await request.body()
        if len(data) <= SMALL:
            return body_of(data, model) if data else None
        return await until_gone(request, self._threads.run(caller_of(request.scope), partial(body_of, data, model)))


def body_of(data: bytes, model: type[BaseModel]) -> BaseModel:
    """JSON comes through the same door as every other (io/reading.py). Raises ApiError."""
    try:
        value = parse_json(data, "body", unique=True)
    except AutodecoError as error:
        raise ApiError(400, str(error), code="invalid_json") from None
    try:
        return model.model_validate(value, from_attributes=True)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), value) from None


class _ReadRequest(Request):
    """One whose body has been read: FastAPI takes it as it is."""

    value: Any

    async def json(self) -> Any:
        return self.value


class StrictRoute(APIRoute):
    """Of an application whose ``state.bodies`` are the Bodies."""

    def get_route_handler(self) -> Callable[..., Any]:
        handler, model = super().get_route_handler(), get_type_hints(self.endpoint).get("body")

        async def strict(request: Request) -> Response:
            bodies: Bodies = request.app.state.bodies
            read = _ReadRequest(request.scope, request.receive)
            try:
                read.value = await bodies.read(read, model) if model else None
                return await handler(read)
            except (ClientGone, ClientDisconnect):
                bodies.on_gone()
                return Response(status_code=499)

        return strict

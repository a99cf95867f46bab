"""The routes. Each parses, calls and answers; the work lies in the modules beside this one.

Owns the model's names, and what ties a request to the engine: admission, plan, exchange, answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from .. import __version__
from ..engine.engine import Engine
from ..errors import AutodecoError
from ..io.digest import fingerprint
from ..io.reading import parse_json
from . import schema
from .answers import ChatObjects, ReplyWriter, TextObjects, heads_card, model_card
from .errors import ApiError, add_handlers, refused
from .guard import OWNER, Guard, Hosts, Keys
from .limits import ServerLimits
from .metrics import ServerMetrics
from .page_files import page_files, page_routes
from .prompts import ReplyPlan, ReplyPlanner
from .replies import ReplyReader
from .service import Exchange, Service
from .stream import ClientGone, Events, events, json_response, until_gone, whole
from .wire import (
    MAX_CHOICES,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Sampling,
    TemplateRequest,
    TokenizeRequest,
)


class House:
    """
    load      makes the engine; runs in the engine's thread
    names     of the model, the first being its own
    limits    of requests
    template  Jinja text instead of the model's own
    heads     names of several heads, the engine's own first: NAME:HEADS is the model with these
    """

    def __init__(
        self,
        load: Callable[[], Engine],
        names: Sequence[str],
        limits: ServerLimits,
        template: str | None = None,
        heads: Sequence[str] = (),
    ) -> None:
        self._load, self._template = load, template
        self.own_names, self.heads, self.limits = list(names), list(heads), limits
        with_heads = {f"{name}:{each}": each if i else None for name in names for i, each in enumerate(heads)}
        self._heads_of = {**dict.fromkeys(names), **with_heads}  # of a Request, by the name that is asked for
        self.service = Service(self._make, limits)
        self.metrics = ServerMetrics(self.service)
        self.service.on_first, self.service.on_end = self.metrics.first_token, self.metrics.choice
        self.created = int(time.time())
        self._planner: ReplyPlanner | None = None
        self.fingerprint = ""

    def _make(self) -> Engine:
        engine = self._load()
        try:
            self._planner = ReplyPlanner(engine, self._template, self.limits.max_tokens)
            heads = [self.heads_named(engine, each) for each in (None, *engine.more_heads)]
            said = f"{__version__} {self.names[0]} {engine.model.description} {heads} {engine.n_ctx}"
            self.fingerprint = f"fp_{fingerprint(said, 12)}"
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def names(self) -> list[str]:
        return list(self._heads_of)

    @staticmethod
    def heads_named(engine: Engine, name: str | None) -> str | None:
        """In words."""
        heads = engine.more_heads[name] if name else engine.heads
        return heads.description if heads else None

    @property
    def planner(self) -> ReplyPlanner:
        """Raises ApiError 503 while there is none."""
        self.service.check_open()
        assert self._planner is not None
        return self._planner

    def check_name(self, name: str | None) -> str:
        if name is None or name in self.names:
            return name or self.names[0]
        raise ApiError(
            404, f"model: served here {', '.join(self.names)}; got '{name[:100]}'", "model", "model_not_found"
        )

    # ---- a reply -----------------------------------------------------------------------

    async def reply(
        self,
        request: Request,
        body: Sampling,
        n: int,
        form: type[ChatObjects] | type[TextObjects],
        plan: Callable[..., ReplyPlan],
    ) -> Response:
        """plan(body, owner, heads) makes the plan, in a thread, which hands it to the engine, too."""
        model, planner = self.check_name(body.model), self.planner
        heads = self._heads_of[model]
        exchange, streamed = Exchange(self.service, self.service.permit(n)), False

        def begin() -> ReplyPlan:
            planned = plan(body, request.scope[OWNER], heads)
            exchange.submit(_caller(request), [choice.request for choice in planned.choices])
            return planned

        try:
            planned = await until_gone(request, in_thread(begin))
            readers = [ReplyReader(planner, planned, choice) for choice in planned.choices]
            said = self.heads_named(planner.engine, heads)
            answer = ReplyWriter(form(planner, planned), planned, model, said, self.fingerprint)
            if not body.stream:
                found = await until_gone(request, whole(exchange, readers, answer))
                return json_response(found)
            streamed = True
            usage = body.stream_options is not None and body.stream_options.include_usage
            return Events(exchange, events(exchange, readers, answer, usage), self.metrics.disconnects.inc)
        except ClientGone:
            self.metrics.disconnects.inc()
            return Response(status_code=499)
        finally:
            if not streamed:
                exchange.close()


def _caller(request: Request) -> str:
    """Whose turn it is: the key's owner, else the address that it comes from."""
    return request.scope[OWNER] or (request.client.host if request.client else "")


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await to_thread.run_sync(function, *arguments, abandon_on_cancel=True)


class StrictRequest(Request):
    """Its JSON comes through the same door as every other (io/reading.py)."""

    async def json(self) -> Any:
        if not hasattr(self, "_value"):
            try:
                self._value = parse_json(await self.body(), "body")
            except AutodecoError as error:
                raise ApiError(400, str(error), code="invalid_json") from None
        return self._value


class StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[..., Any]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def routes(house: House) -> APIRouter:
    router = APIRouter(route_class=StrictRoute)

    @router.post("/v1/chat/completions", responses=schema.CHAT, response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:
        """A reply to a conversation."""
        return await house.reply(request, body, body.choices, ChatObjects, house.planner.chat)

    @router.post("/v1/completions", responses=schema.COMPLETION, response_model=None)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """A text that goes on."""
        n = body.choices * body.n_prompts
        if n > MAX_CHOICES:
            raise ApiError(400, f"n: allowed at most {MAX_CHOICES} replies, of all prompts together; got {n}", "n")
        return await house.reply(request, body, n, TextObjects, house.planner.completion)

    @router.get("/v1/models", responses=schema.MODELS, response_model=None)
    async def models() -> Response:
        """The model, under each of its names."""
        cards = [model_card(name, house.created) for name in house.names]
        return json_response({"object": "list", "data": cards})

    @router.get("/v1/models/{name:path}", responses=schema.MODEL, response_model=None)
    async def model(name: str) -> Response:
        return json_response(model_card(house.check_name(name), house.created))

    @router.get("/health", responses=schema.HEALTH, response_model=None)
    async def health() -> Response:
        """200 when replies are drawn; 503 while the model loads and when the server is about to end."""
        house.service.check_open()
        return json_response({"status": "ok"})

    @router.get("/props", responses=schema.PROPS, response_model=None)
    async def props() -> Response:
        """What is served, and how much of it."""
        return json_response(properties(house))

    @router.get("/metrics", responses=schema.METRICS, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(house.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.post("/tokenize", responses=schema.TOKENS, response_model=None)
    async def tokenize(body: TokenizeRequest) -> Response:
        """Text to token ids."""
        return json_response({"tokens": await in_thread(tokens_of, house.planner, body)})

    @router.post("/detokenize", responses=schema.CONTENT, response_model=None)
    async def detokenize(body: DetokenizeRequest) -> Response:
        """Token ids to text."""
        return json_response({"content": await in_thread(text_of, house.planner, body)})

    @router.post("/apply-template", responses=schema.PROMPT, response_model=None)
    async def apply_template(body: TemplateRequest) -> Response:
        """The prompt that a conversation makes."""
        planner = house.planner
        variables = planner.variables(body.chat_template_kwargs)
        prompt = await in_thread(planner.prompt, body.messages, body.tools, variables)
        return json_response({"prompt": prompt.text})

    return router


def tokens_of(planner: ReplyPlanner, body: TokenizeRequest) -> list[Any]:
    try:
        ids = planner.model.tokenize(body.content, add_special=body.add_special, parse_special=body.parse_special)
    except AutodecoError as error:
        raise refused(error, "content") from None
    if not body.with_pieces:
        return list(ids)
    pieces = [planner.model.token_bytes(i, special=True) for i in ids]
    return [
        {"id": i, "piece": p.decode("utf-8", "replace"), "bytes": list(p)} for i, p in zip(ids, pieces, strict=True)
    ]


def text_of(planner: ReplyPlanner, body: DetokenizeRequest) -> str:
    try:
        return planner.model.detokenize(body.tokens, special=body.special).decode("utf-8", "replace")
    except AutodecoError as error:
        raise refused(error, "tokens") from None


def properties(house: House) -> dict[str, Any]:
    planner = house.planner
    engine = planner.engine
    return {
        "model": house.own_names[0],
        "aliases": house.own_names[1:],
        "description": engine.model.description,
        "heads": heads_card(engine.heads),
        "heads_by_name": {
            name: heads_card(engine.more_heads[name] if i else engine.heads) for i, name in enumerate(house.heads)
        },
        "total_slots": house.limits.parallel,
        "n_ctx": engine.n_ctx,
        "n_ctx_train": engine.model.n_ctx_train,
        "n_vocab": engine.model.n_vocab,
        "deterministic": engine.deterministic,
        "limits": asdict(house.limits),
        "chat_template": planner.template,
        "tools": planner.format is not None,
        "version": __version__,
    }


class Counted:
    """Counts every answer by its route and status."""

    def __init__(self, app: Any, metrics: ServerMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


def make_app(house: House, keys: Keys, hosts: Hosts, origins: Sequence[str] = ()) -> FastAPI:
    """origins: of pages elsewhere that may call this server; none by default."""
    app = FastAPI(
        title="autodeco-edge", version=__version__, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    page = page_files()
    app.include_router(routes(house))
    app.router.routes.extend(page_routes(page))
    add_handlers(app)
    app.add_middleware(Guard, keys=keys, hosts=hosts, free=page)
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )  # fmt: skip
    app.add_middleware(Counted, metrics=house.metrics)
    return app

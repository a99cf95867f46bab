"""The routes. Each parses, calls and answers; the work lies in the modules beside this one.

Owns the model's names, and what ties a request to the engine: admission, plan, exchange, answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from .. import __version__
from ..engine.engine import Engine
from ..errors import AutodecoError, UsageError
from ..io.digest import fingerprint
from . import schema
from .answers import ChatObjects, ReplyWriter, TextObjects, heads_card, model_card
from .bodies import Bodies, StrictRoute
from .encoding import encoded, json_response
from .errors import ApiError, add_handlers, refused
from .guard import OWNER, Guard, Hosts, Keys, caller_of
from .limits import MAX_PIECES, MAX_TEXT, ServerLimits
from .metrics import ServerMetrics
from .page_files import page_files, page_routes
from .prompts import ReplyPlan, ReplyPlanner
from .replies import ReplyReader
from .service import Exchange, Service
from .stream import ClientGone, Events, events, until_gone, whole
from .threads import Threads
from .wire import (
    MAX_CHOICES,
    MAX_NAME,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Sampling,
    TemplateRequest,
    TokenizeRequest,
)

N_THREADS = 2  # for prompts and texts


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
        self._heads_of = heads_of_names(names, heads)
        self.service = Service(self._make, limits)
        self.metrics = ServerMetrics(self.service)
        self.service.on_first, self.service.on_end = self.metrics.first_token, self.metrics.choice
        room = limits.parallel + limits.queue
        self._threads = Threads(N_THREADS, room)
        self._compiling = Threads(1, room)  # grammars wait for each other
        self.bodies = Bodies(room, self.metrics.disconnects.inc)
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
        """plan(body, owner, heads, go_on) makes the plan, in a thread, which hands it to the engine, too."""
        model, planner = self.check_name(body.model), self.planner
        heads = self._heads_of[model]
        exchange, streamed = Exchange(self.service, self.service.permit(n)), False

        def go_on() -> None:
            if exchange.is_cancelled:
                raise ClientGone

        def begin() -> tuple[ReplyPlan, list[ReplyReader]]:
            planned = plan(body, request.scope[OWNER], heads, go_on)
            exchange.submit(caller_of(request.scope), [choice.request for choice in planned.choices])
            return planned, [ReplyReader(planner, planned, choice) for choice in planned.choices]

        threads = self._compiling if body.has_grammar else self._threads
        try:
            beginning = threads.run(caller_of(request.scope), begin)
            planned, readers = await until_gone(request, beginning, exchange.cancel)
            said = self.heads_named(planner.engine, heads)
            answer = ReplyWriter(form(planner, planned), planned, model, said, self.fingerprint)
            if not body.stream:
                found = await until_gone(request, whole(exchange, readers, answer))
                return json_response(found)
            streamed = True
            usage = body.stream_options is not None and body.stream_options.include_usage
            return Events(exchange, events(exchange, readers, answer, usage), self.metrics.disconnects.inc)
        finally:
            if not streamed:
                exchange.close()

    async def answer(self, request: Request, write: Callable[[], str]) -> Response:
        """JSON text that is made in a thread."""
        turn = (caller_of(request.scope), "texts")  # beside those of the same caller's replies
        return json_response(await until_gone(request, self._threads.run(turn, write)))

    @property
    def has_ended(self) -> bool:
        """Whether no thread is at work."""
        return self.service.has_ended and all(each.are_idle for each in (self._threads, self._compiling, self.bodies))


def heads_of_names(names: Sequence[str], heads: Sequence[str]) -> dict[str, str | None]:
    """The heads of a Request by the name that is asked for. Raises UsageError where two names are the same, or one cannot
    be asked for."""
    found: dict[str, str | None] = {}
    pairs = [(name, None) for name in names]
    pairs += [(f"{name}:{each}", each if i else None) for name in names for i, each in enumerate(heads)]
    for name, each in pairs:
        if not name.strip() or not name.isprintable() or len(name) > MAX_NAME:
            raise UsageError(f"--alias: allowed 1 to {MAX_NAME} characters that can be printed; got {name[:80]!r}")
        if name in found:
            raise UsageError(f"--alias: two models would be named '{name}'; choose another name")
        found[name] = each
    return found


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
    async def tokenize(request: Request, body: TokenizeRequest) -> Response:
        """Text to token ids."""
        return await house.answer(request, partial(tokens_of, house.planner, body))

    @router.post("/detokenize", responses=schema.CONTENT, response_model=None)
    async def detokenize(request: Request, body: DetokenizeRequest) -> Response:
        """Token ids to text."""
        return await house.answer(request, partial(text_of, house.planner, body))

    @router.post("/apply-template", responses=schema.PROMPT, response_model=None)
    async def apply_template(request: Request, body: TemplateRequest) -> Response:
        """The prompt that a conversation makes."""
        return await house.answer(request, partial(prompt_text_of, house.planner, body))

    return router


def tokens_of(planner: ReplyPlanner, body: TokenizeRequest) -> str:
    """JSON text. A megabyte has half a million tokens, but few different ones: each is written once."""
    model = planner.model
    try:
        ids = model.tokenize(body.content, add_special=body.add_special, parse_special=body.parse_special)
    except AutodecoError as error:
        raise refused(error, "content") from None
    if body.with_pieces and len(ids) > MAX_PIECES:
        raise ApiError(400, f"content: with pieces allowed {MAX_PIECES} tokens at once; got {len(ids)}", "content")
    written = {i: encoded(_piece(i, model.token_bytes(i, special=True)) if body.with_pieces else i) for i in set(ids)}
    return f'{{"tokens":[{",".join([written[i] for i in ids])}]}}'


def _piece(token: int, data: bytes) -> dict[str, Any]:
    return {"id": token, "piece": data.decode("utf-8", "replace"), "bytes": list(data)}


def text_of(planner: ReplyPlanner, body: DetokenizeRequest) -> str:
    """JSON text."""
    try:
        pieces = {i: planner.model.token_bytes(i, special=body.special) for i in set(body.tokens)}
    except AutodecoError as error:
        raise refused(error, "tokens") from None
    if sum(len(pieces[i]) for i in body.tokens) > MAX_TEXT:
        raise ApiError(400, f"tokens: allowed a text of at most {MAX_TEXT} bytes; send fewer at once", "tokens")
    return encoded({"content": b"".join([pieces[i] for i in body.tokens]).decode("utf-8", "replace")})


def prompt_text_of(planner: ReplyPlanner, body: TemplateRequest) -> str:
    """JSON text."""
    return encoded(
        {"prompt": planner.prompt(body.messages, body.tools, planner.variables(body.chat_template_kwargs)).text}
    )


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
    app.state.bodies = house.bodies
    page = page_files()
    app.include_router(routes(house))
    app.router.routes.extend(page_routes(page))
    add_handlers(app)
    app.add_middleware(Guard, keys=keys, hosts=hosts, free=page)
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"],
            allow_headers=["*"], expose_headers=["Retry-After"],
        )  # fmt: skip
    app.add_middleware(Counted, metrics=house.metrics)
    return app

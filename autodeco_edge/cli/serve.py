"""`autodeco-edge serve`: the engine over HTTP.

Owns the options and their refusal before anything is bound or loaded. The server is the room server/.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.drafts import DRAFT_MAX
from ..errors import AutodecoError, UsageError, check_range
from ..io.extras import how_to_install
from ..io.printing import say
from ..io.reading import read_text
from .arguments import Files, find_files
from .opening import open_engine
from .options import (
    DraftCostOption,
    DraftMaxOption,
    DraftOption,
    GpuLayersOption,
    HfOption,
    NoHeadsOption,
    OfflineOption,
    RpcOption,
    TemplateOption,
    ThreadsOption,
    VerboseOption,
    check_computing,
)
from .rpc_worker import LOOPBACK
from .settings import option, takes

if TYPE_CHECKING:
    from ..engine.engine import Engine

MAX_KEY = 512  # characters
PROMPT_PIECE = 128  # tokens between two looks at who has left; a processor gains little from more


@dataclass(frozen=True)
class ServeOptions:
    """Safe as they are: nobody but this machine, and nothing without an end."""

    word: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A name, user/repo or a .gguf file. [default: the demo model]",
            show_default=False,
        ),
    ] = None
    model: Annotated[str | None, option("-m", "--model", help="The same.", show_default=False)] = None
    hf: HfOption = None
    heads: Annotated[
        list[str] | None,
        option(
            "--heads",
            metavar="[NAME=]HEADS",
            help="Heads: file or user/repo; repeatable: requests choose by MODEL:NAME. [default: those inside the model]",
            show_default=False,
        ),
    ] = None
    no_heads: NoHeadsOption = False
    offline: OfflineOption = False
    alias: Annotated[
        list[str] | None,
        option("--alias", help="Another name that requests may ask for; repeatable.", show_default=False),
    ] = None

    host: Annotated[str, option("--host", help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, option("--port", help="Port; 0 = any that is free.")] = 8080
    api_key: Annotated[
        list[str] | None,
        option(
            "--api-key", help="Ask for this key; repeatable. Others on this machine can see it.", show_default=False
        ),
    ] = None
    api_key_file: Annotated[
        Path | None, option("--api-key-file", help="Ask for one of these keys, one a line.", show_default=False)
    ] = None
    allow_host: Annotated[
        list[str] | None,
        option(
            "--allow-host", metavar="NAME", help="Also answer under this host name; repeatable.", show_default=False
        ),
    ] = None
    cors_origin: Annotated[
        list[str] | None,
        option("--cors-origin", metavar="URL", help="Let pages of this origin call; repeatable.", show_default=False),
    ] = None

    parallel: Annotated[int, option("--parallel", help="Replies drawn at once.")] = 4
    queue: Annotated[int, option("--queue", help="Replies that may wait; more are turned away with 429.")] = 64
    max_tokens: Annotated[int, option("--max-tokens", help="Longest reply; -1 = to the end of the context.")] = -1
    max_seconds: Annotated[float, option("--max-seconds", help="Longest time that a reply may take.")] = 600.0
    drain_seconds: Annotated[float, option("--drain-seconds", help="Time for what runs, when told to end.")] = 8.0
    deterministic: Annotated[
        bool, option("--deterministic", help="Neighbours change no bit of a reply; slower with several.")
    ] = False

    n_ctx: Annotated[
        int, option("-c", "--ctx-size", help="Context of each slot in tokens; 0 = the model's, at most 4096.")
    ] = 0
    threads: ThreadsOption = 0
    gpu_layers: GpuLayersOption = 0
    draft: DraftOption = "off"
    draft_max: DraftMaxOption = DRAFT_MAX
    draft_cost: DraftCostOption = None
    rpc: RpcOption = None
    chat_template: TemplateOption = None
    verbose: VerboseOption = False

    def check(self) -> str | None:
        """The model that was named. Raises UsageError."""
        check_range("--port", self.port, 0, 65535)
        check_computing(self)
        if self.heads and self.no_heads:
            raise UsageError("--heads and --no-heads exclude each other; choose one")
        named = [name for name in (self.word, self.model, self.hf) if name is not None]
        if len(named) > 1:
            raise UsageError("one model only; give MODEL, -m or -hf")
        if not self.host:
            raise UsageError("--host: is empty; give an address, such as 127.0.0.1")
        return named[0] if named else None

    def named_heads(self) -> dict[str, str]:
        """Of several, by name: the one given, else the file's or the repository's. Raises UsageError."""
        found: dict[str, str] = {}
        for word in self.heads or ():
            name, sign, what = ("", "", word) if os.path.exists(word) else word.rpartition("=")
            name = name if sign else Path(what).name.removesuffix(".gguf")
            if not re.fullmatch(r"\w[\w.-]*", name) or not what:
                raise UsageError(
                    f"--heads {word}: allowed NAME=HEADS, a name of letters, digits, '_', and behind the first '.' and '-'"
                )
            if name in found:
                raise UsageError(f"--heads: two are named '{name}'; give them names, as NAME=FILE")
            found[name] = what
        return found

    def keys(self) -> list[str]:
        """Raises UsageError for one that is none, MissingInputError, FormatError for the file."""
        keys = list(self.api_key or ())
        if self.api_key_file is not None:
            found = read_text(self.api_key_file, "give a file with a key a line to --api-key-file").splitlines()
            keys += [line.strip() for line in found if line.strip() and not line.startswith("#")]
            if not keys:
                raise UsageError(f"--api-key-file {self.api_key_file}: holds no key; write one a line")
        for key in keys:
            if not key or len(key) > MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError(f"--api-key: allowed 1 to {MAX_KEY} characters of ASCII without blanks")
        return keys


@takes(ServeOptions)
def serve(ctx: Any, **values: Any) -> None:
    """Serve a model over HTTP, in the form of the OpenAI API.

    Each token's temperature and top-p come with the reply (docs/server.md). Ctrl-C ends it.

    Example: autodeco-edge serve --port 8080
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until there is something to end
    options = ServeOptions(**values)
    model = options.check()
    keys = options.keys()
    server = _server()
    limits = _limits(options)
    template = options.chat_template and read_text(options.chat_template, "give a Jinja template", streams=True)
    heads = options.named_heads()
    files, *others = [find_files(model, replace(options, heads=each)) for each in list(heads.values()) or [None]]
    more_heads = {name: each.heads for name, each in zip(list(heads)[1:], others, strict=True)}
    sock = server.listen.bind(options.host, options.port)
    name = model or files.model.stem
    house = server.app.House(
        lambda: _load(files, more_heads, options),
        [name, *(options.alias or ())],
        limits,
        template,
        list(heads) if more_heads else (),
    )
    app = server.app.make_app(
        house, server.guard.Keys(keys), server.guard.Hosts(options.allow_host or ()), options.cors_origin or ()
    )
    runner = server.listen.Runner(house, app)
    with server.listen.signals_to(runner):
        _say_where(server.listen.url_of(sock), options, bool(keys))
        ended_by = runner.run(sock)
    raise typer.Exit(server.listen.leave(house, 130 if ended_by == signal.SIGINT else 0))


def _server() -> Any:
    """The room, whose libraries are an extra."""
    try:
        from .. import server
        from ..server import app, guard, limits, listen  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("autodeco_edge"):
            raise
        raise AutodecoError(f"serve needs {error.name}: run  {how_to_install('server')}") from None
    return server


def _limits(options: ServeOptions) -> Any:
    from ..server.limits import ServerLimits

    return ServerLimits(options.parallel, options.queue, options.max_tokens, options.max_seconds, options.drain_seconds)


def _say_where(url: str, options: ServeOptions, has_keys: bool) -> None:
    say(f"listening on {url}/v1; a page to chat and to see every token: {url}")
    if options.host not in LOOPBACK and not has_keys:
        say("warning: everybody who can reach this address may use it; give --api-key-file")


def _load(files: Files, more_heads: dict[str, Any], options: ServeOptions) -> Engine:
    """In the engine's thread."""
    return open_engine(
        files,
        options,
        plain=files.heads is None,
        n_slots=options.parallel,
        deterministic=options.deterministic,
        n_batch=PROMPT_PIECE,
        more_heads=more_heads,
    )

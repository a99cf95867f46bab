"""A request as work for the engine: prompt, settings, filters, and how its reply is to be read.

Owns the way from messages to token ids (text/chat.py does the template) and the refusal of what this model cannot do.
All of it may take a second, so it runs in a thread beside the event loop: what has a grammar in one thread alone, for the
first makes the vocabulary's table. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..dropin.formats import grammar_of_format
from ..engine.engine import Engine
from ..engine.filters import Filter, FilterParams
from ..engine.forced import ForcedTokens
from ..engine.generation import Request
from ..engine.grammar import Grammar
from ..engine.model import check_id
from ..engine.sampler import SamplingParams
from ..errors import AutodecoError
from ..io.reading import parse_json
from ..text.chat import Prompt, prompt_of, template_of, without_double_bos
from ..text.reasoning import Reasoning, prompt_end
from . import settings
from .errors import ApiError, refused
from .tools import Format, Toolbox, format_of
from .wire import ChatRequest, CompletionRequest, Message, Sampling, Tool

DEFAULT_COMPLETION = 16  # tokens, as the OpenAI API has it for plain completions
REPLY_START = "autodeco.reply_start"
GoOn = Callable[[], None]
_TAKEN = ("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token")


def _always() -> None:
    pass


@dataclass(frozen=True)
class PlannedChoice:
    """One reply to draw.

    prompt_end  the last characters of a chat's prompt, None for plain text
    begun       tokens of the reply that were given, the last of the request's prompt
    echoed      a text that is weighed: its first token is the request's prompt, the others are the reply's first
    """

    request: Request
    prompt_end: str | None = None
    begun: tuple[int, ...] = ()
    echoed: tuple[int, ...] = ()


@dataclass(frozen=True)
class ReplyPlan:
    """What a request comes to.

    choices    in the order of their index
    params     of the first choice
    prompts    how many tokens each prompt has
    stops      stop strings
    n_top      likeliest tokens to report; None = no logprobs
    toolbox    tools that the model may call
    trace      the record of every token is wanted
    divided    thought is told from answer
    remark     what the user should know
    """

    choices: tuple[PlannedChoice, ...]
    params: SamplingParams
    prompts: tuple[int, ...]
    stops: tuple[str, ...]
    n_top: int | None = None
    toolbox: Toolbox | None = None
    trace: bool = False
    divided: bool = False
    remark: str | None = None


class ReplyPlanner:
    """
    template    Jinja text instead of the model's own
    max_tokens  of a reply, whatever is asked; -1 = to the end of the context
    """

    def __init__(self, engine: Engine, template: str | None = None, max_tokens: int = -1) -> None:
        self.engine, self.model = engine, engine.model
        self._own_template = template
        self.template = template_of(engine.model, template)
        self.reasoning = Reasoning.of(engine.model, self.template)
        self.format: Format | None = format_of(self.template)
        marks = self.format.marks if self.format else ()
        self.controls = frozenset(mark for mark in marks if self._is_control(mark))
        self._shown = self.reasoning.shown | {self.model.tokenize(m, parse_special=True)[-1] for m in self.controls}
        self._max_tokens = max_tokens
        self._bytes: dict[int, bytes] = {}  # of tokens that were drawn

    def _is_control(self, mark: str) -> bool:
        """Whether it is one token, whose text is shown only when asked for."""
        ids = self.model.tokenize(mark, add_special=False, parse_special=True)
        return len(ids) == 1 and not self.model.token_bytes(ids[0])

    def token_bytes(self, token: int) -> bytes:
        if (data := self._bytes.get(token)) is None:
            data = self._bytes[token] = self.model.token_bytes(token, special=token in self._shown)
        return data

    # ---- requests ----------------------------------------------------------------------

    def chat(self, body: ChatRequest, owner: str, heads: str | None = None, go_on: GoOn = _always) -> ReplyPlan:
        """heads: as in Request; go_on: called before what takes long, and may raise. Raises ApiError."""
        toolbox = Toolbox.of(body, self.format)
        prompt = self.prompt(body.messages, body.tools if toolbox else None, self._variables(body))
        n_top = (body.top_logprobs or 0) if body.logprobs else None
        go_on()
        grammar = self._grammar(body, toolbox)
        begun = self._begun(body, grammar)
        ids = [*prompt.ids, *begun]
        choices = self._choices(body, [ids], owner, heads, body.limit, grammar, n_top, go_on)
        end = prompt_end(self.model, prompt.ids)
        return ReplyPlan(
            choices=tuple(replace(choice, prompt_end=end, begun=begun) for choice in choices),
            params=choices[0].request.params,
            prompts=(len(ids),),
            stops=tuple(body.stops),
            n_top=n_top,
            toolbox=toolbox,
            trace=body.heads.trace,
            divided=grammar is None,
            remark=prompt.remark,
        )

    def completion(
        self, body: CompletionRequest, owner: str, heads: str | None = None, go_on: GoOn = _always
    ) -> ReplyPlan:
        """Likewise."""
        if body.heads.reply_start is not None:
            raise ApiError(400, f"{REPLY_START}: belongs to chats; here put the tokens into prompt", REPLY_START)
        prompts = self._plain_prompts(body.prompt, go_on)
        limit = DEFAULT_COMPLETION if body.max_tokens is None else body.max_tokens
        choices = self._choices(body, prompts, owner, heads, limit, None, body.logprobs, go_on)
        return ReplyPlan(
            choices=tuple(map(self._weighed, choices)) if body.echo else choices,
            params=choices[0].request.params,
            prompts=tuple(map(len, prompts)),
            stops=tuple(body.stops),
            n_top=body.logprobs,
            trace=body.heads.trace,
        )

    def prompt(self, messages: Sequence[Message], tools: Sequence[Tool] | None, variables: Mapping[str, Any]) -> Prompt:
        """Raises ApiError."""
        given = {"tools": [tool.model_dump(exclude_none=True) for tool in tools]} if tools else {}
        try:
            return prompt_of(self.model, [_message(m) for m in messages], self._own_template, {**variables, **given})
        except AutodecoError as error:
            raise refused(error, "messages") from None

    def variables(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        for name in given or ():
            if name in _TAKEN:
                raise ApiError(400, f"chat_template_kwargs: {name} is not yours to set", "chat_template_kwargs")
        return dict(given or {})

    # ---- parts -------------------------------------------------------------------------

    def _variables(self, body: ChatRequest) -> dict[str, Any]:
        variables = self.variables(body.chat_template_kwargs)
        if body.reasoning_effort is not None:
            if "reasoning_effort" not in self.template:
                raise ApiError(
                    400,
                    "reasoning_effort: the chat template of this model does not know it; leave it out",
                    "reasoning_effort",
                    "unknown_parameter",
                )
            variables["reasoning_effort"] = body.reasoning_effort
        return variables

    def _grammar(self, body: ChatRequest, toolbox: Toolbox | None) -> Grammar | None:
        form = body.response_format.model_dump(by_alias=True) if body.response_format else None
        try:
            asked = grammar_of_format(form)
        except AutodecoError as error:
            raise refused(error, "response_format") from None
        if toolbox is None or not toolbox.demanded:
            return asked
        if asked is not None:
            raise ApiError(400, "tool_choice and response_format exclude each other; choose one", "tool_choice")
        try:
            return toolbox.format.grammar(toolbox.tools, toolbox.many, self.controls)
        except AutodecoError as error:
            raise refused(error, "tools") from None

    def _begun(self, body: ChatRequest, grammar: Grammar | None) -> tuple[int, ...]:
        begun = tuple(body.heads.reply_start or ())
        if begun and grammar is not None:
            raise ApiError(
                400, f"{REPLY_START}: a reply that follows a grammar has to begin at its beginning", REPLY_START
            )
        try:
            return tuple(check_id(token, self.model.n_vocab) for token in begun)
        except AutodecoError as error:
            raise refused(error, REPLY_START) from None

    def _plain_prompts(self, prompt: Any, go_on: GoOn) -> list[list[int]]:
        several = isinstance(prompt, list) and not isinstance(prompt[0], int)
        return [self._ids(each, go_on) for each in (prompt if several else [prompt])]

    def _ids(self, prompt: str | list[int], go_on: GoOn) -> list[int]:
        go_on()
        try:
            if isinstance(prompt, str):
                ids = without_double_bos(self.model, self.model.tokenize(prompt, parse_special=True))
            else:
                ids = [check_id(token, self.model.n_vocab) for token in prompt]
        except AutodecoError as error:
            raise refused(error, "prompt") from None
        if not ids:
            raise ApiError(400, "prompt: is empty; give at least one token", "prompt")
        return ids

    def _choices(
        self,
        body: Sampling,
        prompts: Sequence[list[int]],
        owner: str,
        heads: str | None,
        limit: int,
        grammar: Grammar | None,
        n_top: int | None,
        go_on: GoOn,
    ) -> tuple[PlannedChoice, ...]:
        has_heads = self.engine.heads is not None
        n_ctx = self.engine.n_ctx
        for ids in prompts:
            if len(ids) >= n_ctx:
                raise ApiError(
                    400,
                    f"the prompt has {len(ids)} tokens, the context of this server {n_ctx}; shorten it",
                    "messages" if isinstance(body, ChatRequest) else "prompt",
                    "context_length_exceeded",
                )
        try:
            params = settings.sampling(body, self.model, has_heads, n_top is not None, n_top or 0)
            wanted = settings.filters(body, self.model, has_heads, grammar, n_ctx)
            built = [self._build(wanted, go_on) for _ in range(body.choices * len(prompts))]
        except AutodecoError as error:
            raise refused(error, "response_format" if grammar else None) from None
        return tuple(
            PlannedChoice(
                Request(
                    tuple(ids),
                    replace(params, seed=(params.seed + i) % 2**64),
                    self._limit(limit),
                    filters=built[p * body.choices + i],
                    reuse_prefix=body.cache_prompt is not False,
                    owner=owner,
                    heads=heads,
                )
            )
            for p, ids in enumerate(prompts)
            for i in range(body.choices)
        )

    def _weighed(self, choice: PlannedChoice) -> PlannedChoice:
        """The same as a reply that is given token by token: so the heads speak, and the model weighs, at each of them."""
        request, ids = choice.request, choice.request.prompt
        forced = ForcedTokens(ids[1:], self.model.n_vocab)
        weighed = replace(
            request,
            prompt=ids[:1],
            max_tokens=len(ids) - 1 + max(request.max_tokens, 0),
            filters=(*request.filters, forced),
            stop_at_end=False,
        )
        return PlannedChoice(weighed, echoed=ids)

    def _build(self, wanted: FilterParams, go_on: GoOn) -> tuple[Filter, ...]:
        go_on()
        return wanted.build(self.model)

    def _limit(self, asked: int) -> int:
        limits = [n for n in (asked, self._max_tokens) if n >= 0]
        return min(limits) if limits else -1


def _message(message: Message) -> dict[str, Any]:
    """As chat templates want it: one text, and arguments of calls as data."""
    given = message.model_dump(exclude_none=True)
    given["role"] = "system" if message.role == "developer" else message.role
    given["content"] = _text(message.content)
    if message.tool_calls:
        given["tool_calls"] = [_call(call) for call in given["tool_calls"]]
    return given


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content or ())


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = parse_json(function["arguments"] or "{}", "tool_calls", unique=True)
    except AutodecoError as error:
        raise refused(error, "messages") from None
    if not isinstance(arguments, dict):
        raise ApiError(400, "tool_calls: the arguments are the JSON text of an object", "messages")
    return {**call, "function": {**function, "arguments": arguments}}

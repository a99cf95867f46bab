"""Answers as models, for the OpenAPI document and for the tests that hold the answers to it.

Owns names and types of what is sent. Nothing is validated against them while it is served.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema


class Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorBody(Sent):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(Sent):
    error: ErrorBody


# ---- parts --------------------------------------------------------------------------------------


class Likely(Sent):
    id: int
    token: str
    bytes: list[int]
    logprob: float | None


class TokenLogprob(Sent):
    """temperature and top_p: what the heads said at this token, None where a head was not asked."""

    token: str
    bytes: list[int]
    logprob: float | None
    top_logprobs: list[Likely]
    id: int
    temperature: float | None
    top_p: float | None
    reasoning: Literal[True] | None = None


class ChatLogprobs(Sent):
    content: list[TokenLogprob]
    refusal: None


class CompletionLogprobs(Sent):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]
    ids: list[int]
    temperature: list[float | None]
    top_p: list[float | None]


class TokenRecord(Sent):
    """A line of a trace, as `autodeco-edge run --jsonl` has it."""

    index: int
    id: int
    bytes: list[int]
    text: str
    temperature: float | None
    top_p: float | None
    temperature_eff: float | None
    top_p_eff: float | None
    n_kept: int
    entropy: float | None
    max_prob: float | None
    logprob: float | None


class Signal(Sent):
    mean: float
    min: float
    max: float


class ChoiceSummary(Sent):
    """cut_by: "time" or "shutdown", where the server ended the reply before its end."""

    seed: int
    temperature: Signal | None
    top_p: Signal | None
    cut_by: str | None = None
    trace: list[TokenRecord] | None = None


class PieceTrace(Sent):
    trace: list[TokenRecord]


class AppliedSummary(Sent):
    """What was applied."""

    heads: str | None
    applied: Literal["both", "temperature", "top_p", "none"]
    temperature_factor: float
    top_p_factor: float
    temperature_range: list[float]
    top_p_range: list[float]
    remark: str | None = None


class TimingsBody(Sent):
    """Of the first choice."""

    load_s: float
    prompt_n: int
    prompt_cached: int
    prompt_s: float
    prompt_per_second: float | None
    predicted_n: int
    predicted_s: float
    predicted_per_second: float | None
    draft_n: int
    draft_n_accepted: int


class CachedTokens(Sent):
    cached_tokens: int


class ReasoningTokens(Sent):
    reasoning_tokens: int


class Usage(Sent):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: ReasoningTokens


class FunctionBody(Sent):
    name: str
    arguments: str


class ToolCallBody(Sent):
    id: str
    type: Literal["function"]
    function: FunctionBody


class IndexedToolCall(ToolCallBody):
    index: int


FinishReason = Literal["stop", "length", "tool_calls"]


# ---- chat ---------------------------------------------------------------------------------------


class ReplyMessage(Sent):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallBody] | None = None


class ChatChoice(Sent):
    index: int
    message: ReplyMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    autodeco: ChoiceSummary


class ObjectHead(Sent):
    id: str
    created: int
    model: str
    system_fingerprint: str


class ChatCompletion(ObjectHead):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage
    autodeco: AppliedSummary
    timings: TimingsBody


class ChatDelta(Sent):
    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[IndexedToolCall] | None = None


class ChunkChoice(Sent):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None
    autodeco: ChoiceSummary | PieceTrace | None = None


class Chunk(ObjectHead):
    usage: Usage | None = None
    autodeco: AppliedSummary | None = None
    timings: TimingsBody | None = None


class ChatCompletionChunk(Chunk):
    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]


# ---- plain completions --------------------------------------------------------------------------


class TextChoice(Sent):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None
    autodeco: ChoiceSummary | PieceTrace | None = None


class TextCompletion(ObjectHead):
    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage
    autodeco: AppliedSummary
    timings: TimingsBody


class TextCompletionChunk(Chunk):
    object: Literal["text_completion"]
    choices: list[TextChoice]


# ---- the rest -----------------------------------------------------------------------------------


class ModelBody(Sent):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Sent):
    object: Literal["list"]
    data: list[ModelBody]


class Health(Sent):
    status: Literal["ok"]


class HeadsBody(Sent):
    description: str
    temperature: bool
    top_p: bool
    mean_temperature: float | None
    mean_top_p: float | None


class LimitsBody(Sent):
    parallel: int
    queue: int
    max_tokens: int
    seconds: float
    drain: float


class Props(Sent):
    model: str
    aliases: list[str]
    description: str
    heads: HeadsBody | None
    heads_by_name: dict[str, HeadsBody | None]
    total_slots: int
    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    deterministic: bool
    limits: LimitsBody
    chat_template: str
    tools: bool
    version: str


class TokenPiece(Sent):
    id: int
    piece: str
    bytes: list[int]


class Tokens(Sent):
    tokens: list[int] | list[TokenPiece]


class Content(Sent):
    content: str


class PromptText(Sent):
    prompt: str = Field(description="Ends where the assistant speaks.")


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: without FastAPI's own answer to a wrong body, with the chunks of streams."""
    found = app.openapi()
    schemas = found["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    _, chunks = models_json_schema(
        [(ChatCompletionChunk, "serialization"), (TextCompletionChunk, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(chunks["$defs"])
    return found


def _of(model: type[BaseModel], *errors: int, chunk: type[BaseModel] | None = None) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {200: {"model": model, "description": "Done"}}
    if chunk:
        reference = {"$ref": f"#/components/schemas/{chunk.__name__}"}
        found[200]["content"] = {"text/event-stream": {"schema": reference}}
    return found | {status: {"model": Error, "description": "Refused"} for status in (401, 421, *errors)}


_BODY = (400, 408, 413, 415, 500, 503)
CHAT = _of(ChatCompletion, 404, 429, *_BODY, chunk=ChatCompletionChunk)
COMPLETION = _of(TextCompletion, 404, 429, *_BODY, chunk=TextCompletionChunk)
MODELS, MODEL = _of(ModelList), _of(ModelBody, 404)
METRICS = {200: {"description": "Done"}} | {s: {"model": Error, "description": "Refused"} for s in (401, 421)}
HEALTH, PROPS = _of(Health, 503), _of(Props, 503)
TOKENS, CONTENT, PROMPT = _of(Tokens, *_BODY), _of(Content, *_BODY), _of(PromptText, *_BODY)

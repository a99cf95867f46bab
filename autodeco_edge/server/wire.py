"""Requests as they come over the wire: every field that is understood, its type and its range.

A field that is not here is refused by name. Fields of the OpenAI API that can only have one meaning here are taken with
that value alone. Owns no defaults of sampling (they depend on the model, settings.py) and does no work.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MAX_CHOICES = 8
MAX_NAME = 512
MAX_STOPS, MAX_STOP = 16, 256
MAX_TOOLS = 128

MAX_MEMBERS = 1024  # of an object


def _not_too_many(value: Any) -> Any:
    """Complaints about each of ten thousands would take seconds to make, and one is told."""
    if isinstance(value, dict) and len(value) > MAX_MEMBERS:
        raise ValueError(f"has {len(value)} members, of at most {MAX_MEMBERS}")
    return value


First = Field(fail_fast=True)  # the first element that is wrong is enough, for the same reason
Few = BeforeValidator(_not_too_many)
Text = Annotated[str, Field(max_length=2**20)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
Bias = Annotated[float, Field(ge=-100, le=100)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Repeated = Annotated[Any, Field(exclude=True)]  # openai-python's reading of the field beside it; not looked at
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Wire(BaseModel):
    """Exact types, no unknown fields, no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    _few = model_validator(mode="before")(_not_too_many)


# ---- parts of requests --------------------------------------------------------------------------


class TextPart(Wire):
    type: Literal["text"]
    text: Text


class FunctionCall(Wire):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Text
    parsed_arguments: Repeated = None


class ToolCall(Wire):
    id: Annotated[str, Field(max_length=256)] = ""
    type: Literal["function"] = "function"
    function: FunctionCall
    index: Repeated = None


class Message(Wire):
    """Of a conversation. ``developer`` is read as ``system``."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], First] | None = None
    reasoning_content: Text | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS), First] | None = None
    tool_call_id: Annotated[str, Field(max_length=256)] | None = None
    name: Annotated[str, Field(max_length=256)] | None = None
    # As openai-python hands a reply back: of none of these is there anything, and parsed says content once more.
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = Field(default=None, exclude=True)
    parsed: Repeated = None

    @model_validator(mode="after")
    def _has_content(self) -> Message:
        if self.content is None and not (self.role == "assistant" and (self.tool_calls or self.reasoning_content)):
            raise ValueError(f"content: is missing from a message of the {self.role}")
        if self.role != "assistant" and (self.tool_calls or self.reasoning_content or self.parsed is not None):
            raise ValueError("tool_calls, reasoning_content and parsed belong to messages of the assistant")
        if self.role != "tool" and self.tool_call_id is not None:
            raise ValueError("tool_call_id belongs to messages of a tool")
        return self


class Function(Wire):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    type: Literal["function"]
    function: Function


class NamedFunction(Wire):
    name: str


class NamedTool(Wire):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(Wire):
    type: Literal["text"]


class ObjectFormat(Wire):
    type: Literal["json_object"]
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class NamedSchema(Wire):
    name: Annotated[str, Field(max_length=256)] | None = None
    description: Text | None = None
    schema_: dict[str, Any] | bool = Field(alias="schema")
    strict: bool | None = None


class SchemaFormat(Wire):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(Wire):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


Range = Annotated[list[float], Field(min_length=2, max_length=2)]


class AutodecoRequest(Wire):
    """What the heads are to do.

    heads                                which of them apply
    temperature_factor, top_p_factor     multiply the predictions, in place of temperature and top_p
    temperature_range, top_p_range       [low, high] that the product is kept within; 0 = no limit
    trace                                the record of every token in choices[].autodeco.trace
    reply_start                          token ids that the reply begins with; what comes back is what follows them
    """

    heads: Literal["both", "temperature", "top_p", "none"] = "both"
    temperature_factor: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p_factor: Annotated[float, Field(ge=0, le=1)] | None = None
    temperature_range: Range | None = None
    top_p_range: Range | None = None
    trace: bool = False
    reply_start: Annotated[list[TokenId], First] | None = None


class Sampling(Wire):
    """What chat and plain completions have in common."""

    model: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS), First] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**20)] | None = None
    logit_bias: (
        Annotated[dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Bias], Field(max_length=MAX_MEMBERS), Few] | None
    ) = None
    cache_prompt: bool | None = None
    autodeco: AutodecoRequest | None = None
    user: Annotated[str, Field(max_length=512)] | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Sampling:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only with stream = true")
        return self

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def heads(self) -> AutodecoRequest:
        return self.autodeco or AutodecoRequest()

    @property
    def has_grammar(self) -> bool:
        """Whether the reply is held to one."""
        return False


class ChatRequest(Sampling):
    """POST /v1/chat/completions"""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000), First]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS), First] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Annotated[str, Field(max_length=64)] | None = None
    chat_template_kwargs: (
        Annotated[dict[str, bool | int | float | Text | None], Field(max_length=MAX_MEMBERS), Few] | None
    ) = None
    modalities: Annotated[list[Literal["text"]], First] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> ChatRequest:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens mean the same; give one")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only with logprobs = true")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise ValueError("tool_choice: there are no tools to choose from")
        return self

    @property
    def limit(self) -> int:
        return self.max_completion_tokens or self.max_tokens or -1

    @property
    def has_grammar(self) -> bool:
        is_text = self.response_format is None or self.response_format.type == "text"
        return not is_text or self.tool_choice not in (None, "none", "auto")


class CompletionRequest(Sampling):
    """POST /v1/completions"""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICES), First]
        | Annotated[list[TokenId], Field(min_length=1), First]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1), First]],
            Field(min_length=1, max_length=MAX_CHOICES),
            First,
        ]
    )
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Literal[1] | None = None
    suffix: None = None

    @model_validator(mode="after")
    def _weighs(self) -> CompletionRequest:
        """echo is there to weigh a text that is given, and for nothing else."""
        if self.echo and (self.logprobs is None or self.max_tokens not in (0, 1) or self.stream or self.n or self.stop):
            raise ValueError("echo: allowed with logprobs, max_tokens 0 or 1, and without stream, n and stop")
        return self

    @property
    def n_prompts(self) -> int:
        return len(self.prompt) if isinstance(self.prompt, list) and not isinstance(self.prompt[0], int) else 1


class TokenizeRequest(Wire):
    """POST /tokenize"""

    content: Text
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(Wire):
    """POST /detokenize"""

    tokens: Annotated[list[TokenId], First]
    special: bool = True


class TemplateRequest(Wire):
    """POST /apply-template"""

    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000), First]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS), First] | None = None
    chat_template_kwargs: (
        Annotated[dict[str, bool | int | float | Text | None], Field(max_length=MAX_MEMBERS), Few] | None
    ) = None

"""Calls of tools in a reply: how a model writes them, and back into data.

Owns the formats, by the marks that a chat template names: Hermes' (`<tool_call>` around an object: Qwen, Hermes, SmolLM3,
Granite), Mistral's (`[TOOL_CALLS]` before a list) and Llama 3's (an object that is the whole reply). Calls that a request
demands are enforced by a grammar of the same format. Calls nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.grammar import Grammar
from ..errors import FormatError
from ..io.reading import parse_json
from ..text.streaming import held
from .errors import ApiError
from .wire import ChatRequest, NamedTool, Tool


@dataclass(frozen=True)
class Format:
    """
    open, close  marks around a call; '' for none
    arguments    key of the arguments beside "name"
    is_list      the calls stand in one list
    sign         what a template of this format writes
    """

    open: str
    close: str
    arguments: str = "arguments"
    is_list: bool = False
    sign: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.open, self.close) if mark)

    # ---- reading -----------------------------------------------------------------------

    def calls(self, text: str) -> list[dict[str, Any]] | None:
        """What stands between the marks, as OpenAI's tool calls; None where it is no call."""
        try:
            value = parse_json(text.strip(), "tool call")
        except FormatError:
            return None
        found = [self._call(item) for item in (value if self.is_list and isinstance(value, list) else [value])]
        return found if found and None not in found else None

    def _call(self, item: Any) -> dict[str, Any] | None:
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            return None
        arguments = item.get(self.arguments, item.get("arguments", {}))
        if isinstance(arguments, str):
            text = arguments
        elif isinstance(arguments, dict):
            text = json.dumps(arguments, ensure_ascii=False)
        else:
            return None
        identity = f"call_{secrets.token_hex(12)}"
        return {"id": identity, "type": "function", "function": {"name": item["name"], "arguments": text}}

    # ---- demanding ---------------------------------------------------------------------

    def grammar(self, tools: Sequence[Tool], many: bool, controls: frozenset[str]) -> Grammar:
        """One call of one of the tools, or several; ``controls``: marks that are control tokens. Raises FormatError."""
        options = [_schema_of(tool, self.arguments) for tool in tools]
        call = json.dumps(options[0] if len(options) == 1 else {"anyOf": options})
        opening, closing = (_literal(mark, mark in controls) for mark in (self.open, self.close))
        body = f"%json {call}"
        if self.is_list:
            more = f'("," call){{0,{MAX_CALLS - 1}}}' if many else ""
            return Grammar.from_lark(f'start: {opening} "[" call {more} "]"\ncall: {body}\n')
        if not self.open:
            return Grammar.from_lark(f"start: call\ncall: {body}\n")
        more = f'("\\n" one){{0,{MAX_CALLS - 1}}}' if many else ""
        return Grammar.from_lark(f'start: one {more}\none: {opening} "\\n" call "\\n" {closing}\ncall: {body}\n')


MAX_CALLS = 16
FORMATS = (
    Format("<tool_call>", "</tool_call>", sign="<tool_call>"),
    Format("[TOOL_CALLS]", "", is_list=True, sign="[TOOL_CALLS]"),
    Format("", "", arguments="parameters", sign='"parameters"'),
)


def format_of(template: str) -> Format | None:
    """None where the template has no place for tools, or writes calls in a way that is not known here."""
    if "tools" not in template:
        return None
    return next((f for f in FORMATS if f.sign in template), None)


def _schema_of(tool: Tool, arguments: str) -> dict[str, Any]:
    """Of one call. References of the parameters' own definitions are carried to where they are looked for."""
    parameters = tool.function.parameters or {"type": "object"}
    definitions = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    if definitions and ("$ref" in json.dumps(parameters)):
        raise FormatError(f"tools: {tool.function.name}: $ref is not supported in parameters; write them out")
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, arguments: parameters},
        "required": ["name", arguments],
        "additionalProperties": False,
    }


def _literal(mark: str, is_control: bool) -> str:
    """In Lark: a control token is named, anything else is text."""
    return mark if is_control and mark.startswith("<") else json.dumps(mark)


@dataclass(frozen=True)
class Toolbox:
    """The tools of one request. demanded: the reply is a call, of one of ``tools``; many: several calls at once."""

    format: Format
    tools: tuple[Tool, ...]
    demanded: bool
    many: bool

    @classmethod
    def of(cls, body: ChatRequest, format: Format | None) -> Toolbox | None:
        """None for a request without tools, or that forbids their use. Raises ApiError."""
        if not body.tools:
            return None
        if format is None:
            raise ApiError(
                400,
                "tools: the chat template of this model has no tools, or none in a form that is known here",
                "tools",
            )
        if body.tool_choice == "none":
            return None
        return cls(format, _chosen(body), body.tool_choice not in (None, "auto"), body.parallel_tool_calls is not False)

    def stream(self) -> ToolStream:
        return ToolStream(self.format, self.many)


def _chosen(body: ChatRequest) -> tuple[Tool, ...]:
    tools = tuple(body.tools or ())
    if len({tool.function.name for tool in tools}) < len(tools):
        raise ApiError(400, "tools: two have the same name", "tools")
    if not isinstance(body.tool_choice, NamedTool):
        return tools
    name = body.tool_choice.function.name
    found = tuple(tool for tool in tools if tool.function.name == name)
    if not found:
        raise ApiError(400, f"tool_choice: there is no tool '{name[:64]}'", "tool_choice")
    return found


class ToolStream:
    """Tells calls from the answer as it comes; what may be a call is held back until it is known.

    many   more than one call; else what follows the first is dropped
    calls  those that are whole, as OpenAI's tool calls
    """

    def __init__(self, format: Format, many: bool = True) -> None:
        self._format, self._many = format, many
        self.calls: list[dict[str, Any]] = []
        self._text, self._inside, self._after_call = "", False, False

    def feed(self, text: str) -> str:
        """What of the answer is surely no call."""
        self._text += text
        if not self._format.open:
            return self._unless_object()
        shown = ""
        while True:
            mark = self._format.close if self._inside else self._format.open
            at = self._text.find(mark) if mark else -1
            if at < 0:
                return shown if self._inside else shown + self._outside(self._cut(held(self._text, [mark])))
            before, self._text = self._text[:at], self._text[at + len(mark) :]
            shown += self._taken(before, self._format.open + before + mark) if self._inside else self._outside(before)
            self._inside = not self._inside

    def finish(self) -> str:
        """What was held back: a last call, or answer after all."""
        text, self._text = self._text, ""
        if not text.strip() or not (self._inside or not self._format.open):
            return "" if self._inside else self._outside(text)
        return self._taken(text, self._format.open + text)

    def _cut(self, n_kept: int) -> str:
        n = len(self._text) - n_kept
        shown, self._text = self._text[:n], self._text[n:]
        return shown

    def _unless_object(self) -> str:
        """A reply that begins as an object may be a call as a whole; anything else is none."""
        begun = self._text.lstrip()
        return "" if not begun or begun.startswith("{") else self._cut(0)

    def _outside(self, text: str) -> str:
        """Blanks behind a call are nobody's text."""
        text = text.lstrip() if self._after_call else text
        self._after_call = self._after_call and not text
        return text

    def _taken(self, body: str, raw: str) -> str:
        """Nothing where the text was a call, else the text as it came."""
        found = self._format.calls(body)
        if found is None:
            return raw
        self._after_call = True
        room = (MAX_CALLS if self._many else 1) - len(self.calls)
        self.calls += found[: max(0, room)]
        return ""

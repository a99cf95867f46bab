"""Chats of ``Llama``: a model's own templates filled by ours, and thoughts kept apart from answers.

Owns the handlers under ``Llama._chat_handlers``. The reply is made, and put into the API's shape, by llama-cpp-python's
own handler; it gets the prompt's ids, and a grammar where a tool is asked for. Where all marks of a thought are text, the
reply is left as the original gives it; where some are control tokens, the text would not tell thought from answer.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llama_cpp.llama_chat_format import ChatFormatterResponse, chat_formatter_to_chat_completion_handler

from ..engine.grammar import Grammar
from ..engine.mask import GrammarMask
from ..engine.model import Model
from ..errors import FormatError, UsageError
from ..text.chat import Prompt, special_texts, template_prompt
from ..text.reasoning import Reasoning, prompt_end
from ..text.template import TemplateError, TemplateStopped
from .checked import TEMPLATE, CheckedModel, shown
from .formats import grammar_of_tool

if TYPE_CHECKING:
    from .llama import Llama

Handler = Callable[..., Any]
_ENDS = ("<|im_end|>", "<|eot_id|>")  # where llama-cpp-python stops for ChatML and Llama 3, be they tokens or not


def chat_handlers(model: CheckedModel, metadata: Mapping[str, str]) -> dict[str, Handler]:
    """A handler for each template of a model, under the name that llama-cpp-python gives it."""
    view = Model.borrowed(model.path_model, model.model)
    return {
        "chat_template.default" if key == TEMPLATE else key.removeprefix("tokenizer."): ChatHandler(view, metadata[key])
        for key in model.templates
    }


class ChatHandler:
    """What llama-cpp-python calls a chat completion handler, for one template."""

    def __init__(self, model: Model, template: str) -> None:
        self._model, self._template = model, template

    @cached_property
    def _reasoning(self) -> Reasoning:
        return Reasoning.of(self._model, self._template)

    @cached_property
    def _stops(self) -> list[str]:
        """A model that was not trained on the mark as a token writes it out."""
        end = special_texts(self._model).get("eos_token", "")
        return [end, *(mark for mark in _ENDS if mark in self._template and mark != end)] if end else []

    def __call__(
        self,
        *,
        llama: Llama,
        messages: Any,
        functions: Any = None,
        function_call: Any = None,
        tools: Any = None,
        tool_choice: Any = None,
        **sampling: Any,
    ) -> Any:
        names = {"tools": tools, "functions": functions, "function_call": function_call, "tool_choice": tool_choice}
        messages, names = _plain("messages", messages), {name: _plain(name, value) for name, value in names.items()}
        _check_messages(messages)
        prompt = self._prompt(messages, names)
        chosen = _chosen(names)
        desk = _Desk(llama, prompt.ids, _grammar(llama, chosen) if chosen else None, self._reasoning.shown)
        reply = _handler(self._stops)(llama=desk, messages=messages, **_as_tools(names, chosen), **sampling)
        if not self._reasoning.shown:
            return reply
        end = prompt_end(self._model, prompt.ids)
        return self._divided(reply, end) if isinstance(reply, dict) else self._divided_parts(reply, end)

    def _prompt(self, messages: list[dict[str, Any]], names: Mapping[str, Any]) -> Prompt:
        try:
            prompt = self._filled(messages, names)
        except TemplateError as error:
            raise FormatError(
                f"the model's chat template failed ({error}); give chat_format or chat_handler to go without it"
            ) from None
        if prompt.remark:
            warnings.warn(prompt.remark, stacklevel=2)
        return prompt

    def _filled(self, messages: list[dict[str, Any]], names: Mapping[str, Any]) -> Prompt:
        """With the names that transformers defines; where that fails, with all that llama-cpp-python does."""
        given = {name: value for name, value in names.items() if value is not None}
        try:
            return template_prompt(self._model, messages, self._template, given)
        except TemplateStopped:
            raise
        except TemplateError as error:
            try:
                return template_prompt(self._model, messages, self._template, names)
            except TemplateError:
                raise error from None

    # ---- what was thought and what was said ---------------------------------------------

    def _divided(self, reply: dict[str, Any], end: str) -> dict[str, Any]:
        message = reply["choices"][0]["message"]
        if isinstance(message["content"], str):
            message["content"], thought = self._reasoning.split(message["content"], end)
            message |= {"reasoning_content": thought} if thought else {}
        return reply

    def _divided_parts(self, parts: Iterator[dict[str, Any]], end: str) -> Iterator[dict[str, Any]]:
        stream = self._reasoning.stream(end)
        for part in parts:
            choice = part["choices"][0]
            if choice["finish_reason"] is not None:
                yield from (_with_delta(part, delta) for delta in self._deltas(stream.finish()))
                yield part
            elif choice["delta"].get("content") is None:
                yield part
            else:
                deltas = self._deltas(stream.feed(choice["delta"]["content"]))
                yield from (_with_delta(part, delta) for delta in deltas)

    def _deltas(self, pieces: list[tuple[str, Any, bool]]) -> Iterator[dict[str, str]]:
        """Neighbours of one kind together, thoughts without their marks."""
        runs: list[tuple[str, bool]] = []
        for text, _, thought in pieces:
            if runs and runs[-1][1] == thought:
                text = runs.pop()[0] + text
            runs.append((text, thought))
        for text, thought in runs:
            text = self._reasoning.without_marks(text) if thought else text
            if text:
                yield {"reasoning_content" if thought else "content": text}


def _with_delta(part: dict[str, Any], delta: dict[str, str]) -> dict[str, Any]:
    return {**part, "choices": [{**part["choices"][0], "delta": delta, "finish_reason": None}]}


# ---- what llama-cpp-python's handler is called with -----------------------------------------------


def _handler(stops: list[str]) -> Handler:
    """Without a prompt of its own: the desk has it."""
    return chat_formatter_to_chat_completion_handler(
        lambda **_: ChatFormatterResponse(prompt="", stop=stops, added_special=True)
    )


class _Desk:
    """What llama-cpp-python's handler sees of the Llama: the prompt is made already, the grammar is ours."""

    def __init__(self, llama: Llama, ids: list[int], grammar: Grammar | None, marks: frozenset[int]) -> None:
        self.verbose = llama.verbose
        self._llama, self._ids, self._grammar, self._marks = llama, ids, grammar, marks

    def tokenize(self, _text: bytes, **_options: bool) -> list[int]:
        return list(self._ids)

    def create_completion(self, **arguments: Any) -> Any:
        if self._grammar is not None:
            arguments["grammar"] = self._grammar
        with shown(self._marks):
            reply = self._llama.create_completion(**arguments)
        return self._parts(reply) if isinstance(reply, Iterator) else reply

    def _parts(self, parts: Iterator[Any]) -> Iterator[Any]:
        while True:
            with shown(self._marks):
                try:
                    part = next(parts)
                except StopIteration:
                    return
            yield part


def _chosen(names: Mapping[str, Any]) -> dict[str, Any] | None:
    """The function that the reply has to call, None for a reply of any kind."""
    functions = names["functions"] if names["functions"] is not None else _functions(names["tools"])
    wanted = names["function_call"] if names["function_call"] is not None else names["tool_choice"]
    if not isinstance(wanted, dict) or functions is None:
        return None
    name = wanted.get("name") if names["function_call"] is not None else (wanted.get("function") or {}).get("name")
    found = next((f for f in functions if isinstance(f, dict) and f.get("name") == name), None)
    if found is None:
        raise ValueError(f"Tool choice '{name}' not found in tools.")  # llama-cpp-python's words
    return found


def _grammar(llama: Llama, function: dict[str, Any]) -> Grammar:
    return grammar_of_tool(function, lambda grammar: GrammarMask(grammar, llama._model, llama._model.vocab))


def _functions(tools: list[dict[str, Any]] | None) -> list[Any] | None:
    return None if tools is None else [t.get("function") for t in tools if isinstance(t, dict)]


def _as_tools(names: Mapping[str, Any], chosen: dict[str, Any] | None) -> dict[str, Any]:
    """The tool of that name, and nothing of it that llama-cpp-python would make a grammar of."""
    if chosen is None:
        return {}
    function = {"name": chosen["name"], "parameters": {}}
    choice = {"type": "function", "function": {"name": chosen["name"]}}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": choice}


def _plain(name: str, value: Any) -> Any:
    """As JSON has it: templates are filled in another process. Pydantic objects are the dict that they dump."""
    try:
        return json.loads(json.dumps(value, default=_dumped))
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: allowed what JSON can say; got {str(error)[:120]}") from None


def _dumped(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"an object of type {type(value).__name__}")


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) for m in messages
    ):
        raise UsageError('messages: allowed a list of {"role": ..., "content": ...}; got ' + repr(messages)[:80])
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and not all(isinstance(p, dict) and p.get("type") == "text" for p in content):
            raise UsageError("messages: of a content's parts only text is read; for images give a chat_handler")

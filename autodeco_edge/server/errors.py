"""Every error of the server in OpenAI's shape: {"error": {"message", "type", "param", "code"}}.

Owns the mapping from an exception to a status and a body. Knows no routes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import AutodecoError, ContextOverflowError, FormatError, UsageError
from ..io.printing import one_line, say

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    401: "invalid_api_key", 404: "not_found", 405: "method_not_allowed", 408: "request_timeout", 413: "request_too_large",
    415: "unsupported_media_type", 421: "host_not_allowed", 429: "rate_limit_exceeded", 500: "internal_error", 503: "unavailable",
}  # fmt: skip
# pydantic's complaints in our words, by their type and with what it says of them; "got" is said of numbers alone.
_EXPECTED = {
    **dict.fromkeys(("float_type", "float_parsing"), "expected a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "expected a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "expected an object"),
    "string_type": "expected a text", "list_type": "expected an array", "finite_number": "expected a finite number",
    "greater_than_equal": "allowed {ge} or more", "greater_than": "allowed more than {gt}",
    "less_than_equal": "allowed {le} or less", "less_than": "allowed less than {lt}",
    "literal_error": "allowed {expected}", "union_tag_invalid": "type: allowed {expected_tags}",
    "union_tag_not_found": "type: is missing", "too_short": "expected at least {min_length}; got {actual_length}",
    "too_long": "expected at most {max_length}; got {actual_length}",
    "string_too_short": "expected a text of at least {min_length} characters",
    "string_too_long": "expected a text of at most {max_length} characters",
    "string_pattern_mismatch": "expected a text that {pattern} matches",
}  # fmt: skip


class ApiError(HTTPException):
    """A request that is answered with an error.

    status    of HTTP
    message   what, allowed, got, next step
    param     the field that is wrong, or None
    code      for programs; None = the status's own
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None, **headers: str
    ) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, message, named or None)
        self.param, self.code = param, code


def shutting_down(words: str = "the server is shutting down", **headers: str) -> ApiError:
    return ApiError(503, words, code="shutting_down", **headers)


def body_of(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    code = code or _CODES.get(status, "server_error" if status >= 500 else "invalid_value")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def refused(error: AutodecoError, param: str | None = None) -> ApiError:
    """An error of the engine's, of the text's or of a grammar that the request itself has caused."""
    if isinstance(error, ContextOverflowError):
        return ApiError(400, one_line(error), "messages", "context_length_exceeded")
    if isinstance(error, UsageError | FormatError):
        return ApiError(400, one_line(error), param)
    return ApiError(500, one_line(error))


def invalid(errors: Any, body: Any) -> ApiError:
    """For pydantic's complaints about a body."""
    message, param = words_of(errors, body)
    return ApiError(400, message, param, "unknown_parameter" if "not supported" in message else None)


def error_of(error: BaseException) -> dict[str, Any]:
    """The body for an error in the middle of a stream."""
    if isinstance(error, ApiError):
        return body_of(error.status_code, error.detail, error.param, error.code)
    if isinstance(error, AutodecoError):
        return body_of(500, one_line(error))
    return body_of(500, "internal error; the server's log names it")


def respond(error: HTTPException) -> JSONResponse:
    param, code = getattr(error, "param", None), getattr(error, "code", None)
    body = body_of(error.status_code, str(error.detail), param, code)
    return JSONResponse(body, error.status_code, headers=error.headers)


def add_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(AutodecoError, _on_own)
    app.add_exception_handler(Exception, _on_any)


async def _on_http(request: Request, error: HTTPException) -> JSONResponse:
    if error.status_code == 404 and not isinstance(error, ApiError):
        error = ApiError(404, f"{request.method} {request.url.path[:200]}: no such route; see docs/server.md")
    elif error.status_code == 405:
        error = ApiError(405, f"{request.method} is not allowed here", **(error.headers or {}))
    return respond(error)


async def _on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return respond(invalid(error.errors(), error.body))


async def _on_own(request: Request, error: AutodecoError) -> JSONResponse:
    return respond(refused(error))


async def _on_any(request: Request, error: Exception) -> JSONResponse:
    say(f"error: {type(error).__name__} in {request.method} {request.url.path[:200]}: {one_line(error)[:300]}")
    return JSONResponse(error_of(error), 500)


def words_of(errors: Any, body: Any) -> tuple[str, str | None]:
    """(message, field) of pydantic's first complaint; what was given is not repeated, for it may be a prompt."""
    first = min(errors, key=lambda e: (e["type"] != "extra_forbidden", len(e["loc"])))
    field = _field(first["loc"], body) or None
    if first["type"] == "extra_forbidden":
        return f"{field}: not supported by this server; leave it out", field
    if first["type"] == "missing":
        return f"{field or 'body'}: is missing", field
    if words := _EXPECTED.get(first["type"]):
        got = f"; got {json.dumps(first['input'])}" if isinstance(first["input"], int | float) else ""
        return f"{field or 'body'}: {words.format(**_limits(first))}{got}"[:500], field
    words = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and ":" in words:  # a check over several fields, which names its own
        return words[:500], words.partition(":")[0]
    return f"{field or 'body'}: {words[:1].lower()}{words[1:]}"[:500], field


def _limits(complaint: Any) -> dict[str, Any]:
    """What pydantic says of it; 1 is not 1.0 to a reader."""
    context = complaint.get("ctx", {})
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in context.items()}


def _field(location: Sequence[Any], body: Any) -> str:
    """The way to a value, without the names of types that pydantic puts in for the alternatives of a union."""
    path, value = [], body
    parts = [part for i, part in enumerate(location) if i or part != "body"]
    for i, part in enumerate(parts):
        if isinstance(value, dict) and part in value or isinstance(value, list) and isinstance(part, int):
            value = value[part]
            path.append(str(part)[:100])
        elif i == len(parts) - 1 and isinstance(value, dict):
            path.append(str(part)[:100])  # what is missing
    return ".".join(path)

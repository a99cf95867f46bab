"""One chat completion from an OpenAI-compatible server, or one clear reason why not.

Owns the request, its time and size limits, what is tried again, and the translation of every failure into one line.
Knows no problem and no verdict. Safe for several threads.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from ..errors import AutodecoError, BusyError, FormatError, MissingInputError, UsageError, check_range

ROUTE = "/chat/completions"
AGAIN = (408, 409, 425, 429)  # and every 5xx
LONGEST_PAUSE_S = 60.0
MAX_BYTES = 64 << 20
_CHUNK = 1 << 16
_SHOWN = 200  # characters of a server's own words


@dataclass(frozen=True)
class Completion:
    """text and reasoning: "" where there is none; finish: "stop" where the model ended; n_tokens: 0 = not said."""

    text: str
    reasoning: str
    finish: str
    n_tokens: int


class _Again(Exception):
    """A failure that may pass: what to raise if it does not, and the pause that the server asks for."""

    def __init__(self, error: AutodecoError, pause_s: float | None = None) -> None:
        self.error, self.pause_s = error, pause_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host, and turn the POST into a GET."""

    def redirect_request(self, *_: object) -> None:
        return None


class ChatClient:
    """
    url        of the API, such as http://127.0.0.1:8080/v1
    key        sent as a bearer token, "" = none; never shown
    timeout_s  for one whole answer
    retries    further tries after a 429, a 5xx, a lost connection or an answer that is none
    pause_s    before the second try; twice as long before each further one, unless the server says how long
    """

    def __init__(self, url: str, key: str = "", timeout_s: float = 600.0, retries: int = 5, pause_s: float = 1.0):
        check_range("timeout", timeout_s, 0.01, 86400, "seconds for one answer")
        check_range("retries", retries, 0, 100)
        self.url = _checked_url(url)
        self._key = _checked_key(key)
        self._timeout_s, self._retries, self._pause_s = timeout_s, retries, pause_s
        self._opener = urllib.request.build_opener(_NoRedirect)

    def complete(self, body: dict[str, Any]) -> Completion:
        """Raises MissingInputError (unreachable), BusyError (429 or 5xx to the last), UsageError (refused), FormatError."""
        for attempt in itertools.count():
            try:
                return self._attempt(body)
            except _Again as failure:
                if attempt == self._retries:
                    raise failure.error from None
                time.sleep(self._pause(attempt, failure.pause_s))

    def _pause(self, attempt: int, asked_s: float | None) -> float:
        if asked_s is None:  # many threads that failed together must not come back together
            asked_s = self._pause_s * 2**attempt * random.uniform(0.75, 1.25)
        return min(max(asked_s, 0.0), LONGEST_PAUSE_S)

    def _attempt(self, body: dict[str, Any]) -> Completion:
        try:
            with self._opener.open(self._request(body), timeout=self._timeout_s) as response:
                data = self._read(response)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, HTTPException) as error:  # URLError and a timeout are OSErrors
            raise _Again(
                MissingInputError(
                    f"{self.url}: the server cannot be reached or broke off ({_words(error)}); is it running?"
                )
            ) from None
        try:
            return _completion(json.loads(data))
        except (ValueError, RecursionError, _NoCompletion) as error:
            said = self._own_words(data) or "nothing"
            why = error if isinstance(error, _NoCompletion) else "not JSON"
            raise _Again(FormatError(f"{self.url}: the answer is no chat completion ({why}): {said}")) from None

    def _request(self, body: dict[str, Any]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(self.url, json.dumps(body).encode(), headers, method="POST")

    def _read(self, response: HTTPResponse) -> bytes:
        """The body; a socket's timeout alone would let a server drip for ever."""
        deadline, data = time.monotonic() + self._timeout_s, bytearray()
        while chunk := response.read1(_CHUNK):
            data += chunk
            if time.monotonic() > deadline:
                raise TimeoutError(f"no whole answer within {self._timeout_s:g} s")
            if len(data) > MAX_BYTES:
                raise _Again(FormatError(f"{self.url}: the answer is larger than {MAX_BYTES >> 20} MiB"))
        if response.length:  # what Content-Length promised and read1 does not miss
            raise ConnectionError(f"cut off {response.length} bytes before the end")
        return bytes(data)

    # ---- refusals ----------------------------------------------------------------------

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        """What an answer with an error status means."""
        try:
            said = self._own_words(error.read(_CHUNK))
        except (OSError, HTTPException):
            said = ""
        line = f"{self.url}: the server answers {error.code} {error.reason or ''}".rstrip() + (
            f" ({said})" if said else ""
        )
        if error.code in AGAIN or error.code >= 500:
            return _Again(
                BusyError(f"{line}, again and again; try later"), _asked_pause(error.headers.get("Retry-After"))
            )
        if error.code in (401, 403):
            return UsageError(f"{line}; set OPENAI_API_KEY to a key it takes")
        if error.code == 404:
            return UsageError(f"{line}; check --endpoint (it ends in /v1) and --model-name")
        return UsageError(
            f"{line}; check --model-name, --max-tokens and --body (--body '{{}}' sends standard fields alone)"
        )

    def _own_words(self, data: bytes) -> str:
        """The server's message on one line, without the key."""
        text = data.decode("utf-8", "replace")
        with contextlib.suppress(ValueError, RecursionError):
            text = _message(json.loads(text)) or text
        text = "".join(c if c.isprintable() else " " for c in text)
        if self._key:
            text = text.replace(self._key, "***")
        return " ".join(text.split())[:_SHOWN]


def _message(data: Any) -> str | None:
    """Where the usual servers put it: {"error": {"message"}}, {"error"}, {"message"} or {"detail"}."""
    if isinstance(data, dict):
        for name in ("error", "message", "detail"):
            value = data.get(name)
            if isinstance(value, dict):
                value = value.get("message")
            if isinstance(value, str):
                return value
    return None


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _asked_pause(header: str | None) -> float | None:
    """Seconds that Retry-After asks for, as a number or a date; None without one that can be read."""
    if not header:
        return None
    try:
        return float(header) if header.strip().isdecimal() else parsedate_to_datetime(header).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None


# ---- what is sent and what comes ------------------------------------------------------------


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        sound = False
    if not sound or not url.isprintable() or " " in url or not url.isascii():
        raise UsageError(f"endpoint: allowed a URL such as http://127.0.0.1:8080/v1; got {url!r}")
    return url.rstrip("/").removesuffix(ROUTE) + ROUTE


def _checked_key(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError("OPENAI_API_KEY: allowed printable ASCII characters; got others (not shown)")
    return key


class _NoCompletion(Exception):
    """JSON, but not of this kind; the message names the field."""


def _completion(data: Any) -> Completion:
    choice = _field(_field(data, "choices", list, "the answer"), 0, dict, "choices")
    message = _field(choice, "message", dict, "choices[0]")
    finish = choice.get("finish_reason")
    usage = data.get("usage")
    n_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else 0
    return Completion(
        text=_text(message, "content"),
        reasoning=_text(message, "reasoning_content") or _text(message, "reasoning"),
        finish=finish if isinstance(finish, str) else "",
        n_tokens=n_tokens if isinstance(n_tokens, int) and n_tokens > 0 else 0,
    )


def _field(value: Any, key: str | int, kind: type, where: str) -> Any:
    try:
        found = value[key]
    except (KeyError, IndexError, TypeError):
        raise _NoCompletion(f"{where} has no {key!r}") from None
    if not isinstance(found, kind):
        raise _NoCompletion(f"{key!r} of {where} is {type(found).__name__}, not {kind.__name__}")
    return found


def _text(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if value is not None and not isinstance(value, str):
        raise _NoCompletion(f"{name!r} of the message is {type(value).__name__}, not a text")
    return value or ""

"""The shapes in which chat templates want their messages, and whether the messages arrived in what they made.

Templates of language models read `content` as a string; those of models that also see (SmolVLM, Idefics3, LLaVA) walk a
list of parts and print nothing at all for a string; some have no place for a system message, and refuse it or drop it.
Owns the shapes in the order in which they are tried, and the test of arrival. Runs no template.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MERGED = "the chat template has no place for a system message; it was put in front of the first user message"
SURE = 24  # characters that are in a text by chance only if they stand in the template
_QUOTES = re.compile(r"""[\\"'\s]|&\#\d+;|&quot;""")
PART_MARK = "type:text"  # of a list of parts, as Python or JSON writes it, quotes of any kind aside

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Shape:
    """messages, whether contents are strings, and what the user should know about it."""

    messages: Messages
    plain: bool
    remark: str | None = None


def shapes(messages: Messages) -> Iterator[Shape]:
    """Strings, parts, parts of user messages alone; then the same with the system message in a user's.

    Parts that the caller made come first as they are; those that are all text are joined where a template wants strings."""
    if not all(isinstance(m.get("content", ""), str) for m in messages):
        yield Shape(messages, plain=False)
        joined = _joined(messages)
        yield from shapes(joined) if joined else ()
        return
    merged = _without_system(messages)
    for form, remark in ((messages, None), (merged, MERGED)):
        if form is not None:
            yield Shape(form, True, remark)
            yield Shape(_in_parts(form, ("system", "user", "assistant")), False, remark)
            yield Shape(_in_parts(form, ("user",)), False, remark)


def _joined(messages: Messages) -> Messages | None:
    """Every content a string, its parts on lines of their own; None where a part is no text."""
    contents = [m.get("content", "") for m in messages]
    if not all(isinstance(c, str) or _is_text_alone(c) for c in contents):
        return None
    texts = [c if isinstance(c, str) else "\n".join(p["text"] for p in c) for c in contents]
    return [{**m, "content": t} if "content" in m else m for m, t in zip(messages, texts, strict=True)]


def _is_text_alone(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(p, dict) and p.get("type") == "text" and isinstance(p.get("text"), str) for p in content
    )


def _in_parts(messages: Messages, roles: tuple[str, ...]) -> Messages:
    return [
        {**m, "content": [{"type": "text", "text": m["content"]}]} if m.get("role") in roles and "content" in m else m
        for m in messages
    ]


def _without_system(messages: Messages) -> Messages | None:
    """None where there is no system message, or no user message to take it up."""
    text = "\n\n".join(m.get("content", "") for m in messages if m.get("role") == "system")
    rest = [m for m in messages if m.get("role") != "system"]
    first = next((i for i, m in enumerate(rest) if m.get("role") == "user"), None)
    if not text.strip() or first is None:
        return None
    return [{**m, "content": f"{text}\n\n{m.get('content', '')}"} if i == first else m for i, m in enumerate(rest)]


# ---- arrival ------------------------------------------------------------------------------------


def surely_arrived(shape: Shape, text: str) -> bool:
    """Whether the messages that matter stand in the text as they are, and are too long for chance."""
    wanted = [content_text(m).strip() for m in _that_matter(shape.messages).values()]
    return shape.plain and all(not w or len(w) >= SURE for w in wanted) and absent(shape, text) is None


def absent(shape: Shape, text: str) -> str | None:
    """The role whose message does not stand in the text as it is, white space aside."""
    found = _squeezed(text)
    for role, message in _that_matter(shape.messages).items():
        if _squeezed(content_text(message)) not in found:
            return role
    return None


def probe(messages: Messages) -> Messages:
    """The same conversation, every content a number of about its length: it survives trimming, escaping and any case."""
    return [
        _with_text(m, _number(i, content_text(m))) if content_text(m).strip() else m for i, m in enumerate(messages)
    ]


def lost(shape: Shape, text_of_probe: str) -> str | None:
    """The role whose message the template does not print, None where all arrive."""
    if not shape.plain and PART_MARK in _QUOTES.sub("", text_of_probe):
        return "user"  # the list itself was printed, as Python or JSON writes it
    for role, message in _that_matter(probe(shape.messages)).items():
        if content_text(message).strip() not in text_of_probe:
            return role
    return None


def _that_matter(messages: Messages) -> dict[str, dict[str, Any]]:
    """The last message of the user and the system message."""
    return {m["role"]: m for m in messages if m.get("role") in ("user", "system")}


def content_text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(p.get("text") or "") for p in content if isinstance(p, dict))


def _with_text(message: dict[str, Any], text: str) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return {**message, "content": text}
    return {**message, "content": [{"type": "text", "text": text}]}


def _number(i: int, text: str) -> str:
    digits = str(int(hashlib.sha256(f"{i}".encode()).hexdigest(), 16))[:SURE]
    return digits * (1 + len(text) // SURE)


def _squeezed(text: str) -> str:
    return "".join(text.split())

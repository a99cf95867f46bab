"""A reply's text between the tokens and the screen: stop strings, thinking blocks, channels.

Owns what has to be held back because it may turn out to be a stop string or a mark. Text comes in as it
becomes readable, each piece with the thing it belongs to (a token's record); it goes out in the same
order, cut where needed, every part still with its own thing. Knows neither tokens nor terminals, and no model's marks
(reasoning.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

Piece = tuple[str, Any]
Thought = tuple[str, Any, bool]  # text, owner, whether it is thought and no answer


class Pieces:
    """A queue of pieces that can be taken by the character."""

    def __init__(self) -> None:
        self._queue: deque[Piece] = deque()
        self.text = ""

    def push(self, text: str, owner: Any) -> None:
        if text:
            self._queue.append((text, owner))
            self.text += text

    def take(self, n: int) -> list[Piece]:
        """The first n characters."""
        self.text = self.text[n:]
        taken = []
        while n > 0:
            text, owner = self._queue.popleft()
            if len(text) > n:
                self._queue.appendleft((text[n:], owner))
                text = text[:n]
            taken.append((text, owner))
            n -= len(text)
        return taken


def held(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that a mark begins with."""
    longest = max((len(m) for m in marks), default=1) - 1
    tail = text[-longest:]
    if not any(m[:1] in tail for m in marks):  # as of nearly every token
        return 0
    for n in range(min(longest, len(text)), 0, -1):
        if any(m.startswith(text[-n:]) for m in marks):
            return n
    return 0


class StopStrings:
    """Ends a reply before the first stop string, however the tokens split it; ``found`` is then set."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._pieces = Pieces()
        self.found: str | None = None

    @property
    def holds(self) -> bool:
        return bool(self._pieces.text)

    def feed(self, text: str, owner: Any = None) -> list[Piece]:
        """What is safe to show now; nothing any more once a stop string was found."""
        if self.found is not None:
            return []
        if not self._stops:
            return [(text, owner)] if text else []
        self._pieces.push(text, owner)
        hits = [(at, stop) for stop in self._stops if (at := self._pieces.text.find(stop)) >= 0]
        if hits:
            at, self.found = min(hits)
            return self._pieces.take(at)
        return self._pieces.take(len(self._pieces.text) - held(self._pieces.text, self._stops))

    def finish(self) -> list[Piece]:
        """What was held back and is no stop string after all."""
        return [] if self.found is not None else self._pieces.take(len(self._pieces.text))


class Thinking:
    """Tells the text of thinking blocks from the answer; the marks belong to the blocks.

    tags      (opening mark, closing mark) of a block
    wrappers  marks around the answer, which belong to it as little
    inside    the closing mark of the block that the prompt ended in, as some templates make it
    marks     give the marks out as thought; else they are dropped
    """

    def __init__(
        self,
        tags: Sequence[tuple[str, str]] = ((THINK_OPEN, THINK_CLOSE),),
        wrappers: Sequence[str] = (),
        inside: str | None = None,
        marks: bool = True,
    ) -> None:
        self._marks = marks
        self._closes = {**dict.fromkeys(wrappers), **dict(tags)}
        self._inside = inside
        self._pieces = Pieces()

    def feed(self, text: str, owner: Any = None) -> list[Thought]:
        self._pieces.push(text, owner)
        out: list[Thought] = []
        while True:
            marks = [self._inside] if self._inside else list(self._closes)
            found = _first(self._pieces.text, marks)
            if found is None:
                return out + self._marked(len(self._pieces.text) - held(self._pieces.text, marks), bool(self._inside))
            at, mark = found
            if self._inside:
                out += self._marked(at, True) + self._mark(len(mark))
                self._inside = None
            else:
                out += self._marked(at, False) + self._mark(len(mark))
                self._inside = self._closes[mark]

    def finish(self) -> list[Thought]:
        return self._marked(len(self._pieces.text), bool(self._inside))

    def _marked(self, n: int, thought: bool) -> list[Thought]:
        return [(text, owner, thought) for text, owner in self._pieces.take(n)]

    def _mark(self, n: int) -> list[Thought]:
        taken = self._marked(n, True)
        return taken if self._marks else []


class Channels:
    """Tells thought from answer where a reply is several messages, each with a header and a channel.

    `<|channel|>analysis<|message|>thought<|end|><|start|>assistant<|channel|>final<|message|>answer<|return|>`

    Headers are not text: a thought comes out between `<think>` and `</think>` like everybody else's, an answer bare.
    Text without a header, as from a model that was trained further without channels, is answer.

    begun  the prompt ended inside a header, as the template makes it
    marks  give `<think>` and `</think>` out with a thought
    """

    BODY = "<|message|>"
    HEADS = ("<|start|>", "<|channel|>")
    ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>")
    MARKS = (BODY, "<|constrain|>", *HEADS, *ENDS)
    THOUGHTS = ("analysis", "to=self")
    _BEGINNINGS = (BODY, "<|constrain|>", *HEADS, "assistant", "to=")  # of a header
    _LONGEST = 400  # characters of a header

    def __init__(self, begun: bool = True, marks: bool = True) -> None:
        self._pieces = Pieces()
        self._marks = marks
        self._in_header = begun
        self._thought = False
        self._answered = False

    def feed(self, text: str, owner: Any = None) -> list[Thought]:
        self._pieces.push(text, owner)
        out: list[Thought] = []
        while (step := self._header() if self._in_header else self._body()) is not None:
            out += step
        return out + self._free()

    def finish(self) -> list[Thought]:
        rest = self._pieces.text
        if self._in_header and any(mark in rest for mark in self.MARKS):
            self._pieces.take(len(rest))
        return self._marked(len(self._pieces.text))

    def _header(self) -> list[Thought] | None:
        """Past the header, or out of it where it is none; None while it may still be one."""
        text = self._pieces.text
        at = text.find(self.BODY)
        if at < 0:
            begun = text.lstrip()
            if len(begun) <= self._LONGEST and (not begun or any(_agree(begun, b) for b in self._BEGINNINGS)):
                return None
            self._in_header = self._thought = False
            return self._marked(len(text))
        owner = self._pieces.take(at + len(self.BODY))[-1][1]
        channel = text[:at].rpartition("<|start|>")[2].rpartition("<|channel|>")[2]
        self._in_header, self._thought = False, any(word in channel for word in self.THOUGHTS)
        if self._thought:
            return [(f"{THINK_OPEN}\n", owner, True)] if self._marks else []
        return [("\n\n", owner, False)] if self._answered else []

    def _body(self) -> list[Thought] | None:
        """Up to the mark that ends a message; None where there is none yet."""
        found = _first(self._pieces.text, (*self.HEADS, *self.ENDS))
        if found is None:
            return None
        at, mark = found
        out = self._marked(at)
        if mark in self.ENDS:
            self._pieces.take(len(mark))
        if self._thought and self._marks:
            out.append((f"\n{THINK_CLOSE}\n\n", out[-1][1] if out else None, True))
        self._in_header, self._thought = True, False
        return out

    def _free(self) -> list[Thought]:
        if self._in_header:
            return []
        return self._marked(len(self._pieces.text) - held(self._pieces.text, (*self.HEADS, *self.ENDS)))

    def _marked(self, n: int) -> list[Thought]:
        out = [(text, owner, self._thought) for text, owner in self._pieces.take(n)]
        self._answered = self._answered or (bool(out) and not self._thought)
        return out


def _first(text: str, marks: Sequence[str]) -> tuple[int, str] | None:
    """(where, which) of the mark that comes first, the longest where several do."""
    found = [(at, -len(mark), mark) for mark in marks if (at := text.find(mark)) >= 0]
    return (min(found)[0], min(found)[2]) if found else None


def _agree(a: str, b: str) -> bool:
    """Whether one begins with the other."""
    return a.startswith(b) or b.startswith(a)

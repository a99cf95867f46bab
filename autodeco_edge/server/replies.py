"""The tokens of one choice as what a client reads: answer, thought, calls of tools, and the record of each token.

Owns what is held back until it may be shown (text/reply.py, text/streaming.py, tools.py) and which token a piece of text
belongs to. Knows no JSON and no transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..engine.sampler import Step
from ..text.reply import ReplyText
from .prompts import PlannedChoice, ReplyPlan, ReplyPlanner


@dataclass(eq=False)
class DrawnToken:
    """One drawn token: its bytes as they are written, the text that became readable with it, where that went, and after
    how many characters of the reply. Unseen is one that counts and is not shown: the end, and what makes a stop string."""

    step: Step
    data: bytes
    text: str = ""
    at: int = 0
    is_thought: bool = False
    is_unseen: bool = False


class Signals:
    """Mean and limits of T and P over a reply; None where a head was not asked."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {"temperature": [], "top_p": []}

    def add(self, step: Step) -> None:
        for name, values in self._values.items():
            if (value := getattr(step, name)) is not None:
                values.append(value)

    def as_dict(self) -> dict[str, dict[str, float] | None]:
        return {
            name: {"mean": sum(v) / len(v), "min": min(v), "max": max(v)} if v else None
            for name, v in self._values.items()
        }


@dataclass
class Delta:
    """What is new of a choice."""

    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[DrawnToken] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.content or self.reasoning or self.calls or self.tokens)

    def add(self, other: Delta) -> None:
        self.content += other.content
        self.reasoning += other.reasoning
        self.calls += other.calls
        self.tokens += other.tokens


class ReplyReader:
    """Reads the Steps of one choice, in order."""

    def __init__(self, planner: ReplyPlanner, plan: ReplyPlan, choice: PlannedChoice) -> None:
        self._planner = planner
        self._text = ReplyText(plan.stops)
        end, raw = choice.prompt_end or "", choice.prompt_end is None
        self._thinking = planner.reasoning.stream(end, raw, marks=False) if plan.divided else None
        self._tools = plan.toolbox.stream() if plan.toolbox else None
        self.n_called = 0
        self._tokens: deque[DrawnToken] = deque()  # whose text is still held back, in part or as a whole
        self._shown: DrawnToken | None = None  # the last one whose text has been given out, in part at least
        self._trimmer = Trimmer()
        self.n_drawn = self.n_thought = self._n_characters = 0
        self.stopped = False
        self.signals = Signals()
        for token in choice.begun:
            self._show(self._text.feed(planner.token_bytes(token)), Delta())
        self._given: Step | None = None  # the first token of a text that is weighed: nobody drew it
        if choice.echoed:
            self._given, self.n_drawn = _unweighed(choice.echoed[0]), 1 - len(choice.echoed)

    def feed(self, steps: Iterable[Step]) -> Delta:
        """Up to a stop string: what is drawn after it does not count."""
        delta = self._begin()
        for step in steps:
            if self.stopped:
                break
            self.n_drawn += 1
            self.signals.add(step)
            self._read(step, delta)
            self.stopped = self._text.stopped
        return delta

    def finish(self) -> Delta:
        """The rest. Of a reply that a stop string has ended, nothing of that string."""
        delta = self._begin()
        last = self._tokens[-1] if self._tokens else None
        self._show(self._text.finish(last), delta)
        if self._thinking:
            self._sort(self._thinking.finish(), delta)
        if self._tools:
            delta.content += self._tools.finish()
            self._new_calls(delta)
        if self.stopped:
            self._cut(delta)
        else:
            self._release(last, delta)
        return delta

    def _cut(self, delta: Delta) -> None:
        """The token that a stop string begins in keeps what is shown of it; those behind it nothing, but they were drawn."""
        if self._shown in self._tokens:
            self._shown.data = self._shown.text.encode()
            self._release(self._shown, delta)
        while self._tokens:
            self._tokens[0].data, self._tokens[0].is_unseen = b"", True
            self._give(delta)

    def _begin(self) -> Delta:
        delta, step, self._given = Delta(), self._given, None
        if step is not None:
            self._read(step, delta)
        return delta

    def _read(self, step: Step, delta: Delta) -> None:
        token = self._token(step)
        self._tokens.append(token)
        self._show(self._text.feed(token.data, token), delta)
        if not self._text.holds:
            self._release(self._shown, delta)

    def _token(self, step: Step) -> DrawnToken:
        """Of a text that is weighed, every token is shown as it is written."""
        model = self._planner.model
        if self.n_drawn <= 0:
            return DrawnToken(step, model.token_bytes(step.id, special=True))
        return DrawnToken(step, self._planner.token_bytes(step.id), is_unseen=model.is_end(step.id))

    # ---- pieces ------------------------------------------------------------------------

    def _show(self, pieces: Iterable[tuple[str, DrawnToken]], delta: Delta) -> None:
        for text, token in pieces:
            if token is not None:
                token.text += text
            self._sort(self._thinking.feed(text, token) if self._thinking else [(text, token, False)], delta)

    def _sort(self, thoughts: Iterable[tuple[str, DrawnToken | None, bool]], delta: Delta) -> None:
        for text, token, is_thought in thoughts:
            if token is not None:
                token.is_thought, self._shown = is_thought, token
                self._release_before(token, delta)
            if is_thought:
                delta.reasoning += self._trimmer.thought(text)
                continue
            text = self._trimmer.answer(text)
            if self._tools:
                text = self._tools.feed(text)
                self._new_calls(delta)
            delta.content += text

    def _new_calls(self, delta: Delta) -> None:
        assert self._tools is not None
        delta.calls += self._tools.calls[self.n_called :]
        self.n_called = len(self._tools.calls)

    def _release_before(self, token: DrawnToken, delta: Delta) -> None:
        """Nothing of an earlier token is held back."""
        while token in self._tokens and self._tokens[0] is not token:
            self._give(delta)

    def _release(self, token: DrawnToken | None, delta: Delta) -> None:
        if token in self._tokens:
            self._release_before(token, delta)
            self._give(delta)

    def _give(self, delta: Delta) -> None:
        token = self._tokens.popleft()
        token.at, self._n_characters = self._n_characters, self._n_characters + len(token.text)
        self.n_thought += token.is_thought
        delta.tokens.append(token)


def _unweighed(token: int) -> Step:
    return Step(-1, token, None, None, 0.0, 0.0, 0, 0.0, 0.0, None)


class Trimmer:
    """Blanks around a thought, and between it and the answer, belong to neither."""

    def __init__(self) -> None:
        self._thinks = self._answers = False
        self._held = ""

    def thought(self, text: str) -> str:
        text = self._held + text
        if not self._thinks:
            text = text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        self._thinks = self._thinks or bool(kept)
        return kept

    def answer(self, text: str) -> str:
        if self._thinks and not self._answers:
            text = text.lstrip()
        self._answers = self._answers or bool(text)
        return text

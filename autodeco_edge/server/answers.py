"""What a client gets: the objects of the OpenAI API, with what the heads said beside them.

Owns the shapes of chat and plain completions, whole and in chunks, of logprobs and of the records of a trace. Knows no
transport. The shapes are written down for readers in schema.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..engine.sampler import SamplingParams, Step
from ..text.trace import record_of
from .encoding import GrowingObject, completed
from .prompts import ReplyPlan, ReplyPlanner
from .replies import Delta, DrawnToken, ReplyReader
from .service import Job
from .settings import HEADS_MODES

_HEADS = {mode: name for name, mode in HEADS_MODES.items()}


class ChatObjects:
    """chat.completion"""

    prefix, kind, chunk_kind = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, planner: ReplyPlanner, plan: ReplyPlan) -> None:
        self._planner, self._plan = planner, plan

    def whole(self, delta: Delta) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": delta.content, "refusal": None}
        if delta.reasoning:
            message["reasoning_content"] = delta.reasoning
        if delta.calls:
            message["content"] = delta.content or None
            message["tool_calls"] = delta.calls
        return {"message": message}

    def opening(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, delta: Delta, n_called: int) -> dict[str, Any]:
        """n_called: calls that were given out before."""
        message: dict[str, Any] = {}
        if delta.reasoning:
            message["reasoning_content"] = delta.reasoning
        if delta.content:
            message["content"] = delta.content
        if delta.calls:
            message["tool_calls"] = [{"index": n_called + i, **call} for i, call in enumerate(delta.calls)]
        return {"delta": message, "logprobs": self.logprobs(delta.tokens)}

    def logprobs(self, tokens: Iterable[DrawnToken]) -> dict[str, Any] | None:
        n_top = self._plan.n_top
        if n_top is None:
            return None
        return {"content": [self._entry(t, n_top) for t in tokens if not t.is_unseen], "refusal": None}

    def _entry(self, token: DrawnToken, n_top: int) -> dict[str, Any]:
        step = token.step
        top = [{"id": i, **_spelled(self._planner.token_bytes(i)), "logprob": p} for i, p in _likeliest(step, n_top)]
        entry = {
            **_spelled(token.data),
            "logprob": step.logprob,
            "top_logprobs": top,
            "id": step.id,
            "temperature": step.temperature,
            "top_p": step.top_p,
        }
        return {**entry, "reasoning": True} if token.is_thought else entry


class TextObjects:
    """text_completion"""

    prefix, kind, chunk_kind = "cmpl-", "text_completion", "text_completion"

    def __init__(self, planner: ReplyPlanner, plan: ReplyPlan) -> None:
        self._planner, self._plan = planner, plan

    def whole(self, delta: Delta) -> dict[str, Any]:
        return {"text": delta.content}

    def opening(self) -> None:
        return None

    def piece(self, delta: Delta, n_called: int) -> dict[str, Any]:
        return {**self.whole(delta), "logprobs": self.logprobs(delta.tokens)}

    def logprobs(self, tokens: Iterable[DrawnToken]) -> dict[str, Any] | None:
        n_top = self._plan.n_top
        if n_top is None:
            return None
        shown = [t for t in tokens if not t.is_unseen]
        texts = [t.data.decode("utf-8", "replace") for t in shown]
        return {
            "tokens": texts,
            "token_logprobs": [t.step.logprob for t in shown],
            "top_logprobs": [self._top(t.step, n_top) for t in shown] if n_top else None,
            "text_offset": [t.at for t in shown],
            "ids": [t.step.id for t in shown],
            "temperature": [t.step.temperature for t in shown],
            "top_p": [t.step.top_p for t in shown],
        }

    def _top(self, step: Step, n: int) -> dict[str, float]:
        """Two tokens may be spelled alike; the likelier one stays."""
        found: dict[str, float] = {}
        for token, logprob in _likeliest(step, n):
            found.setdefault(self._planner.token_bytes(token).decode("utf-8", "replace"), logprob)
        return found


def _likeliest(step: Step, n: int) -> Iterable[tuple[int, float]]:
    """The drawn token's number is the same in both places: clients compare them to know whether it is the likeliest."""
    return ((i, step.logprob if i == step.id and step.logprob is not None else p) for i, p in step.top[:n])


def _spelled(data: bytes) -> dict[str, Any]:
    return {"token": data.decode("utf-8", "replace"), "bytes": list(data)}


class GatheredReply:
    """A choice that is given out at its end. delta: all of it but the tokens, whose records are kept as JSON text."""

    def __init__(self, form: ChatObjects | TextObjects, plan: ReplyPlan) -> None:
        self._form, self._plan = form, plan
        self.delta = Delta()
        self._logprobs, self._trace = GrowingObject(), GrowingObject()

    def add(self, delta: Delta) -> None:
        if (logprobs := self._form.logprobs(delta.tokens)) is not None:
            self._logprobs.add(logprobs)
        if self._plan.trace:
            self._trace.add(_trace(delta))
        self.delta.add(replace(delta, tokens=[]))

    def text(self, choice: dict[str, Any], summary: dict[str, Any]) -> str:
        """JSON text of the choice, of what else there is of it, and of what the heads said."""
        logprobs = "null" if self._plan.n_top is None else self._logprobs.text()
        return completed(choice, logprobs=logprobs, autodeco=self._trace.text(summary))


class ReplyWriter:
    """One request's answer. model: the name that was asked for, as it is served; heads: in words, or None."""

    def __init__(
        self, form: ChatObjects | TextObjects, plan: ReplyPlan, model: str, heads: str | None, fingerprint: str
    ) -> None:
        self._form, self._plan, self._heads = form, plan, heads
        self._head = {"created": int(time.time()), "model": model, "system_fingerprint": fingerprint}
        self._id = form.prefix + secrets.token_hex(12)

    # ---- whole -------------------------------------------------------------------------

    def gathered(self) -> GatheredReply:
        return GatheredReply(self._form, self._plan)

    def whole(self, replies: Sequence[GatheredReply], readers: Sequence[ReplyReader], jobs: Sequence[Job]) -> str:
        """JSON text."""
        choices = [
            reply.text(
                {"index": i, **self._form.whole(reply.delta), "finish_reason": finish_reason(reader, job)},
                self._of_choice(reader, job),
            )
            for i, (reply, reader, job) in enumerate(zip(replies, readers, jobs, strict=True))
        ]
        head = {"id": self._id, "object": self._form.kind, **self._head}
        rest = {"usage": self.usage(readers, jobs), **self.summary(jobs)}
        return completed({**head, **rest}, choices=f"[{','.join(choices)}]")

    # ---- in chunks ---------------------------------------------------------------------

    def chunk(self, choices: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {"id": self._id, "object": self._form.chunk_kind, **self._head, "choices": list(choices), **more}

    def opening(self, index: int) -> dict[str, Any] | None:
        opening = self._form.opening()
        return None if opening is None else {"index": index, **opening, "finish_reason": None}

    def piece(self, index: int, delta: Delta, n_called: int) -> dict[str, Any]:
        choice = {"index": index, **self._form.piece(delta, n_called), "finish_reason": None}
        return {**choice, "autodeco": _trace(delta)} if self._plan.trace else choice

    def ending(self, index: int, delta: Delta, n_called: int, reader: ReplyReader, job: Job) -> dict[str, Any]:
        piece = self.piece(index, delta, n_called)
        said = {**self._of_choice(reader, job), **piece.get("autodeco", {})}
        return {**piece, "finish_reason": finish_reason(reader, job), "autodeco": said}

    # ---- parts -------------------------------------------------------------------------

    def usage(self, readers: Sequence[ReplyReader], jobs: Sequence[Job]) -> dict[str, Any]:
        prompt, drawn = sum(self._plan.prompts), sum(r.n_drawn for r in readers)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": drawn,
            "total_tokens": prompt + drawn,
            "prompt_tokens_details": {"cached_tokens": min(prompt, sum(j.timings.prompt_cached for j in jobs))},
            "completion_tokens_details": {"reasoning_tokens": sum(r.n_thought for r in readers)},
        }

    def _of_choice(self, reader: ReplyReader, job: Job) -> dict[str, Any]:
        cut_by = {"cut_by": job.cut_by} if job.cut_by and was_cut(reader, job) else {}
        return {"seed": job.request.params.seed, **reader.signals.as_dict(), **cut_by}

    def summary(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """What stands beside the choices of the whole, or of the last chunk."""
        summary = {"heads": self._heads, **settings_in_words(self._plan.params)}
        if self._plan.remark:
            summary["remark"] = self._plan.remark
        return {"autodeco": summary, "timings": jobs[0].timings.as_dict()}


def settings_in_words(params: SamplingParams) -> dict[str, Any]:
    """What was applied, under the names of the request object."""
    return {
        "applied": _HEADS[params.heads_mode],
        "temperature_factor": params.temperature,
        "top_p_factor": params.top_p,
        "temperature_range": list(params.temp_range),
        "top_p_range": list(params.top_p_range),
    }


def finish_reason(reader: ReplyReader, job: Job) -> str:
    if reader.n_called:
        return "tool_calls"
    if reader.stopped or job.finish_reason == "stop":
        return "stop"
    return "length"


def was_cut(reader: ReplyReader, job: Job) -> bool:
    """Not where it had ended by itself a moment before."""
    return job.finish_reason == "cancelled" and not reader.stopped


def _trace(delta: Delta) -> dict[str, Any]:
    return {"trace": [record_of(token.step, token.data, token.text) for token in delta.tokens]}


def model_card(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "autodeco-edge"}


def heads_card(heads: Any) -> dict[str, Any] | None:
    if heads is None:
        return None
    return {
        "description": heads.description,
        "temperature": heads.has_temp,
        "top_p": heads.has_top_p,
        "mean_temperature": heads.mean_temperature,
        "mean_top_p": heads.mean_top_p,
    }

"""One reply: what was asked for, and what comes of it.

Owns the request, the steps that wait to be read, why the reply ended, and its times. Does not compute: a generation
asks its engine for another tick when nothing waits.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .filters import Filter
from .sampler import SamplingParams, Step


@dataclass(frozen=True)
class Request:
    """One reply to draw.

    prompt        token ids
    params        settings and seed
    max_tokens    at most so many; -1 = until the end token or the end of the context
    filters       between the logits and the cut, such as a grammar; () = none
    stop_at_end   False goes on past end tokens (benchmarks, parity tests)
    reuse_prefix  keep what a slot has computed of the same beginning: faster in a conversation, while another
                  split of the prompt may change the last bits
    owner         whose it is: what was computed for one owner is never reused for another
    share_prompt  compute the prompt once for all neighbours in the queue that ask for the same one; needs an
                  engine made with ``share_prompts``
    heads         the name of one of the engine's further heads; None = its own
    """

    prompt: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    max_tokens: int = -1
    filters: tuple[Filter, ...] = ()
    stop_at_end: bool = True
    reuse_prefix: bool = False
    owner: str = ""
    share_prompt: bool = False
    heads: str | None = None


@dataclass
class Reply:
    """What came: one Step a token, the end token included; finish_reason "stop" (end token) or "length"."""

    request: Request
    steps: list[Step] = field(default_factory=list)
    finish_reason: str = "length"


@dataclass
class Timings:
    """Seconds and tokens of one reply; load_s is the engine's own. draft_n: tokens that were drafted, and of these
    draft_n_accepted: those that were drawn."""

    load_s: float = 0.0
    prompt_n: int = 0
    prompt_cached: int = 0
    prompt_s: float = 0.0
    prompt_done: int = 0  # of prompt_n, so far
    predicted_n: int = 0
    predicted_s: float = 0.0
    draft_n: int = 0
    draft_n_accepted: int = 0

    def as_dict(self) -> dict[str, float | int | None]:
        return {
            "load_s": round(self.load_s, 4),
            "prompt_n": self.prompt_n,
            "prompt_cached": self.prompt_cached,
            "prompt_s": round(self.prompt_s, 4),
            "prompt_per_second": _rate(self.prompt_n, self.prompt_s),
            "predicted_n": self.predicted_n,
            "predicted_s": round(self.predicted_s, 4),
            "predicted_per_second": _rate(self.predicted_n, self.predicted_s),
            "draft_n": self.draft_n,
            "draft_n_accepted": self.draft_n_accepted,
        }


def _rate(n: int, seconds: float) -> float | None:
    return round(n / seconds, 2) if seconds > 0 else None


class Work:
    """The engine's side of a reply. It outlives the caller's handle by a tick at most: a handle that nobody holds
    any more cancels it.

    n_drawn        tokens so far
    ended          no step will be added
    finish_reason  "stop", "length", "cancelled" or "error" once ended
    error          what a reply of "error" ended with
    cancelled      asked for, from any thread; the engine ends the reply at its next tick
    """

    def __init__(self, request: Request, limit: int, timings: Timings) -> None:
        self.request, self.limit, self.timings = request, limit, timings
        self.steps: deque[Step] = deque()
        self.n_drawn = 0
        self.ended = self.cancelled = False
        self.finish_reason: str | None = None
        self.error: BaseException | None = None

    def deliver(self, step: Step, is_end: bool) -> None:
        self.steps.append(step)
        self.n_drawn += 1
        if is_end and self.request.stop_at_end:
            self.end("stop")
        elif self.n_drawn >= self.limit:
            self.end("length")

    def end(self, reason: str, error: BaseException | None = None) -> None:
        if not self.ended:
            self.finish_reason, self.error, self.ended = reason, error, True


class Generation:
    """An iterator of Steps, the end token included.

    Leaving it half way is fine: ``cancel``, or simply drop it, and its slot is free. Raises what the reply failed
    with when its steps have been read.
    """

    def __init__(self, work: Work, advance: Callable[[Work], None], cancel: Callable[[Work], None]) -> None:
        self._work, self._advance, self._cancel = work, advance, cancel
        self._bytes_of: Callable[[int], bytes] | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def spelt(self, bytes_of: Callable[[int], bytes]) -> Generation:
        """This, with a text in every step: characters, whole ones, of the bytes of its tokens."""
        self._bytes_of = bytes_of
        return self

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        work = self._work
        while not work.steps:
            if work.ended:
                self._raise_error()
                raise StopIteration
            self._advance(work)
        return self._next()

    def _next(self) -> Step:
        step = self._work.steps.popleft()
        if self._bytes_of is not None:
            is_last = self._work.ended and not self._work.steps
            object.__setattr__(step, "text", self._decoder.decode(self._bytes_of(step.id), is_last))
        return step

    def read(self) -> list[Step]:
        """The steps that wait, without computing any. Raises what the reply failed with once all are read."""
        steps = [self._next() for _ in range(len(self._work.steps))]
        if self._work.ended and not steps:
            self._raise_error()
        return steps

    def _raise_error(self) -> None:
        error, self._work.error = self._work.error, None
        if error is not None:
            raise error

    @property
    def request(self) -> Request:
        return self._work.request

    @property
    def ended(self) -> bool:
        return self._work.ended

    @property
    def finish_reason(self) -> str | None:
        """ "stop" (end token), "length", "cancelled", "error"; None while it runs."""
        return self._work.finish_reason

    @property
    def timings(self) -> Timings:
        return self._work.timings

    def cancel(self) -> None:
        """Draw no more, whatever stage it is in; steps that wait can still be read. From any thread, any number of times."""
        self._cancel(self._work)

    close = cancel  # as a generator has it

    def __del__(self) -> None:
        if hasattr(self, "_cancel"):
            self._cancel(self._work)

"""The engine's thread, and what waits for it.

Owns the one thread that drives the engine, the queue in front of it, how many choices may be in the house at once, and
the way of Steps to the event loop: one call for all that came, whoever it is for. The event loop never waits for the engine.
Knows token ids and no text.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from ..engine.cpu import processors
from ..engine.engine import Engine
from ..engine.generation import Generation, Request, Timings
from ..engine.sampler import Step
from ..errors import AutodecoError, FormatError
from ..io.printing import one_line, say
from .errors import ApiError, shutting_down
from .fair_queue import FairQueue
from .limits import ServerLimits

GATHER_SECONDS = 0.01  # of tokens that come faster than anybody reads: a handful goes to the event loop at once
WRITE_SECONDS = 0.002  # at most that an engine which takes all processors waits for what it handed over to be written
MAX_UNREAD = 2048  # steps that wait for a reader: beyond that the reader is too slow, and its reply ends
MAX_TAKEN = 64  # steps of a choice that are written before others have their turn


class Job:
    """One choice, on the side of the event loop.

    siblings       the choices of the same request, itself among them
    finish_reason  "stop", "length" or "cancelled", once ended
    cut_by         what ended a reply of "cancelled" that its reader shall see: "time", "shutdown"
    """

    def __init__(self, request: Request, caller: str, news: asyncio.Event, cancel: Callable[[Job], None]) -> None:
        self.request, self.caller, self._news, self._cancel = request, caller, news, cancel
        self.siblings: Sequence[Job] = (self,)
        self.generation: Generation | None = None
        self.submitted, self.started = time.monotonic(), 0.0
        self.is_new = True  # to the event loop
        self.is_heard = False  # a step was handed over, as the engine's thread knows
        self.cancelled = self.ended = False
        self.finish_reason: str | None = None
        self.cut_by: str | None = None
        self.error: BaseException | None = None
        self._steps: list[Step] = []

    @property
    def timings(self) -> Timings:
        return self.generation.timings if self.generation else Timings()

    def take(self) -> tuple[list[Step], bool]:
        """A handful of the steps that have come since, and whether they are the last."""
        steps, self._steps = self._steps[:MAX_TAKEN], self._steps[MAX_TAKEN:]
        return steps, self.ended and not self._steps

    @property
    def is_waiting(self) -> bool:
        """For its reader, who has not taken all."""
        return bool(self._steps)

    def cancel(self) -> None:
        """Draw no more. Any number of times, at any stage."""
        if not self.ended:
            self._cancel(self)

    def push(self, steps: list[Step]) -> None:
        self._steps += steps
        if len(self._steps) > MAX_UNREAD and not self.ended:
            self._steps = []
            self.cancel()
            self.end(None, ApiError(408, "the reader is too slow; its reply was ended", code="slow_reader"))
        self._news.set()

    def end(self, reason: str | None, error: BaseException | None = None) -> None:
        if not self.ended:
            self.finish_reason, self.error, self.ended = reason, error, True
            self._news.set()


class Exchange:
    """The jobs of one request, and their room in the house until ``close``, which ends what still runs.

    An iterator of what came at once: (index of the job, steps, whether it is over). Raises what a reply failed with, behind
    the steps that came before.

    is_cancelled  nobody waits for the reply any more; for threads that still plan it
    """

    def __init__(self, service: Service, permit: Permit) -> None:
        self._service, self._permit = service, permit
        self._news, self.is_cancelled = asyncio.Event(), False
        self.jobs: list[Job] = []

    def submit(self, caller: str, requests: Sequence[Request]) -> None:
        """From any thread. Draws nothing where the exchange is cancelled already."""
        self.jobs = self._service.submit(caller, requests, self._news)
        if self.is_cancelled:
            self.cancel()

    def cancel(self) -> None:
        self.is_cancelled = True
        for job in self.jobs:
            job.cancel()

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, list[Step], bool]]]:
        running = dict(enumerate(self.jobs))
        while running:
            await self._news.wait()
            self._news.clear()
            news = [(index, *job.take()) for index, job in running.items()]
            yield [(i, steps, last and not running[i].error) for i, steps, last in news if steps or last]
            for job in [running.pop(index) for index, _, last in news if last]:
                if job.error:
                    raise _failed(job, job.error)
            if any(job.is_waiting for job in running.values()):
                self._news.set()
                await asyncio.sleep(0)

    def close(self) -> None:
        self.cancel()
        self._permit.release()


class Service:
    """
    load    makes the engine; called in the engine's thread
    limits  of requests and of the queue

    ``start`` in a running event loop; everything else from that loop, too, unless it says otherwise.
    """

    def __init__(self, load: Callable[[], Engine], limits: ServerLimits) -> None:
        self._load, self.limits = load, limits
        self.engine: Engine | None = None
        self.failure: BaseException | None = None
        self.draining = False
        self.ready, self.over = (
            asyncio.Event(),
            asyncio.Event(),
        )  # the model is there, or has failed; the thread has ended
        self.n_open = 0  # choices that are in the house, from admission to the end
        self._queue: FairQueue[Job] = FairQueue()
        self._running: list[Job] = []
        self._wake = threading.Condition()
        self._stopping = self._gone = False  # the thread is asked to end; it has
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._recent = 1.0  # seconds that a choice took, a running mean
        self._handed = 0.0  # when steps were last handed over
        self._takes_all = False  # the engine's threads leave no processor to the event loop
        self.on_first: Callable[[float], None] = _ignored  # of a choice: seconds from its submission to its first token
        self.on_end: Callable[[Timings, float], None] = _ignored

    # ---- the event loop's side ---------------------------------------------------------

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        return len(self._queue)

    @property
    def is_loading(self) -> bool:
        return not self.ready.is_set()

    def permit(self, n: int) -> Permit:
        """Room for n choices. Raises ApiError: 503 while nothing is taken, 429 where it is full."""
        self.check_open()
        room = self.limits.parallel + self.limits.queue
        if self.n_open + n > room:
            raise ApiError(
                429, f"{self.n_open} replies are being drawn or wait, of at most {room}; try again later",
                Retry_After=str(self.retry_after),
            )  # fmt: skip
        self.n_open += n
        return Permit(self, n)

    def check_open(self) -> None:
        """Raises ApiError 503 while the model loads, and when the server is about to end."""
        if self.is_loading:
            raise ApiError(503, "the model is being loaded; try again", code="loading", Retry_After="1")
        if self.draining:
            raise shutting_down(Retry_After="5")

    @property
    def retry_after(self) -> int:
        """Seconds until a place in the queue should be free."""
        return max(1, min(60, round(self._recent * (1 + self.n_waiting / self.limits.parallel))))

    def submit(self, caller: str, requests: Sequence[Request], news: asyncio.Event) -> list[Job]:
        """``news`` is set whenever something has come for one of them. From any thread: the sooner the engine knows."""
        jobs = [Job(request, caller, news, self._cancel) for request in requests]
        for job in jobs:
            job.siblings = jobs
        with self._wake:
            if self._gone:
                self._post(self._turn_away, jobs)
                return jobs
            for job in jobs:
                self._queue.put(caller, job)
            self._wake.notify()
        return jobs

    def _cancel(self, job: Job) -> None:
        with self._wake:
            job.cancelled = True
            if self._queue.remove(job.caller, job):
                job.end("cancelled")
            elif job.generation:
                job.generation.cancel()
            self._wake.notify()

    def cut(self, why: str) -> None:
        """End what has begun, so that its readers see an end, and turn away what waits. For the last seconds of a shutdown."""
        with self._wake:
            for job in list(self._running):
                job.cut_by = job.cut_by or why
                if job.generation:
                    job.generation.cancel()
            while job := self._queue.get():
                if any(sibling.started for sibling in job.siblings):
                    job.cut_by = why
                    job.end("cancelled")
                else:
                    job.end(None, shutting_down())

    def close(self) -> None:
        """Ends the thread after its tick, and with it the engine. From any thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def join(self, seconds: float) -> bool:
        """Whether the thread has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    # ---- the engine's side -------------------------------------------------------------

    def _run(self) -> None:
        try:
            engine = self._load()
        except BaseException as error:
            self._post(self._loaded, None, error)
            return
        self._post(self._loaded, engine, None)
        self._takes_all = engine.n_threads >= processors()
        failure: BaseException | None = None
        try:
            with engine:
                while self._wait():
                    self._admit(engine)
                    self._tick(engine)
                    self._deliver()
        except BaseException as error:
            failure = error
        self._post(self._ended, failure)

    def _loaded(self, engine: Engine | None, failure: BaseException | None) -> None:
        self.engine, self.failure = engine, failure
        self.ready.set()

    def _ended(self, failure: BaseException | None) -> None:
        """Nobody waits for a thread that is gone."""
        self.failure = self.failure or failure
        self.draining = True
        with self._wake:
            self._gone = True
            left, self._running = list(self._running), []
            while job := self._queue.get():
                left.append(job)
        self._turn_away(left)
        self.over.set()

    def _turn_away(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.end(None, self.failure or shutting_down("the server has ended"))

    def _wait(self) -> bool:
        """Until there is something to do; False at the end."""
        with self._wake:
            while not (self._stopping or self._running or self._queue):
                self._wake.wait()
            return not self._stopping

    def _admit(self, engine: Engine) -> None:
        while engine.n_free > 0:
            with self._wake:
                job = self._queue.get()
                if job is None:
                    return
                job.started = time.monotonic()
                self._running.append(job)
            try:
                generation = engine.submit(job.request)
            except AutodecoError as error:
                self._finish([(job, [], None, error)])
                continue
            with self._wake:
                job.generation = generation
                if job.cancelled or job.cut_by:
                    generation.cancel()

    def _tick(self, engine: Engine) -> None:
        try:
            engine.tick()
        except Exception as error:  # whatever it was, nobody shall wait for ever
            say(f"error: the engine failed: {type(error).__name__}: {one_line(error)[:300]}")
            with self._wake:
                failed = list(self._running)
            self._finish([(job, _left_by(job), None, error) for job in failed])

    def _deliver(self) -> None:
        now = time.monotonic()
        drawing = [(job, job.generation) for job in self._running if job.generation]
        for job, generation in drawing:
            if now - job.started > self.limits.seconds and not generation.ended:
                job.cut_by = "time"
                generation.cancel()
        if now - self._handed < GATHER_SECONDS and not any(_is_urgent(*each) for each in drawing):
            return
        self._handed = now
        self._finish([entry for each in drawing if (entry := _news_of(*each))])
        if self._takes_all:
            self._let_write()

    def _let_write(self) -> None:
        """Before the next batch: threads that compute wait for each other, and each time the event loop took a processor
        from one of them it would hold up all."""
        written = threading.Event()
        self._post(self._loop.call_soon, written.set)  # behind the readers that the news has woken
        written.wait(WRITE_SECONDS)

    def _finish(self, news: list[tuple[Job, list[Step], str | None, BaseException | None]]) -> None:
        """To the event loop; a reason or an error is the end of its job."""
        if not news:
            return
        ended = {job for job, _, reason, error in news if reason or error}
        if ended:
            with self._wake:
                self._running = [job for job in self._running if job not in ended]
        self._post(self._hand_over, news)

    def _hand_over(self, news: list[tuple[Job, list[Step], str | None, BaseException | None]]) -> None:
        now = time.monotonic()
        for job, steps, reason, error in news:
            if steps:
                if job.is_new:
                    job.is_new = False
                    self.on_first(now - job.submitted)
                job.push(steps)
            if reason or error:
                seconds = now - (job.started or now)
                self._recent += 0.2 * (seconds - self._recent)
                self.on_end(job.timings, seconds)
                job.end(reason, error)

    def _post(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended before us
            self._loop.call_soon_threadsafe(function, *arguments)


def _ignored(*_: Any) -> None:
    pass


class Permit:
    """Room for n choices, until it is released, once."""

    def __init__(self, service: Service, n: int) -> None:
        self._service, self._n = service, n

    def release(self) -> None:
        self._service.n_open -= self._n
        self._n = 0


def _failed(job: Job, error: BaseException) -> BaseException:
    """A grammar that grows too complex half way is the request's; everything else is ours."""
    if isinstance(error, FormatError) and job.request.filters:
        return ApiError(400, one_line(error), "response_format")
    return ApiError(500, one_line(error)) if isinstance(error, AutodecoError) else error


def _is_urgent(job: Job, generation: Generation) -> bool:
    """A first token or an end waits for nothing."""
    return generation.ended or (not job.is_heard and generation.timings.predicted_n > 0)


def _news_of(job: Job, generation: Generation) -> tuple[Job, list[Step], str | None, BaseException | None] | None:
    """Steps that came, and the end where it came; None for nothing new."""
    ended, steps = generation.ended, []
    try:
        steps = generation.read()
        if ended and steps:
            generation.read()  # raises what it failed with
    except AutodecoError as error:
        return job, steps, None, error
    if not steps and not ended:
        return None
    job.is_heard = True
    return job, steps, generation.finish_reason if ended else None, None


def _left_by(job: Job) -> list[Step]:
    """What was drawn before the engine failed."""
    if job.generation is None:
        return []
    job.generation.cancel()
    with contextlib.suppress(AutodecoError):
        return job.generation.read()
    return []

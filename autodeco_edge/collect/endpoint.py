"""Replies of an OpenAI-compatible server.

Owns the threads that wait for it, the body of a request, and how a reply becomes training text. A model's thinking,
which servers hand over apart, is put back in front of the answer within <think> tags, as chat templates write it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import SimpleQueue
from typing import Any

from ..errors import AutodecoError
from ..io.digest import fingerprint, seed_of
from ..io.reading import is_text
from ..tasks import Problem
from .chat_form import ChatForm
from .client import ChatClient, Completion
from .source import Answer, DrawSettings, Job

THINK, END_THINK = "<think>", "</think>"
SEEDS = 2**31  # servers keep a seed in 32 bits, some with a sign
# llama-server keeps the 40 likeliest tokens and applies min-p unless told not to: no sample at P = 1.
PLAIN_BODY = {"top_k": 0, "min_p": 0.0}


class EndpointSource:
    """
    client      of the server
    settings    of a draw
    model_name  as the server knows the model, or None: left to the server
    body        more fields of each request; they replace those of the same name, and null takes one away
    form        chat template for {"prompt", "completion"} records; None: {"messages"} records
    """

    n_together = 0  # nothing is known of the server's batches, and a reply is paid for: none is asked for twice

    def __init__(
        self,
        client: ChatClient,
        settings: DrawSettings,
        *,
        model_name: str | None = None,
        body: dict[str, Any] = PLAIN_BODY,
        form: ChatForm | None = None,
    ) -> None:
        self._client, self._settings, self._form = client, settings, form
        self._model_name, self._body = model_name, body

    def header(self) -> dict[str, Any]:
        """A named model may move to another address; a nameless one is known by it alone."""
        form = self._form and fingerprint(repr(self._form))
        return {"model": self._model_name or self._client.url, "body": self._body, "template": form}

    def answers(self, jobs: Iterator[Job]) -> Generator[Answer, None, None]:
        """After a failure no more jobs are taken, but the replies under way are waited for: they are paid for."""
        todo: SimpleQueue[Job | None] = SimpleQueue()
        done: SimpleQueue[tuple[Job, Completion | BaseException]] = SimpleQueue()
        n_threads = n_waiting = 0
        failure: BaseException | None = None
        try:
            while True:
                while failure is None and n_waiting < self._settings.n_parallel and (job := next(jobs, None)):
                    if n_threads < self._settings.n_parallel:  # daemons: Ctrl-C does not wait for the server
                        threading.Thread(target=self._work, args=(todo, done), daemon=True).start()
                        n_threads += 1
                    todo.put(job)
                    n_waiting += 1
                if not n_waiting:
                    break
                job, outcome = done.get()
                n_waiting -= 1
                if isinstance(outcome, BaseException):
                    failure = failure or outcome
                else:
                    yield _answer(*job, outcome)
        finally:
            for _ in range(n_threads):
                todo.put(None)
        if failure is not None:
            raise failure

    def _work(self, todo: SimpleQueue, done: SimpleQueue) -> None:
        while job := todo.get():
            try:
                outcome = self._client.complete(self._request(*job))
            except AutodecoError as error:
                outcome = type(error)(f"problem {job[0].id}: {error}")
            except BaseException as error:  # whatever it is, the main thread has to hear of it
                outcome = error
            done.put((job, outcome))

    def _request(self, problem: Problem, sample: int) -> dict[str, Any]:
        settings = self._settings
        body = {
            "model": self._model_name,
            "messages": list(problem.messages),
            "n": 1,
            "stream": False,
            "seed": seed_of(settings.seed, problem.id, sample) % SEEDS,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            **self._body,
        }
        return {name: value for name, value in body.items() if value is not None}

    def record(self, problem: Problem, text: str) -> dict[str, Any]:
        if self._form is None:
            return {"messages": [*problem.messages, {"role": "assistant", "content": text}]}
        prompt = self._form.prompt(problem)
        for opened in (THINK + "\n", THINK):  # a template that opens the thinking itself: not twice
            if prompt.endswith(opened):
                return {"prompt": prompt, "completion": text.removeprefix(opened)}
        return {"prompt": prompt, "completion": text}

    def close(self) -> None:
        pass  # a connection lasts one request


def _answer(problem: Problem, sample: int, completion: Completion) -> Answer:
    text = completion.text
    if completion.reasoning and text.strip():  # thoughts without an answer stay an empty answer
        text = f"{THINK}\n{completion.reasoning.strip()}\n{END_THINK}\n\n{text.lstrip()}"
    return Answer(problem, sample, text if is_text(text) else None, completion.finish == "stop", completion.n_tokens)

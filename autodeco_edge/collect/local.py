"""Replies of the model in this process.

Owns the engine and the prompts. Draws with constants, or with the model's heads. What is kept is the text with its
control tokens, as it has to be tokenised again, less the end marker.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..engine.engine import Engine
from ..engine.generation import Reply, Request
from ..engine.model import Model
from ..engine.pairing import check_heads, open_heads
from ..engine.sampler import SamplingParams
from ..errors import ContextOverflowError, NoHeadsError
from ..eval.schedule import group_size
from ..io.digest import identity, seed_of
from ..tasks import Problem
from ..text.chat import render
from .chat_form import ChatForm
from .source import Answer, DrawSettings, Job


class LocalSource:
    """
    path      GGUF file
    heads     file, "auto" (those inside the model), or None: constants alone
    settings  of a draw; with heads its temperature and top-p multiply theirs
    n_ctx     tokens of one reply with its prompt; 0 = as many as the longest prompt and max_tokens take

    Raises what Model and Heads raise, NoHeadsError, and ContextOverflowError for a problem that does not fit.
    """

    def __init__(
        self,
        path: Path,
        heads: str | Path | None,
        settings: DrawSettings,
        problems: Sequence[Problem],
        *,
        n_ctx: int = 0,
        n_threads: int = 0,
    ) -> None:
        self._settings, self._n_threads = settings, n_threads
        self.n_together = group_size(settings.n_parallel)
        self._engine: Engine | None = None
        self._model = Model(path)
        self._heads = open_heads(heads, path)
        if self._heads:
            check_heads(self._heads, self._model.handle, path)
        elif heads:
            raise NoHeadsError(f"{path}: has no heads inside; give --heads FILE, or leave --with-heads out")
        self._form = ChatForm.of_model(self._model)
        self._prompts = {problem.id: tuple(render(self._model, list(problem.messages))) for problem in problems}
        self._given_n_ctx = n_ctx
        self._n_ctx = self._context(n_ctx)

    def _context(self, n_ctx: int) -> int:
        longest = max(self._prompts, key=lambda i: len(self._prompts[i]))
        n = len(self._prompts[longest])
        n_ctx = n_ctx or min(self._model.n_ctx_train, n + self._settings.max_tokens + 1)
        if n >= n_ctx:
            raise ContextOverflowError(
                f"problem {longest} has {n} tokens, the context {n_ctx}; give a larger -c, or leave it out"
            )
        return n_ctx

    def header(self) -> dict[str, Any]:
        return {
            "model": identity(self._model.path),
            "heads": identity(self._heads.path) if self._heads else None,
            "n_ctx": self._given_n_ctx,
        }

    def answers(self, jobs: Iterator[Job]) -> Generator[Answer, None, None]:
        taken: list[Job] = []
        self._engine = self._engine or self._make_engine()
        for number, reply in self._engine.run(self._requests(jobs, taken)):
            yield self._answer(*taken[number], reply)

    def _make_engine(self) -> Engine:
        return Engine(
            self._model,
            self._heads,
            n_slots=self._settings.n_parallel,
            n_ctx=self._n_ctx,
            n_threads=self._n_threads,
            share_prompts=True,
        )

    def _requests(self, jobs: Iterator[Job], taken: list[Job]) -> Iterator[Request]:
        """Requests in their order; ``taken`` gets the job of each."""
        for problem, sample in jobs:
            taken.append((problem, sample))
            params = self._params(seed_of(self._settings.seed, problem.id, sample))
            yield Request(self._prompts[problem.id], params, self._settings.max_tokens, share_prompt=True)

    def _params(self, seed: int) -> SamplingParams:
        mode = "both" if self._heads else "none"
        return SamplingParams(seed, self._settings.temperature, self._settings.top_p, heads_mode=mode)

    def _answer(self, problem: Problem, sample: int, reply: Reply) -> Answer:
        ended = reply.finish_reason == "stop"
        ids = [step.id for step in reply.steps]
        data = self._model.detokenize(ids[:-1] if ended else ids, special=True)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = None
        return Answer(problem, sample, text, ended, len(ids))

    def record(self, problem: Problem, text: str) -> dict[str, Any]:
        return {"prompt": self._form.prompt(problem), "completion": text}

    def close(self) -> None:
        if self._engine:
            self._engine.close()
        self._model.close()

"""Judged samples: how they are drawn, and the file in which they outlive a kill.

Owns the row that is kept of it, and the order of drawing, judging and writing. Knows neither
the statistics nor which methods there are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from ..engine.engine import Engine
from ..engine.generation import Reply, Request
from ..engine.model import Model
from ..engine.sampler import Heads
from ..engine.strategies import StockStrategy
from ..errors import ContextOverflowError, FormatError, UsageError
from ..io.digest import seed_of
from ..records import RecordFile
from ..tasks import Problem, Verifier, must_end
from ..text.chat import render
from .methods import Method
from .schedule import Job, group_size, groups

JUDGED_AT_ONCE = 64  # answers handed to the verifier's processes together


@dataclass(frozen=True)
class Sample:
    """One judged reply.

    problem, sample   id, and number of the draw (from 0)
    right             by the task's main rule; a reply to a generated problem that was cut short is wrong
    math_verify       by math-verify; None where it was not asked
    key               of the solution: two right ones with different keys are distinct
    n_tokens, ended   length, end token included; whether there was one
    mean_t, mean_p    of the heads over the reply; None without heads
    text              the reply
    """

    problem: str
    sample: int
    right: bool
    math_verify: bool | None
    key: str
    n_tokens: int
    ended: bool
    mean_t: float | None
    mean_p: float | None
    text: str

    @classmethod
    def of_row(cls, row: dict[str, Any], path: object) -> Sample:
        """Raises FormatError for a row that is no sample."""
        try:
            sample = cls(**row)
        except TypeError:
            sample = None
        if sample is None or not isinstance(sample.problem, str) or not isinstance(sample.sample, int):
            raise FormatError(f"{path}: holds {str(row)[:80]}, which is no sample; remove the file and start again")
        return sample


@dataclass(frozen=True)
class Limits:
    """max_tokens of a reply, n_ctx of a sequence (0 = what prompts and replies need), sequences side by side, llama.cpp's threads."""

    max_tokens: int = 2048
    n_ctx: int = 0
    n_parallel: int = 16
    n_threads: int = 0


class Drawer:
    """Draws and judges samples with one model; keeps the engine that the last method used. more: other heads, by name."""

    def __init__(
        self,
        model: Model,
        heads: Heads | None,
        limits: Limits,
        verifier: Verifier,
        seed: int,
        more: Mapping[str, Heads] | None = None,
    ) -> None:
        self.model = model
        self.heads = {"": heads, **(more or {})}
        self.limits = limits
        self.verifier = verifier
        self.seed = seed
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._engine: Engine | None = None
        self._engine_for = None

    def draw(
        self, method: Method, problems: Sequence[Problem], n: int, file: RecordFile, *, only_there: bool = False
    ) -> Iterator[Sample]:
        """The first n samples of each problem: those in the file, then the missing ones as they are drawn and written.

        One sample where the method draws nothing. only_there: the missing ones are not drawn, which is a UsageError for a
        problem that has none at all. A prompt that does not fit raises ContextOverflowError.
        """
        n = 1 if method.once else n
        ids = {problem.id for problem in problems}
        rows = [Sample.of_row(row, file.path) for row in reversed(file.rows)]
        have = {(sample.problem, sample.sample): sample for sample in rows}  # of doubled ones the first
        yield from (sample for sample in reversed(have.values()) if sample.problem in ids and sample.sample < n)
        if only_there:
            without = ids - {problem for problem, _ in have}
            if without:
                raise UsageError(
                    f"{method.name}: {len(without)} problems have no sample yet ({min(without)}); draw them first"
                )
            return
        for group in groups(problems, n, group_size(self.limits.n_parallel)):
            if all((p.id, k) in have for p, k in group):
                continue
            room = self._context(problems)  # the same for every group, whichever is the first to be drawn
            replies = (reply for reply in self.replies(method, group, room) if (reply[0].id, reply[1]) not in have)
            while ended := list(islice(replies, JUDGED_AT_ONCE)):
                for sample in self._judge(ended):
                    file.append(asdict(sample))
                    yield sample

    def replies(self, method: Method, jobs: Sequence[Job], n_ctx: int = 0) -> Iterator[tuple[Problem, int, Reply]]:
        """Replies to jobs, unjudged, as they end. n_ctx: of a sequence; 0: what these jobs need."""
        engine = self._engine_of(method, n_ctx or self._context([problem for problem, _ in jobs]))
        requests = (
            Request(
                self.prompt(p), method.seeded(seed_of(self.seed, p.id, k)), self.limits.max_tokens, share_prompt=True
            )
            for p, k in jobs
        )
        for number, reply in engine.run(requests):
            yield *jobs[number], reply

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """Ids of the problem in the model's chat template."""
        text = json.dumps(problem.messages)
        if text not in self._prompts:
            ids = tuple(render(self.model, list(problem.messages)))
            n_ctx = self.limits.n_ctx or self.model.n_ctx_train
            if len(ids) >= n_ctx:
                raise ContextOverflowError(
                    f"problem {problem.id} has {len(ids)} tokens, the context {n_ctx}; give a larger -c, or leave it out"
                )
            self._prompts[text] = ids
        return self._prompts[text]

    def text(self, reply: Reply) -> str:
        return self.model.detokenize([step.id for step in reply.steps]).decode("utf-8", "replace")

    def _judge(self, group: list[tuple[Problem, int, Reply]]) -> list[Sample]:
        texts = [self.text(reply) for _, _, reply in group]
        verdicts = self.verifier.check([(problem, text) for (problem, _, _), text in zip(group, texts, strict=True)])
        samples = []
        for (problem, k, reply), text, verdict in zip(group, texts, verdicts, strict=True):
            ended = reply.finish_reason == "stop"
            samples.append(
                Sample(
                    problem=problem.id,
                    sample=k,
                    right=verdict.right and (ended or not must_end(problem.kind)),
                    math_verify=verdict.math_verify,
                    key=verdict.key,
                    n_tokens=len(reply.steps),
                    ended=ended,
                    mean_t=mean([step.temperature for step in reply.steps]),
                    mean_p=mean([step.top_p for step in reply.steps]),
                    text=text,
                )
            )
        return samples

    def _context(self, problems: Sequence[Problem]) -> int:
        """Tokens of a sequence: as asked, else room for the longest prompt and a whole reply, as far as the model goes."""
        longest = max(len(self.prompt(problem)) for problem in problems)
        return self.limits.n_ctx or min(self.model.n_ctx_train, longest + self.limits.max_tokens)

    def _engine_of(self, method: Method, n_ctx: int) -> Engine:
        """One engine at a time: other heads, llama.cpp's samplers and longer prompts need a context of their own."""
        heads = self.heads[method.heads if method.uses_heads else ""]
        if self._engine is None or self._engine_for != (heads, method.stock) or self._engine.n_ctx != n_ctx:
            self.close()
            limits = self.limits
            self._engine = Engine(
                self.model,
                heads,
                n_slots=limits.n_parallel,
                n_ctx=n_ctx,
                n_threads=limits.n_threads,
                strategy=StockStrategy(method.stock) if method.stock else None,
                share_prompts=True,
            )
            self._engine_for = heads, method.stock
        return self._engine

    def close(self) -> None:
        if self._engine:
            self._engine.close()
            self._engine = None


def by_problem(samples: Iterable[Sample], problems: Sequence[str]) -> list[list[Sample]]:
    """The samples of each problem, [] where there is none."""
    of: dict[str, list[Sample]] = {problem: [] for problem in problems}
    for sample in samples:
        if sample.problem in of:
            of[sample.problem].append(sample)
    return list(of.values())


def mean(values: Sequence[float | None]) -> float | None:
    """Of the numbers among ``values``; None without one."""
    known = [v for v in values if v is not None]
    return math.fsum(known) / len(known) if known else None


def header(task: str, method: Method, seed: int, identity: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """What a file of samples belongs to. The number of samples is no part: more may be drawn later."""
    return {
        "task": task,
        "method": method.name,
        **method.settings(),
        "seed": seed,
        "max_tokens": limits.max_tokens,
        "n_ctx": limits.n_ctx,
        **identity,
    }

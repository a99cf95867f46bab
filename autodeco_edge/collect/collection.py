"""One collection: problems in, training data out.

Owns the settings, the order of the work and the two files. Every judged draw is on disk before the next one, in
OUT.part; OUT itself is written whole at the end, and OUT.part is then removed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import astuple, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..errors import AutodecoError, OutputError, UsageError, check_range
from ..io.atomic import atomic_write
from ..io.digest import fingerprint
from ..io.folder import remove_remains
from ..records import RecordFile
from ..tasks import DEMO, Task, is_generated, load_task
from .chat_form import ChatForm
from .client import ChatClient
from .endpoint import PLAIN_BODY, EndpointSource
from .ledger import Ledger
from .local import LocalSource
from .progress import PROBLEMS_A_LINE, CollectProgress, say
from .rejection import CUT, Candidate, Judge
from .source import Answer, DrawSettings, ReplySource

SPLITS = ("train", "calibration")


@dataclass(frozen=True)
class LocalModel:
    """path: GGUF; heads: file, "auto" or None; n_ctx of a reply with its prompt (0: what it takes); n_threads."""

    path: Path
    heads: str | Path | None = None
    n_ctx: int = 0
    n_threads: int = 0


@dataclass(frozen=True)
class Endpoint:
    """url of an OpenAI-compatible API; where the chat template is from, if prompts are wanted; the rest as ChatClient."""

    url: str
    model_name: str | None = None
    key: str = field(default="", repr=False)
    template_gguf: Path | None = None
    tokenizer: Path | None = None
    body: dict[str, Any] = field(default_factory=lambda: dict(PLAIN_BODY))
    timeout_s: float = 600.0
    retries: int = 5


@dataclass(frozen=True)
class CollectConfig:
    """
    source    a LocalModel or an Endpoint
    problems  as load_task takes it; count, split and limit as there
    samples   draws a problem
    keep      at most so many right ones of a problem; None: all. stop: draw no more of it than these need
    accept    official, math-verify or both: whose word counts on a math problem
    minutes   no further group of replies is begun after so long; 0: all are drawn
    """

    source: LocalModel | Endpoint
    problems: str
    output: Path
    samples: int = 16
    keep: int | None = None
    stop: bool = False
    split: str = "train"
    count: int = 200
    limit: int | None = None
    accept: str = "official"
    draws: DrawSettings = DrawSettings()
    minutes: float = 0.0
    resume: bool = False

    @property
    def part(self) -> Path:
        return self.output.with_name(self.output.name + ".part")

    def check(self) -> None:
        check_range("samples", self.samples, 1, 65536)
        check_range("keep", self.samples if self.keep is None else self.keep, 1, 65536)
        if self.stop and self.keep is None:
            raise UsageError("per-problem stop: how many are to be kept? pass --keep M")
        if self.split not in SPLITS:
            raise UsageError(
                f"split: allowed {', '.join(SPLITS)}; got {self.split!r}"
                + (" (heads trained on test problems cannot be tested)" if self.split == "test" else "")
            )
        self.draws.check(self.samples)
        if os.path.isdir(self.output):
            raise OutputError(f"{self.output}: is a folder; give the name of a file with -o")
        if os.path.exists(self.output) and not self.resume:
            raise UsageError(f"{self.output}: exists; choose another -o, or remove it")


def collect(config: CollectConfig) -> dict[str, Any]:
    """Draw, judge and write; returns {"output", "tokens_per_second", "kinds": Ledger.summary()}.

    With ``resume`` and an output that is complete nothing is done: {"output", "complete": True}.

    Raises what load_task, the sources and RecordFile raise; AutodecoError where no reply was right. The draws so far
    stay in OUT.part then, and after Ctrl-C.
    """
    config.check()
    if os.path.exists(config.output) and not os.path.exists(config.part):
        return _complete(config)
    task = load_task(config.problems, limit=config.limit, count=config.count, split=config.split)
    _refuse_unknown_split(config.problems, task)
    ledger = Ledger(task.problems, config.samples, config.keep or config.samples, config.stop)
    with (
        Judge(config.accept, task.problems) as judge,
        closing(make_source(config, task)) as source,
        RecordFile(config.part, _header(config, task, source), resume=config.resume) as file,
    ):
        if config.output.exists() and not file.rows:  # another run has ended it since check()
            file.remove()
            config.check()
            return _complete(config)
        remove_remains(config.output.parent, (config.output.name,))
        rate = _draw(config, ledger, source, judge, file)
        summary = ledger.summary()
        _refuse_nothing(config, summary["all"])
        _write(config.output, ledger, source)
        file.remove()
    return {"output": str(config.output), "tokens_per_second": rate, "kinds": summary}


def _complete(config: CollectConfig) -> dict[str, Any]:
    say(f"{config.output} is complete; nothing to resume")
    return {"output": str(config.output), "complete": True}


def make_source(config: CollectConfig, task: Task) -> ReplySource:
    """Raises what the sources raise."""
    source = config.source
    if isinstance(source, LocalModel):
        return LocalSource(
            source.path, source.heads, config.draws, task.problems, n_ctx=source.n_ctx, n_threads=source.n_threads
        )
    client = ChatClient(source.url, source.key, source.timeout_s, source.retries)
    return EndpointSource(client, config.draws, model_name=source.model_name, body=source.body, form=_form_of(source))


def _form_of(endpoint: Endpoint) -> ChatForm | None:
    if endpoint.template_gguf and endpoint.tokenizer:
        raise UsageError("--template-from and --tokenizer both give a chat template; pass one of them")
    if endpoint.template_gguf:
        from ..engine.model import Model

        with closing(Model(endpoint.template_gguf)) as model:
            return ChatForm.of_model(model)
    return ChatForm.of_folder(endpoint.tokenizer) if endpoint.tokenizer else None


def _draw(config: CollectConfig, ledger: Ledger, source: ReplySource, judge: Judge, file: RecordFile) -> float:
    """What is missing, judged and recorded; returns tokens a second."""
    for row in file.rows:
        ledger.add(Candidate.of_row(row, config.part))
    n_before = ledger.summary()["all"]["drawn"]
    n_total = config.samples * len(ledger.problems)
    try:
        with (
            CollectProgress(n_total, n_before, PROBLEMS_A_LINE * config.samples) as progress,
            closing(_answers(config, ledger, source)) as answers,
        ):
            for answer in answers:
                draw = judge(answer)
                file.append(draw.row())
                ledger.add(draw)
                progress.add(draw)
    except (KeyboardInterrupt, AutodecoError):
        if file.rows:
            say(f"{len(file.rows)} draws are in {config.part}; run the same command with --resume to go on")
        else:  # nothing to go on with: the next try needs no --resume
            file.remove()
        raise
    return round(progress.rate(), 1)


def _answers(config: CollectConfig, ledger: Ledger, source: ReplySource) -> Generator[Answer, None, None]:
    """Answers that are not recorded yet; each is in the ledger before the next one is asked for."""
    if not source.n_together:
        yield from source.answers(ledger.jobs())
        return
    groups, clock = ledger.groups(source.n_together, config.draws.n_parallel), time.monotonic()
    for group in takewhile(lambda _: not config.minutes or time.monotonic() - clock < 60 * config.minutes, groups):
        with closing(source.answers(iter(group))) as answers:
            yield from (answer for answer in answers if not ledger.has(answer.problem, answer.sample))


def _write(path: Path, ledger: Ledger, source: ReplySource) -> None:
    with atomic_write(path) as out:
        for problem, draw in ledger.kept():
            record = source.record(problem, draw.text) | {"id": problem.id, "sample": draw.sample}
            out.write((json.dumps(record, ensure_ascii=False) + "\n").encode())


def _header(config: CollectConfig, task: Task, source: ReplySource) -> dict[str, Any]:
    """What draws belong to. How many are drawn and kept is no part: a run may go on with more."""
    problems = json.dumps([astuple(problem) for problem in task.problems])
    draws = config.draws
    return {
        "problems": f"{task.name} {len(task.problems)} {fingerprint(problems)}",
        "temperature": draws.temperature,
        "top_p": draws.top_p,
        "max_tokens": draws.max_tokens,
        "seed": draws.seed,
        "accept": config.accept,
        **source.header(),
    }


# ---- refusals --------------------------------------------------------------------------------


def _refuse_unknown_split(name: str, task: Task) -> None:
    """A file does not say which split a demo problem is of: it may be one that the demo model is tested on."""
    if is_generated(name):
        return
    found = next((problem for problem in task.problems if problem.kind.startswith(DEMO)), None)
    if found:
        raise UsageError(
            f"problem {found.id}: of the demo model's families, and a file does not show that it is no test problem; "
            f"pass --problems {found.kind}, which draws from the training split"
        )


def _refuse_nothing(config: CollectConfig, figures: dict[str, Any]) -> None:
    if not figures["kept"]:
        raise AutodecoError(
            f"no reply of {figures['drawn']} was right ({figures[CUT]} were cut at {config.draws.max_tokens} tokens); "
            "nothing to train on: raise -n with --resume, or take another model, easier problems or more --max-tokens"
        )

"""Heads trained on verdicts about replies that are drawn once: a few minutes of drawing, then steps without the model.

Owns the run: problems, draws, verdicts, files. The distribution of every token is pressed (pressed.py) as it comes, and the
steps are replay.py's. Beside reinforce.py, which draws anew for every step, this takes hundreds of steps from the replies of a
few (docs/decisions/0049-replies-are-drawn-once.md).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from ..engine.generation import Request
from ..engine.sampler import SamplingParams
from ..errors import FormatError, check_range
from ..io.atomic import atomic_write
from ..io.digest import fingerprint, seed_of
from ..io.folder import output_folder
from ..io.printing import say
from ..tasks import Problem, Verifier, is_generated, load_task, must_end
from ..text.chat import render
from .data import TrainingSample
from .gguf_backbone import GgufBackbone
from .head_run import HeadRun
from .objective import CHUNK_ELEMENTS
from .plan import ORDER, generator
from .pressed import Pressed
from .replay import AMONG, Climb, Replies, Weighed, climb, log_mixture, numbered
from .rollouts import Roller, Rollout, Uncut
from .state import refuse_others

TEMPERATURES = (0.4, 0.7, 1.0)  # what draws; none cuts, so no reply is impossible
SAMPLES = 8  # replies of a problem from each: time goes into problems
N_PROBLEMS = 1000  # at most
ROUNDS = 8  # replies of a file that a slot draws one after another
DRAWING = 0.6  # of the time; steps have the rest
LEAST_STEPS, MOST_STEPS = 10, 150
MOST_BYTES = 1 << 30  # of replies in memory
SIGMA_HARD = 0.1  # of the nucleus that figures are about
REACH = 0.64  # rate * mean |h|_1, as in recipe.py: 1e-3 for SmolLM2, whose hidden states sum to 643


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of a run.

    model, problems, output   GGUF; task as load_task takes it (the training split of a generated one); folder
    init       heads to start from
    diversity, among   weight of distinct right answers among so many replies against right ones (replay.py)
    minutes    for drawing and steps together; 0: all problems, and as many steps as are of use
    """

    model: str
    problems: str
    output: str
    init: str
    diversity: float = 1.0
    among: int = AMONG
    samples: int = SAMPLES
    max_tokens: int = 200
    parallel: int = 16
    threads: int = 0
    seed: int = 0
    save_dtype: str = "f32"
    minutes: float = 0.0

    def check(self) -> None:
        """Raises UsageError for the first setting out of its range."""
        check_range("diversity", self.diversity, 0.0, 1000.0, "0 = right answers alone")
        for name, low in {"among": 1, "samples": 1, "max_tokens": 1, "parallel": 1}.items():
            check_range(name.replace("_", " "), getattr(self, name), low, 2**20)


def train_on_replies(config: ReplayConfig) -> dict[str, Any]:
    """Draw, climb and save heads to ``config.output``; returns the figures. What a run before this one has drawn is taken up.

    Raises UsageError, MissingInputError, FormatError, MismatchError, OutputError, StorageError; BusyError where another run has
    the folder.
    """
    config.check()
    with (
        output_folder(config.output),
        Verifier(math_verify=False) as verifier,
        closing(OfflineTrainer(config, verifier)) as trainer,
    ):
        return trainer.run()


def rate_for(hidden: torch.Tensor) -> float:
    """The rate of the steps for hidden states [M, H]: larger ones move the heads further."""
    size = float(hidden[:: max(1, len(hidden) // 1000)].float().abs().sum(-1).mean())
    return min(Climb.rate, REACH / max(size, 1e-9))


def forget_replies(folder: Path) -> None:
    """Deletes what a run has drawn; a run before its end takes it up again."""
    for path in folder.glob("replies-*.state"):
        path.unlink(missing_ok=True)


class OfflineTrainer:
    """The state of one run."""

    def __init__(self, config: ReplayConfig, verifier: Verifier) -> None:
        self.config, self.verifier, self.folder = config, verifier, Path(config.output)
        split = {"split": "train", "count": N_PROBLEMS} if is_generated(config.problems) else {}
        found = load_task(config.problems, **split).problems
        order = torch.randperm(len(found), generator=generator(config.seed, ORDER))
        self.problems = [found[i] for i in order[:N_PROBLEMS].tolist()]
        self.end = time.monotonic() + (60 * config.minutes or math.inf)
        self.backbone = GgufBackbone(config.model, config.threads)
        self.prompts = [tuple(render(self.backbone.model, list(problem.messages))) for problem in self.problems]
        self.backbone.load(torch.device("cpu"), [TrainingSample(list(self.prompts[0]), 1)])
        self.head_run = HeadRun(self.backbone, "both", config.init)
        self.roller: Roller | None = None

    def run(self) -> dict[str, Any]:
        replies = self._drawn()
        weighed = Weighed(
            replies,
            log_mixture(replies, TEMPERATURES),
            self.backbone.model.n_vocab,
            self.config.diversity,
            self.config.among,
        )
        heads, seed = self.head_run.heads, self.config.seed
        steps = self._steps(weighed)
        settings = Climb(steps, rate=rate_for(replies.hidden))
        before = self._value(weighed)
        for step, about in enumerate(climb(heads, weighed, settings, seed), 1):
            if step % 10 == 0 or step == steps:
                say(f"step {step}/{steps}  " + "  ".join(f"{name} {value:.3f}" for name, value in about.items()))
        after = self._value(weighed)
        self.head_run.save(self.folder, self.config.save_dtype, after["t"], after["p"])
        sizes = {
            "problems": len(weighed.problems),
            "replies": len(replies.problem),
            "tokens": len(replies.reply),
            "steps": steps,
        }
        return sizes | {"before": before, "after": after}

    # ---- replies ---------------------------------------------------------------------

    def _drawn(self) -> Replies:
        """Group after group while there is time and memory; those with a file are read."""
        begun, parts, size = time.monotonic(), [], 0
        end = begun + DRAWING * (self.end - begun)
        for number, group in enumerate(self._groups()):
            path = self.folder / f"replies-{number:04d}.state"
            if path.exists():
                parts.append(self._read(path))
            elif number and (time.monotonic() > end or size > MOST_BYTES):
                break
            else:
                parts.append(self._draw(group))
                self._write(path, parts[-1])
            size += sum(x.nbytes for x in parts[-1].state().values())
        replies = Replies.joined(parts)
        right = float((replies.key > 0).float().mean())
        n_problems = len(replies.problem.unique())
        say(f"{len(replies.problem)} replies to {n_problems} problems, {100 * right:.1f} % right")
        return replies

    def _groups(self) -> Iterator[range]:
        """Problems whose replies keep the slots busy, and make one file."""
        per_problem = len(TEMPERATURES) * self.config.samples
        size = math.ceil(ROUNDS * self.config.parallel / per_problem)
        n = len(self.problems)
        return (range(at, min(at + size, n)) for at in range(0, n, size))

    def _draw(self, group: Sequence[int]) -> Replies:
        jobs = [(p, by, k) for p in group for by in range(len(TEMPERATURES)) for k in range(self.config.samples)]
        found = dict(self._roller().rollouts(self._request(*job) for job in jobs))
        rollouts = [found[i] for i in range(len(jobs))]
        problem, by, _ = zip(*jobs, strict=True)
        keys = self._keys([self.problems[p] for p in problem], rollouts)
        lengths = torch.tensor([len(r.reply.steps) for r in rollouts])
        hidden = torch.cat([torch.from_numpy(r.hidden) for r in rollouts])
        token = torch.tensor([step.id for r in rollouts for step in r.reply.steps])
        return Replies.of(
            torch.tensor(problem),
            numbered(problem, keys),
            torch.tensor(by),
            torch.repeat_interleave(torch.arange(len(jobs)), lengths),
            hidden,
            self._pressed(hidden, token),
        )

    def _request(self, problem: int, by: int, k: int) -> Request:
        seed = seed_of(self.config.seed, self.problems[problem].id, TEMPERATURES[by], k)
        params = SamplingParams(seed=seed, temperature=TEMPERATURES[by])
        return Request(self.prompts[problem], params, self.config.max_tokens, share_prompt=True)

    def _roller(self) -> Roller:
        if self.roller is None:
            config, model = self.config, self.backbone.model
            self.roller = Roller(
                self.backbone,
                Uncut(self.backbone),
                n_slots=config.parallel,
                n_ctx=min(model.n_ctx_train, max(map(len, self.prompts)) + config.max_tokens),
                n_threads=config.threads,
            )
        return self.roller

    def _pressed(self, hidden: torch.Tensor, token: torch.Tensor) -> Pressed:
        rows = max(1, CHUNK_ELEMENTS // self.backbone.model.n_vocab)
        parts = zip(hidden.split(rows), token.split(rows), strict=True)
        return Pressed.joined(Pressed.of(self.backbone.lm_head(h), t) for h, t in parts)

    def _keys(self, problems: Sequence[Problem], rollouts: Sequence[Rollout]) -> list[str | None]:
        """The solution of each rollout; None where it is wrong, or was cut where it may not be."""
        detokenize = self.backbone.model.detokenize
        texts = [detokenize([s.id for s in r.reply.steps]).decode("utf-8", "replace") for r in rollouts]
        verdicts = self.verifier.check(list(zip(problems, texts, strict=True)))
        whole = [
            r.reply.finish_reason == "stop" or not must_end(p.kind) for p, r in zip(problems, rollouts, strict=True)
        ]
        return [v.key if v.right and is_whole else None for v, is_whole in zip(verdicts, whole, strict=True)]

    # ---- files -----------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """What draws depend on. The number of problems is no part: a longer run draws more."""
        names = "model", "samples", "max_tokens", "parallel", "seed"
        asked = repr([(problem.id, problem.gt) for problem in self.problems])
        return {name: asdict(self.config)[name] for name in names} | {"data": fingerprint(asked)}

    def _write(self, path: Path, replies: Replies) -> None:
        with atomic_write(path) as out:
            out.write(safetensors_bytes(replies.state(), metadata={"settings": json.dumps(self._settings())}))

    def _read(self, path: Path) -> Replies:
        try:
            with safe_open(path, framework="pt") as reader:
                settings = json.loads(reader.metadata()["settings"])
                replies = Replies(**{name: reader.get_tensor(name) for name in reader.keys()})  # noqa: SIM118 - a reader
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{path}: no readable replies ({error}); delete it and start again") from error
        if not (isinstance(settings, dict) and replies.is_whole(self.head_run.heads.spec.n_embd)):
            raise FormatError(f"{path}: its columns do not belong together; delete it and start again")
        refuse_others(path, settings, self._settings())
        return replies

    # ---- steps -----------------------------------------------------------------------

    def _steps(self, weighed: Weighed) -> int:
        """As many as there is time for, by the seconds that one takes a copy of the heads; none without a right reply."""
        if not bool((weighed.replies.key > 0).any()):
            say("warning: no reply is right, so there is nothing to learn from; the heads stay as they began")
            return 0
        clock = time.monotonic()
        next(climb(copy.deepcopy(self.head_run.heads), weighed, Climb(1), self.config.seed))
        left = self.end - time.monotonic()
        return int(min(max(left / (time.monotonic() - clock), LEAST_STEPS), MOST_STEPS))

    @torch.no_grad()
    def _value(self, weighed: Weighed) -> dict[str, float]:
        """What J is made of, over all problems, with a nearly hard nucleus."""
        told = [weighed.objective(self.head_run.heads, [i], SIGMA_HARD)[1] for i in range(len(weighed.problems))]
        return {name: round(sum(about[name] for about in told) / len(told), 4) for name in told[0]}

    def close(self) -> None:
        if self.roller:
            self.roller.close()
        self.backbone.close()

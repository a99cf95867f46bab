"""One fit: its parts in order, their time, and what is written at the end.

Owns both. A part is done once: what it found is in the state, and a part that was cut off goes on from the files that
its room has written. Each has its share of the time that is left, so what one saves the later ones have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from ..collect.collection import CollectConfig, LocalModel, collect
from ..collect.source import DrawSettings
from ..engine.model import Model
from ..errors import AutodecoError
from ..eval.methods import method
from ..eval.samples import Drawer, Limits
from ..io.atomic import atomic_write
from ..io.folder import output_folder
from ..io.printing import say
from ..tasks import Verifier, load_task
from ..train.hyperparameters import TrainConfig
from ..train.offline import TEMPERATURES, ReplayConfig, forget_replies, train_on_replies
from ..train.trainer import train
from . import measure
from .heads_file import HeadsMaker
from .measure import Bench, Size
from .pool import Pool
from .settings import FitConfig
from .state import FitState

CHOSEN = 0.1, 0.8  # of the built-in pool: kinds that the model answers right so often at T = 1, P = 1
LEAST_REPLIES = 1000  # of all parts together, about
N_SPEED, N_PROBE = 16, 8  # replies that tell the speed; problems of a kind that tell how often it is right
DRAWS, ASKED = 4, 1000  # replies a problem to learn from; problems at most
SHARES = {
    "speed": 0.01,
    "probe": 0.06,
    "constants": 0.15,
    "right": 0.08,
    "likelihood": 0.07,
    "replay": 0.3,
    "choose": 0.12,
    "test": 0.21,
}  # of the time
LEAST_SECONDS = 1.0  # of a part that comes when the time is over


def fit(config: FitConfig) -> dict[str, Any]:
    """Make heads, or a constant, and write them to ``config.output``; returns the report, which is also in the work folder.

    Raises UsageError, MissingInputError, FormatError, MismatchError, OutputError, StorageError; BusyError where another run has
    the work folder; AutodecoError where the model answers nothing right.
    """
    config.check()
    maker = HeadsMaker(config.model)
    with output_folder(config.work):
        state = FitState(config.work, config.identity(), config.resume)
        return Fitting(config, state, maker).run()


class Fitting:
    """The state of one run."""

    def __init__(self, config: FitConfig, state: FitState, maker: HeadsMaker) -> None:
        self.config, self.state, self.maker = config, state, maker
        self.pool = Pool(config)
        self.bench = Bench(config, self.pool)

    def run(self) -> dict[str, Any]:
        for number, name in enumerate(SHARES, 1):
            if name not in self.state.done:
                self._part(number, name, getattr(self, f"_{name}"))
            if name == "probe":
                self.pool.choose(self.state.done["probe"]["chosen"])
        return self._write()

    def _part(self, number: int, name: str, work: Callable[[float], Any]) -> None:
        names = list(SHARES)[number - 1 :]
        left = 60 * self.config.minutes - self.state.seconds
        seconds = max(left * SHARES[name] / sum(SHARES[n] for n in names), LEAST_SECONDS)
        say(f"{name}: part {number} of {len(SHARES)}, about {seconds:.0f} s")
        clock = time.monotonic()
        found = work(seconds)
        self.state.finish(name, found, time.monotonic() - clock)

    # ---- what the model can do ---------------------------------------------------------

    def _speed(self, _: float) -> dict[str, float]:
        """Tokens a second, and a reply, at T = 1, P = 1."""
        config = self.config
        problems = load_task(self.pool.task("train"), limit=N_SPEED, split="train").problems
        limits = Limits(config.max_tokens, 0, config.parallel, config.threads)
        with (
            closing(Model(config.model)) as model,
            Verifier(math_verify=False) as verifier,
            closing(Drawer(model, None, limits, verifier, config.seed)) as drawer,
        ):
            clock = time.monotonic()
            replies = list(drawer.replies(method("default"), [(problem, 0) for problem in problems]))
        tokens = sum(len(reply.steps) for *_, reply in replies)
        speed = {"rate": tokens / (time.monotonic() - clock), "tokens": tokens / len(replies)}
        self._say_how_long(speed)
        return speed

    def _say_how_long(self, speed: dict[str, float]) -> None:
        least = LEAST_REPLIES * speed["tokens"] / speed["rate"] / 60
        say(f"{speed['rate']:.3g} tokens a second, {speed['tokens']:.0f} a reply")
        if least > self.config.minutes:
            say(f"warning: the least work takes about {least:.0f} minutes at this speed; a shorter --max-tokens helps")

    def _probe(self, _: float) -> dict[str, Any]:
        """How often each kind is answered right, on calibration problems; of the built-in pool some kinds are chosen."""
        kinds = self.pool.task("calibration").count("+") + 1
        groups = self.bench("probe", "calibration", ("default",), Size(N_PROBE * kinds, 2))
        rows = {kind: group["methods"]["default"] for kind, group in groups.items()}
        whole = rows.pop("all")
        right = {kind: row["accuracy"]["mean"] for kind, row in (rows or {"all": whole}).items()}
        chosen = [k for k, share in right.items() if CHOSEN[0] <= share <= CHOSEN[1] or not self.pool.is_built_in]
        if not any(right[kind] for kind in chosen):
            raise AutodecoError(
                f"{self.config.model}: answers no kind of the pool right often enough to learn from; give problems that it "
                "can solve now and then with --problems, prompts with --prompts, or more --max-tokens"
            )
        tokens = sum(rows.get(kind, whole)["tokens"] for kind in chosen) / len(chosen)
        say(
            *(
                f"{kind}: {100 * share:.0f} % right{'' if kind in chosen else ', left out'}"
                for kind, share in right.items()
            )
        )
        return {"right": right, "chosen": chosen, "tokens": tokens}

    def _size(self, seconds: float, n_methods: int) -> Size:
        speed = {"rate": self.state.done["speed"]["rate"], "tokens": self.state.done["probe"]["tokens"]}
        return measure.size_for(seconds, n_methods, speed)

    # ---- constants and heads -------------------------------------------------------------

    def _constants(self, seconds: float) -> dict[str, Any]:
        """The best of the grid, on calibration problems."""
        size = self._size(seconds, len(measure.GRID))
        scores = measure.utilities(self.bench("calibration", "calibration", measure.GRID, size))
        return {"size": vars(size), "best": measure.best(scores, heads=False)}

    def _right(self, seconds: float) -> dict[str, Any]:
        config = self.config
        found = collect(
            CollectConfig(
                source=LocalModel(config.model, n_threads=config.threads),
                problems=self.pool.task("train"),
                output=config.work / "right.jsonl",
                samples=DRAWS,
                count=ASKED,
                draws=DrawSettings(config.max_tokens, seed=config.seed, n_parallel=config.parallel),
                minutes=seconds / 60,
                resume=True,
            )
        )
        return found.get("kinds", {}).get("all", {})

    def _likelihood(self, seconds: float) -> dict[str, Any]:
        config, folder = self.config, self.config.work / "likelihood"
        settings = TrainConfig(
            base=None,
            model=str(config.model),
            data=str(config.work / "right.jsonl"),
            output=str(folder),
            threads=config.threads,
            seed=config.seed,
            save_dtype="f32",
            save_every=10,
            resume=True,
            minutes=seconds / 60,
        )
        result = train(settings)
        self.maker.convert(folder, self._heads()["likelihood"])
        return {
            "steps": len(result.history),
            "temperature": result.after.mean_temperature,
            "top_p": result.after.mean_top_p,
        }

    def _replay(self, seconds: float) -> dict[str, Any]:
        """Begun at the best constant, as far as what is drawn says anything there. Distinct answers count as they are measured."""
        config, folder, constants = self.config, self.config.work / "replay", self.state.done["constants"]
        t, p = measure.pair(constants["best"])
        start = self.maker.start(config.work / "start", max(t, min(TEMPERATURES)), p, config.seed)
        found = train_on_replies(
            ReplayConfig(
                model=str(config.model),
                problems=self.pool.task("train"),
                output=str(folder),
                init=str(start),
                among=constants["size"]["samples"],
                max_tokens=config.max_tokens,
                parallel=config.parallel,
                threads=config.threads,
                seed=config.seed,
                minutes=seconds / 60,
            )
        )
        self.maker.convert(folder, self._heads()["replay"])
        return found

    def _heads(self) -> dict[str, Any]:
        return {name: self.config.work / f"{name}.gguf" for name in ("likelihood", "replay")}

    # ---- which, and how good --------------------------------------------------------------

    def _choose(self, _: float) -> dict[str, Any]:
        """The best heads, and the best constant, the heads' own means among them; on calibration problems."""
        forget_replies(self.config.work / "replay")
        size = Size(**self.state.done["constants"]["size"])
        names = [f"{measure.HEADS}@{name}" for name in self._heads()]
        groups = self.bench("calibration", "calibration", names, size, self._heads())
        heads = measure.best(measure.utilities(groups), heads=True)
        means = measure.own_means(groups, heads)
        names = [*measure.GRID, means, heads]
        scores = measure.utilities(self.bench("calibration", "calibration", names, size, self._heads()))
        return {"heads": heads, "constant": measure.best(scores, heads=False), "means": means, "utility": scores}

    def _test(self, seconds: float) -> dict[str, Any]:
        """The chosen heads beside the chosen constant, their own means and T = 1, P = 1, on test problems."""
        chosen = self.state.done["choose"]
        names = list(dict.fromkeys((chosen["heads"], chosen["constant"], chosen["means"], "1/1")))
        groups = self.bench("test", "test", names, self._size(seconds, len(names)), self._heads())
        return {"group": groups["all"], "kinds": list(groups)}

    def _write(self) -> dict[str, Any]:
        """Heads where they are shown to beat the constant, else the constant."""
        config, chosen, group = self.config, self.state.done["choose"], self.state.done["test"]["group"]
        difference = group["differences"][chosen["heads"]][chosen["constant"]]["utility"]
        beats = difference["low"] > 0
        folder = config.work / chosen["heads"].partition("@")[2]
        if not beats:
            folder = self.maker.constant(config.work / "constant", *measure.pair(chosen["constant"]))
        self.maker.convert(folder, config.output)
        report = {"output": str(config.output), "heads_beat_the_constant": beats, "difference": difference}
        report |= {"seconds": self.state.seconds, "minutes": config.minutes, **self.state.done}
        with atomic_write(config.work / "report.json") as out:
            out.write((json.dumps(report, indent=1) + "\n").encode())
        return report

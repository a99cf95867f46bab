"""Commands taught on replies of the heads' own: `python -P bench/smollm2_steer_own.py OUT --heads STEERED.gguf`.

bench/smollm2_steer.py reads one reply behind several prompts. A user's reply follows the command, too: under it the model says
something else, and T of what it says is what is measured. Here every condition has replies of its own, drawn anew in each round
with the heads as they are by then, in the lab's batches; their states come out of the draw. The sentences are put together
from parts, some hundreds of either kind, so that none is learned by heart; those that are measured later
(tasks/commands.py UNSEEN) are not among them.

Held is what the heads of the package give, on replies without a command.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from autodeco_edge.engine.model import Model  # noqa: E402
from autodeco_edge.hub import resolve  # noqa: E402
from autodeco_edge.io.digest import seed_of  # noqa: E402
from autodeco_edge.tasks import load_task  # noqa: E402
from autodeco_edge.tasks.commands import HIGH, LOW, UNSEEN, with_command  # noqa: E402
from autodeco_edge.text.chat import render  # noqa: E402
from autodeco_edge.train.checkpoint import autodeco_config, gguf_config, load_heads, save_heads  # noqa: E402
from autodeco_edge.train.modules import AutoDecoHeads  # noqa: E402
from bench.smollm2_lab.drawing import statistics  # noqa: E402
from bench.smollm2_lab.model import Llama  # noqa: E402
from bench.smollm2_lab.sampler import Job, Policy, Sampler, Traces  # noqa: E402
from bench.smollm2_steer import MORE_HIGH, MORE_LOW, TASK, Variants, consistency, learn  # noqa: E402

PARTS = (
    "Please make the {n} {w}.",
    "Keep your {n} {w}.",
    "I would like a {w} {n}.",
    "Give me a {w} {n}, please.",
    "Your {n} should be {w}.",
    "Be {w} in your {n}.",
    "Write a {w} {n} for me.",
    "It matters that the {n} is {w}.",
    "Try to be {w}.",
    "The {n} has to be {w}, more than anything.",
)
NOUNS = ("reply", "answer", "text", "output", "response", "wording", "message")
WORDS = {
    1: (
        "predictable",
        "certain",
        "ordinary",
        "steady",
        "reliable",
        "conservative",
        "plain",
        "typical",
        "standard",
        "sure",
    ),
    2: (
        "surprising",
        "unusual",
        "diverse",
        "inventive",
        "original",
        "daring",
        "varied",
        "fresh",
        "imaginative",
        "wild",
    ),
}  # low, high


def sentences(way: int) -> list[str]:
    made = [p.format(n=n, w=w).replace(" a u", " an u").replace(" a o", " an o").replace(" a i", " an i")
            for p in PARTS for n in NOUNS for w in WORDS[way]]  # fmt: skip
    given = {1: (*LOW, *MORE_LOW), 2: (*HIGH, *MORE_HIGH)}[way]
    return [*given * 8, *dict.fromkeys(made)]


# ---- draw -------------------------------------------------------------------------------


class Drawing:
    """Replies to problems in all three conditions, with heads as they are."""

    def __init__(self, file: Path, batch: int, n_tokens: int) -> None:
        self.words = Model(file)
        self.llama = Llama.load(file, torch.device("cpu"), torch.float32)
        self.batch, self.n_tokens = batch, n_tokens

    def __call__(
        self, heads: AutoDecoHeads, asked: list[list[tuple[int, str | None]]], problems: Sequence, key: object
    ):
        """asked[record]: (way, sentence) of each variant -> {"hidden", "features", "about"} of every token drawn."""
        about, prompts = [], []
        for record, (problem, ways) in enumerate(zip(problems, asked, strict=True)):
            for variant, (way, sentence) in enumerate(ways):
                messages = list(problem.messages)
                prompts.append(
                    list(map(int, render(self.words, with_command(messages, sentence) if sentence else messages)))
                )
                about.append((record, way, variant))
        sampler, traces = Sampler(self.llama, prompts, self.batch), Traces()
        jobs = [Job(i, 0, seed_of(key, i) >> 1, self.n_tokens) for i in range(len(prompts))]
        sampler.draw(jobs, [Policy("heads", heads=heads)], traces=traces)
        found = traces.joined()
        return {
            "hidden": found["hidden"],
            "features": found["features"],
            "about": torch.tensor(about)[found["row"]],
        }

    @torch.no_grad()
    def top_p(self, heads: AutoDecoHeads, hidden: Tensor) -> Tensor:
        found = []
        for part in hidden.split(256):
            t = heads.temp_head(part)
            found.append(heads.top_p_head(part, torch.cat([t[:, None], statistics(self.llama.logits(part), t)], -1)))
        return torch.cat(found)


def ways_of(split: str, number: int, n: int, key: object) -> list[tuple[int, str | None]]:
    """None, n low, n high. Calibration gets the sentences that training never sees."""
    rng = np.random.default_rng(seed_of("own", split, number, key))
    kinds = {w: sentences(w) if split == "train" else list((UNSEEN.low, UNSEEN.high)[w - 1]) for w in (1, 2)}
    return [(0, None), *((w, kinds[w][i]) for w in (1, 2) for i in rng.integers(len(kinds[w]), size=n))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--heads", type=Path, help="to begin with [default: those of the package]")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--records", type=int, default=240)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=64, help="of a reply")
    parser.add_argument("--commands", type=int, default=2, help="of either kind a record")
    parser.add_argument("--batch", type=int, default=32, help="records of a step")
    parser.add_argument("--lab-batch", type=int, default=96)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.03)
    parser.add_argument("--anchor", type=float, default=0.4)
    parser.add_argument("--margin-t", type=float, default=0.25)
    parser.add_argument("--margin-p", type=float, default=0.06)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    found = resolve("smollm2-135m", offline=True)
    package, heads = load_heads(found.heads).heads, load_heads(options.heads or found.heads).heads
    drawing = Drawing(found.model, options.lab_batch, options.tokens)
    problems = {
        "train": load_task(TASK, count=options.records * options.rounds, split="train").problems,
        "calibration": load_task(TASK, count=options.held_out, split="calibration").problems,
    }
    with closing(drawing.words):
        for number in range(options.rounds + 1):
            clock = time.monotonic()
            data = draw_round(drawing, heads, problems, number, options)
            print(f"round {number}: drawn in {time.monotonic() - clock:.0f} s", flush=True)
            tell(drawing, package, heads, data["calibration"])
            if number < options.rounds:
                teach(drawing, package, heads, data, options)
                save(options.out / f"heads-{number + 1}", heads, drawing)


def draw_round(
    drawing: Drawing, heads: AutoDecoHeads, problems: dict, number: int, options: argparse.Namespace
) -> dict:
    """The last round is for telling alone."""
    data = {}
    for split, of in problems.items():
        if split == "train":
            if number == options.rounds:
                continue
            of = of[number * options.records : (number + 1) * options.records]
        n = options.commands if split == "train" else 1
        asked = [ways_of(split, i, n, number) for i in range(len(of))]
        data[split] = drawing(heads, asked, of, f"own {split} {number} {options.seed}")
    return data


@torch.no_grad()
def tell(drawing: Drawing, package: AutoDecoHeads, heads: AutoDecoHeads, data: dict[str, Tensor]) -> None:
    """On replies of its own, one a condition; and how far T and P without a command are from the package's."""
    variants, hidden = Variants(data["about"]), data["hidden"]
    plain = variants.way[variants.of] == 0
    for name, values, before in (
        ("T", heads.temp_head(hidden), package.temp_head(hidden[plain])),
        ("P", heads.top_p_head(hidden, data["features"]), drawing.top_p(package, hidden[plain])),
    ):
        print(
            f"  {name}: {consistency(values, variants)}; package, same words: {(values[plain] - before).mean():+.3f}",
            flush=True,
        )


def teach(
    drawing: Drawing, package: AutoDecoHeads, heads: AutoDecoHeads, data: dict, options: argparse.Namespace
) -> None:
    variants, start = {}, {"T": {}, "P": {}}
    with torch.no_grad():
        for split, of in data.items():
            variants[split] = Variants(of["about"])
            variants[split].about = of["about"]
            plain = of["about"][:, 1] == 0
            start["T"][split] = package.temp_head(of["hidden"])
            start["P"][split] = torch.zeros(len(plain))
            start["P"][split][plain] = drawing.top_p(package, of["hidden"][plain])
    for name, head, columns, margin in (
        ("T", heads.temp_head, ("hidden",), options.margin_t),
        ("P", heads.top_p_head, ("hidden", "features"), options.margin_p),
    ):
        print(name, flush=True)
        inputs = {split: (tuple(of[c] for c in columns), variants[split]) for split, of in data.items()}
        learn(head, inputs, start[name], options, margin)


def save(folder: Path, heads: AutoDecoHeads, drawing: Drawing) -> None:
    base = gguf_config("llama", drawing.llama.shape.width, drawing.words.n_vocab)
    save_heads(folder, heads, autodeco_config(base, heads.spec, "SmolLM2-135M-Instruct", None, None), "f32")


if __name__ == "__main__":
    main()

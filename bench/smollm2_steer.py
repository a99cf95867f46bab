"""Teaches the SmolLM2 heads commands for less and more diversity, on two cores: `python bench/smollm2_steer.py OUT`.

`train --steer` needs the logits of three prompts a record in every step, and pulls heads that a reward has made back to
likelihood. Here the states are read once, and the two heads learn one after the other:

    draw    replies of the heads to training and calibration problems, without a command
    states  of each reply after its prompt as it is and with several commands of either kind
    temp    T ranked by command; without one, T of every token is held where it was
    top-p   the statistics at this T once for all tokens, then P in the same way

Each stage leaves a file in OUT and is not repeated. Sentences that are measured later (tasks/commands.py UNSEEN) are never
seen; calibration problems with them are what is printed on the way.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.sampler import Heads
from autodeco_edge.eval.methods import method
from autodeco_edge.eval.samples import Drawer, Limits
from autodeco_edge.hub import resolve
from autodeco_edge.io.digest import seed_of
from autodeco_edge.tasks import Verifier, load_task
from autodeco_edge.tasks.commands import HIGH, LOW, UNSEEN, with_command
from autodeco_edge.text.chat import render
from autodeco_edge.train.checkpoint import autodeco_config, gguf_config, load_heads, save_heads
from autodeco_edge.train.data import TrainingSample
from autodeco_edge.train.gguf_backbone import GgufBackbone
from autodeco_edge.train.modules import AutoDecoHeads

TASK = "many:country+many:other+many:bound+write:story+write:list+write:advice+write:letter+write:describe+exact:sum"
MORE_LOW = (
    "Keep to what is usual and do not surprise me.",
    "I would like the most likely answer, please.",
    "No experiments: say what you are surest of.",
    "Use little variety in your reply.",
    "Give a conservative, reliable reply.",
    "Reply with low randomness.",
    "Please stay close to the obvious.",
    "Choose plain words that anybody would choose.",
)
MORE_HIGH = (
    "Surprise me with something unusual.",
    "I would like an answer that nobody expects, please.",
    "Experiment freely: say what comes to your mind.",
    "Use a lot of variety in your reply.",
    "Give an imaginative, original reply.",
    "Reply with high randomness.",
    "Please move far from the obvious.",
    "Choose rare words that few people would choose.",
)
COMMANDS = {"train": ((*LOW, *MORE_LOW), (*HIGH, *MORE_HIGH)), "calibration": (UNSEEN.low, UNSEEN.high)}


# ---- draw and read -----------------------------------------------------------------------


def draw(model: Model, heads: Heads, split: str, count: int, n_tokens: int) -> list[dict]:
    """[{"messages", "reply": ids}], one a problem."""
    problems = load_task(TASK, count=count, split=split).problems
    limits = Limits(n_tokens, 0, 16, 1)
    with (
        Verifier(math_verify=False) as verifier,
        closing(Drawer(model, heads, limits, verifier, seed_of("steer", split))) as drawer,
    ):
        replies = drawer.replies(method("autodeco"), [(problem, 0) for problem in problems])
        found = {p.id: {"messages": list(p.messages), "reply": [s.id for s in r.steps]} for p, _, r in replies}
    return [found[problem.id] for problem in problems]


def read(backbone: GgufBackbone, records: list[dict], split: str, n_commands: int) -> dict[str, np.ndarray]:
    """hidden [M, H] float16 of every token of every variant; record, way (0 none, 1 low, 2 high) and variant [M] of each."""
    low, high = COMMANDS[split]
    hidden, about = [], []
    for number, record in enumerate(records):
        order = np.random.default_rng(seed_of("commands", split, number)).permutation(len(low))[:n_commands]
        ways = [(0, None), *((1, low[i]) for i in order), *((2, high[i]) for i in order)]
        samples = [_sample(backbone.model, record, command) for _, command in ways]
        for variant, ((way, _), (rows, _)) in enumerate(zip(ways, backbone.positions(samples), strict=True)):
            hidden.append(rows.numpy().astype(np.float16))
            about += [(number, way, variant)] * len(rows)
    return {"hidden": np.concatenate(hidden), "about": np.array(about, np.int32)}


def _sample(model: Model, record: dict, command: str | None) -> TrainingSample:
    messages = record["messages"] if command is None else with_command(record["messages"], command)
    prompt = list(render(model, messages))
    return TrainingSample([*prompt, *record["reply"]], len(prompt))


# ---- learn -------------------------------------------------------------------------------


class Variants:
    """Means over the tokens of each variant, and which variants belong together.

    about [M, 3] as `read` gives it; ``mean`` [M] -> [n_variants]; record, way [n_variants]
    """

    def __init__(self, about: Tensor) -> None:
        _, self.of = torch.unique(about[:, [0, 2]], dim=0, return_inverse=True)
        n = int(self.of.max()) + 1
        first = torch.zeros(n, dtype=torch.long).scatter_(0, self.of.flip(0), torch.arange(len(about)).flip(0))
        self.record, self.way = about[first, 0], about[first, 1]
        self.size = torch.bincount(self.of, minlength=n).float()
        base = {int(r): i for i, (r, w) in enumerate(zip(self.record, self.way, strict=True)) if w == 0}
        self.base = torch.tensor([base[int(r)] for r in self.record])

    def mean(self, values: Tensor) -> Tensor:
        return torch.zeros_like(self.size).index_add(0, self.of, values) / self.size


def ranking(values: Tensor, start: Tensor, variants: Variants, margin: float, anchor: float) -> Tensor:
    """Margins against the start's mean without a command, and without one every token where it was. values, start [M]."""
    means, before = variants.mean(values), variants.mean(start)[variants.base]
    sign = torch.tensor([0.0, -1.0, 1.0])[variants.way]
    missed = torch.relu(margin - sign * (means - before)) * sign.abs()
    plain = variants.way[variants.of] == 0
    held = (values - start)[plain].square().mean() + variants.mean(values - start)[variants.way == 0].abs().mean()
    return missed.sum() / sign.abs().sum() + anchor * held


def consistency(values: Tensor, variants: Variants) -> str:
    """Share of variants that moved as asked from the same text without a command, and by how much."""
    means = variants.mean(values)
    moved = means - means[variants.base]
    parts = []
    for way, sign, name in ((1, -1, "low"), (2, 1, "high")):
        rows = moved[variants.way == way]
        parts.append(f"{name} {100 * (sign * rows > 0).float().mean():.1f} % ({rows.mean():+.3f})")
    return f"none {means[variants.way == 0].mean():.3f}; " + ", ".join(parts)


def learn(head, inputs: dict[str, tuple], start: dict[str, Tensor], options: argparse.Namespace, margin: float) -> None:
    """inputs: split -> arguments of ``head`` and its Variants; scale: of its sigmoid."""
    optimizer = torch.optim.AdamW(head.parameters(), options.lr, weight_decay=options.decay)
    rows_of = _rows_of(inputs["train"][1])
    rng = np.random.default_rng(options.seed)
    for step in range(options.steps):
        records = rng.permutation(len(rows_of))[: options.batch]
        rows = torch.cat([rows_of[i] for i in records])
        arguments, variants = inputs["train"]
        part = Variants(variants.about[rows])
        loss = ranking(head(*(a[rows].float() for a in arguments)), start["train"][rows], part, margin, options.anchor)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1, (step + 1) / 20) * (1 - step / options.steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99 or step == 0:
            print(f"step {step + 1}: loss {loss.item():.4f}; " + _both(head, inputs), flush=True)


@torch.no_grad()
def _both(head, inputs: dict[str, tuple]) -> str:
    found = {split: consistency(head(*(a.float() for a in arguments)), v) for split, (arguments, v) in inputs.items()}
    return " | ".join(f"{split}: {text}" for split, text in found.items())


def _rows_of(variants: Variants) -> list[Tensor]:
    record = variants.about[:, 0]
    return [torch.nonzero(record == r)[:, 0] for r in torch.unique(record)]


@torch.no_grad()
def statistics(backbone: GgufBackbone, heads: AutoDecoHeads, hidden: Tensor) -> Tensor:
    """[M, 5] that the top-p head reads beside the state, at the T of the heads as they are."""
    found = []
    seen: list[Tensor] = []
    hook = heads.top_p_head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    for part in hidden.split(64):
        heads(part.float(), backbone.lm_head(part.float()))
        found.append(seen.pop())
    hook.remove()
    return torch.cat(found)


def probe(train: tuple[Tensor, Variants], held_out: tuple[Tensor, Variants], steady: float) -> str:
    """What one direction in the states tells, in closed form: consistency on ``held_out``, and its spread over tokens.

    Of each token the state after a command less that of the same token without one shall give -1 or +1. steady: weight of
    the direction's variance over tokens without a command, which a head would show as noise in T.
    """
    hidden, variants = train
    mean, spread = hidden.mean(0), hidden.std(0)
    state, plain = (hidden - mean) / spread, variants.way[variants.of] == 0
    asked = ~plain
    moved = (state - state[_same_token(variants.about)])[asked]
    sign = torch.tensor([0.0, -1.0, 1.0])[variants.way[variants.of]][asked]
    weight = 1 / variants.size[variants.of][asked]
    weight = weight / weight.mean()
    quiet = state[plain] - state[plain].mean(0)
    gram = moved.T @ (moved * weight[:, None]) + steady * len(moved) / len(quiet) * quiet.T @ quiet
    direction = torch.linalg.solve(gram + 100 * torch.eye(len(gram)), moved.T @ (sign * weight))
    values, other = (held_out[0] - mean) / spread @ direction, held_out[1]
    return f"{consistency(values, other)}; over tokens {values[other.way[other.of] == 0].std():.2f}"


def _same_token(about: Tensor) -> Tensor:
    """[M] of every token the row of the same token without a command, which comes first."""
    place: dict[tuple[int, int], int] = {}
    counts: dict[tuple[int, int], int] = {}
    rows = []
    for row, (record, _, variant) in enumerate(about.tolist()):
        k = counts[record, variant] = counts.get((record, variant), -1) + 1
        rows.append(place.setdefault((record, k), row))
    return torch.tensor(rows)


# ---- stages ------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--heads", type=Path, help="[default: those of the package]")
    parser.add_argument("--records", type=int, default=108)
    parser.add_argument("--tokens", type=int, default=40, help="of a reply")
    parser.add_argument("--commands", type=int, default=3, help="of either kind a record")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16, help="records of a step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.01)
    parser.add_argument("--anchor", type=float, default=0.2)
    parser.add_argument("--margin-t", type=float, default=0.2)
    parser.add_argument("--margin-p", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    found = resolve(options.model, str(options.heads) if options.heads else None, offline=True)
    clock = time.process_time()
    states = read_all(found.model, found.heads, options)
    print(f"states: {time.process_time() - clock:.0f} s of CPU", flush=True)
    teach(found.model, found.heads, states, options)
    print(f"done: {time.process_time() - clock:.0f} s of CPU", flush=True)


def read_all(model: Path, heads: Path, options: argparse.Namespace) -> dict[str, dict[str, np.ndarray]]:
    files = {split: options.out / f"states-{split}.npz" for split in COMMANDS}
    if not all(file.exists() for file in files.values()):
        with closing(Model(model)) as loaded:
            records = {
                split: draw(
                    loaded, Heads(heads), split, options.records // (1 if split == "train" else 3), options.tokens
                )
                for split in files
            }
        (options.out / "records.json").write_text(json.dumps(records))
        with closing(GgufBackbone(model, 1)) as backbone:
            longest = [_sample(backbone.model, r, LOW[1] + LOW[4]) for rows in records.values() for r in rows]
            backbone.load(torch.device("cpu"), longest)
            for split, file in files.items():
                np.savez(file, **read(backbone, records[split], split, options.commands))
    return {split: dict(np.load(file)) for split, file in files.items()}


def teach(model: Path, heads_file: Path, states: dict[str, dict[str, np.ndarray]], options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    heads = load_heads(heads_file).heads
    hidden = {split: torch.from_numpy(s["hidden"]) for split, s in states.items()}
    variants = {}
    for split, s in states.items():
        variants[split] = Variants(about := torch.from_numpy(s["about"]).long())
        variants[split].about = about
    with closing(GgufBackbone(model, 1)) as backbone:
        backbone.load(
            torch.device("cpu"), [TrainingSample(list(render(backbone.model, [{"role": "user", "content": "Hi"}])), 1)]
        )
        # top-p of the start, on the tokens without a command alone: the rest of it is never asked for
        start_p = {}
        with torch.no_grad():
            start_t = {split: heads.temp_head(h.float()) for split, h in hidden.items()}
            for split, h in hidden.items():
                plain = torch.from_numpy(states[split]["about"][:, 1] == 0)
                start_p[split] = torch.zeros(len(h))
                parts = h[plain].float().split(64)
                start_p[split][plain] = torch.cat([heads(part, backbone.lm_head(part))[1] for part in parts])
        for steady in (0.0, 0.1, 0.3):
            known = [(hidden[split].float(), variants[split]) for split in ("train", "calibration")]
            print(f"one direction, steady {steady}: {probe(*known, steady)}", flush=True)
        print("T", flush=True)
        learn(heads.temp_head, {s: ((h,), variants[s]) for s, h in hidden.items()}, start_t, options, options.margin_t)
        features = {split: statistics(backbone, heads, h) for split, h in hidden.items()}
        print("P", flush=True)
        inputs = {split: ((h, features[split]), variants[split]) for split, h in hidden.items()}
        learn(heads.top_p_head, inputs, start_p, options, options.margin_p)
        base = gguf_config("llama", backbone.n_embd, backbone.model.n_vocab)
    means = [
        float(variants["calibration"].mean(v)[variants["calibration"].way == 0].mean())
        for v in (start_t["calibration"], start_p["calibration"])
    ]
    save_heads(options.out / "heads", heads, autodeco_config(base, heads.spec, "SmolLM2-135M-Instruct", *means), "f32")


if __name__ == "__main__":
    main()

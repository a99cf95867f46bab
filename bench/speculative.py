"""Plain decoding beside drafts, paired: time of the same replies, guesses that were right, and what a row costs.

    python -P bench/speculative.py -m MODEL.gguf --heads HEADS.gguf --threads 2 --json bench/results/speculative.json

Each prompt is answered by all contenders in turn, with the same seed; the first is plain decoding, and its time over another's
is that one's speed. Replies must be the same (counted where they are not: docs/speculative.md says when). Prompts that repeat
what they were given, and prompts that do not: bench/draft_prompts.py. The file keeps the runs of other models, numbers of threads
and sets of prompts; bench/speculative_page.py makes the tables of docs/speculative.md of it.

With --draft FILE the drafts are those of a smaller model, and llama.cpp's rule is its p-min.

Contenders: the engine's own rule, the same without the heads' word, drafts of a fixed length (8 tokens behind 3 alike),
and llama.cpp's ngram-simple (48 tokens behind 12 alike). With heads all of them (--contenders names some); at T = 1 and at
0.8/0.95 the engine's own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodeco_edge.bench.machine import describe_machine, one_line
from autodeco_edge.bench.stats import paired_ratio
from autodeco_edge.engine.context import Context, ContextParams, Row
from autodeco_edge.engine.draft_cost import Costs
from autodeco_edge.engine.draft_model import DraftModel
from autodeco_edge.engine.drafts import DRAFT_MAX, DraftParams, Drafts
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.prompt_lookup import PromptLookup
from autodeco_edge.engine.sampler import SamplingParams, Step
from autodeco_edge.text.chat import Conversation, prompt_of
from bench.draft_prompts import HELD_OUT, TUNING, Prompt

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # the latter on a busy machine, with one thread
SETTINGS = {
    "heads": SamplingParams(),
    "T 1": SamplingParams(heads_mode="none"),
    "0.8/0.95": SamplingParams(heads_mode="none", temperature=0.8, top_p=0.95),
}
SETS = {"held-out": HELD_OUT, "tuning": TUNING}
N_ROWS = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)
OTHER_COSTS = (0.6, 0.4, 0.2, 0.05)  # of a row: what these replies and drafts would have taken elsewhere
N_CTX = 1024
N_PAST = 200  # tokens in the cells while rows are timed


class FixedLookup(Drafts):
    """n_draft tokens wherever the last n_alike stood before."""

    def __init__(self, n_alike: int, n_draft: int) -> None:
        self._n_alike, self._n_draft = n_alike, n_draft

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        n, last = self._n_alike, list(tokens[-self._n_alike :])
        for end in range(len(tokens) - 1, n - 1, -1):
            if tokens[end - 1] == last[-1] and list(tokens[end - n : end]) == last:
                return list(tokens[end : end + min(self._n_draft, n_max)])
        return []


class BlindLookup(PromptLookup):
    """The engine's own, to whom nobody says what a token was drawn from."""

    def learn(self, sequence: int, draft: Sequence[int], steps: Sequence[Step]) -> None:
        super().learn(sequence, draft, [replace(step, n_kept=0) for step in steps])


class UntilUnsure(DraftModel):
    """As long as the drafted token has a probability of p_min (llama.cpp's rule), or to the end where that is 0."""

    def __init__(self, path: str, target: Model, p_min: float, **how: Any) -> None:
        super().__init__(path, target, DraftParams(row_cost=0.0), cost=0.0, **how)
        self._p_min = p_min

    def _guess(self, sequence: int, memory: Any, tokens: list[int], n_max: int) -> list[int]:
        draft: list[int] = []
        while len(draft) < n_max:
            logits = self._logits(sequence, memory, tokens + draft)
            token = int(np.argmax(logits))
            if 1.0 / np.exp(logits - logits[token]).sum() < self._p_min:
                break
            draft.append(token)
        return draft


@dataclass
class Side:
    """One contender under one setting on prompts of one kind.

    seconds    of each reply
    rows       of each decode behind the first token
    repeated   tokens that stood behind the same three before, of the prompt or the reply
    other      replies that differ from the plain one
    """

    seconds: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    repeated: int = 0
    other: int = 0

    def report(self, plain: Side) -> dict:
        return {
            "speed": round(sum(plain.seconds) / sum(self.seconds), 3),
            "speed_by_prompt": paired_ratio(plain.seconds, self.seconds).as_dict(),
            "speed_at_cost": {cost: round(self._speed(Costs.linear(cost)), 3) for cost in OTHER_COSTS},
            "tokens_a_decode": round(self.tokens / max(len(self.rows), 1), 3),
            "tokens_a_second": round(self.tokens / sum(self.seconds), 1),
            "drafted": self.drafted,
            "accepted": round(self.accepted / self.drafted, 3) if self.drafted else None,
            "tokens": self.tokens,
            "repeated": round(self.repeated / max(self.tokens, 1), 3),
            "other_replies": self.other,
        }

    def _speed(self, costs: Costs) -> float:
        return self.tokens / max(sum(map(costs.of, self.rows)), 1.0)

    def __add__(self, other: Side) -> Side:
        return Side(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def repeated(prompt: Sequence[int], reply: Sequence[int]) -> int:
    """Tokens of a reply that stood before behind the same three."""
    text = [*prompt, *reply]
    fours = [tuple(text[i - 3 : i + 1]) for i in range(3, len(text))]
    start = max(len(prompt) - 3, 0)
    seen, n = set(fours[:start]), 0
    for four in fours[start:]:
        n += four in seen
        seen.add(four)
    return n


def row_costs(model: Model, n_threads: int, rounds: int, clock: Callable[[], float]) -> dict[int, float]:
    """Median time of a decode of n rows, as a share of one's; each round has all n, in turn."""
    ids = np.random.default_rng(0).integers(0, model.n_vocab, N_PAST + max(N_ROWS)).tolist()
    context = Context(
        model, ContextParams(N_CTX, 1, 512, n_threads, {}), "a context of 1024 tokens", "choose another model"
    )
    context.decode([Row(token, i, 0, False) for i, token in enumerate(ids[:N_PAST])])
    seconds: dict[int, list[float]] = {n: [] for n in N_ROWS}
    for _ in range(rounds):
        for n in N_ROWS:
            rows = [Row(ids[N_PAST + i], N_PAST + i, 0, True) for i in range(n)]
            context.decode(rows)  # this graph's shape is new, that of the next is not
            context.keep(0, N_PAST)
            start = clock()
            context.decode(rows)
            seconds[n].append(clock() - start)
            context.keep(0, N_PAST)
    context.native.close()
    return {n: round(float(np.median(seconds[n]) / np.median(seconds[1])), 3) for n in N_ROWS}


def row_cost(costs: dict[int, float]) -> float:
    """What --draft-cost says: of a row among the first nine."""
    return round(min(max((costs[9] - 1.0) / 8, 0.0), 1.0), 2)


def answer(
    engine: Engine, ids: Sequence[int], params: SamplingParams, n_tokens: int, clock: Callable[[], float]
) -> tuple[list[int], Side]:
    """Timed from the first token on: reading the prompt is the same for all."""
    generation = engine.submit(Request(tuple(ids), params, n_tokens, reuse_prefix=True))
    while not generation.timings.predicted_n:
        engine.tick()
    timings, rows = generation.timings, []
    start, before = clock(), 0
    while engine.tick():
        rows.append(1 + timings.draft_n - before)
        before = timings.draft_n
    seconds = clock() - start
    drawn = [step.id for step in generation]
    side = Side([seconds], rows, timings.draft_n, timings.draft_n_accepted, len(drawn) - 1, repeated(ids, drawn))
    return drawn, side


def prompt_ids(model: Model, prompt: Prompt) -> list[int]:
    if prompt.rest:
        return model.tokenize(prompt.text)
    conversation = Conversation()
    conversation.add("user", prompt.text)
    return prompt_of(model, conversation.messages, None).ids


def n_tokens(model: Model, prompt: Prompt, most: int) -> int:
    return min(most, len(model.tokenize(prompt.rest, add_special=False))) if prompt.rest else most


def contenders(model: Model, args: argparse.Namespace) -> dict[str, Drafts | None]:
    own = DraftParams(row_cost=args.draft_cost)
    if args.draft:
        how = {"n_slots": 1, "n_ctx": N_CTX, "n_threads": args.threads}
        found = {
            "plain": None,
            "own": DraftModel(args.draft, model, own, cost=args.draft_model_cost, **how),
            "fixed 4": UntilUnsure(args.draft, model, 0.0, **how),
            "p-min 0.75": UntilUnsure(args.draft, model, 0.75, **how),
        }
    else:
        found = {
            "plain": None,
            "own": PromptLookup(own),
            "without heads": BlindLookup(own),
            "fixed 3/8": FixedLookup(3, 8),
            "ngram-simple 12/48": FixedLookup(12, 48),
        }
    wanted = ["plain", *(args.contenders or found)]
    return {name: drafts for name, drafts in found.items() if name in wanted}


def n_max(name: str) -> int:
    """Tokens of a draft: what the name says, or the engine's own."""
    return {"ngram-simple 12/48": 48, "fixed 3/8": 8, "fixed 4": 4}.get(name, DRAFT_MAX)


def compare(model: Model, heads: str, args: argparse.Namespace) -> dict:
    """{kind: {setting: {contender: its report}}}; "repeating" is all kinds but "free"."""
    engines = {
        name: Engine(model, heads, n_ctx=N_CTX, n_threads=args.threads, draft=draft, draft_max=n_max(name))
        for name, draft in contenders(model, args).items()
    }
    found: dict = {}
    for kind, prompts in SETS[args.set].items():
        for setting in SETTINGS:
            names = list(engines) if setting == "heads" else ["plain", "own"]
            found.setdefault(kind, {})[setting] = {name: Side() for name in names}
        for i, prompt in enumerate(prompts[: args.prompts] * args.rounds):
            ids, n = prompt_ids(model, prompt), n_tokens(model, prompt, args.tokens)
            for setting, params in SETTINGS.items():
                _answers(engines, ids, replace(params, seed=i), n, CLOCKS[args.clock], found[kind][setting])
    repeating = [kind for kind in found if kind != "free"]
    found["repeating"] = {
        setting: {
            name: sum((found[kind][setting][name] for kind in repeating), Side()) for name in found["free"][setting]
        }
        for setting in SETTINGS
    }
    return {
        kind: {
            setting: {name: side.report(sides["plain"]) for name, side in sides.items()}
            for setting, sides in of.items()
        }
        for kind, of in found.items()
    }


def _answers(
    engines: dict[str, Engine],
    ids: list[int],
    params: SamplingParams,
    n: int,
    clock: Callable[[], float],
    sides: dict[str, Side],
) -> None:
    """Of all contenders to one prompt, in an order that changes."""
    names, replies = list(sides), {}
    for name in names if params.seed % 2 else names[::-1]:
        replies[name], side = answer(engines[name], ids, params, n, clock)
        sides[name] += side
    for name in names:
        sides[name].other += replies[name] != replies["plain"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--draft", help="GGUF of a draft model")
    parser.add_argument("--draft-model-cost", type=float, help="of a token, as a share of the target's time")
    parser.add_argument("--draft-cost", type=float, help="of a further row; measured where not given")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--set", choices=SETS, default="held-out")
    parser.add_argument("--contenders", nargs="+", help="these and plain decoding only")
    parser.add_argument("--json", type=Path)
    for name, default in (("threads", 1), ("rounds", 1), ("prompts", 10), ("tokens", 128), ("row-rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    machine = describe_machine()
    model = Model(args.model)
    print(one_line(machine))
    costs = row_costs(model, args.threads, args.row_rounds, CLOCKS[args.clock])
    print(f"{model.description}, {args.threads} threads: a decode of n rows over one of one: {costs}", flush=True)
    hidden = ("model", "heads", "json", "draft")
    report = {
        "machine": machine,
        "model": model.description,
        "settings": {k: v for k, v in vars(args).items() if k not in hidden},
        "row_costs": costs,
        "row_cost": row_cost(costs),
        "speed": compare(model, args.heads, args),
    }
    for kind, of in report["speed"].items():
        for setting, rows in of.items():
            for name, row in rows.items():
                print(f"{kind:10} {setting:9} {name:20} {row}")
    if args.json:
        keep(
            args.json,
            f"{model.description.split()[-1]}, {args.threads}, {args.set}{', model' if args.draft else ''}",
            report,
        )


def keep(path: Path, name: str, report: dict) -> None:
    """Beside the other runs of the file."""
    runs = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**runs, name: report}, indent=1) + "\n")


if __name__ == "__main__":
    main()

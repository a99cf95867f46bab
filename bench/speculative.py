"""Plain decoding beside drafts, paired: time of the same replies, guesses that were right, and what a row costs.

    python bench/speculative.py -m MODEL.gguf --heads HEADS.gguf --threads 2 --json bench/results/speculative.json

Each prompt is answered by all contenders in turn, with the same seed; the first is plain decoding, and its time over another's
is that one's speed. Replies must be the same (counted where they are not: docs/speculative.md says when). Prompts that repeat
what they were given, and prompts that do not: bench/draft_prompts.py.

With --draft FILE the drafts are those of a smaller model, and llama.cpp's rule is its p-min.

Contenders: the engine's own rule, the same without the heads' word, drafts of a fixed length (8 tokens behind 3 alike),
and llama.cpp's ngram-simple (48 tokens behind 12 alike). With heads all of them; at T = 1 and at 0.8/0.95 the engine's own.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autodeco_edge.bench.machine import describe_machine, one_line
from autodeco_edge.bench.stats import paired_ratio
from autodeco_edge.engine.context import Context, ContextParams, Row
from autodeco_edge.engine.draft_model import DraftModel
from autodeco_edge.engine.drafts import DRAFT_MAX, ROW_COST, DraftParams, Drafts
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.prompt_lookup import PromptLookup
from autodeco_edge.engine.sampler import SamplingParams, Step
from autodeco_edge.text.chat import Conversation, prompt_of
from bench.draft_prompts import FREE, REPEATING

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}  # the latter on a busy machine, with one thread
SETTINGS = {
    "heads": SamplingParams(),
    "T 1": SamplingParams(heads_mode="none"),
    "0.8/0.95": SamplingParams(heads_mode="none", temperature=0.8, top_p=0.95),
}
N_ROWS = (1, 2, 3, 5, 9, 17)
OTHER_COSTS = (0.6, 0.4, 0.2, 0.05)  # of a row: what these replies and drafts would have taken elsewhere
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
            token, probability = self._choose(memory, self._logits(sequence, memory, tokens + draft), 0)
            if probability < self._p_min:
                break
            draft.append(token)
        return draft


@dataclass
class Side:
    """One contender under one setting on one kind of prompts; a number a prompt in each list."""

    seconds: list[float] = field(default_factory=list)
    decodes: list[int] = field(default_factory=list)
    with_draft: int = 0  # of the decodes
    drafted: int = 0
    accepted: int = 0
    tokens: int = 0
    other: int = 0  # replies that differ from the plain one

    def report(self, plain: Side) -> dict:
        speed = paired_ratio(plain.seconds, self.seconds).as_dict()
        return {
            "speed": round(sum(plain.seconds) / sum(self.seconds), 3),
            "speed_by_prompt": speed,
            "speed_at_cost": {cost: round(self.tokens / self._rows_time(cost), 3) for cost in OTHER_COSTS},
            "tokens_a_decode": round(self.tokens / sum(self.decodes), 3),
            "drafted": self.drafted,
            "accepted": round(self.accepted / self.drafted, 3) if self.drafted else None,
            "tokens": self.tokens,
            "other_replies": self.other,
        }

    def _rows_time(self, cost: float) -> float:
        """In times of one row, as the engine reckons (engine/drafts.py::Length)."""
        return sum(self.decodes) + cost * (self.drafted + 0.5 * self.with_draft)


def row_costs(model: Model, n_threads: int, rounds: int, clock: Callable[[], float]) -> dict[int, float]:
    """Median time of a decode of n rows, as a share of one's; each round has all n, in turn."""
    ids = np.random.default_rng(0).integers(0, model.n_vocab, N_PAST + max(N_ROWS)).tolist()
    context = Context(
        model, ContextParams(1024, 1, 512, n_threads, {}), "a context of 1024 tokens", "choose another model"
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
    """What --draft-cost should be: of a row among the first nine."""
    return round(min(max((costs[9] - 1.0) / 8, 0.0), 1.0), 2)


def answer(
    engine: Engine, ids: Sequence[int], params: SamplingParams, n_tokens: int, side: Side, clock: Callable[[], float]
) -> list[int]:
    """Timed from the first token on: reading the prompt is the same for all."""
    generation = engine.submit(Request(tuple(ids), params, n_tokens))
    while not generation.timings.predicted_n:
        engine.tick()
    start, n_decodes = clock(), 0
    before = 0
    while engine.tick():
        n_decodes += 1
        side.with_draft += generation.timings.draft_n > before
        before = generation.timings.draft_n
    side.seconds.append(clock() - start)
    side.decodes.append(n_decodes + 1)
    drawn = [step.id for step in generation]
    side.drafted += generation.timings.draft_n
    side.accepted += generation.timings.draft_n_accepted
    side.tokens += len(drawn)
    return drawn


def prompt_ids(model: Model, text: str, kind: str) -> list[int]:
    if kind == "repeating":
        return model.tokenize(text)
    conversation = Conversation()
    conversation.add("user", text)
    return prompt_of(model, conversation.messages, None).ids


def contenders(model: Model, args: argparse.Namespace) -> dict[str, Drafts | None]:
    own = DraftParams(row_cost=args.draft_cost)
    if args.draft:
        how = {"n_slots": 1, "n_ctx": 1024, "n_threads": args.threads}
        return {
            "plain": None,
            "own": DraftModel(args.draft, model, own, cost=args.draft_model_cost, **how),
            "fixed 4": UntilUnsure(args.draft, model, 0.0, **how),
            "p-min 0.75": UntilUnsure(args.draft, model, 0.75, **how),
        }
    return {
        "plain": None,
        "own": PromptLookup(own),
        "without heads": BlindLookup(own),
        "fixed 3/8": FixedLookup(3, 8),
        "ngram-simple 12/48": FixedLookup(12, 48),
    }


def n_max(name: str) -> int:
    """Tokens of a draft: what the name says, or the engine's own."""
    return {"ngram-simple 12/48": 48, "fixed 3/8": 8, "fixed 4": 4}.get(name, DRAFT_MAX)


def compare(model: Model, heads: str, args: argparse.Namespace) -> dict:
    engines = {
        name: Engine(model, heads, n_ctx=1024, n_threads=args.threads, draft=draft, draft_max=n_max(name))
        for name, draft in contenders(model, args).items()
    }
    found: dict = {}
    for kind, prompts in (("repeating", REPEATING), ("free", FREE)):
        for setting, params in SETTINGS.items():
            names = list(engines) if setting == "heads" else ["plain", "own"]
            sides = {name: Side() for name in names}
            for i, text in enumerate(prompts[: args.prompts] * args.rounds):
                ids, settings = prompt_ids(model, text, kind), replace(params, seed=i)
                replies = {}
                for name in names if i % 2 else names[::-1]:
                    replies[name] = answer(engines[name], ids, settings, args.tokens, sides[name], CLOCKS[args.clock])
                for name in names:
                    sides[name].other += replies[name] != replies["plain"]
            rows = {name: sides[name].report(sides["plain"]) for name in names if name != "plain"}
            found.setdefault(kind, {})[setting] = rows
            for name, row in rows.items():
                print(f"{kind:10} {setting:9} {name:20} {row}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--draft", help="GGUF of a draft model")
    parser.add_argument("--draft-model-cost", type=float, help="of a token, as a share of the target's time")
    parser.add_argument("--draft-cost", type=float, default=ROW_COST)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path)
    for name, default in (("threads", 1), ("rounds", 1), ("prompts", 10), ("tokens", 96), ("row-rounds", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    machine = describe_machine()
    model = Model(args.model)
    print(one_line(machine))
    costs = row_costs(model, args.threads, args.row_rounds, CLOCKS[args.clock])
    print(
        f"{model.description}, {args.threads} threads: a decode of n rows over one of one: {costs}; --draft-cost {row_cost(costs)}"
    )
    report = {
        "machine": machine,
        "model": model.description,
        "settings": {k: v for k, v in vars(args).items() if k not in ("model", "heads", "json", "draft")},
        "row_costs": costs,
        "row_cost": row_cost(costs),
        "speed": compare(model, args.heads, args),
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

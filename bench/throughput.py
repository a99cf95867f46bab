"""Tokens a second of an engine with several slots, beside llama.cpp's own llama-batched-bench.

    python bench/throughput.py -m MODEL.gguf --heads HEADS.gguf --batched-bench PATH --slots 8,32 --rounds 5

llama-batched-bench decodes batches and draws nothing: its figure is the floor of a step, a bar that a program which draws
its tokens can reach only if drawing is free. PATH is that tool, built from the llama.cpp that is pinned. All contenders
take a turn in every round, with the same model, threads, prompt length and number of tokens; the prompt's time is not
counted on either side. Without heads, their row is left out.

Owns the schedule and the table. One line of JSON goes to --out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from autodeco_edge.bench.machine import describe_machine, one_line
from autodeco_edge.bench.stats import paired_ratio
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.sampler import SamplingParams

STATIC = SamplingParams(temperature=0.8, top_p=0.95)
FLOOR = "llama-batched-bench"


def engine_rate(engine: Engine, n_slots: int, args: argparse.Namespace, params: SamplingParams, seed: int) -> float:
    """Tokens a second while all slots decode: from the tick in which the last of them has its first token until the
    first of them ends, for the floor has as many rows in each batch, too."""
    rng = np.random.default_rng(seed)
    prompts = rng.integers(0, engine.model.n_vocab, (n_slots, args.prompt_tokens))
    requests = [
        Request(tuple(map(int, p)), params, args.tokens, stop_at_end=False, reuse_prefix=False) for p in prompts
    ]
    replies = [engine.submit(request) for request in requests]
    while any(reply.timings.predicted_n == 0 for reply in replies):
        engine.tick()
    n_early = sum(reply.timings.predicted_n for reply in replies)
    start = time.perf_counter()
    while not any(reply.ended for reply in replies):
        engine.tick()
    seconds = time.perf_counter() - start
    n_drawn = sum(reply.timings.predicted_n for reply in replies) - n_early
    while engine.tick():
        pass
    return n_drawn / seconds


def floor_rate(n_slots: int, args: argparse.Namespace) -> float:
    """Tokens a second of llama-batched-bench; its own clock."""
    sizes = {"-npp": args.prompt_tokens, "-ntg": args.tokens, "-npl": n_slots, "-t": args.threads, "-tb": args.threads}
    n_ctx = n_slots * (args.prompt_tokens + args.tokens)
    command = [args.batched_bench, "-m", args.model, "-c", n_ctx, "--output-format", "jsonl", "-ngl", 0]
    command += [word for pair in sizes.items() for word in pair]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return float(json.loads(lines[-1])["speed_tg"])


def contenders(model: Model, n_slots: int, args: argparse.Namespace) -> dict[str, Callable[[int], float]]:
    """A function of the round for each row of the table."""
    n_ctx = args.prompt_tokens + args.tokens + 1
    rows: dict[str, Callable[[int], float]] = {}
    if args.batched_bench:
        rows[FLOOR] = lambda seed: floor_rate(n_slots, args)

    def add(name: str, heads: Path | None, params: SamplingParams) -> None:
        engine = Engine(model, heads=heads, n_slots=n_slots, n_ctx=n_ctx, n_threads=args.threads)
        rows[name] = lambda seed: engine_rate(engine, n_slots, args, params, seed)

    add("engine, T 0.8 and P 0.95", None, STATIC)
    add("engine, greedy", None, SamplingParams(temperature=0.0))
    if args.heads:
        add("engine, heads", args.heads, SamplingParams())
    return rows


def measure(model: Model, n_slots: int, args: argparse.Namespace) -> dict:
    """{"slots", "rates": {name: [tokens a second of each round]}, "ratios": {name: to the floor, paired}}."""
    rows = contenders(model, n_slots, args)
    rates: dict[str, list[float]] = {name: [] for name in rows}
    for seed in range(args.rounds):
        for name, turn in rows.items():
            rates[name].append(turn(seed))
    ratios = {n: paired_ratio(r, rates[FLOOR]).as_dict() for n, r in rates.items() if FLOOR in rates and n != FLOOR}
    return {"slots": n_slots, "rates": rates, "ratios": ratios}


def table(results: list[dict]) -> str:
    lines = [f"{'slots':<7}{'':<28}{'tokens/s':>10}  ratio to {FLOOR}, [95 % interval]"]
    for result in results:
        for name, rates in result["rates"].items():
            ratio = result["ratios"].get(name)
            known = f"  {ratio['median']:.3f}  [{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio else ""
            lines.append(f"{result['slots']:<7}{name:<28}{float(np.median(rates)):>10.1f}{known}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("--heads", type=Path)
    parser.add_argument("--batched-bench", type=Path)
    parser.add_argument("--slots", default="8,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", "-t", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = Model(args.model)
    results = [measure(model, int(n), args) for n in args.slots.split(",")]
    machine = describe_machine()
    print(one_line(machine), table(results), sep="\n")
    if args.out:
        args.out.write_text(
            json.dumps({"machine": machine, "model": args.model.name, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()

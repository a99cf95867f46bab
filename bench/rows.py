"""Cost of the rows of a batch: n rows in one graph against one row, in turn.

    python bench/rows.py [--rounds 30] [--threads 1 2] [--json build/bench/rows.json]

Prints the least time of each and its ratio to the least time of one row with as many threads; on a machine that does
other things too, medians would show those. Owns the list of points; the timing is `autodeco-edge bench step`'s.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from autodeco_edge.bench import _native as native
from autodeco_edge.bench.heads import write_random_heads
from autodeco_edge.bench.machine import describe_machine
from autodeco_edge.bench.step import CASES, StepSetup, tensor_bytes, time_step
from autodeco_edge.engine.sampler import Heads

ROWS = (1, 2, 4, 8, 16)
VOCABULARIES = (49152, 151936)
N_EMBD = 3584
N_IN_TURN = 10  # rounds before the next number of rows has its turn


def least_us(heads: Heads, n_bytes: int, n_vocab: int, case: str, threads: list[int], n_rounds: int) -> dict:
    """{(threads, rows): least time of AutoDeco, us}."""
    rng = np.random.default_rng(7)
    logits = CASES[case](rng, max(ROWS), n_vocab)
    hidden = rng.standard_normal((max(ROWS), N_EMBD), dtype=np.float32)
    least: dict[tuple[int, int], float] = defaultdict(lambda: float("inf"))
    for _ in range(max(1, n_rounds // N_IN_TURN)):
        for n_threads in threads:
            for n in ROWS:
                setup = StepSetup(n_vocab, N_EMBD, n_threads, n_rows=n, n_rounds=N_IN_TURN, n_warmup=5)
                timed = time_step(setup, heads, n_bytes, hidden[:n], logits[:n])
                least[n_threads, n] = min(least[n_threads, n], float(timed.us[:, native.AUTODECO].min()))
    return least


def measure(threads: list[int], n_rounds: int) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        written = write_random_heads(Path(folder) / "heads.gguf", Path(folder) / "heads", N_EMBD, outtype="f16", seed=1)
        with Heads(written.path) as heads:
            for n_vocab in VOCABULARIES:
                for case in CASES:
                    least = least_us(heads, tensor_bytes(written), n_vocab, case, threads, n_rounds)
                    rows += report(n_vocab, case, least)
    return rows


def report(n_vocab: int, case: str, least: dict) -> list[dict]:
    rows = []
    for (n_threads, n), us in sorted(least.items()):
        row = {
            "n_vocab": n_vocab,
            "case": case,
            "threads": n_threads,
            "rows": n,
            "us": round(us, 1),
            "over_one_row": round(us / least[n_threads, 1], 2),
            "over_fewest_threads": round(us / least[min(least)[0], n], 2),
        }
        print(*row.values(), sep="\t", flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print("vocabulary", "logits", "threads", "rows", "us", "/ one row", "/ fewest threads", sep="\t")
    before = os.getloadavg()
    rows = measure(args.threads, args.rounds)
    print(f"load {before[0]:.1f} before, {os.getloadavg()[0]:.1f} after")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"machine": describe_machine(), "load": before, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

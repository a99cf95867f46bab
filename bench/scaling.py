"""Cost of a step against vocabulary, hidden size, sequences and threads.

    python bench/scaling.py --out build/bench/step-scaling.json

Varies one size at a time around a vocabulary of 151,936, a hidden size of 3,584 and one row; every point with 1 and
with 2 threads. Owns the list of points; the timing is `autodeco-edge bench step`'s.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autodeco_edge.bench.machine import describe_machine
from autodeco_edge.bench.step import StepSetup, run_step

AXES = {
    "vocabulary": ("n_vocab", (32000, 64000, 128256, 151936, 262144)),
    "hidden": ("n_embd", (2048, 3584, 4096, 5120, 7168)),
    "rows": ("n_rows", (1, 2, 4, 8, 16)),
}
THREADS = (1, 2)
COMMAND = "python bench/scaling.py --out build/bench/step-scaling.json"


def points(centre: StepSetup, axes=AXES, threads=THREADS) -> Iterator[tuple[str, StepSetup]]:
    """Axis and set-up of every row of the tables."""
    for axis, (field, values) in axes.items():
        for value in values:
            for n_threads in threads:
                setup = replace(centre, **{field: value}, n_threads=n_threads)
                yield axis, replace(setup, n_rounds=max(setup.n_rounds // setup.n_rows, min(setup.n_rounds, 30)))


def run(centre: StepSetup, axes=AXES, threads=THREADS) -> dict:
    rows = []
    for axis, setup in points(centre, axes, threads):
        report = run_step(setup)
        rows.append({"axis": axis, **{key: report[key] for key in ("setup", "memory_bytes", "cases")}})
        print(f"{axis} {getattr(setup, axes[axis][0])}, threads {setup.n_threads}: done", flush=True)
    return {"command": COMMAND, "machine": describe_machine(), "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    result = run(StepSetup(n_rounds=args.rounds))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

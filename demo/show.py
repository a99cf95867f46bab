"""Shows a few problems of every family, with a reference solution.

python -m demo.show [--count N] [--slip-rate R]
"""

from __future__ import annotations

import argparse
import random

from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import chat_prompt


def main() -> None:
    parser = argparse.ArgumentParser(description="Show problems of every family.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--slip-rate", type=float, default=0.0)
    args = parser.parse_args()
    for family in families.FAMILIES:
        rng = random.Random(args.seed)
        for _ in range(args.count):
            problem = families.sample(rng, family, held_out=False, slip_rate=args.slip_rate)
            print(f"--- {family}  gt={problem.gt!r}\n{chat_prompt(problem)}{problem.solution}")


if __name__ == "__main__":
    main()

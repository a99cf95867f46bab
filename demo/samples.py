"""Owns the data the heads are trained on: the base's own completions that the verifier accepts (rejection sampling).

It writes JSONL files and knows no training. Samples come from the training split, problems for evaluation from the held-out one.

    python -m demo.samples HF_DIR OUT.jsonl [--count N] [--problems PROBLEMS.jsonl]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import DemoProblem, chat_prompt

from .decode import complete, load_base

# Shares of the accepted completions: computed families first, and enough free text that T and P are learned there too.
SHARES = {"word": 0.22, "make": 0.24, "search": 0.18, "chain": 0.12, "story": 0.14, "chat": 0.10}


@dataclass
class Tally:
    """Completions drawn and kept, for one family."""

    family: str
    drawn: int = 0
    kept: int = 0

    def __str__(self) -> str:
        return (
            f"{self.family:8} drawn {self.drawn:6d} kept {self.kept:6d} ({100 * self.kept / max(1, self.drawn):.1f} %)"
        )


def accepted(
    model, tokenizer, family: str, wanted: int, seed: int, per_problem: int, tally: Tally
) -> Iterable[dict[str, str]]:
    """Right completions at T = 1, top-p = 1, `per_problem` draws a problem, until `wanted` are kept."""
    round_number = 0
    while tally.kept < wanted:
        round_seed = seed * 1000 + round_number
        problems = list(families.problems(round_seed, family, 256 // per_problem * 2, held_out=False, distinct=False))
        drawn = [problem for problem in problems for _ in range(per_problem)]
        completions = complete(model, tokenizer, [chat_prompt(problem) for problem in drawn], 1.0, round_seed)
        round_number += 1
        for problem, completion in zip(drawn, completions, strict=True):
            tally.drawn += 1
            if completion is not None and tally.kept < wanted and families.check(problem, completion):
                tally.kept += 1
                yield {"prompt": chat_prompt(problem), "completion": completion, "family": family}
        if round_number > 4 and not tally.kept:
            raise ValueError(f"the base solves no problem of family {family!r}; train it longer")


def write_samples(
    hf_dir: str | Path, out_path: str | Path, seed: int = 0, count: int = 5000, per_problem: int = 4
) -> list[Tally]:
    """Write `count` right completions over all families, `{"prompt", "completion", "family"}` a line.

    `prompt` ends in the assistant's header; `completion` lacks the end marker, which the trainer appends.
    """
    model, tokenizer = load_base(hf_dir)
    tallies = []
    with open(out_path, "w", encoding="utf-8") as file:
        for family, share in SHARES.items():
            tallies.append(Tally(family))
            for row in accepted(model, tokenizer, family, round(share * count), seed, per_problem, tallies[-1]):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(tallies[-1], flush=True)
    return tallies


def problem_row(problem: DemoProblem) -> dict[str, str]:
    """`gt` suffices for `families.verify(family, gt, completion)`."""
    row = {"problem": problem.prompt, "gt": problem.gt, "family": problem.family}
    return {**row, "system": problem.system} if problem.system else row


def write_problems(out_path: str | Path, seed: int = 1, count: int = 200) -> int:
    """Write up to `count` held-out problems a family, `{"problem", "gt", "family"}` a line; single-turn ones only."""
    written = 0
    with open(out_path, "w", encoding="utf-8") as file:
        for family in families.FAMILIES:
            for problem in families.problems(seed, family, count, held_out=True):
                if not problem.history:
                    file.write(json.dumps(problem_row(problem), ensure_ascii=False) + "\n")
                    written += 1
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description="Rejection sampling for the heads' training data.")
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("out_path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=5000, help="right completions over all families")
    parser.add_argument("--per-problem", type=int, default=4)
    parser.add_argument("--problems", type=Path, help="also write held-out problems here")
    args = parser.parse_args()
    if args.problems:
        print(f"{write_problems(args.problems)} held-out problems -> {args.problems}")
    write_samples(args.hf_dir, args.out_path, args.seed, args.count, args.per_problem)


if __name__ == "__main__":
    main()

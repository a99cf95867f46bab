"""Owns the judgement of the base: accuracy per family on held-out problems, greedy or sampled, and the count of distinct answers.

python -m demo.evaluate HF_DIR [--count N] [--temperature T] [--samples K] [--show N]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import chat_prompt

from .decode import complete, load_base


@dataclass(frozen=True)
class Score:
    """`accuracy` in percent over all completions; `distinct` = mean number of distinct right answers a problem."""

    family: str
    problems: int
    samples: int
    accuracy: float
    distinct: float


def evaluate(
    model,
    tokenizer,
    family: str,
    count: int = 200,
    temperature: float = 0.0,
    samples: int = 1,
    seed: int = 1,
    show: int = 0,
) -> Score:
    """Score one family on `count` held-out problems, `samples` completions each."""
    problems = list(families.problems(seed, family, count, held_out=True))
    prompts = [chat_prompt(problem) for problem in problems for _ in range(samples)]
    completions = complete(model, tokenizer, prompts, temperature, seed)
    right, keys = 0, [set() for _ in problems]
    for i, completion in enumerate(completions):
        problem = problems[i // samples]
        if completion is not None and families.check(problem, completion):
            right += 1
            keys[i // samples].add(families.answer_key(family, completion))
        elif show > 0:
            show -= 1
            print(f"wrong ({family}, {problem.gt!r}): {problem.prompt}\n{completion}\n")
    distinct = sum(len(found) for found in keys) / len(problems)
    return Score(family, len(problems), samples, 100 * right / len(completions), distinct)


def table(scores: list[Score]) -> str:
    head = f"{'family':8} {'problems':>8} {'samples':>8} {'right %':>8} {'distinct':>9}"
    rows = [f"{s.family:8} {s.problems:8d} {s.samples:8d} {s.accuracy:8.1f} {s.distinct:9.2f}" for s in scores]
    return "\n".join([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of the demo base on held-out problems.")
    parser.add_argument("hf_dir", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = greedy")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--family", action="append", choices=list(families.FAMILIES))
    parser.add_argument("--show", type=int, default=0, help="print this many wrong completions a family")
    parser.add_argument("--json", type=Path, help="write the scores here too")
    args = parser.parse_args()
    model, tokenizer = load_base(args.hf_dir)
    scores = [
        evaluate(model, tokenizer, family, args.count, args.temperature, args.samples, args.seed, args.show)
        for family in args.family or families.FAMILIES
    ]
    print(table(scores))
    if args.json:
        args.json.write_text(json.dumps([asdict(score) for score in scores], indent=2) + "\n")


if __name__ == "__main__":
    main()

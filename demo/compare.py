"""Owns a first look at the shipped heads: accuracy and distinct right answers beside constant settings.

A smoke test of the demo, too small for a claim: no intervals, one seed set. It runs the installed engine on the shipped file.

    python -P demo/make.py compare [--count 60] [--samples 8]
"""

from __future__ import annotations

import argparse

from autodeco_edge import Engine, SamplingParams, demo_model
from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import chat_prompt

FAMILIES = ("word", "chain", "make", "search")


def settings(engine: Engine) -> dict[str, SamplingParams]:
    """The constants a user would try, the constant equal to the heads' own means, and the heads."""
    t, p = engine.heads.mean_temperature, engine.heads.mean_top_p
    return {
        "greedy": SamplingParams(temperature=0.0, heads_mode="none"),
        "T=1 P=1": SamplingParams(heads_mode="none"),
        "T=0.6 P=0.95": SamplingParams(temperature=0.6, top_p=0.95, heads_mode="none"),
        f"MeanShift ({t:.2f}, {p:.2f})": SamplingParams(temperature=t, top_p=p, heads_mode="none"),
        "AutoDeco": SamplingParams(),
    }


def score(engine: Engine, family: str, params: SamplingParams, count: int, samples: int) -> tuple[float, float]:
    """(accuracy in %, mean number of distinct right answers) over held-out problems."""
    right = distinct = 0
    problems = list(families.problems(9, family, count, held_out=True))
    for i, problem in enumerate(problems):
        ids = engine.model.tokenize(chat_prompt(problem), parse_special=True)
        replies = [_reply(engine, ids, params, 1000 * i + k) for k in range(samples)]
        good = [reply for reply in replies if families.check(problem, reply)]
        right += len(good)
        distinct += len({families.answer_key(family, reply) for reply in good})
    return 100 * right / (len(problems) * samples), distinct / len(problems)


def _reply(engine: Engine, ids: list[int], params: SamplingParams, seed: int) -> str:
    from dataclasses import replace

    steps = engine.generate(ids, replace(params, seed=seed), max_tokens=200)
    return engine.model.detokenize([step.id for step in steps]).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description="The shipped heads beside constant settings.")
    parser.add_argument("--count", type=int, default=60, help="held-out problems a family")
    parser.add_argument("--samples", type=int, default=8, help="replies a problem (greedy: 1)")
    args = parser.parse_args()
    engine = Engine(demo_model(), n_threads=1)
    print(f"| {'family':8} | {'method':24} | accuracy % | distinct of {args.samples} |\n|---|---|---|---|")
    for family in FAMILIES:
        for name, params in settings(engine).items():
            accuracy, distinct = score(engine, family, params, args.count, 1 if name == "greedy" else args.samples)
            print(f"| {family:8} | {name:24} | {accuracy:.1f} | {distinct:.2f} |", flush=True)

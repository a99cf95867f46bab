"""The last stage: heads and constants on the test problems."""

from __future__ import annotations

import time
from collections import defaultdict

import numpy as np

from .calibrate import OTHERS, grid
from .lab import Lab, parse
from .reward import RECIPES
from .sampler import Job, Policy, constant
from .verdicts import group_of, limit_of, seed_of


def test(lab: Lab, minutes: float) -> None:
    """Heads, their means as constants, and all constants on the test split: first what the table needs, then the grid, then the rest."""
    end = time.monotonic() + 60 * minutes
    problems = test_problems(lab)
    samples = {
        "exact": lab.options.test_samples,
        "many": lab.options.test_samples,
        "write": max(4, lab.options.test_samples // 4),
    }
    names = sorted(path.stem for path in lab.state.glob("*.heads"))
    names.sort(key=lambda name: (int(name.rsplit("-", 1)[1]), name))
    best = lab.read("chosen.json")["best"]
    needed = ["1/1", "0.2/0.9", "0.8/0.95", "0.6/0.95", *{c for b in best.values() for c in b.values()}]
    first = [constant(*parse(name)) for name in dict.fromkeys(needed)] + [OTHERS[0]]
    policies = list(first)
    for name in names:
        recipe = next(
            (r for r in RECIPES if name.startswith(r.name + "-") and name.count("-") == r.name.count("-") + 1), None
        )
        policies.append(Policy(name, heads=lab.load_heads(name), use_p=recipe.use_p if recipe else True))
    lab.measure("test", policies, problems, samples, end)
    for group, policies in mean_shifts(lab, names).items():
        lab.measure("test", policies, {k: rows for k, rows in problems.items() if group_of(k) == group}, samples, end)
    done = {p.name for p in first}
    lab.measure("test", [p for p in grid() if p.name not in done], problems, samples, end)
    ablation = [
        Policy(f"{name} {part} only", heads=lab.load_heads(name), use_t=part == "T", use_p=part == "P")
        for name in names
        if name.endswith("-0")
        for part in "TP"
    ]
    lab.measure("test", ablation, problems, samples, end)
    lab.write("files.json", sorted(p.name for p in lab.state.glob("test-*.npz")))


def test_problems(lab: Lab) -> dict[str, list[int]]:
    """Of each kind that the rule has chosen, as many as of another of its group."""
    n = lab.options.test_problems
    return {kind: lab.of(kind, "test", max(n // len(kinds), 30)) for kinds in lab.groups().values() for kind in kinds}


def mean_shifts(lab: Lab, names: list[str]) -> dict[str, list[Policy]]:
    """Of each heads the constants equal to its own means, a group at a time, over replies to *calibration* problems."""
    found: dict[str, list[Policy]] = defaultdict(list)
    for name in names:
        file = f"means-{name}.json"
        if not lab.has(file):
            policy = Policy(name, heads=lab.load_heads(name), use_p="-T-" not in name)
            jobs, of_group = [], []
            for group, kinds in lab.groups().items():
                for kind in kinds:
                    for number in lab.of(kind, "calibration", 24 if group != "write" else 8):
                        jobs += [Job(number, 0, seed_of("means", number, k), limit_of(kind)) for k in range(8)]
                        of_group += [group] * 8
            drawn = lab.sampler.draw(jobs, [policy])
            weights = np.array([len(t) for t in drawn.tokens], float)
            rows = {g: np.array([x == g for x in of_group]) for g in dict.fromkeys(of_group)}
            lab.write(
                file,
                {
                    g: [float(np.average(m[r], weights=weights[r])) for m in (drawn.mean_t, drawn.mean_p)]
                    for g, r in rows.items()
                },
            )
        for group, (t, p) in lab.read(file).items():
            if name.endswith("-0"):
                found[group].append(constant(round(t, 3), round(min(p, 1.0), 3), f"mean-shift {name} {group}"))
    return found

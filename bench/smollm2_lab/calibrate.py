"""The first stage: constants on the calibration split, which families count, and the best constants."""

from __future__ import annotations

import math
import time

import numpy as np

from .lab import Lab, about_of, coverage, keys_of, slug
from .sampler import Policy, constant
from .verdicts import group_of

GRID_T, GRID_P = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), (0.8, 0.95, 1.0)
OTHERS = (
    Policy("greedy", 0.0),
    Policy("min-p 0.05", 1.0, 1.0, 0.05),
    Policy("min-p 0.1", 1.0, 1.0, 0.1),
    Policy("dynatemp 0.5-1.5", dynatemp=(0.5, 1.5)),
    Policy("dynatemp 0-1", dynatemp=(0.0, 1.0)),
    constant(0.1, 1.0),
    constant(1.2, 0.8),
    constant(0.2, 0.9),
    constant(1.0, 0.6),
)
BASE = (0.10, 0.80)  # accuracy at T = 1, P = 1 on calibration: the rule


def grid() -> list[Policy]:
    return [constant(t, p) for t in GRID_T for p in GRID_P] + list(OTHERS)


def calibrate(lab: Lab, minutes: float) -> None:
    """All constants on the calibration split; then the rule, and the best constant of each group."""
    end = time.monotonic() + 60 * minutes
    problems = {
        kind: lab.of(kind, "calibration", 12 if group_of(kind) == "write" else 40) for kind in lab.kinds(chosen=False)
    }
    samples = {"exact": 16, "many": 16, "write": 16}
    lab.measure("base", [constant(1.0)], problems, samples, math.inf)
    base = {kind: m["accuracy"] for kind, m in about_of(keys_of(lab.state / "base-1_1.npz"))["means"].items()}
    chosen = [kind for kind, accuracy in base.items() if BASE[0] <= accuracy <= BASE[1]]
    lab.say(f"accuracy at T = 1 { {k: round(100 * v, 1) for k, v in base.items()} }; chosen {chosen}")
    problems = {kind: problems[kind] for kind in chosen}
    policies = sorted(grid(), key=lambda p: p.name not in ("1/1", "0.4/1", "0.6/0.95", "0.8/0.95"))
    lab.measure("calibration", policies[:8], problems, samples, math.inf)  # without these there is no best
    lab.measure("calibration", policies, problems, samples, end)
    done = [p for p in policies if lab.has(f"calibration-{slug(p.name)}.npz")]
    found = {p.name: keys_of(lab.state / f"calibration-{slug(p.name)}.npz") for p in done}
    best = {}
    for group in ("exact", "many", "write"):
        kinds = [k for k in chosen if group_of(k) == group]
        if kinds:
            score = {name: utility(arrays, kinds, group) for name, arrays in found.items() if "/" in name}
            accuracy = {
                name: float(np.mean([about_of(a)["means"][k]["accuracy"] for k in kinds])) for name, a in found.items()
            }
            best[group] = {
                "utility": max(score, key=score.get),
                "accuracy": max((n for n in accuracy if "/" in n), key=accuracy.get),
            }
    lab.write("chosen.json", {"rule": BASE, "base": base, "kinds": chosen, "best": best})
    lab.say(f"best {best}")


def utility(arrays: dict[str, np.ndarray], kinds: list[str], group: str) -> float:
    """What the reward heads maximise: the share that is right, and distinct right answers (open writing: how different they are)."""
    values = []
    for kind in kinds:
        keys = arrays[f"{kind}|keys"]
        right = float((keys > 0).mean())
        if group == "write":
            values.append(right * (1 + 1 - float(arrays[f"{kind}|self_bleu"].mean())))
        else:
            spread = np.mean([coverage(row, 16) for row in keys]) / 16 if group == "many" else 0.0
            values.append(right + float(spread))
    return float(np.mean(values))

"""Heads of several trainings beside each other: `python -P bench/smollm2_seeds.py STATE...`, behind bench/smollm2_seeds.sh.

The three seeds of the official loss on the same replies, the reward heads of a `fit` of an hour, and those of a card, drawn in
one run with the same random numbers. Differences are paired by problem; the mean over groups weighs groups alike. Writes
bench/results/smollm2-seeds.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from autodeco_edge.eval.statistics import bootstrap, paired_bootstrap  # noqa: E402
from bench.smollm2_lab.lab import about_of, coverage, keys_of  # noqa: E402
from bench.smollm2_table import AMONG, GROUPS, within_groups  # noqa: E402

SEEDS = ("seed-0", "seed-1", "seed-2")
CARD = "reward-all-0"
OTHERS = ("recipe-likelihood", "recipe-reward")


def arrays_of(states: Sequence[Path], name: str) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
    """(arrays, means of each kind) of a method, whose groups may lie in several folders."""
    arrays, means = {}, {}
    for file in (state / f"test-{name}.npz" for state in states):
        if file.exists():
            arrays |= (found := keys_of(file))
            means |= about_of(found)["means"]
    return arrays, means


def read(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """group -> {"accuracy", "spread"} [n_problems] of the groups that are there; spread where so many are compared."""
    found = {}
    for group, kinds in GROUPS.items():
        keys = [row for kind in kinds for row in arrays.get(f"{kind}|keys", ())]
        if keys:
            found[group] = {"accuracy": np.array([(row > 0).mean() for row in keys])}
            if group != "write" and len(keys[0]) >= AMONG[group]:
                found[group]["spread"] = np.array([coverage(row, AMONG[group]) / AMONG[group] for row in keys])
    return found


def means_of(of: dict[str, dict], groups: Iterable[str]) -> dict[str, dict[str, float]]:
    """group -> mean T and P of its kinds, by tokens."""
    return {
        group: {
            k: float(
                np.average(
                    [of[kind][k] for kind in GROUPS[group]], weights=[of[kind]["tokens"] for kind in GROUPS[group]]
                )
            )
            for k in "tp"
        }
        for group in groups
    }


def row(name: str, of: dict, card: dict) -> dict:
    """Accuracy of each group and of all, and the card's heads less it."""
    found = {group: asdict(bootstrap(s["accuracy"])) for group, s in of.items()}
    lead = {g: card[g]["accuracy"] - of[g]["accuracy"] for g in of}
    found["all"] = {"mean": float(np.mean([of[g]["accuracy"].mean() for g in of]))}
    if name != CARD:
        found["card_minus_it"] = {g: asdict(paired_bootstrap(card[g]["accuracy"], of[g]["accuracy"])) for g in of}
        found["card_minus_it"]["all"] = within_groups(list(lead.values()))
    found["spread"] = {g: float(s["spread"].mean()) for g, s in of.items() if "spread" in s}
    return found


def between(scores: dict[str, dict]) -> dict:
    """Of the seeds, by group: standard deviation of the accuracy, and the largest difference of two with its interval."""
    found = {}
    for group in scores[SEEDS[0]]:
        of = [scores[name][group]["accuracy"] for name in SEEDS]
        pairs = [asdict(paired_bootstrap(a, b)) for a, b in combinations(of, 2)]
        found[group] = {
            "sd": float(np.std([a.mean() for a in of], ddof=1)),
            "largest": max(pairs, key=lambda d: abs(d["mean"])),
        }
    found["all"] = {
        "sd": float(np.std([np.mean([of["accuracy"].mean() for of in scores[n].values()]) for n in SEEDS], ddof=1))
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("states", type=Path, nargs="+", help="folders of `more`: groups may lie in several")
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-seeds.json"))
    options = parser.parse_args()
    found = {name: arrays_of(options.states, name) for name in (CARD, *OTHERS, *SEEDS)}
    names = [name for name, (arrays, _) in found.items() if arrays]
    scores = {name: read(found[name][0]) for name in names}
    groups = list(scores[CARD])
    result = {
        "replies": {g: int(found[CARD][0][f"{GROUPS[g][0]}|keys"].shape[1]) for g in groups},
        "problems": {g: len(scores[CARD][g]["accuracy"]) for g in groups},
        "heads": {
            name: row(name, scores[name], scores[CARD]) | {"means": means_of(found[name][1], groups)} for name in names
        },
    }
    if set(SEEDS) <= set(names):
        result["between_seeds"] = between(scores)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

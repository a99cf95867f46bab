"""More methods on the test problems, with the seeds of the others, where there is no card: `more`, minutes a method.

Owns how a method is named. A method that has a file is not drawn again; those of a call are drawn side by side and written together. Fewer samples than the card drew are its first ones.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

from .comparison import mean_shifts, test_problems
from .lab import Lab, parse
from .sampler import Policy, constant
from .verdicts import group_of


def more(options: argparse.Namespace) -> None:
    """options.policies: those of `policy`. options.draws: {group: samples a problem}, JSON; a group that is not in it is left out."""
    samples = json.loads(options.draws)
    lab = Lab(options)
    problems = {kind: rows for kind, rows in test_problems(lab).items() if group_of(kind) in samples}
    policies = [policy(lab, text) for text in options.policies]
    lab.measure("test", policies, problems, samples, math.inf, at_once=1 << 30)  # a prompt is read once for all


def policy(lab: Lab, text: str) -> Policy:
    """
    T/P                 a constant                min-p 0.05, dynatemp 0.5-1.5    as llama.cpp has them
    HEADS               of the state              NAME=FILE.gguf                  heads of a file
    HEADS T, HEADS P    one head, the other counts as 1
    mean HEADS GROUP    the constant with their mean T and P over calibration problems of the group
    """
    rule, _, value = text.partition(" ")
    if rule == "min-p":
        return Policy(text, min_p=float(value))
    if rule == "dynatemp":
        low, high = value.split("-")
        return Policy(text, dynatemp=(float(low), float(high)))
    if rule == "mean":
        return _mean_of(lab, *value.split(" "))
    if value in ("T", "P"):
        return replace(policy(lab, rule), name=text, use_t=value == "T", use_p=value == "P")
    if "=" in text:
        return _of_file(lab, *text.split("=", 1))
    return Policy(text, heads=lab.load_heads(text)) if lab.has(f"{text}.heads") else constant(*parse(text))


def _of_file(lab: Lab, name: str, file: str) -> Policy:
    from autodeco_edge.train.checkpoint import load_heads

    return Policy(name, heads=load_heads(Path(file)).heads.to(lab.device))


def _mean_of(lab: Lab, name: str, group: str) -> Policy:
    mean_shifts(lab, [name])
    t, p = lab.read(f"means-{name}.json")[group]
    return constant(*parse(f"{t:.3g}/{p:.3g}"))

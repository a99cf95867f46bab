"""What came back as tables, JSON and checkpoints."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .lab import about_of, coverage, keys_of, slug
from .model import Shape
from .verdicts import group_of


def report(options: argparse.Namespace) -> None:
    """Summarises the results of `run` that came back: a table a group, and everything as JSON in TO/smollm2-lab.json."""
    state = Path(options.out or Path(options.folder) / "state")
    chosen = json.loads((state / "chosen.json").read_text())
    files = {about_of(arrays)["policy"]: arrays for arrays in map(keys_of, sorted(state.glob("test-*.npz")))}
    result: dict[str, Any] = {"chosen": chosen, "groups": {}}
    for group in ("exact", "many", "write"):
        kinds = [k for k in chosen["kinds"] if group_of(k) == group]
        if kinds and any(f"{kinds[0]}|keys" in arrays for arrays in files.values()):
            result["groups"][group] = summarise(files, kinds, group)
            print_table(group, kinds, result["groups"][group])
    heads = {p.stem: torch.load(p, map_location="cpu")["about"] for p in sorted(state.glob("*.heads"))}
    result["training"] = heads
    if options.to:
        Path(options.to).mkdir(parents=True, exist_ok=True)
        (Path(options.to) / "smollm2-lab.json").write_text(json.dumps(result, indent=1) + "\n")


def export(options: argparse.Namespace) -> None:
    """Heads of state/ as checkpoints TO/NAME, which `autodeco-edge convert` takes; their means are those over the test, those
    of untested ones are not known."""
    from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
    from autodeco_edge.train.checkpoint import autodeco_config, save_heads
    from autodeco_edge.train.modules import AutoDecoHeads

    state = Path(options.out or Path(options.folder) / "state")
    shape = Shape()
    for path in sorted(state.glob("*.heads")):
        tensors = torch.load(path, map_location="cpu")["heads"]
        n_hidden, width = tensors["temp_head.mlp.0.weight"].shape
        heads = AutoDecoHeads(HeadSpec(width, n_hidden, FEATURES_ENHANCED, True, True))
        heads.load_state_dict(tensors)
        base = {"model_type": "llama", "hidden_size": width, "vocab_size": shape.vocab}
        config = autodeco_config(base, heads.spec, "SmolLM2-135M-Instruct", *_means(state, path.stem))
        save_heads(Path(options.to) / path.stem, heads, config, "f32")
        print(Path(options.to) / path.stem)


def _means(state: Path, name: str) -> tuple[float | None, float | None]:
    """Mean T and P over the kinds of the test, each weighing as many tokens as it has."""
    if not (state / f"test-{slug(name)}.npz").exists():
        return None, None
    means = about_of(keys_of(state / f"test-{slug(name)}.npz"))["means"].values()
    weights = [m["tokens"] for m in means]
    return tuple(float(np.average([m[k] for m in means], weights=weights)) for k in ("t", "p"))


def scores(arrays: dict[str, np.ndarray], kinds: list[str], group: str) -> dict[str, np.ndarray]:
    """Per problem: accuracy, and distinct right answers among 16 (open writing: 1 - self-BLEU, and ln p of a token)."""
    keys = [arrays[f"{kind}|keys"] for kind in kinds]
    found = {"accuracy": np.concatenate([(k > 0).mean(1) for k in keys])}
    half = [k.shape[1] // 2 for k in keys]
    if min(half):
        found["first seeds"] = np.concatenate([(k[:, :h] > 0).mean(1) for k, h in zip(keys, half, strict=True)])
        found["second seeds"] = np.concatenate([(k[:, h:] > 0).mean(1) for k, h in zip(keys, half, strict=True)])
    if group == "write":
        if f"{kinds[0]}|self_bleu" in arrays:
            found["coverage"] = np.concatenate([1 - arrays[f"{kind}|self_bleu"] for kind in kinds])
            found["distinct_2"] = np.concatenate([arrays[f"{kind}|distinct_2"] for kind in kinds])
            found["log_p"] = np.concatenate([arrays[f"{kind}|log_p"] for kind in kinds])
    else:
        found["coverage"] = np.concatenate([[coverage(row, 16) / 16 for row in k] for k in keys])
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def summarise(files: dict[str, dict[str, np.ndarray]], kinds: list[str], group: str) -> dict[str, Any]:
    """Of every method its means with intervals, its place against the frontier of the constants, and differences from heads."""
    from autodeco_edge.eval.statistics import bootstrap, outside, outside_interval, paired_bootstrap

    of = {
        name: scores(arrays, kinds, group)
        for name, arrays in files.items()
        if all(f"{k}|keys" in arrays for k in kinds)
    }
    points = {n: np.stack([s["accuracy"], s["coverage"]], 1) for n, s in of.items() if "coverage" in s}  # [problems, 2]
    constants = [p for n, p in points.items() if is_constant(n)]
    methods: dict[str, Any] = {}
    for name, s in of.items():
        row: dict[str, Any] = {m: vars(bootstrap(v)) for m, v in s.items()}
        if constants and name in points:
            row["outside"] = outside(points[name].mean(0), [p.mean(0) for p in constants])
            if is_heads(name):
                row["outside_interval"] = vars(outside_interval(points[name], np.stack(constants)))
        methods[name] = row | {"means": {k: about_of(files[name])["means"][k] for k in kinds}}
    heads = [n for n in of if is_heads(n)]
    differences = {
        h: {
            o: {
                m: vars(paired_bootstrap(of[h][m], of[o][m]))
                for m in ("accuracy", "coverage")
                if m in of[o] and m in of[h]
            }
            for o in of
            if o != h
        }
        for h in heads
    }
    return {
        "kinds": kinds,
        "n_problems": len(next(iter(of.values()))["accuracy"]),
        "methods": methods,
        "differences": differences,
    }


def is_constant(name: str) -> bool:
    return name.replace(".", "").replace("/", "").isdigit() and "/" in name or name.startswith("mean-shift")


def is_heads(name: str) -> bool:
    return name.startswith(("likelihood", "reward", "replay"))


def print_table(group: str, kinds: list[str], found: dict[str, Any]) -> None:
    print(f"\n{group}: {', '.join(kinds)}; {found['n_problems']} problems")
    rows = sorted(found["methods"].items(), key=lambda item: -item[1]["accuracy"]["mean"])
    for name, m in rows:
        a, c = m["accuracy"], m.get("coverage", {"mean": math.nan})
        of = m.get("outside_interval")
        between = f" [{of['low']:+.4f}, {of['high']:+.4f}]" if of else ""
        print(
            f"  {name:45s} {100 * a['mean']:5.1f} [{100 * a['low']:5.1f}, {100 * a['high']:5.1f}]  {c['mean']:.3f}  {m.get('outside', math.nan):+.4f}{between}"
        )

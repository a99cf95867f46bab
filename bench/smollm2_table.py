"""The table of the real model: every method beside the heads, `python -P bench/smollm2_table.py EVALS --lab STATE`.

STATE is what the lab brought back from a GPU (bench/smollm2_lab): the heads, and constants. EVALS has folders of
`autodeco-edge eval`, drawn on two cores (bench/smollm2_table.sh): the heads' own mean, min-p, dynatemp, turn. Both ask the
same problems, so replies are paired by problem. Prints and writes bench/results/smollm2-table.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from autodeco_edge.eval.diversity import self_bleu
from autodeco_edge.eval.statistics import bootstrap, distinct_of, outside_interval, paired_bootstrap, pass_at_k

GROUPS = {
    "write": ("write:story", "write:list", "write:advice", "write:letter"),
    "many": ("many:country", "many:other", "many:bound"),
    "exact": ("rg:chain_sum,min_terms=2,max_terms=2,max_digits=1", "rg:syllogism"),
}
PROBLEMS = {"write": 40, "many": 53, "exact": 80}  # of a kind, at most: the lab's
HEADS = "replay-0"  # of the lab: those of the package
AMONG = {"write": 4, "many": 16, "exact": 16}  # replies whose difference is measured
PASS_AT = (4, 16, 64)
LAB_CONSTANTS = ("1/1", "0.8/0.95", "0.6/0.95", "0.4/1", "0.3/0.8", "0.2/0.9")

Scores = dict[
    str, np.ndarray
]  # [n_problems]: accuracy and spread, shares; n and right, replies; NaN or 0 where none is there
Reply = tuple[str | None, str]  # key of a right answer, None of a wrong one; text, "" where it was not kept


def scores(group: str, problems: Iterable[Sequence[Reply]]) -> Scores:
    """Of every problem's replies; the spread is NaN of problems that have fewer than are compared."""
    rows = []
    for replies in problems:
        keys = [key for key, _ in replies]
        right = sum(key is not None for key in keys)
        accuracy = right / len(keys) if keys else np.nan
        rows.append((accuracy, _spread(group, replies), len(keys), right))
    return dict(zip(("accuracy", "spread", "n", "right"), np.array(rows, float).T, strict=True))


def _spread(group: str, replies: Sequence[Reply]) -> float:
    """Distinct right answers among 16, a share; of open writing 1 - self-BLEU of the first four replies."""
    m = AMONG[group]
    if len(replies) < m:
        return np.nan
    if group == "write":
        return 1 - self_bleu([text for _, text in replies[:m]])
    return distinct_of([key for key, _ in replies], m) / m


# ---- what there is ---------------------------------------------------------------------


def drawn(evals: Path, ids: Sequence[str]) -> dict[str, list[list[Reply]]]:
    """method -> replies of each problem in the order of ``ids``, of every folder of `eval` that has one of them."""
    rows: dict[str, dict[str, dict[int, Reply]]] = defaultdict(lambda: defaultdict(dict))
    for file in sorted(evals.glob("*/samples/*.jsonl")):
        head, *lines = (json.loads(line) for line in file.read_text().splitlines())
        for row in lines:
            rows[head["method"]][row["problem"]][row["sample"]] = (row["key"] if row["right"] else None, row["text"])
    found = {name: [[r for _, r in sorted(of[i].items())] for i in ids] for name, of in rows.items()}
    return {name: replies for name, replies in found.items() if any(replies)}


def of_lab(state: Path, group: str, vocab: list[bytes]) -> dict[str, list[list[Reply]]]:
    """The same of the lab, which keeps the text of a problem's first replies alone."""
    found = {}
    for file in sorted(state.glob("test-*.npz")):
        arrays = dict(np.load(file))
        name = json.loads(str(arrays["about"]))["policy"]
        kinds = [kind for kind in GROUPS[group] if f"{kind}|keys" in arrays]
        found[name] = [replies for kind in kinds for replies in _of_kind(arrays, kind, vocab)]
    return {name: replies for name, replies in found.items() if replies}


def _of_kind(arrays: dict[str, np.ndarray], kind: str, vocab: list[bytes]) -> list[list[Reply]]:
    keys = arrays[f"{kind}|keys"]
    ends = np.cumsum(arrays[f"{kind}|lengths"])
    texts = [_text(part, vocab) for part in np.split(arrays[f"{kind}|tokens"], ends[:-1])]
    n_kept = len(texts) // len(keys)
    return [
        [(str(key) if key else None, texts[row * n_kept + i] if i < n_kept else "") for i, key in enumerate(own)]
        for row, own in enumerate(keys.tolist())
    ]


def _text(tokens: np.ndarray, vocab: list[bytes]) -> str:
    return b"".join(vocab[t] for t in tokens.tolist()).decode("utf-8", "replace")


# ---- figures ---------------------------------------------------------------------------


def own_means(state: Path) -> dict[str, str]:
    """Of each group the constant with the heads' own mean T and P, over calibration problems (comparison.mean_shifts)."""
    means = json.loads((state / f"means-{HEADS}.json").read_text())
    return {group: f"{t:.3g}/{p:.3g}" for group, (t, p) in means.items()}


def summary(lab: dict[str, Scores], here: dict[str, Scores], group: str, own_mean: str = "") -> dict:
    """methods: name -> figures; those drawn here are paired on the problems that they have."""
    ours = lab[HEADS]
    rows = {name: _row(s, ours, "lab") for name, s in lab.items()}
    rows |= {name if name not in rows else f"{name} here": _row(s, ours, "here") for name, s in here.items()}
    constants = {name: lab[name] for name in LAB_CONSTANTS}
    result = {
        "n_problems": len(ours["accuracy"]),
        "among": AMONG[group],
        "oracle": max(constants, key=lambda name: constants[name]["accuracy"].mean()),
        "methods": rows,
        "outside": _outside(ours, list(constants.values())),
    }
    if own_mean in lab or own_mean in here:
        reference = (lab if own_mean in lab else here)[own_mean]
        result["mean_shift"] = own_mean
        result["outside_with_mean_shift"] = _outside(ours, [*constants.values(), reference])
        result["outside_without"] = _outside(ours, list(constants.values()), np.isfinite(reference["spread"]))
        if "autodeco" in here and own_mean in here:
            result["autodeco_minus_mean_shift"] = _lead(here["autodeco"], here[own_mean])
    return result


def _outside(ours: Scores, constants: list[Scores], among: np.ndarray | None = None) -> dict | None:
    """Beyond the frontier of the constants, on the problems where all have a spread."""
    known = np.all([np.isfinite(s["spread"]) for s in (ours, *constants)], axis=0)
    known = known if among is None else known & among
    if not known.any():
        return None
    points = [np.stack([s["accuracy"], s["spread"]], 1)[known] for s in (ours, *constants)]
    return asdict(outside_interval(points[0], np.stack(points[1:]))) | {"n_problems": int(known.sum())}


def _row(s: Scores, ours: Scores, where: str) -> dict:
    n = s["n"][s["n"] > 0]
    row = {"where": where, "replies": int(n.min()), "heads_minus_it": _lead(ours, s)}
    row["pass_at"] = {
        str(k): float(pass_at_k(s["n"][s["n"] > 0].astype(int), s["right"][s["n"] > 0].astype(int), k).mean())
        for k in PASS_AT
        if k <= n.min()
    }
    for measure in ("accuracy", "spread"):
        known = np.isfinite(s[measure])
        if known.any():
            row[measure] = asdict(bootstrap(s[measure][known])) | {"n_problems": int(known.sum())}
    return row


def _lead(a: Scores, b: Scores) -> dict:
    """a - b with intervals, over the problems that both have."""
    found = {}
    for measure in ("accuracy", "spread"):
        known = np.isfinite(a[measure]) & np.isfinite(b[measure])
        if known.any():
            found[measure] = asdict(paired_bootstrap(a[measure][known], b[measure][known]))
    return found


def everywhere(lab: dict[str, dict[str, Scores]]) -> dict:
    """One setting for all groups, which weigh the same: what each has, and the heads less it. Problems are drawn again
    within their groups."""
    found = {}
    for name in (HEADS, *LAB_CONSTANTS, "greedy"):
        row: dict = {}
        for measure in ("accuracy", "spread"):
            own = [lab[group][name][measure] for group in GROUPS]
            if all(np.isfinite(values).all() for values in own):
                ours = [lab[group][HEADS][measure] for group in GROUPS]
                row[measure] = float(np.mean([values.mean() for values in own]))
                row[f"heads_minus_it_{measure}"] = within_groups([a - b for a, b in zip(ours, own, strict=True)])
        found[name] = row
    return found


def within_groups(differences: list[np.ndarray], n_resamples: int = 10_000) -> dict[str, float]:
    rng = np.random.default_rng(0)
    means = np.mean([d[rng.integers(len(d), size=(n_resamples, len(d)))].mean(1) for d in differences], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": float(np.mean([d.mean() for d in differences])), "low": float(low), "high": float(high)}


def main() -> None:
    from autodeco_edge.engine.model import Model
    from autodeco_edge.hub import resolve
    from autodeco_edge.tasks import load_task

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evals", type=Path)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-table.json"))
    options = parser.parse_args()
    model = Model(resolve("smollm2-135m", "none", offline=True).model)
    vocab = [model.token_bytes(i) for i in range(model.n_vocab)]
    result, of_groups, own = {}, {}, own_means(options.lab)
    for group, kinds in GROUPS.items():
        lab = {name: scores(group, of) for name, of in of_lab(options.lab, group, vocab).items()}
        of_groups[group] = lab
        ids = [p.id for kind in kinds for p in load_task(kind, limit=PROBLEMS[group]).problems]
        here = {name: scores(group, of) for name, of in drawn(options.evals, ids).items()}
        result[group] = summary(lab, here, group, own[group])
        print(group, {name: value for name, value in result[group].items() if name != "methods"})
        for name, row in result[group]["methods"].items():
            cells = {m: f"{row[m]['mean']:.3f}" for m in ("accuracy", "spread") if m in row}
            lead = {m: " ".join(f"{v:+.3f}" for v in d.values()) for m, d in row["heads_minus_it"].items()}
            print(f"  {name:30s} {row['where']:4s} {row['replies']:3d} {cells} heads - it {lead}")
    result["everywhere"] = everywhere(of_groups)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

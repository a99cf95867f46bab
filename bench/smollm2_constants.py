"""The SmolLM2 heads beside their own mean, min-p and dynatemp: `python bench/smollm2_constants.py EVALS --lab STATE`.

EVALS has a folder of `autodeco-edge eval` for each kind (bench/smollm2_constants.sh draws them, on two cores); STATE is
what the lab brought back from a GPU (bench/smollm2_lab). Both ask the same problems in the same order, so replies are paired
by problem. Prints and writes bench/results/smollm2-constants.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from autodeco_edge.eval.diversity import self_bleu
from autodeco_edge.eval.statistics import bootstrap, distinct_of, outside_interval, paired_bootstrap

GROUPS = {
    "write": ("write:story", "write:list", "write:advice", "write:letter"),
    "many": ("many:country", "many:other", "many:bound"),
}
HEADS = "reward-all-0"  # of the lab: those of the package
MEAN_SHIFT = {"write": "0.984/0.916", "many": "0.771/0.9"}  # the heads' means on calibration problems
AMONG = {"write": 4, "many": 16}  # replies whose difference is measured

Scores = dict[str, np.ndarray]  # accuracy and spread [n_problems], shares; replies: how many of each


def drawn(folder: Path, method: str, group: str) -> Scores | None:
    """Of samples that `eval` wrote; None where a kind has none. The problems in the order of their first sample's row in
    the task, which is that of the lab."""
    from autodeco_edge.tasks import load_task

    accuracy, spread, n = [], [], []
    for kind in GROUPS[group]:
        file = folder / kind.replace(":", "-") / "samples" / f"{method.replace('/', '-')}.jsonl"
        if not file.exists():
            return None
        rows = [json.loads(line) for line in file.read_text().splitlines()[1:]]
        for problem in load_task(kind, limit=53 if group == "many" else 40).problems:
            own = sorted((r for r in rows if r["problem"] == problem.id), key=lambda r: r["sample"])
            accuracy.append(np.mean([r["right"] for r in own]))
            keys = [r["key"] if r["right"] else None for r in own]
            spread.append(_spread(group, keys, [r["text"] for r in own]))
            n.append(len(own))
    return {"accuracy": np.array(accuracy), "spread": np.array(spread), "replies": np.array(n)}


def of_lab(state: Path, method: str, group: str, vocab: list[bytes]) -> Scores:
    arrays = dict(np.load(state / f"test-{method.replace('/', '_')}.npz"))
    accuracy, spread, n = [], [], []
    for kind in GROUPS[group]:
        keys, lengths = arrays[f"{kind}|keys"], arrays[f"{kind}|lengths"].reshape(len(arrays[f"{kind}|keys"]), -1)
        ends = np.cumsum(lengths.reshape(-1))
        texts = [_text(part, vocab) for part in np.split(arrays[f"{kind}|tokens"], ends[:-1])]
        for row, own in enumerate(keys):
            accuracy.append((own > 0).mean())
            few = texts[row * lengths.shape[1] : (row + 1) * lengths.shape[1]]
            spread.append(_spread(group, [str(k) if k > 0 else None for k in own], few))
            n.append(len(own))
    return {"accuracy": np.array(accuracy), "spread": np.array(spread), "replies": np.array(n)}


def _spread(group: str, keys: list[str | None], texts: list[str]) -> float:
    """Distinct right answers among 16, a share; of open writing 1 - self-BLEU of the first four replies."""
    m = AMONG[group]
    if group == "many":
        return distinct_of(keys, m) / m
    return 1 - self_bleu(texts[:m]) if len(texts) >= m else float("nan")


def _text(tokens: np.ndarray, vocab: list[bytes]) -> str:
    return b"".join(vocab[t] for t in tokens.tolist()).decode("utf-8", "replace")


def summary(evals: Path, state: Path, group: str, vocab: list[bytes]) -> dict:
    ours = of_lab(state, HEADS, group, vocab)
    constants = {n: of_lab(state, n, group, vocab) for n in ("0.4/1", "0.6/0.95", "0.8/0.95", "1/1")}
    found = {f"{HEADS} (lab)": ours, **{f"{n} (lab)": s for n, s in constants.items()}}
    names = (MEAN_SHIFT[group], "autodeco", "min-p", "dynatemp")
    here = {name: scores for name in names if (scores := drawn(evals, name, group))}
    found |= here
    reference = here[MEAN_SHIFT[group]]
    known = np.isfinite(reference["spread"])  # problems with replies enough
    points = np.stack([_points(s)[known] for s in (*constants.values(), reference)])
    result = {
        "mean_shift": MEAN_SHIFT[group],
        "n_problems": len(ours["accuracy"]),
        "among": AMONG[group],
        "methods": {name: _row(scores, ours) for name, scores in found.items()},
    }
    if known.any():
        result["outside_with_mean_shift"] = asdict(outside_interval(_points(ours)[known], points))
        result["outside_without"] = asdict(outside_interval(_points(ours)[known], points[:-1]))
    if "autodeco" in here:
        result["autodeco_minus_mean_shift"] = _row(reference, here["autodeco"])["heads_minus_it"]
    return result


def _points(scores: Scores) -> np.ndarray:
    return np.stack([scores["accuracy"], scores["spread"]], 1)


def _row(scores: Scores, ours: Scores) -> dict:
    """Means with intervals, and the heads of the lab minus the method."""
    row = {"replies": int(scores["replies"].min()), "heads_minus_it": {}}
    for measure in ("accuracy", "spread"):
        known = np.isfinite(scores[measure]) & np.isfinite(ours[measure])
        if known.any():
            row[measure] = asdict(bootstrap(scores[measure][known])) | {"n_problems": int(known.sum())}
            row["heads_minus_it"][measure] = asdict(paired_bootstrap(ours[measure][known], scores[measure][known]))
    return row


def main() -> None:
    from autodeco_edge.engine.model import Model
    from autodeco_edge.hub import resolve

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("evals", type=Path)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-constants.json"))
    options = parser.parse_args()
    model = Model(resolve("smollm2-135m", "none", offline=True).model)
    vocab = [model.token_bytes(i) for i in range(model.n_vocab)]
    result = {group: summary(options.evals, options.lab, group, vocab) for group in GROUPS}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    for group, found in result.items():
        print(
            group,
            "outside with mean-shift:",
            found.get("outside_with_mean_shift"),
            "without:",
            found.get("outside_without"),
        )
        for name, row in found["methods"].items():
            cells = {m: f"{row[m]['mean']:.3f}" for m in ("accuracy", "spread") if m in row}
            lead = {m: " ".join(f"{v:+.3f}" for v in d.values()) for m, d in row["heads_minus_it"].items()}
            print(f"  {name:22s} {row['replies']:3d} {cells} heads - it {lead}")


if __name__ == "__main__":
    main()

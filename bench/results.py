"""Fills the tables of docs/results.md and draws its pictures, from bench/results: eval-*.json, smollm2-*.json, gemma3-*.json.

    python -P bench/results.py --results bench/results --page docs/results.md --images docs/images

Owns the form of the tables. Reads what `autodeco-edge eval`, `eval drift` and `eval steering` wrote with --json, and
draws no sample. As in plot.py, what stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from autodeco_edge.cli.eval import _drift_tables as drift_tables
from autodeco_edge.eval import figures, steering
from autodeco_edge.eval.report import frontier_line
from autodeco_edge.eval.report import table as report_table

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from bench import smollm2_tables  # noqa: E402
from bench.plot import fill, table  # noqa: E402

FAMILIES = ("demo:word", "demo:chain", "demo:make", "demo:search")
MANY = ("demo:make", "demo:search")  # with many right answers


def setup(results: dict) -> str:
    config = results["eval-demo"]["config"]
    limits, means = config["limits"], results["eval-demo"]["mean_shift"]
    shifts = ", ".join(f"{name or 'official heads'} {t:.2f} / {p:.2f}" for name, (t, p) in means.items())
    return (
        f"{config['n_problems']} held-out problems, {config['samples']} samples x {config['seeds']} seeds each, at most "
        f"{limits['max_tokens']} tokens; {config['model']}. Mean T / P on the calibration split: {shifts}."
    )


def main_table(results: dict) -> str:
    group = results["eval-demo"]["groups"]["all"]
    return "\n\n".join(report_table(group, ours) for ours in group["differences"])


def family_table(results: dict) -> str:
    groups = results["eval-demo"]["groups"]
    header = [
        "method",
        *(f"{name.removeprefix('demo:')} %" for name in FAMILIES),
        *(f"{n[5:]}, distinct" for n in MANY),
    ]
    rows = []
    for method in groups["all"]["methods"]:
        found = {name: groups[name]["methods"][method] for name in FAMILIES}
        rows.append(
            [
                method,
                *(f"{100 * found[name]['accuracy']['mean']:.1f}" for name in FAMILIES),
                *(f"{found[name]['coverage']['mean']:.2f}" for name in MANY),
            ]
        )
    return table(header, rows)


def frontier_text(results: dict) -> str:
    lines = []
    for name in MANY:
        found = results["eval-demo"]["groups"][name]["frontier"]
        lines += [f"- {name.removeprefix('demo:')}: {frontier_line(method, found)}." for method in found["interval"]]
    return "\n".join(lines)


def expert_text(results: dict) -> str:
    tuned = results["eval-demo"]["expert"]
    t, p = tuned["best"]
    return f"Chosen on the test problems themselves with {tuned['samples']} samples a constant: T = {t:g}, P = {p:g}."


def choice_table(results: dict) -> str:
    groups = results["eval-choice"]["groups"]
    header = ["heads", "accuracy %", "make % / distinct", "search % / distinct", "mean T", "mean P"]
    rows = []
    for method, row in groups["all"]["methods"].items():
        cells = [
            f"{100 * row['accuracy']['mean']:.1f} [{100 * row['accuracy']['low']:.1f}, {100 * row['accuracy']['high']:.1f}]"
        ]
        for name in MANY:
            found = groups[name]["methods"][method]
            cells.append(f"{100 * found['accuracy']['mean']:.1f} / {found['coverage']['mean']:.2f}")
        cells += ["" if row[k] is None else f"{row[k]:.2f}" for k in ("mean_temperature", "mean_top_p")]
        rows.append([method, *cells])
    return table(header, rows)


def steering_tables(results: dict) -> str:
    before, after = (steering.table(results[f"eval-steering-{when}"]) for when in ("before", "after"))
    return f"Before (the heads as they are: the emergent effect):\n\n{before}\n\nAfter:\n\n{after}"


TABLES = {
    "setup": ("eval-demo", setup),
    "main": ("eval-demo", main_table),
    "families": ("eval-demo", family_table),
    "frontier": ("eval-demo", frontier_text),
    "expert": ("eval-demo", expert_text),
    "choice": ("eval-choice", choice_table),
    "drift": ("eval-drift", lambda results: drift_tables(results["eval-drift"])),
    "steering": ("eval-steering-after", steering_tables),
    "smollm2-drift": ("smollm2-drift", lambda results: drift_tables(results["smollm2-drift"])),
    "smollm2-steering": ("smollm2-steering", lambda results: steering.table(results["smollm2-steering"])),
    **smollm2_tables.TABLES,
}


def read(folder: Path) -> dict:
    """Report by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    args = parser.parse_args()
    results = read(args.results)
    for path in figures.save_figures(results["eval-demo"], args.images):
        print(path)
    args.page.write_text(fill(args.page.read_text(), results, TABLES))


if __name__ == "__main__":
    main()

"""Fills the tables of docs/speculative.md from bench/results/speculative.json and draft-campaign.json.

    python -P bench/speculative_page.py

Owns the form of the tables; as in plot.py, what stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # behind the installed packages
from autodeco_edge.bench.machine import one_line  # noqa: E402
from bench.plot import fill, table  # noqa: E402

PAGE = ROOT / "docs" / "speculative.md"
RESULTS = ROOT / "bench" / "results"
KINDS = ("quote", "code", "json", "repeating", "free")
SETTINGS = {"heads": "heads", "T 1": "T = 1", "0.8/0.95": "0.8/0.95"}
MAIN = "Q4_1, 2, held-out"  # of which all contenders are shown
WORDS = {
    "own": "the engine's own",
    "without heads": "the same without the heads' word",
    "fixed 3/8": "fixed: 8 tokens behind 3 alike",
    "ngram-simple 12/48": "llama.cpp's ngram-simple: 48 tokens behind 12 alike",
}


def interval(row: dict) -> str:
    of = row["speed_by_prompt"]
    return f"{row['speed']:.2f} (median {of['median']:.2f} [{of['low']:.2f}, {of['high']:.2f}])"


def of_weights(name: str) -> str:
    weights, threads, prompts = name.split(", ")[:3]
    return f"{weights}, {threads} {'thread' if threads == '1' else 'threads'}, {prompts}"


def runs(results: dict) -> Iterator[tuple[str, dict]]:
    for name, run in sorted(results["speculative"].items()):
        if not name.endswith("model"):
            yield of_weights(name), run


def machine(results: dict) -> str:
    run = results["speculative"][MAIN]
    return f"{one_line(run['machine'])}."


def rows_table(results: dict) -> str:
    columns = list(results["speculative"][MAIN]["row_costs"])
    found = {name.rsplit(", ", 1)[0]: run["row_costs"] for name, run in runs(results)}
    return table(
        ["Weights", *(f"{n} rows" for n in columns[1:])],
        [[name, *(f"{costs[n]:.2f}" for n in columns[1:])] for name, costs in found.items()],
    )


def speeds_table(results: dict) -> str:
    rows = []
    for name, run in runs(results):
        for setting, words in SETTINGS.items():
            found = {kind: run["speed"][kind][setting]["own"] for kind in KINDS}
            rows.append(
                [
                    name,
                    words,
                    *(f"{found[kind]['speed']:.2f}" for kind in KINDS[:3]),
                    *map(interval, (found["repeating"], found["free"])),
                ]
            )
    return table(
        ["Weights, threads, prompts", "sampling", "quotations", "code", "JSON", "all that repeats", "free text"], rows
    )


def rules_table(results: dict) -> str:
    speed = results["speculative"][MAIN]["speed"]
    rows = []
    for name, words in WORDS.items():
        repeating, free = speed["repeating"]["heads"][name], speed["free"]["heads"][name]
        rows.append(
            [
                words,
                f"{repeating['speed']:.2f}",
                f"{repeating['tokens_a_decode']:.2f}",
                right(repeating),
                f"{free['speed']:.2f}",
            ]
        )
    return table(["Rule", "text that repeats", "tokens a decode", "guesses right", "free text"], rows)


def right(row: dict) -> str:
    return f"{100 * row['accepted']:.0f} % of {row['drafted']}" if row["drafted"] else "no draft"


def acceptance_table(results: dict) -> str:
    rows = []
    for name, run in runs(results):
        for setting, words in SETTINGS.items():
            row = run["speed"]["repeating"][setting]["own"]
            rows.append(
                [
                    name,
                    words,
                    right(row),
                    f"{row['tokens_a_decode']:.2f}",
                    f"{100 * row['repeated']:.0f} %",
                    f"{row['other_replies']}",
                ]
            )
    return table(
        [
            "Weights, threads, prompts",
            "sampling",
            "guesses right",
            "tokens a decode",
            "tokens that repeat",
            "replies that differ",
        ],
        rows,
    )


def costs_table(results: dict) -> str:
    speed = results["speculative"][MAIN]["speed"]
    costs = list(speed["free"]["heads"]["own"]["speed_at_cost"])
    rows = [
        [f"{words}, {kind}", *(f"{speed[key]['heads'][name]['speed_at_cost'][c]:.2f}" for c in costs)]
        for name, words in WORDS.items()
        for key, kind in (("repeating", "text that repeats"), ("free", "free text"))
    ]
    return table(["A row costs", *costs], rows)


def campaign_table(results: dict) -> str:
    rows = []
    for run in results["draft-campaign"]:
        what = f"{run['prompts']} x {run['seeds']} x {run['length']}, {run['threads']} {'thread' if run['threads'] == 1 else 'threads'}"
        drafts = {"ngram": "prompt lookup", "known": "known reply"}[run["draft"]]
        cells = [
            f"{run['equal']:,} of {run['replies']:,}",
            f"{run['same_ids']:,}",
            f"{run['accepted']:,} of {run['drafted']:,}",
            f"{run['largest']:.1e}" if run["largest"] else "0",
        ]
        rows.append([run["model"], what, drafts, *cells])
    return table(
        [
            "Model",
            "prompts x seeds x tokens",
            "drafts",
            "equal to the bit",
            "same ids",
            "guesses right",
            "largest difference of T or P",
        ],
        rows,
    )


TABLES: dict[str, tuple[str, Callable[[dict], str]]] = {
    "machine": ("speculative", machine),
    "rows": ("speculative", rows_table),
    "speeds": ("speculative", speeds_table),
    "rules": ("speculative", rules_table),
    "acceptance": ("speculative", acceptance_table),
    "costs": ("speculative", costs_table),
    "campaign": ("draft-campaign", campaign_table),
}


def filled(page: str) -> str:
    """With every table as its results are now."""
    results = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("speculative", "draft-campaign")}
    return fill(page, results, TABLES)


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text()))


if __name__ == "__main__":
    main()

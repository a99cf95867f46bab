"""docs/smollm2.md says what bench/results/smollm2-lab.json says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"Open writing": "write", "Many right answers": "many", "One right answer": "exact"}
RESULTS = json.loads((ROOT / "bench" / "results" / "smollm2-lab.json").read_text())["groups"]
PAGE = (ROOT / "docs" / "smollm2.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(" *"): [cell.strip() for cell in cells[1:]] for cells in lines}


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"[-+]?\d+\.\d+", text)]


def interval(of: dict[str, float], scale: float = 1) -> list[float]:
    return [scale * of[k] for k in ("mean", "low", "high")]


@pytest.mark.parametrize("title", GROUPS)
def test_tables_are_the_results(title: str) -> None:
    found = RESULTS[GROUPS[title]]
    section = re.search(rf"^### {title}.*?: (\d+) problems(.*?)^(?=###|Differences)", PAGE, re.M | re.S)
    table = rows(section[2])
    table.pop("Method")
    assert int(section[1]) == found["n_problems"] and set(table) == set(found["methods"])
    for name, (accuracy, coverage, outside, *log_p) in table.items():
        method = found["methods"][name]
        assert numbers(accuracy) == pytest.approx(interval(method["accuracy"], 100), abs=0.051)
        assert numbers(coverage) == pytest.approx(
            [method["coverage"]["mean"]] if "coverage" in method else [], abs=6e-4
        )
        of = method.get("outside_interval")
        assert numbers(outside) == pytest.approx(interval(of) if of else [], abs=6e-4)
        if log_p and "log_p" in method:
            assert numbers(log_p[0]) == pytest.approx([method["log_p"]["mean"]], abs=0.0051)


def test_differences_are_the_results() -> None:
    text = PAGE[PAGE.index("Differences of accuracy") : PAGE.index("So: against")]
    for title, cells in rows(text).items():
        if title in GROUPS:
            against = RESULTS[GROUPS[title]]["differences"]["reward-all-0"]
            for constant, cell in zip(("1/1", "0.8/0.95", "0.6/0.95", "0.4/1"), cells, strict=True):
                assert numbers(cell) == pytest.approx(interval(against[constant]["accuracy"], 100), abs=0.051)


def test_constants_of_their_own_mean_are_the_results() -> None:
    results = json.loads((ROOT / "bench" / "results" / "smollm2-constants.json").read_text())
    section = PAGE[PAGE.index("### Beside their own mean") : PAGE.index("## What they do not do")]
    found = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    here = [(g, n) for g, r in results.items() for n in r["methods"] if not n.endswith("(lab)")]
    assert len(found) == len(here)
    for (group, name), (title, label, replies, accuracy, lead, spread, more) in zip(here, found, strict=True):
        row = results[group]["methods"][name]
        assert GROUPS[title.strip()] == group and int(replies) == row["replies"]
        assert name in label or (name, label.strip()) == ("autodeco", "the heads, in the runtime")
        assert numbers(accuracy) == pytest.approx(interval(row["accuracy"], 100), abs=0.051)
        assert numbers(lead) == pytest.approx(interval(row["heads_minus_it"]["accuracy"], 100), abs=0.051)
        assert numbers(spread) == pytest.approx([row["spread"]["mean"]] if "spread" in row else [], abs=6e-4)
        of = row["heads_minus_it"].get("spread")
        assert numbers(more) == pytest.approx(interval(of) if of else [], abs=6e-4)
    for group, result in results.items():  # what the page calls their own mean
        assert all(f"{float(x):g}" in section for x in result["mean_shift"].split("/")), group

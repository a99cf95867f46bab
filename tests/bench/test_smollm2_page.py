"""What docs/smollm2.md says is what bench/results says. The tables of docs/results.md: test_scripts.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"Open writing": "write", "Many right answers": "many", "One right answer": "exact"}
RESULTS = json.loads((ROOT / "bench" / "results" / "smollm2-table.json").read_text())
PAGE = (ROOT / "docs" / "smollm2.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(" *"): [cell.strip() for cell in cells[1:]] for cells in lines}


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"[-+]?\d+\.\d+", text)]


def interval(of: dict[str, float], scale: float = 1) -> list[float]:
    return [scale * of[k] for k in ("mean", "low", "high")]


def test_differences_are_the_results() -> None:
    text = PAGE[PAGE.index("Differences of accuracy") : PAGE.index("So: above")]
    seen = 0
    for title, cells in rows(text).items():
        if title in GROUPS:
            found = RESULTS[GROUPS[title]]
            *constants, own = cells
            for constant, cell in zip(("1/1", "0.8/0.95", "0.6/0.95", "0.4/1"), constants, strict=True):
                assert numbers(cell) == pytest.approx(lead(found, constant), abs=0.051)
            name, _, figures = own.partition(": ")
            assert name == found["mean_shift"] and numbers(figures) == pytest.approx(lead(found, name), abs=0.051)
            seen += 1
    assert seen == len(GROUPS)


def lead(found: dict, method: str) -> list[float]:
    return interval(found["methods"][method]["heads_minus_it"]["accuracy"], 100)


def test_what_is_said_of_the_groups_holds() -> None:
    """The sentences behind the table and in "What they do not do"."""
    write, many, exact = (RESULTS[group] for group in ("write", "many", "exact"))
    assert all(lead(found, "1/1")[1] > 0 for found in (write, many, exact))
    assert all(lead(exact, name)[1] > 10 for name in ("0.4/1", "0.6/0.95", exact["mean_shift"]))
    assert many["outside"]["low"] > 0 > many["outside_with_mean_shift"]["low"] > -0.001
    spread = {name: many["methods"][name]["spread"]["mean"] for name in ("replay-0", "0.2/0.9")}
    assert spread["replay-0"] / spread["0.2/0.9"] == pytest.approx(2.4, abs=0.06)
    assert lead(write, write["mean_shift"])[2] < 0 and lead(write, "reward-all-0")[2] < 0


def test_steered_heads_without_a_command_are_the_results() -> None:
    results = json.loads((ROOT / "bench" / "results" / "smollm2-steering.json").read_text())
    section = PAGE[PAGE.index("## What was tried") : PAGE.index("## Figures")]
    for figure, of in results["steered_minus_start_without_a_command"].items():
        if isinstance(of, dict) and figure != "accuracy":
            assert f"{-of['mean']:.3f} [{-of['high']:.3f}, {-of['low']:.3f}]" in section

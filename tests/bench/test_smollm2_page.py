"""What docs/smollm2.md says is what bench/results says. The tables of docs/results.md: test_scripts.py."""

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


def test_differences_are_the_results() -> None:
    text = PAGE[PAGE.index("Differences of accuracy") : PAGE.index("So: against")]
    for title, cells in rows(text).items():
        if title in GROUPS:
            against = RESULTS[GROUPS[title]]["differences"]["reward-all-0"]
            for constant, cell in zip(("1/1", "0.8/0.95", "0.6/0.95", "0.4/1"), cells, strict=True):
                assert numbers(cell) == pytest.approx(interval(against[constant]["accuracy"], 100), abs=0.051)


def test_what_is_said_beside_their_own_mean_holds() -> None:
    """The sentences of the section, on bench/results/smollm2-table.json."""
    results = json.loads((ROOT / "bench" / "results" / "smollm2-table.json").read_text())
    section = PAGE[PAGE.index("### Beside their own mean") : PAGE.index("## What they do not do")]
    for group in ("write", "many"):
        found = results[group]
        assert all(f"{float(x):g}" in section for x in found["mean_shift"].split("/")), group
        lead = found["methods"][found["mean_shift"]]["heads_minus_it"]
        assert all(lead[measure]["low"] < 0 < lead[measure]["high"] for measure in ("accuracy", "spread"))
    write = results["write"]
    assert write["outside_with_mean_shift"]["low"] < 0
    assert write["outside_with_mean_shift"]["mean"] < 0.5 * write["outside_without"]["mean"]
    assert results["many"]["outside_with_mean_shift"]["low"] < 0 < results["many"]["outside_with_mean_shift"]["high"]


def test_steered_heads_without_a_command_are_the_results() -> None:
    results = json.loads((ROOT / "bench" / "results" / "smollm2-steering.json").read_text())
    section = PAGE[PAGE.index("## What was tried") : PAGE.index("## Figures")]
    for figure, of in results["steered_minus_start_without_a_command"].items():
        if isinstance(of, dict) and figure != "accuracy":
            assert f"{-of['mean']:.3f} [{-of['high']:.3f}, {-of['low']:.3f}]" in section

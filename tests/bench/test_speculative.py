"""bench/speculative.py on the demo model: figures of the right kind, the same replies."""

from __future__ import annotations

import argparse

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from bench import speculative
from bench.draft_prompts import FREE, REPEATING

HOW = {"threads": 1, "rounds": 1, "prompts": 2, "tokens": 12, "clock": "cpu", "draft_cost": 0.05}


@pytest.fixture(scope="module")
def model():
    return Model(demo_model())


@pytest.mark.parametrize("draft", [None, demo_model()])
def test_replies_are_the_same_whoever_drafts(model, draft):
    args = argparse.Namespace(**HOW, draft=draft, draft_model_cost=0.1)
    found = speculative.compare(model, "auto", args)
    names = set(speculative.contenders(model, args)) - {"plain"}
    assert found.keys() == {"repeating", "free"} and found["free"].keys() == speculative.SETTINGS.keys()
    for settings in found.values():
        assert settings["heads"].keys() == names and len(names) >= 3
        for rows in settings.values():
            assert all(row["other_replies"] == 0 and row["speed"] > 0 and row["tokens"] > 0 for row in rows.values())
            assert all(row["tokens_a_decode"] >= 1.0 for row in rows.values())


def test_rows_cost_what_is_fitted(model):
    costs = speculative.row_costs(model, 1, 2, speculative.CLOCKS["cpu"])
    assert costs.keys() == set(speculative.N_ROWS) and costs[1] == 1.0
    assert speculative.row_cost({1: 1.0, 9: 5.0}) == 0.5 and speculative.row_cost({1: 1.0, 9: 0.9}) == 0.0


def test_there_are_ten_prompts_of_each_kind():
    assert len(set(REPEATING)) == len(set(FREE)) == 10

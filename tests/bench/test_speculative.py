"""bench/speculative.py on the demo model: figures of the right kind, the same replies."""

from __future__ import annotations

import argparse
import json

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from bench import speculative, speculative_page
from bench.draft_prompts import HELD_OUT, TUNING

HOW = {"threads": 1, "rounds": 1, "prompts": 2, "tokens": 12, "clock": "cpu", "draft_cost": 0.05, "set": "tuning"}


@pytest.fixture(scope="module")
def model():
    return Model(demo_model())


@pytest.mark.parametrize("draft", [None, demo_model()])
def test_replies_are_the_same_whoever_drafts(model, draft):
    args = argparse.Namespace(**HOW, draft=draft, draft_model_cost=0.1, contenders=None)
    found = speculative.compare(model, "auto", args)
    names = set(speculative.contenders(model, args))
    assert found.keys() == {*TUNING, "repeating"} and found["free"].keys() == speculative.SETTINGS.keys()
    for settings in found.values():
        assert settings["heads"].keys() == names and len(names) >= 3
        for rows in settings.values():
            assert all(row["other_replies"] == 0 and row["speed"] > 0 for row in rows.values())
            assert all(
                row["tokens_a_decode"] >= 1.0 or not row["tokens"] for row in rows.values()
            )  # it may end at once
    assert all(row["tokens"] > 0 for rows in found["free"].values() for row in rows.values())


def test_rows_cost_what_is_fitted(model):
    costs = speculative.row_costs(model, 1, 2, speculative.CLOCKS["cpu"])
    assert costs.keys() == set(speculative.N_ROWS) and costs[1] == 1.0
    assert speculative.row_cost({1: 1.0, 9: 5.0}) == 0.5 and speculative.row_cost({1: 1.0, 9: 0.9}) == 0.0


def test_the_sets_of_prompts_have_nothing_in_common():
    tuning, held_out = ([prompt for prompts in of.values() for prompt in prompts] for of in (TUNING, HELD_OUT))
    assert TUNING.keys() == HELD_OUT.keys() and len(set(tuning + held_out)) == len(tuning) + len(held_out) == 40
    assert all(len(TUNING[kind]) == len(HELD_OUT[kind]) for kind in TUNING)


@pytest.mark.parametrize("prompts", [TUNING, HELD_OUT])
def test_what_is_expected_repeats_the_prompt(model, prompts):
    """But for names in new places: the share of tokens behind the same three is that of a right reply."""
    for kind, least in (("quote", 0.9), ("code", 0.6), ("json", 0.5)):
        for prompt in prompts[kind]:
            ids, rest = model.tokenize(prompt.text), model.tokenize(prompt.rest, add_special=False)
            assert speculative.repeated(ids, rest) >= least * len(rest) > 40, prompt.rest
    assert not any(prompt.rest for prompt in prompts["free"])


def test_repeated_tokens_are_those_behind_the_same_three():
    assert speculative.repeated([1, 2, 3, 4, 9], [1, 2, 3, 4, 5]) == 1
    assert speculative.repeated([1, 2, 3], [4, 1, 2, 3, 4, 1]) == 2
    assert speculative.repeated([7], [7, 7, 7, 7]) == 1 and speculative.repeated([1], [2]) == 0


def test_a_run_is_kept_beside_the_others(tmp_path):
    for name in ("one", "two", "one"):
        speculative.keep(tmp_path / "runs.json", name, {"row_cost": len(name)})
    assert json.loads((tmp_path / "runs.json").read_text()) == {"one": {"row_cost": 3}, "two": {"row_cost": 3}}


def test_the_page_says_what_the_results_say():
    """After a run of the bench or the campaign: `make results`."""
    page = speculative_page.PAGE.read_text()
    assert speculative_page.filled(page) == page
    assert all(f"<!-- table: {name} -->\n|" in page for name in speculative_page.TABLES if name != "machine")

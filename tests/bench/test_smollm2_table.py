"""Scores and intervals behind the tables of the real model, on replies made up for the purpose."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))
from autodeco_edge.engine.engine import Engine  # noqa: E402
from autodeco_edge.engine.pairing import demo_model  # noqa: E402
from autodeco_edge.engine.sampler import SamplingParams  # noqa: E402
from bench import smollm2_quality, smollm2_table  # noqa: E402
from bench.smollm2_table import GROUPS, HEADS, LAB_CONSTANTS, drawn, everywhere, scores  # noqa: E402


def test_scores_of_many_answers():
    keys = ["a", "a", "b", None] * 5  # 20 replies, of which 16 are compared
    found = scores("many", [[(k, "") for k in keys], [("a", "")] * 3, []])
    assert found["accuracy"][:2].tolist() == [0.75, 1.0] and np.isnan(found["accuracy"][2])
    assert found["n"].tolist() == [20, 3, 0] and found["right"].tolist() == [15, 3, 0]
    assert np.isnan(found["spread"][1:]).all()
    some = [len({keys[i] for i in rest} - {None}) for rest in combinations(range(20), 16)]  # all of them
    assert found["spread"][0] == pytest.approx(np.mean(some) / 16)


def test_spread_of_writing_is_that_of_the_first_four():
    same, other = ("a", "the sea is wide and blue today"), ("a", "my cat sleeps on a warm stone")
    found = scores("write", [[same] * 4 + [other], [same, same, same, other], [same] * 3])
    assert found["spread"][0] == pytest.approx(0.0) and 0 < found["spread"][1] < 1 and np.isnan(found["spread"][2])


def write(file: Path, method: str, rows: list[tuple[str, int, bool]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    found = [{"problem": p, "sample": k, "right": right, "key": f"{p}{k}", "text": "x"} for p, k, right in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in ({"method": method}, *found)))


def test_replies_of_several_folders_are_one_method(tmp_path):
    write(tmp_path / "a" / "samples" / "0.7-0.9.jsonl", "0.7/0.9", [("p", 1, True), ("p", 0, False)])
    write(tmp_path / "b" / "samples" / "0.7-0.9.jsonl", "0.7/0.9", [("q", 0, True), ("p", 1, True)])
    write(tmp_path / "b" / "samples" / "greedy.jsonl", "greedy", [("other", 0, True)])
    assert drawn(tmp_path, ["q", "p", "none"]) == {"0.7/0.9": [[("q0", "x")], [(None, "x"), ("p1", "x")], []]}


def test_one_setting_everywhere():
    """The groups weigh the same whatever their size; a lead that no problem differs in has no width."""
    sizes = dict(zip(GROUPS, (4, 30, 100), strict=True))
    lab = {group: {} for group in GROUPS}
    for i, group in enumerate(GROUPS):
        for name in (*LAB_CONSTANTS, "greedy"):
            lab[group][name] = {"accuracy": np.linspace(0, 0.5, sizes[group]), "spread": np.full(sizes[group], np.nan)}
        lab[group][HEADS] = {"accuracy": lab[group]["1/1"]["accuracy"] + 0.1 * i, "spread": np.zeros(sizes[group])}
    found = everywhere(lab)
    assert found["1/1"]["accuracy"] == pytest.approx(0.25) and "spread" not in found["1/1"]
    assert found["1/1"]["heads_minus_it_accuracy"] == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1})
    lab["many"]["1/1"]["accuracy"] = np.where(np.arange(30) % 2, 1.0, 0.0)
    lead = everywhere(lab)["1/1"]["heads_minus_it_accuracy"]
    assert lead["low"] < lead["mean"] < lead["high"] and lead["high"] - lead["low"] < 0.3


def test_the_lead_is_paired_where_both_have_replies():
    a = {"accuracy": np.array([0.5, np.nan, 1.0]), "spread": np.full(3, np.nan)}
    b = {"accuracy": np.array([0.25, 0.9, np.nan]), "spread": np.zeros(3)}
    assert smollm2_table._lead(a, b)["accuracy"]["mean"] == 0.25 and "spread" not in smollm2_table._lead(a, b)


def test_a_judge_gives_the_probabilities_of_its_model():
    """What it says of a greedy reply is the mean of the logprobs that were reported as it was drawn."""
    with closing(smollm2_quality.Judge(demo_model(), 12, 1)) as judge:
        request = "Find two numbers that make 83."
        prompt = judge.model.tokenize(f"{request}\n\n")
        with Engine(demo_model(), None, n_ctx=256, n_threads=1) as engine:
            params = SamplingParams(temperature=0.0, heads_mode="none", logprobs=True)
            steps = list(engine.generate(prompt, params, max_tokens=12, stop_at_end=False))
        text = judge.model.detokenize([s.id for s in steps]).decode()
        if judge.model.tokenize(text.strip(), add_special=False) != [s.id for s in steps]:
            pytest.skip("the reply is not what its text is read as")
        score, n = judge.score(request, text)
    assert n == len(steps) and score == pytest.approx(np.mean([s.logprob for s in steps]), abs=0.03)

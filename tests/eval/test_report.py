"""The figures of a report, against counts made by hand and slow sums."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from autodeco_edge.eval.report import ALL, Scores, frontier_line, summarise, table
from autodeco_edge.eval.samples import Sample

PROBLEMS = {"a/0": "a", "a/1": "a", "b/0": "b"}


def sample(
    problem: str, k: int, right: bool, key: str = "x", n_tokens: int = 10, mean_t: float | None = None
) -> Sample:
    return Sample(problem, k, right, None, key, n_tokens, True, mean_t, None, "")


def samples(right: dict[str, str], **fields) -> list[Sample]:
    """``right``: problem -> a letter a sample, the solution's key; "." is a wrong one."""
    return [sample(p, k, c != ".", c, **fields) for p, keys in right.items() for k, c in enumerate(keys)]


OURS = samples({"a/0": "xxyz", "a/1": "x.x.", "b/0": "xxxx"}, mean_t=0.5)
THEIRS = samples({"a/0": "x...", "a/1": "x.x.", "b/0": "...."})


def test_accuracy_coverage_and_pass_at():
    report = summarise(PROBLEMS, {"autodeco": OURS, "default": THEIRS}, 2)
    ours, theirs = (report[ALL]["methods"][name] for name in ("autodeco", "default"))
    assert ours["accuracy"]["mean"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert ours["coverage"]["mean"] == pytest.approx((3 + 1 + 1) / 3), "with four samples, among four"
    assert theirs["coverage"]["mean"] == pytest.approx((1 + 1 + 0) / 3)
    assert report[ALL]["coverage_of"] == 4
    assert (ours["n_problems"], ours["n_samples"], ours["tokens"]) == (3, 4, 10)


def test_groups_are_the_kinds():
    report = summarise(PROBLEMS, {"autodeco": OURS}, 2)
    assert list(report) == [ALL, "a", "b"]
    assert report["b"]["methods"]["autodeco"]["accuracy"]["mean"] == 1.0
    assert list(summarise({"b/0": "b"}, {"autodeco": OURS}, 2)) == [ALL]


def test_differences_are_paired_over_problems():
    difference = summarise(PROBLEMS, {"autodeco": OURS, "default": THEIRS}, 2)[ALL]["differences"]["autodeco"][
        "default"
    ]["accuracy"]
    per_problem = np.array([1 - 0.25, 0.0, 1.0])
    assert difference["mean"] == pytest.approx(per_problem.mean())
    assert 0.0 <= difference["low"] <= difference["mean"] <= difference["high"] <= 1.0


def test_standard_deviation_is_over_blocks_of_draws():
    rows = samples({"a/0": "xx..", "a/1": "x...", "b/0": "xxx."})
    # seed 0 is draws 0 and 1: 5 of 6; seed 1: 1 of 6
    want = np.std([5 / 6, 1 / 6])
    assert Scores(rows, list(PROBLEMS), 4).row(2)["std_over_seeds"] == pytest.approx(want)
    assert Scores(rows, list(PROBLEMS), 4).row(3)["std_over_seeds"] is None, "4 draws are not 3 seeds"


def test_coverage_counts_subsets_of_the_samples():
    keys = "xxyz.y"
    rows = samples({"a/0": keys})
    subsets = [len(set(s) - {"."}) for s in combinations(keys, 4)]
    assert Scores(rows, ["a/0"], 4).coverage[0] == pytest.approx(np.mean(subsets))


def test_a_method_that_draws_nothing_needs_one_sample():
    greedy = samples({"a/0": "x", "a/1": ".", "b/0": "x"})
    report = summarise(PROBLEMS, {"greedy": greedy, "autodeco": OURS}, 2)
    row = report[ALL]["methods"]["greedy"]
    assert row["coverage"]["mean"] == pytest.approx(2 / 3) and report[ALL]["coverage_of"] == 4


def test_mean_temperature_is_over_tokens():
    rows = [sample("a/0", 0, True, n_tokens=30, mean_t=1.0), sample("a/0", 1, True, n_tokens=10, mean_t=0.2)]
    assert Scores(rows, ["a/0"], 2).row(1)["mean_temperature"] == pytest.approx(0.8)


def test_order_of_the_samples_does_not_matter():
    shuffled = [OURS[i] for i in np.random.default_rng(0).permutation(len(OURS))]
    assert summarise(PROBLEMS, {"autodeco": shuffled}, 2) == summarise(PROBLEMS, {"autodeco": OURS}, 2)


def test_frontier_tells_inside_from_outside():
    many = {p: "uvwxyzxy" for p in PROBLEMS}  # right always, six solutions
    safe = {p: "xxxxxxxx" for p in PROBLEMS}  # right always, one solution
    wild = {p: "uvwxyz.." for p in PROBLEMS}  # six solutions, 3 of 4 right
    grid = {"0.1/1": samples(safe), "1/1": samples(wild)}
    report = summarise(PROBLEMS, {"autodeco": samples(many), "default": samples(wild)}, 1, grid=grid)[ALL]
    assert report["frontier"]["outside"]["autodeco"] > 0
    assert report["frontier"]["outside"]["default"] == pytest.approx(0.0)
    assert "outside" in frontier_line("autodeco", report["frontier"])


def test_table_shows_every_method_and_interval():
    text = table(summarise(PROBLEMS, {"default": THEIRS, "autodeco": OURS}, 2)[ALL])
    lines = text.splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["method", "---", "default", "autodeco"]
    assert "83.3 [" in lines[3] and "+58.3 [" in lines[2] and "distinct of 4" in lines[0]
    assert len({line.count("|") for line in lines}) == 1

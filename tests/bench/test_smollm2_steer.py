"""bench/smollm2_steer.py on states that say plainly what was asked for: the heads obey, and stay where nothing was asked."""

from __future__ import annotations

import argparse

import pytest
import torch

from autodeco_edge.gguf.keys import FEATURES_ENHANCED
from autodeco_edge.tasks.commands import UNSEEN
from autodeco_edge.train import constant_heads
from bench import smollm2_steer as steer

H = 32
OPTIONS = argparse.Namespace(seed=0, steps=200, batch=8, lr=3e-3, decay=0.0, anchor=2.0)


def states(n_records: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise; the first unit is +1 after a high command and -1 after a low one."""
    rng = torch.Generator().manual_seed(seed)
    about = [(r, way, v) for r in range(n_records) for v, way in enumerate((0, 1, 1, 2, 2)) for _ in range(3 + r % 4)]
    about = torch.tensor(about)
    hidden = torch.randn(len(about), H, generator=rng)
    hidden[:, 0] = torch.tensor([0.0, -1.0, 1.0])[about[:, 1]]
    return hidden, about


def test_means_are_over_the_tokens_of_a_variant():
    variants = steer.Variants(torch.tensor([(5, 0, 0), (5, 0, 0), (5, 1, 1), (7, 0, 0), (7, 2, 1), (7, 2, 1)]))
    assert variants.mean(torch.tensor([1.0, 3.0, 5.0, 7.0, 2.0, 4.0])).tolist() == [2.0, 5.0, 7.0, 3.0]
    assert variants.way.tolist() == [0, 1, 0, 2] and variants.base.tolist() == [0, 0, 2, 2]


def test_what_is_missed_costs_and_what_moves_without_a_command():
    variants = steer.Variants(torch.tensor([(0, 0, 0), (0, 1, 1), (0, 2, 2)]))
    start = torch.tensor([0.5, 0.5, 0.5])
    cost = [
        steer.ranking(torch.tensor(v), start, variants, 0.1, 1.0).item()
        for v in ((0.5, 0.4, 0.6), (0.5, 0.5, 0.5), (0.6, 0.4, 0.6))
    ]
    assert cost == pytest.approx([0.0, 0.1, 0.01 + 0.1], abs=1e-6)


def test_heads_learn_to_obey(capsys):
    heads = constant_heads.learning(H, FEATURES_ENHANCED, 0.8, 0.9, seed=1)
    data = {"train": states(24, 1), "calibration": states(12, 2)}
    variants = {}
    for split, (_, about) in data.items():
        variants[split] = steer.Variants(about)
        variants[split].about = about
    start = {split: heads.temp_head(hidden).detach() for split, (hidden, _) in data.items()}
    steer.learn(heads.temp_head, {s: ((h,), variants[s]) for s, (h, _) in data.items()}, start, OPTIONS, 0.2)
    last = capsys.readouterr().out.splitlines()[-1]
    held_out = last.partition("calibration: ")[2]
    assert "low 100.0 %" in held_out and "high 100.0 %" in held_out
    values = heads.temp_head(data["calibration"][0])
    plain = variants["calibration"].mean(values)[variants["calibration"].way == 0].mean()
    assert plain.item() == pytest.approx(0.8, abs=0.02)


def test_one_direction_is_found_where_there_is_one():
    known = []
    for hidden, about in (states(24, 1), states(12, 2)):
        known.append((hidden, variants := steer.Variants(about)))
        variants.about = about
    said = steer.probe(*known, 0.1)
    assert "low 100.0 %" in said and "high 100.0 %" in said


def test_the_same_token_without_a_command():
    about = torch.tensor([(5, 0, 0), (5, 0, 0), (5, 1, 1), (5, 1, 1), (7, 0, 0), (7, 2, 1)])
    assert steer._same_token(about).tolist() == [0, 1, 0, 1, 4, 4]


def test_no_sentence_of_the_test_is_trained_on():
    low, high = steer.COMMANDS["train"]
    assert not {*low, *high} & {*UNSEEN.low, *UNSEEN.high} and len({*low, *high}) == len(low) + len(high)

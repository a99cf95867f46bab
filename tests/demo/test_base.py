"""The trainer's parts: masks, batches, schedule, and that a few steps from one seed repeat exactly."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from autodeco_edge.tasks.demo import families
from demo.base import Plan, Progress, learning_share, new_model, stages, train_stage
from demo.batches import IGNORE, batches, encode
from demo.tokenizer import load_tokenizer


def test_labels_cover_exactly_the_assistant_turns(tiny_dir: Path) -> None:
    tokenizer, rng = load_tokenizer(tiny_dir), random.Random(0)
    for _ in range(100):
        turns = families.training_document(rng, 0.0, families.default_weights())
        ids, labels = encode(turns, tokenizer)
        assert ids == tokenizer("".join(text for pair in turns for text in pair))["input_ids"]
        targets = tokenizer.decode([label for label in labels if label != IGNORE])
        assert targets == "".join(target for _, target in turns)


def test_batches_keep_their_size(tiny_dir: Path) -> None:
    stream = batches(
        load_tokenizer(tiny_dir),
        random.Random(0),
        families.default_weights(),
        lambda: 0.5,
        2048,
        300,
        pool_documents=200,
    )
    for _ in range(20):
        ids, labels = next(stream)
        assert ids.shape == labels.shape
        assert ids.shape[1] % 16 == 0
        assert ids.numel() <= 2048
        kept = labels != IGNORE
        assert torch.equal(labels[kept], ids[kept])


def test_the_rate_warms_holds_and_falls() -> None:
    plan = Plan(tokens=1000, warmup_steps=10, decay_share=0.5)
    assert learning_share(plan, Progress(tokens=0, steps=0)) == pytest.approx(0.1)
    assert learning_share(plan, Progress(tokens=400, steps=50)) == 1.0
    assert learning_share(plan, Progress(tokens=750, steps=50)) == pytest.approx(0.5)
    assert learning_share(plan, Progress(tokens=1000, steps=50)) == plan.final_lr_share


def test_stages_slip_only_late_and_end_at_the_lowest_rate() -> None:
    learn, settle, finish = stages(0)
    assert learn.clean_share == 1.0
    assert 0 < settle.clean_share < 1
    assert finish.clean_share == 0.0
    assert learning_share(settle, Progress(tokens=settle.tokens // 2, steps=1000)) == pytest.approx(0.625, abs=1e-3)
    assert learning_share(finish, Progress(tokens=finish.tokens, steps=1000)) == finish.final_lr_share
    assert len({plan.seed for plan in stages(0)}) == 3


def test_demo_size() -> None:
    assert 4.5e6 < sum(p.numel() for p in new_model().parameters()) < 5.5e6


def test_training_repeats_from_its_seed(tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import demo.base

    small = dict(hidden_size=32, num_hidden_layers=1, intermediate_size=32)
    monkeypatch.setattr(demo.base, "new_model", lambda seed: new_model(seed, **small))
    plan = Plan(seed=5, tokens=4000, batch_tokens=1024, pool_documents=100, compile=False, threads=1)
    weights = [(train_stage(tmp_path / name, tiny_dir, plan) / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]

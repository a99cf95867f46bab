"""Heads by verdicts on replies drawn once: the draw against the softmax, and a run on the demo model."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import chisquare

from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.errors import FormatError, UsageError
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.data import TrainingSample
from autodeco_edge.train.gguf_backbone import GgufBackbone
from autodeco_edge.train.offline import ReplayConfig, forget_replies, rate_for, train_on_replies
from autodeco_edge.train.replay import Replies
from autodeco_edge.train.rollouts import Roller, Uncut

N_DRAWS = 1000


def test_tokens_are_drawn_at_the_requests_temperature():
    backbone = GgufBackbone(demo_model(), 1)
    backbone.load(torch.device("cpu"), [TrainingSample(list(range(20)), 1)])
    prompt = tuple(backbone.model.tokenize(b"Once upon a time there was a"))
    roller = Roller(backbone, Uncut(backbone), n_slots=50, n_ctx=64, n_threads=1)
    asked = [(t, s) for t in (0.5, 1.5) for s in range(N_DRAWS)]
    requests = (Request(prompt, SamplingParams(seed=s, temperature=t), 1) for t, s in asked)
    found = dict(roller.rollouts(requests))
    roller.close()
    for t in (0.5, 1.5):
        drawn = [found[i] for i, (of, _) in enumerate(asked) if of == t]
        with torch.no_grad():
            logits = backbone.lm_head(torch.from_numpy(drawn[0].hidden))
        q = torch.softmax(logits.double() / t, -1)[0].numpy()
        counts = np.bincount([r.reply.steps[0].id for r in drawn], minlength=len(q))
        often = q * N_DRAWS >= 5
        assert often.sum() > 3
        observed = [*counts[often], counts[~often].sum()]
        expected = np.array([*q[often], q[~often].sum()])
        assert chisquare(observed, expected / expected.sum() * N_DRAWS).pvalue > 1e-4  # seeds fixed
    backbone.close()


# ---- a run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    from autodeco_edge.fit.heads_file import HeadsMaker

    return str(HeadsMaker(demo_model()).start(tmp_path_factory.mktemp("start"), 0.9, 0.9, 0))


def settings(start: str, folder, **more) -> ReplayConfig:
    """One file of replies, and the fewest steps."""
    small = dict(samples=8, parallel=6, max_tokens=48, threads=1, minutes=1e-4, among=4)
    return ReplayConfig(str(demo_model()), "demo:make", str(folder), start, **(small | more))


def test_a_run_draws_climbs_and_saves(start, tmp_path, monkeypatch):
    from autodeco_edge.train import offline

    monkeypatch.setattr(offline, "LEAST_STEPS", 4)
    found = train_on_replies(settings(start, tmp_path / "whole"))
    assert found["replies"] == found["problems"] * 24 and found["steps"] == 4
    heads = load_heads(tmp_path / "whole").heads.state_dict()
    assert not all(torch.equal(heads[name], x) for name, x in load_heads(start).heads.state_dict().items())
    forget_replies(tmp_path / "whole")
    assert not list((tmp_path / "whole").glob("replies-*"))

    def cut(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(offline.OfflineTrainer, "_steps", cut)
        train_on_replies(settings(start, tmp_path / "cut"))
    (file,) = (tmp_path / "cut").glob("replies-*.state")
    with pytest.raises(UsageError, match="other training data"):
        train_on_replies(settings(start, tmp_path / "cut", seed=1))
    with monkeypatch.context() as patched:  # what was drawn is not drawn again
        patched.setattr(offline.OfflineTrainer, "_draw", cut)
        assert train_on_replies(settings(start, tmp_path / "cut")) == found
    again = load_heads(tmp_path / "cut").heads.state_dict()
    assert all(torch.equal(heads[name], x) for name, x in again.items())


def test_a_damaged_file_of_replies_is_told(start, tmp_path):
    (tmp_path / "replies-0000.state").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(FormatError, match="replies-0000.state: no readable replies"):
        train_on_replies(settings(start, tmp_path))
    columns = {f.name: torch.zeros(3, 4) if f.name == "hidden" else torch.zeros(3).long() for f in fields(Replies)}
    save_file(columns, tmp_path / "replies-0000.state", metadata={"settings": "[]"})
    with pytest.raises(FormatError, match="replies-0000.state: its columns do not belong together"):
        train_on_replies(settings(start, tmp_path))


def test_the_rate_falls_with_the_size_of_the_hidden_states():
    hidden = torch.ones(50, 640).half()
    assert rate_for(hidden) == pytest.approx(1e-3, rel=0.01)
    assert rate_for(30 * hidden) == pytest.approx(1e-3 / 30, rel=0.01) and rate_for(hidden / 30) == 1e-3


def test_without_a_right_reply_the_heads_stay(start, tmp_path, capsys):
    wrong = tmp_path / "wrong.jsonl"
    rows = [{"prompt": f"What is {n}?", "gt": "\\boxed{123456}"} for n in range(40)]
    wrong.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = train_on_replies(replace(settings(start, tmp_path / "out"), problems=str(wrong)))
    assert found["steps"] == 0 and found["after"]["right"] == 0
    assert "no reply is right" in capsys.readouterr().err
    before, after = (load_heads(folder).heads.state_dict() for folder in (start, tmp_path / "out"))
    assert all(torch.equal(before[name], x) for name, x in after.items())

"""The measurements of the real model that draw nothing themselves: seeds, exact shares, why commands miss, what heads cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
sys.path.append(str(Path(__file__).resolve().parents[2]))
from autodeco_edge.engine.pairing import demo_model  # noqa: E402
from autodeco_edge.spec.heads import softmax  # noqa: E402
from bench import smollm2_efficiency, smollm2_exact, smollm2_seeds, smollm2_steer_why  # noqa: E402
from bench.smollm2_table import GROUPS  # noqa: E402

# ---- seeds ---------------------------------------------------------------------------------------


def state(folder: Path, name: str, right: dict[str, int], n: int = 16) -> None:
    """Two problems a kind with ``right`` of n replies right, all different."""
    arrays, means = {}, {}
    for group, kinds in GROUPS.items():
        for kind in kinds:
            row = np.r_[1 : right[group] + 1, np.zeros(n - right[group], int)].astype(np.uint16)
            arrays[f"{kind}|keys"] = np.stack([row, row])
            means[kind] = {"t": 0.5, "p": 0.9, "tokens": 4.0}
    np.savez(folder / f"test-{name}.npz", about=np.array(json.dumps({"policy": name, "means": means})), **arrays)


def test_seeds_are_compared_group_by_group(tmp_path, monkeypatch):
    state(tmp_path, "reward-all-0", {"write": 8, "many": 8, "exact": 8})
    for seed, right in enumerate((4, 6, 8)):
        state(tmp_path, f"seed-{seed}", {"write": right, "many": 8, "exact": 4})
    monkeypatch.setattr(sys, "argv", ["seeds", str(tmp_path), "-o", str(tmp_path / "out.json")])
    smollm2_seeds.main()
    found = json.loads((tmp_path / "out.json").read_text())
    assert list(found["heads"]) == ["reward-all-0", "seed-0", "seed-1", "seed-2"]
    assert found["replies"] == {"write": 16, "many": 16, "exact": 16}
    row = found["heads"]["seed-0"]
    assert row["all"]["mean"] == pytest.approx((4 + 8 + 4) / 48)
    lead = row["card_minus_it"]
    assert lead["write"]["mean"] == 0.25 and lead["many"]["mean"] == 0 and lead["all"]["mean"] == pytest.approx(1 / 6)
    assert row["spread"] == {"many": 0.5, "exact": 0.25}  # of 16 replies so many are right and different
    assert row["means"]["write"] == {"t": 0.5, "p": 0.9}
    apart = found["between_seeds"]
    assert apart["write"]["sd"] == pytest.approx(0.125) and abs(apart["write"]["largest"]["mean"]) == 0.25
    assert apart["exact"]["sd"] == 0 and apart["all"]["sd"] == pytest.approx(0.125 / 3)


# ---- exact shares --------------------------------------------------------------------------------


def test_shares_of_a_constant_are_those_of_the_softmax():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3, 50)).astype(np.float32) * 2
    rows = rng.normal(size=(3, 8)), logits
    found = smollm2_exact.shares(rows, (9, 3, 4, 5), None, (1.0, 1.0))
    q = np.array([softmax(row.astype(float)) for row in logits])
    assert found == pytest.approx(np.stack([q[[0, 1, 2], [3, 4, 5]], q[:, 9]], 1))
    cut = smollm2_exact.shares(rows, (9, int(logits[0].argmax()), 4, 5), None, (1.0, 1e-9))
    assert cut[0, 0] == 1 and set(cut[1:, 0]) <= {0.0, 1.0}


# ---- why commands miss ---------------------------------------------------------------------------


def test_noise_is_that_of_the_mean_of_replies():
    """Two prompts: one goes as asked, one does not; the noise is the standard error of both means together."""
    before = np.array([[1.0, 1.0], [1.0, 1.0]])
    values = np.array([[0.7, 0.9], [1.1, 1.3]])
    ones = np.ones((2, 2))
    found = smollm2_steer_why.change(values, before, (ones, ones), -1)
    assert found["consistency"] == 0.5 and found["difference"]["mean"] == pytest.approx(0.0)
    assert found["noise"] == pytest.approx(np.std([0.7, 0.9], ddof=1) / np.sqrt(2))
    assert found["spread"] == pytest.approx(0.2)


def test_tokens_weigh_in_the_mean_of_a_prompt():
    before = np.zeros((1, 2))
    values = np.array([[1.0, -1.0]])
    weights = np.array([[3.0, 1.0]]), np.ones((1, 2))
    assert smollm2_steer_why.change(values, before, weights, 1)["difference"]["mean"] == pytest.approx(0.5)


# ---- what heads cost -----------------------------------------------------------------------------


def test_a_prompt_is_read_and_tokens_are_timed():
    found = smollm2_efficiency.once(demo_model(), None, 40, 4, 1)
    assert all(value > 0 for value in found.values()) and found["rss_mb"] > 20


def test_operations_are_two_a_weight():
    hub = pytest.importorskip("autodeco_edge.hub")
    try:
        found = hub.resolve("smollm2-135m", offline=True)
    except Exception as error:
        pytest.skip(str(error))
    work = smollm2_efficiency.operations(found.model, found.heads)
    layer = 576 * 576 * 2 + 2 * 576 * 192 + 3 * 576 * 1536  # q and o, k and v, the three of the feed-forward
    assert work["base"] == 2 * (30 * layer + 576 * 49152) and work["attention"] == 4 * 30 * 576
    assert work["heads"] == pytest.approx(2 * (576 + 581) * 256 + 8 * 49152, rel=0.01)

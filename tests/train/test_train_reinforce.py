"""Rollouts and the reward: the draw against the soft nucleus, and a run that learns from verdicts."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from autodeco_edge.engine.generation import Request
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.train.base import default_spec
from autodeco_edge.train.checkpoint import load_heads, save_heads
from autodeco_edge.train.data import TrainingSample
from autodeco_edge.train.gguf_backbone import GgufBackbone
from autodeco_edge.train.gguf_states import HiddenStates
from autodeco_edge.train.losses import soft_nucleus
from autodeco_edge.train.modules import AutoDecoHeads
from autodeco_edge.train.reinforce import RewardConfig, train_on_reward
from autodeco_edge.train.rollouts import Roller, SoftNucleus
from tests.support import warm

N_DRAWS = 2000
SMALL = dict(problems="demo:make", problems_per_step=4, samples=4, max_tokens=60, n_ctx=160, parallel=16, threads=1)


def fresh(n_embd: int, seed: int = 0) -> AutoDecoHeads:
    return AutoDecoHeads(default_spec(n_embd, True, True, True)).reset_parameters(torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def backbone():
    backbone = GgufBackbone(demo_model(), 1)
    backbone.load(torch.device("cpu"), [TrainingSample(list(range(20)), 1)])
    yield backbone
    backbone.close()


@pytest.fixture(scope="module")
def start(tmp_path_factory, backbone):
    """A folder with fresh heads: T about 1, P about 0.5."""
    folder = tmp_path_factory.mktemp("start")
    save_heads(folder, fresh(backbone.n_embd), backbone.config(), "f32")
    return str(folder)


def test_tokens_are_drawn_from_the_soft_nucleus(backbone):
    heads = fresh(backbone.n_embd)
    prompt = tuple(backbone.model.tokenize(b"Once upon a time there was a"))
    engine = Roller(backbone, SoftNucleus(backbone, heads), n_slots=50, n_ctx=64, n_threads=1)
    found = [r for _, r in engine.rollouts(Request(prompt, SamplingParams(seed=s), 1) for s in range(N_DRAWS))]
    engine.close()
    hidden = torch.from_numpy(found[0].hidden)
    with torch.no_grad():
        logits = backbone.lm_head(hidden)
        temperature, top_p = heads(hidden, logits)
        r = soft_nucleus(logits.double(), temperature.double(), top_p.double())[0].numpy()
    counts = np.bincount([x.reply.steps[0].id for x in found], minlength=len(r))
    often = r * N_DRAWS >= 5
    assert often.sum() > 3
    observed = [*counts[often], counts[~often].sum()]
    expected = np.array([*r[often], r[~often].sum()])
    assert (
        chisquare(observed, expected / expected.sum() * N_DRAWS).pvalue > 1e-4
    )  # false alarm: once in 10^4, seeds fixed


def test_hidden_states_belong_to_their_tokens(backbone):
    """Against llama.cpp over the whole text; a batch adds up F16 keys in another order: 1e-2 of states of size 1."""
    prompts = [tuple(backbone.model.tokenize(t)) for t in (b"Once upon a time", b"Work out 3 + 4.", b"My name is")]
    engine = Roller(backbone, SoftNucleus(backbone, fresh(backbone.n_embd)), n_slots=2, n_ctx=64, n_threads=1)
    found = dict(engine.rollouts(Request(p, SamplingParams(seed=i), 9) for i, p in enumerate(prompts)))
    engine.close()
    states = HiddenStates(backbone.model, 64, 1)
    for i, prompt in enumerate(prompts):
        steps = found[i].reply.steps
        assert len(found[i].hidden) == len(steps)
        (whole,) = states.of([[*prompt, *(s.id for s in steps[:-1])]])
        np.testing.assert_allclose(found[i].hidden, whole[len(prompt) - 1 :], atol=1e-2 * np.abs(whole).max())
    states.close()


def test_reward_teaches_right_answers(start, tmp_path):
    """From fresh heads at T = 1, P = 0.5, where a quarter of the answers are wrong. 25 steps of 16 replies: the last ten
    steps are right 10 points more often than the first five (24 here; 14 and 22 with two other seeds)."""
    config = RewardConfig(model=str(demo_model()), output=str(tmp_path / "out"), init=start, diversity=0.0, steps=25,
                          learning_rate=3e-3, log_every=0, save_dtype="f32", **SMALL)  # fmt: skip
    record = train_on_reward(config)
    accuracy = record.steps["accuracy"]
    assert np.mean(accuracy[-10:]) > np.mean(accuracy[:5]) + 0.10
    assert record.steps["mean_temperature"][-1] < record.steps["mean_temperature"][0] - 0.1
    saved = load_heads(tmp_path / "out")
    assert saved.enable_temperature and saved.enable_top_p
    assert json.loads((tmp_path / "out" / "config.json").read_text())["autodeco_mean_temperature"] < 1.0


def words(start, out, *more) -> list[str]:
    return ["train", "--objective", "reward", "-m", str(demo_model()), "--init", start,
            "-o", str(out), "--problems", "demo:make", "--problems-per-step", "2", "--samples", "4", "-n", "40", "-c", "128",
            "--parallel", "8", "-t", "1", "--lr", "1e-3", "--max-steps", "8", "--save-dtype", "f32", "--log-every", "1", *more]  # fmt: skip


def test_killed_run_resumes_to_the_same_heads(start, tmp_path):
    run = partial(warm.run, modules=warm.TORCH, text=True, timeout=200)
    whole = run(*words(start, tmp_path / "a"))
    assert whole.returncode == 0, whole.stderr
    command = warm.command(*words(start, tmp_path / "b", "--save-every", "1"))
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if line.startswith("step 4/"):
            break
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    refused = run(*words(start, tmp_path / "b"))
    assert refused.returncode == 2 and "--resume" in refused.stderr
    other = run(*words(start, tmp_path / "b", "--resume"), "--seed", "1")
    assert other.returncode == 2 and "seed" in other.stderr
    done = run(*words(start, tmp_path / "b", "--resume"))
    assert done.returncode == 0, done.stderr
    a, b = (load_heads(tmp_path / name).heads.state_dict() for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not (tmp_path / "b" / "training.state").exists()


REFUSED = {
    "no init": (["-m", str(demo_model()), "--problems", "demo"], "--init HEADS"),
    "data": (["-m", "m", "--problems", "demo", "--init", "h", "--data", "d"], "neither --data nor --base"),
    "one sample": (["-m", str(demo_model()), "--problems", "demo", "--init", "h", "--samples", "1"], "samples"),
    "unknown task": (["-m", str(demo_model()), "--problems", "demo:none", "--init", "h"], "demo:make"),
    "save dtype": (
        ["-m", str(demo_model()), "--problems", "demo", "--init", "h", "--save-dtype", "q8_0"],
        "save_dtype: expected one of bf16, f16, f32",
    ),
    "threads": (
        ["-m", str(demo_model()), "--problems", "demo", "--init", "h", "--threads", "9999"],
        "threads: allowed",
    ),
}


@pytest.mark.parametrize("arguments, says", REFUSED.values(), ids=REFUSED)
def test_refusals(tmp_path, arguments, says):
    line = ["train", "--objective", "reward", "-o", tmp_path / "o", *arguments]
    done = warm.run(*line, modules=warm.TORCH, text=True)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1

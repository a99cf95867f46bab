"""The whole path against PyTorch: `run --jsonl` on a GGUF, float64 on the Hugging Face model.

Every family of tests/support/families.py, real tokenizers, llama.cpp's own converter. What differs is llama.cpp's float32
arithmetic and its F16 key-value cache; 5e-3 in T and P is what that leaves room for.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from autodeco_edge.spec import sampling
from tests.support import warm
from tests.support.families import HIDDEN, VOCABULARY

pytest.importorskip("torch")

N_TOKENS = 64
TOLERANCE = 5e-3
# A token within rounding of a routing tie (about 1 in 1,000 with random experts) runs another expert than the
# reference and compares two models; with these seeds none is met.
SEED = {"gpt-oss": "12"}
PROMPT = "Once upon a time there was a fox who wanted to count all the stars."


def run_jsonl(*args: str) -> list[dict]:
    done = warm.run("run", PROMPT, "--raw", "--jsonl", "-n", N_TOKENS, "-t", "1", *args, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def reference(hf, checkpoint, ids: list[int]):
    """(T, P, logits) at every position of ``ids``, float64."""
    import torch
    from transformers import AutoModelForCausalLM

    from autodeco_edge.train.checkpoint import load_heads

    model = (
        AutoModelForCausalLM.from_pretrained(hf, dtype=torch.float32, experts_implementation="eager").double().eval()
    )  # the grouped kernel has no float64
    heads = load_heads(checkpoint).heads.double().eval()
    captured = {}
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: captured.update(hidden=args[0]))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
        temp, top_p = heads(captured["hidden"][0], logits)
    hook.remove()
    return temp.numpy().ravel(), top_p.numpy().ravel(), logits.numpy()


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", VOCABULARY)
def test_temperature_and_top_p_agree_with_pytorch(tiny, tmp_path, name, dtype):
    model = tiny(name)
    checkpoint, heads = model.checkpoint, model.heads
    if dtype == "bf16":
        from tests.support.checkpoints import random_heads

        checkpoint = random_heads(tmp_path / "bf16", HIDDEN, seed=8, bf16=True)
        heads = tmp_path / "bf16.gguf"
        warm.run("convert", checkpoint, "--base", model.gguf, "-o", heads, check=True)
    *steps, done = run_jsonl("-m", str(model.gguf), "--heads", str(heads), "--seed", SEED.get(name, "11"))
    assert len(steps) == N_TOKENS or done["finish_reason"] == "stop"

    ids = done["prompt_ids"] + [s["id"] for s in steps]
    temp, top_p, logits = reference(model.hf, checkpoint, ids[:-1])
    first = len(done["prompt_ids"]) - 1
    dt = np.abs(temp[first:] - [s["temperature"] for s in steps])
    dp = np.abs(top_p[first:] - [s["top_p"] for s in steps])
    print(
        f"{name} {dtype}: max |dT| {dt.max():.1e}, max |dP| {dp.max():.1e}, T {temp[first:].min():.2f}..{temp[first:].max():.2f}"
    )
    assert np.ptp(temp[first:]) > 0.2, "heads that do not move prove nothing"
    assert dt.max() <= TOLERANCE
    assert dp.max() <= TOLERANCE
    assert outside_nucleus(steps, logits[first:]) < 0.02 * len(steps)


def outside_nucleus(steps: list[dict], logits: np.ndarray) -> int:
    """Tokens that the float64 reference would have cut: float ties at the edge of the nucleus."""
    kept = [
        sampling.draw(row, s["temperature_eff"], s["top_p_eff"], 0.5).kept[s["id"]]
        for s, row in zip(steps, logits, strict=True)
    ]
    return kept.count(False)

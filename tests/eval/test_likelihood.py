"""Teacher forcing against slow forms, and drift between models that are known to be equal or not."""

from __future__ import annotations

import json
import shutil

import llama_cpp
import numpy as np
import pytest
import torch

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import UsageError
from autodeco_edge.eval.likelihood import ModelVariant, Reader, Text, compare, parse_variant, soft_logprob
from autodeco_edge.spec.sampling import nucleus
from autodeco_edge.train.losses import soft_nucleus
from tests.support import warm


@pytest.mark.parametrize("n", [5, 300])
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_soft_logprob_is_the_training_distributions(n, scale):
    rng = np.random.default_rng(n)
    for t, p in rng.uniform(0.05, 1.0, (20, 2)):
        logits = (rng.normal(size=n) * scale).astype(np.float32)
        label = int(rng.integers(n))
        got, outside = soft_logprob(logits, label, t, p)
        r = soft_nucleus(
            torch.from_numpy(logits).double()[None], torch.tensor([t]).double(), torch.tensor([p]).double()
        )
        assert got == pytest.approx(float(torch.log(r[0, label] + 1e-9)), rel=1e-6, abs=1e-9)
        q = np.exp(logits.astype(np.float64) / t - (logits.astype(np.float64) / t).max())
        assert outside == (not nucleus(q, p, key=logits)[label])
    assert not any(soft_logprob(logits, i, 1.0, 1.0)[1] for i in range(n)), "P = 1 leaves nothing out"


@pytest.fixture(scope="module")
def texts():
    """Replies of the demo model: (ids, index of the reply's first id)."""
    with Engine(demo_model(), n_ctx=256, n_threads=1) as engine:
        found = []
        for i, prompt in enumerate(
            ("Find two numbers that make 83.", "Work out 3 + 4 * 5.", "Name two numbers that make 40.")
        ):
            ids = engine.model.tokenize(
                f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", parse_special=True
            )
            steps = list(engine.generate(ids, SamplingParams(seed=i), max_tokens=60))
            found.append((Text((*ids, *(s.id for s in steps)), len(ids)), steps))
    return found


def test_positions_are_those_the_engine_drew_from(texts):
    """T and P of the reply's own tokens, up to llama.cpp's sums in another order (5e-3 with a Q8_0 model)."""
    reader = Reader(ModelVariant("demo", demo_model()), 256, 1)
    for text, steps in texts:
        forced = reader.read(text, {"default": (1.0, 1.0)})
        np.testing.assert_allclose(forced.temperature, [s.temperature for s in steps], atol=5e-3)
        np.testing.assert_allclose(forced.top_p, [s.top_p for s in steps], atol=5e-3)
        assert not forced.outside["default"].any() and forced.outside["heads"].mean() < 0.05
        assert (forced.logprob["heads"] <= 1e-6).all()
    reader.close()


def test_a_long_text_goes_through_in_batches(texts):
    """Against llama.cpp's logits of the same text in one go."""
    reader = Reader(ModelVariant("demo", demo_model()), 900, 1)
    ids = (texts[0][0].ids * 20)[:700]
    chunks = list(reader.states.with_logits(ids))
    assert len(chunks) == 2 and sum(len(h) for h, _ in chunks) == 700
    (whole,) = reader.states.of([ids])
    np.testing.assert_allclose(np.concatenate([h for h, _ in chunks]), whole, atol=1e-5)
    reader.close()


@pytest.fixture(scope="module")
def requantised(tmp_path_factory):
    """The demo model in Q4_K_M, and its heads in a file of their own."""
    folder = tmp_path_factory.mktemp("q4")
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, 1, True
    path = folder / "q4.gguf"
    assert llama_cpp.llama_model_quantize(str(demo_model()).encode(), str(path).encode(), params) == 0
    return path


def test_drift_is_nothing_between_copies_and_something_between_types(texts, requantised, tmp_path):
    copy = tmp_path / "copy.gguf"
    shutil.copy(demo_model(), copy)
    variants = [ModelVariant("q8", demo_model()), ModelVariant("copy", copy), ModelVariant("q4", requantised)]
    report = compare(variants, [text for text, _ in texts], n_threads=1)
    same, other = report["drift"]["copy"], report["drift"]["q4"]
    assert (same["mean_abs_dT"], same["mean_abs_dP"]) == (0.0, 0.0)
    assert (same["same_likeliest"], same["same_drawn"]) == (1.0, 1.0)
    assert 1e-4 < other["mean_abs_dT"] < 0.1 and other["same_likeliest"] > 0.9
    assert report["variants"]["q8"]["settings"].keys() == {"heads", "default", "card", "mean-shift"}
    assert report["n_tokens"] == sum(len(steps) for _, steps in texts)


def test_constants_are_the_means_of_the_other_half(texts):
    report = compare([ModelVariant("q8", demo_model())], [text for text, _ in texts[:2]], n_threads=1)
    reader = Reader(ModelVariant("q8", demo_model()), 256, 1)
    forced = [reader.read(text, {}) for text, _ in texts[:2]]
    crossed = [
        reader.read(texts[i][0], {"mean-shift": (forced[1 - i].temperature.mean(), forced[1 - i].top_p.mean())})
        for i in (0, 1)
    ]
    want = np.mean([f.logprob["mean-shift"].mean() for f in crossed])
    assert report["variants"]["q8"]["settings"]["mean-shift"]["logprob"]["mean"] == pytest.approx(want)
    reader.close()


def test_command(texts, tmp_path):
    with Engine(demo_model(), n_ctx=256, n_threads=1) as engine:
        rows = [
            {
                "prompt": engine.model.detokenize(list(text.ids[: text.first]), special=True).decode(),
                "completion": engine.model.detokenize(list(text.ids[text.first :])).decode(),
            }
            for text, _ in texts
        ]
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["eval", "drift", "--data", data, "-t", "1"]
    done = warm.run(*line, "--variant", f"q8={demo_model()}", "--json", text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_texts"] == 3
    for wrong, says in (("q8", "expected NAME="), ("q8=", "expected NAME="), ("q8=nothing.gguf", "nothing.gguf")):
        done = warm.run(*line, "--variant", wrong, text=True)
        assert done.returncode in (2, 66) and says in done.stderr and done.stderr.count("\n") == 1


def test_refusals(texts):
    with pytest.raises(UsageError, match="each name once"):
        compare([ModelVariant("a", demo_model())] * 2, [text for text, _ in texts])
    with pytest.raises(UsageError, match="at least 2"):
        compare([ModelVariant("a", demo_model())], [texts[0][0]])
    assert parse_variant("a=m.gguf,h.gguf") == ModelVariant("a", *map(type(demo_model()), ("m.gguf", "h.gguf")))

"""The llama.cpp backbone: the same tokens, hidden states and heads as Hugging Face, and every way to be wrong."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autodeco_edge.convert.base import open_base
from autodeco_edge.convert.checkpoint_config import CheckpointConfig
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.errors import FormatError, MismatchError, UsageError
from autodeco_edge.text.chat import CHATML
from autodeco_edge.train.backbone import HuggingFaceBackbone
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.data import Encoder, TrainingSample, load_dataset
from autodeco_edge.train.gguf_backbone import GgufBackbone
from autodeco_edge.train.hyperparameters import TrainConfig
from autodeco_edge.train.lm_head import LmHead
from autodeco_edge.train.modules import AutoDecoHeads
from tests.support import letters, llama_source

CPU = torch.device("cpu")
TOPICS = (
    "the sea",
    "a fox",
    "two stars",
    "Größe",
    "naïve café",
    "日本語",
    "x = 3*y",
    "🙂 smile",
    "tabs\tand  spaces",
    "Z",
)


def records() -> list[dict]:
    """Prompts and chats, some with odd characters and control tokens in place."""
    plain = [
        {
            "prompt": f"<|im_start|>user\nTell me of {topic}.<|im_end|>\n<|im_start|>assistant\n",
            "completion": f"Here is {topic}, number {i}.",
        }
        for i, topic in enumerate(TOPICS)
    ]
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {topic}?"},
                {"role": "assistant", "content": f"It is {topic}."},
            ]
        }
        for topic in TOPICS
    ]
    return plain + chats


def write_lines(path: Path, lines: list) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "mixed.jsonl", records())


@pytest.fixture(scope="module", params=("llama", "qwen2"))
def both(request, tiny, data, tmp_path_factory):
    """(Hugging Face backbone, F16 GGUF backbone, samples of each), both loaded."""
    model = tiny(request.param)
    gguf = tmp_path_factory.mktemp("f16") / f"{model.name}-f16.gguf"
    llama_source.convert(model.hf, gguf, "f16")
    pair = HuggingFaceBackbone(model.hf), GgufBackbone(gguf, n_threads=1)
    if pair[0].tokenizer.chat_template is None:  # then the GGUF has none either, and ChatML stands in
        pair[0].tokenizer.chat_template = CHATML
    samples = [load_dataset(data, backbone.tokenizer, 512).samples for backbone in pair]
    for backbone in pair:
        backbone.load(CPU, samples[0])
    return *pair, *samples


# ---- the same as Hugging Face --------------------------------------------------------


def test_token_ids_are_those_of_hugging_face(both):
    hf, gguf, hf_samples, gguf_samples = both
    assert gguf_samples == hf_samples and len(gguf_samples) == 2 * len(TOPICS)
    assert Encoder(gguf.tokenizer)._adds_bos == Encoder(hf.tokenizer)._adds_bos


def test_hidden_states_labels_and_logits_are_those_of_hugging_face(both):
    """F16 weights and llama.cpp's F16 key-value cache leave 1e-3 (measured: 7e-4)."""
    hf, gguf, samples, _ = both
    expected, got = hf.positions(samples), gguf.positions(samples)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(expected, got, strict=True))
    hidden, other = (torch.cat([h for h, _ in positions]) for positions in (expected, got))
    assert distance(other, hidden) < 2e-3
    assert distance(gguf.lm_head(other), hf.lm_head(hidden)) < 2e-3
    assert gguf._states.stop.enabled, "the graph should stop before the LM head"


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def test_trained_heads_agree_with_hugging_face(both, tmp_path):
    """Same data and seed, 30 steps: mean |dT| and |dP| <= 0.02 on held-out tokens."""
    from autodeco_edge.train.trainer import Trainer

    hf, gguf, *_ = both
    lines = [
        {"prompt": f"{i}: tell me of {topic}.\n", "completion": f"Here is {topic}, and here are {i + 2} more of them."}
        for i, topic in enumerate(2 * TOPICS)
    ]
    data = write_lines(tmp_path / "plain.jsonl", lines)
    config = TrainConfig(hf.name, str(data), str(tmp_path / "hf"), recipe="official", learning_rate=1e-3, batch_size=2, accumulation=1,
                         max_steps=30, validation=0.2, save_dtype="f32", log_every=0)  # fmt: skip
    other = replace(config, base=None, model=str(gguf._model.path), output=str(tmp_path / "gguf"), threads=1)
    heads = []
    for c in (config, other):
        trainer = Trainer(c)
        result = trainer.run()
        assert result.after.loss < result.before.loss
        heads.append(load_heads(c.output).heads)
    held_out = torch.cat([h for h, _ in hf.positions(trainer.held_out)])
    (t, p), (t2, p2), (t0, p0) = (values(h, held_out, hf) for h in (*heads, fresh(heads[0])))
    d_t, d_p, moved_t, moved_p = (x.abs().mean().item() for x in (t - t2, p - p2, t - t0, p - p0))
    print(
        f"{gguf._info.arch}, {len(t)} held-out tokens: mean |dT| {d_t:.1e}, mean |dP| {d_p:.1e}; "
        f"training moved T by {moved_t:.3f} and P by {moved_p:.3f}"
    )
    assert moved_t > 0.05, "heads that did not learn prove nothing"
    assert d_t <= 0.02 and d_p <= 0.02


def fresh(heads: AutoDecoHeads) -> AutoDecoHeads:
    return AutoDecoHeads(heads.spec).reset_parameters(torch.Generator().manual_seed(42))


@torch.no_grad()
def values(heads: AutoDecoHeads, hidden: torch.Tensor, backbone) -> tuple[torch.Tensor, torch.Tensor]:
    return heads(hidden, backbone.lm_head(hidden))


# ---- batches and heads of the matrix, on a model of 260 tokens -----------------------


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory) -> Path:
    return letters.write_model(tmp_path_factory.mktemp("letters") / "letters.gguf")


def test_packed_long_and_single_sequences_agree(tiny_gguf):
    """Short ones share a batch, long ones take several: float32 sums in another order, F16 keys."""
    rng = np.random.default_rng(5)
    samples = [TrainingSample(rng.integers(0, 257, n).tolist(), n // 2) for n in (2, 7, 500, 40, 3, *[9] * 30)]
    backbone = GgufBackbone(tiny_gguf, n_threads=1)
    backbone.load(CPU, samples)
    backbone._states.n_batch = 64  # the long ones in several pieces
    for sample, (hidden, labels) in zip(samples, backbone.positions(samples), strict=True):
        ((alone, _),) = backbone.positions([sample])
        assert labels.tolist() == sample.ids[sample.first :] and len(hidden) == len(labels)
        assert distance(hidden, alone) < 2e-3


def test_bos_is_added_once_and_only_where_the_tokenizer_adds_it(tmp_path):
    for add_bos in (False, True):
        path = letters.write_model(tmp_path / f"bos{add_bos}.gguf", add_bos=add_bos)
        encode = Encoder(GgufBackbone(path).tokenizer)
        n_plain, n_written = (encode(prompt, "x").ids.count(258) + encode(prompt, "x").ids.count(259)
                              for prompt in ("one", letters.BOS + "one"))  # fmt: skip
        assert (n_plain - 1, n_written - 1) == (int(add_bos), 1)  # less the end token
        assert encode("one", "x" + letters.END).ids.count(258) == 1


def granite(path: Path, divisor: float = 8.0) -> Path:
    return letters.write_model(path, arch="granite", keys=lambda writer: writer.add_logit_scale(divisor))


def gemma2(path: Path, cap: float = 2.0) -> Path:
    """Tied, soft-capped, with the norms that Gemma has besides."""
    ones = np.ones(letters.N_EMBD, np.float32)
    norms = {f"blk.0.post_{name}.weight": ones for name in ("attention_norm", "ffw_norm")}
    return letters.write_model(
        path, arch="gemma2", keys=lambda writer: writer.add_final_logit_softcapping(cap),
        tensors={"output.weight": None, **norms},
    )  # fmt: skip


@pytest.mark.parametrize("make", (granite, gemma2))
def test_scaled_and_capped_logits_are_those_of_llama_cpp(tmp_path, make):
    backbone = GgufBackbone(make(tmp_path / "model.gguf"), n_threads=1)
    tokens = list(range(40, 60))
    backbone.load(CPU, [TrainingSample(tokens, 3)])
    ((hidden, logits),) = backbone._states.with_logits(tokens)
    got = backbone.lm_head(torch.from_numpy(hidden)).numpy()
    assert np.abs(got - logits).max() < 1e-4
    assert (backbone._head.scale, backbone._head.cap) == ((0.125, 0.0) if make is granite else (1.0, 2.0))


@pytest.mark.parametrize("make", (granite, gemma2))
def test_logits_that_the_matrix_does_not_explain_are_refused(tmp_path, make):
    """As if the metadata did not say it."""
    backbone = GgufBackbone(make(tmp_path / "model.gguf"), n_threads=1)
    backbone._head._metadata_scale, backbone._head.cap = 1.0, 0.0
    with pytest.raises(MismatchError, match=r"differ from llama.cpp's by .*allowed 1%.*--base"):
        backbone.load(CPU, [TrainingSample(list(range(40, 60)), 3)])


def test_bias_of_the_output_matrix(tmp_path):
    bias = np.linspace(-2, 2, 260).astype(np.float32)
    path = letters.write_model(tmp_path / "bias.gguf", tensors={"output.bias": bias})
    file, info = open_base(path)
    head = LmHead(file, info.arch)
    head.load(CPU)
    assert np.array_equal(head(torch.zeros(1, letters.N_EMBD))[0].numpy(), bias)


def test_quantised_model_with_its_own_template(tmp_path):
    """The demo model, Q8_0: the 5 % of the tolerance are far away, and chats are those of `run`."""
    from autodeco_edge.text.chat import render

    backbone = GgufBackbone(demo_model(), n_threads=1)
    messages = records()[-1]["messages"]
    (sample,) = load_dataset(
        write_lines(tmp_path / "chat.jsonl", [{"messages": messages}]), backbone.tokenizer, 512
    ).samples
    assert sample.ids[: sample.n_prompt] == render(backbone._model, messages[:1])
    assert backbone._model.is_end(sample.ids[-1])
    backbone.load(CPU, [sample])
    ((hidden, logits),) = backbone._states.with_logits(sample.ids)
    hidden, logits = torch.from_numpy(hidden), torch.from_numpy(logits)
    error = backbone._head._error(1.0, hidden, logits)
    print(f"Q8_0: {error:.2%} of the spread of the logits")
    assert error < 0.02


def test_heads_of_another_base_are_refused(tiny_gguf):
    backbone = GgufBackbone(tiny_gguf)
    backbone.check_heads(CheckpointConfig(tiny_gguf, model_type="mistral", n_vocab=260))
    for claim in ({"model_type": "qwen2"}, {"n_vocab": 300}, {"model_type": "not-known-here"}):
        with pytest.raises(MismatchError, match="use this base's own heads"):
            backbone.check_heads(CheckpointConfig(tiny_gguf, **claim))


# ---- the command ---------------------------------------------------------------------


def command(monkeypatch, capfd, *args: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `autodeco-edge ARGS`, in this process."""
    from autodeco_edge.cli import main

    monkeypatch.setattr(sys, "argv", ["autodeco-edge", *map(str, args)])
    capfd.readouterr()
    with open(os.devnull) as nothing, pytest.raises(SystemExit) as stop:
        monkeypatch.setattr(sys, "stdin", nothing)  # `run` reads a pipe to its end
        main()
    return stop.value.code, *capfd.readouterr()


PLAIN = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}."} for a in range(4) for b in range(4)]


@pytest.fixture
def sums(tmp_path) -> Path:
    return write_lines(tmp_path / "sums.jsonl", PLAIN)


def test_train_convert_run_without_any_hugging_face_folder(tiny_gguf, sums, tmp_path, monkeypatch, capfd):
    out, heads = tmp_path / "heads", tmp_path / "heads.gguf"
    code, stdout, err = command(
        monkeypatch, capfd, "train", "-m", tiny_gguf, "--data", sums, "-o", out, "--max-steps", 2, "--lr", "1e-3",
        "--batch-size", 4, "--accumulation", 1, "-t", 1,
    )  # fmt: skip
    assert (code, stdout) == (0, ""), err
    config = json.loads((out / "config.json").read_text())
    assert config["base_model_type"] == "llama" and config["base_model_name_or_path"] == "letters"
    assert (config["hidden_size"], config["vocab_size"]) == (letters.N_EMBD, 260)
    code, _, err = command(
        monkeypatch, capfd, "train", "-m", tiny_gguf, "--data", sums, "-o", out, "--init", out, "--max-steps", 1
    )
    assert code == 0, err
    code, _, err = command(monkeypatch, capfd, "convert", out, "--base", tiny_gguf, "-o", heads)
    assert code == 0, err
    code, stdout, err = command(
        monkeypatch, capfd, "run", "1+2=", "-m", tiny_gguf, "--heads", heads, "--raw", "--jsonl", "-n", 4, "-t", 1
    )
    assert code == 0, err
    steps = [json.loads(line) for line in stdout.splitlines()]
    assert all(0 < step["temperature"] < 2 and 0 < step["top_p"] < 1 for step in steps[:-1])


def test_text_longer_than_the_context_is_cut_and_counted(tiny_gguf, tmp_path, monkeypatch, capfd):
    long = {"prompt": "1", "completion": "2" * 3 * letters.N_CTX}
    lost = {"prompt": "1" * 2 * letters.N_CTX, "completion": "2"}
    data = write_lines(tmp_path / "long.jsonl", [*PLAIN[:3], long, lost])
    code, _, err = command(
        monkeypatch, capfd, "train", "-m", tiny_gguf, "--data", data, "-o", tmp_path / "x", "--max-steps", 1
    )
    assert code == 0 and "2 truncated, 1 without completion" in err, err


def broken(folder: Path, kind: str) -> Path:
    path = folder / "model.gguf"
    if kind == "not a GGUF":
        path.write_bytes(b"PK\x03\x04 nothing")
    elif kind == "no output matrix":
        letters.write_model(path, tensors={"output.weight": None, "token_embd.weight": None})
    elif kind == "NaN":
        letters.write_model(path, tensors={"output_norm.weight": np.full(letters.N_EMBD, np.nan, np.float32)})
    return path


@pytest.mark.parametrize(
    "kind, code, message",
    (
        ("not a GGUF", 65, "not a GGUF file"),
        ("missing", 66, "no such file"),
        ("no output matrix", 65, "no output matrix (expected output.weight or token_embd.weight"),
        ("NaN", 65, "hidden states that are not finite"),
    ),
)
def test_a_bad_model_gives_one_line_and_no_folder(kind, code, message, sums, tmp_path, monkeypatch, capfd):
    out = tmp_path / "deep" / "heads"
    got, _, err = command(monkeypatch, capfd, "train", "-m", broken(tmp_path, kind), "--data", sums, "-o", out)
    assert_refused(got, err, code, message, out)


def assert_refused(got: int, err: str, code: int, message: str, out: Path) -> None:
    assert got == code and message in err, err
    assert err.count("\n") == 1 and err.startswith("autodeco-edge: error: "), err
    assert not out.parent.exists(), "nothing should be left behind"


@pytest.mark.parametrize(
    "line, message",
    (
        ({"prompt": "x", "completion": 7}, '"completion" must be a string, got int'),
        ({"prompt": "x", "completion": "\ud800"}, '"completion" is not valid Unicode'),
        ({"messages": "x"}, '"messages" must be a list'),
        ({"prompt": "x"}, 'field "completion" missing'),
        ("{", "not valid JSON"),
    ),
)
def test_bad_data_give_one_line_and_no_folder(line, message, tiny_gguf, tmp_path, monkeypatch, capfd):
    data, out = write_lines(tmp_path / "bad.jsonl", [PLAIN[0], line]), tmp_path / "deep" / "heads"
    code, _, err = command(monkeypatch, capfd, "train", "-m", tiny_gguf, "--data", data, "-o", out)
    assert_refused(code, err, 65, f"bad.jsonl:2: {message}", out)


def test_a_template_that_fails_names_the_line(tmp_path):
    path = letters.write_model(tmp_path / "t.gguf", template="{{ raise_exception('no chats') }}")
    data = write_lines(tmp_path / "chat.jsonl", [records()[-1]])
    with pytest.raises(FormatError, match=r"chat.jsonl:1: .*chat template failed \(no chats\)"):
        load_dataset(data, GgufBackbone(path).tokenizer, 64)


@pytest.mark.parametrize(
    "options, message",
    (
        ([], "exactly one of --base (Hugging Face) and -m (GGUF); got neither"),
        (["--base", "x", "-m", "y"], "got both"),
        (["-m", "y", "--threads", "-1"], "threads: allowed 1 to 512"),
        (["--base", "x", "-t", "2"], "threads: is for -m"),
        (["-m", "y", "--precision", "bf16"], "precision: is for --base"),
        (["-m", "y", "--base-dtype", "bfloat16"], "base_dtype: is for --base"),
    ),
)
def test_options_that_do_not_go_together(options, message, sums, tmp_path, monkeypatch, capfd):
    out = tmp_path / "deep" / "heads"
    code, _, err = command(monkeypatch, capfd, "train", "--data", sums, "-o", out, *options)
    assert_refused(code, err, 2, message, out)


def test_settings_name_one_backbone():
    with pytest.raises(UsageError, match="got neither"):
        TrainConfig(None, "d", "o").check()

"""Steering by words: the ranking loss by hand and by finite differences, its data, whole runs."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autodeco_edge.errors import FormatError, UsageError
from autodeco_edge.tasks.commands import HIGH, LOW, SEEN, UNSEEN, with_command
from autodeco_edge.train import steer
from autodeco_edge.train import trainer as training
from autodeco_edge.train.checkpoint import load_heads
from autodeco_edge.train.data import TrainingSample, load_dataset
from autodeco_edge.train.hyperparameters import TrainConfig
from autodeco_edge.train.steer import MARGIN_P, MARGIN_T, Steering, commanded, ranking_loss
from tests.support import letters, warm

# ---- the loss ----------------------------------------------------------------------


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_ranking_loss_by_hand():
    """Table 4's own means lose nothing at m = 0.1; no effect costs two margins; the wrong way costs more."""
    base, low, high = tensor(0.72, 0.50, 0.50, 0.50), tensor(0.61, 0.50, 0.55, 0.45), tensor(0.82, 0.50, 0.45, 0.90)
    want = tensor(0.0, 0.2, (0.1 + 0.05) + (0.1 + 0.05), 0.0 + (0.1 - 0.05))
    torch.testing.assert_close(ranking_loss(base, base, low, high, 0.1), want)
    torch.testing.assert_close(ranking_loss(base, base - 0.03, low, high, 0.1), want + 0.03)


def test_each_mean_is_pulled_its_own_way():
    start, base, low, high = (tensor(0.5, 0.5).requires_grad_() for _ in range(4))
    ranking_loss(start.detach(), base + tensor(0.1, -0.1), low, high, 0.1).sum().backward()
    assert base.grad.tolist() == [1.0, -1.0], "back to the start"
    assert low.grad.tolist() == [1.0, 1.0] and high.grad.tolist() == [-1.0, -1.0]


N_VOCAB = 7


@pytest.fixture
def group(golden_heads):
    """Two prompts in three variants, H = 4, with completions of 3 and 5 tokens: (heads, lm_head, batch, hidden, labels)."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(N_VOCAB, 4, generator=generator).double()
    samples = [
        TrainingSample([0] * (n_prompt + m), n_prompt, i) for i, (n_prompt, m) in enumerate([(2, 3), (4, 5)] * 3)
    ]
    variants = {0: (samples[2], samples[4]), 1: (samples[3], samples[5])}
    hidden = torch.randn(24, 4, generator=generator).double()
    labels = torch.randint(N_VOCAB, (24,), generator=generator)
    golden_heads.detach_temperature = False  # finite differences see every path
    return golden_heads, lambda h: h @ weight.T, variants, samples[:2], hidden, labels


def moved(heads) -> None:
    """Heads that have been trained for a while."""
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter += 0.1 * torch.sin(torch.arange(parameter.numel()).double()).view_as(parameter)


def term(group, weight=1.0, **which) -> torch.Tensor:
    heads, lm_head, variants, batch, hidden, _ = group
    steering = Steering(heads, lm_head, variants, weight, **which)
    moved(heads)
    ranking = steering(hidden, batch)
    assert ranking.n == 2
    return ranking.loss_sum


def by_hand(group, temp=True, top_p=True) -> float:
    """Prompt by prompt, with numbers; afterwards the heads have moved."""
    heads, lm_head, _, _, hidden, _ = group

    def means(a: int, b: int) -> list[float]:
        return [x.mean().item() for x in heads(hidden[a:b], lm_head(hidden[a:b]))]

    starts = [means(0, 3), means(3, 8)]
    moved(heads)
    total = 0.0
    for start, rows in zip(starts, (((0, 3), (8, 11), (16, 19)), ((3, 8), (11, 16), (19, 24))), strict=True):
        now = [means(a, b) for a, b in rows]
        for i, margin, ranked in ((0, MARGIN_T, temp), (1, MARGIN_P, top_p)):
            base, lo, hi = (m[i] for m in now)
            loss = max(0.0, margin - (hi - start[i])) + max(0.0, margin - (start[i] - lo)) + abs(base - start[i])
            total += loss if ranked else 0.0
    return total


@pytest.mark.parametrize("which", ({}, {"top_p": False}, {"temp": False}), ids=("both", "temp", "top-p"))
def test_term_of_a_batch_is_that_of_its_prompts(group, which):
    """Float64, rows in other batches."""
    before = deepcopy(group[0].state_dict())
    want = by_hand(group, **which)
    group[0].load_state_dict(before)
    assert term(group, 2.5, **which).item() == pytest.approx(2.5 * want, rel=1e-12)


def test_chunks_change_nothing(group, monkeypatch):
    before = deepcopy(group[0].state_dict())
    whole = term(group).item()
    group[0].load_state_dict(before)
    monkeypatch.setattr(steer, "CHUNK_ELEMENTS", 3 * N_VOCAB)
    assert term(group).item() == pytest.approx(whole, rel=1e-12)


def test_gradient_against_finite_differences(group):
    """Central differences of float64 at a step of 1e-6 are good to some 1e-9 of a loss near 0.3."""
    heads, lm_head, variants, batch, hidden, _ = group
    steering = Steering(heads, lm_head, variants, 1.0)
    moved(heads)
    steering(hidden, batch).loss_sum.backward()
    for parameter in heads.parameters():
        index = tuple(int(i) for i in torch.nonzero(parameter.grad.abs() == parameter.grad.abs().max())[0])
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter[index] += sign * 1e-6
                values.append(steering(hidden, batch).loss_sum.item())
                parameter[index] -= sign * 1e-6
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(parameter.grad[index].item(), rel=1e-6, abs=1e-8)


# ---- data --------------------------------------------------------------------------


WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"]


def write_messages(path: Path, n: int = 40, system: bool = False) -> Path:
    lines = []
    for i in range(n):
        a, b = i % 4, (i // 4) % 5
        turns = [("system", "be short")] if system else []
        turns += [
            ("user", f"{WORDS[a]} plus {WORDS[b]}"),
            ("assistant", f"{WORDS[a]} plus {WORDS[b]} is {WORDS[a + b]}"),
        ]
        lines.append(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def messages_file(tmp_path) -> Path:
    return write_messages(tmp_path / "messages.jsonl")


def test_variants_differ_in_the_command_alone(make_tokenizer, messages_file):
    tokenizer = make_tokenizer()
    data = load_dataset(messages_file, tokenizer, 200, commanded(42))
    plain = load_dataset(messages_file, tokenizer, 200)
    assert [s.ids for s in data.samples] == [s.ids for s in plain.samples] and plain.variants == {}
    assert len({s.index for s in data.all}) == len(data.all) == 3 * 40
    drawn = set()
    for number, sample in enumerate(data.samples):
        completion, commands = sample.ids[sample.n_prompt :], SEEN.pick(42, number)
        assert commands[0] in LOW and commands[1] in HIGH
        for variant, command in zip(data.variants[sample.index], commands, strict=True):
            assert variant.ids[variant.n_prompt :] == completion
            text = tokenizer.decode(variant.ids[: variant.n_prompt])
            assert text.replace(f" {command}", "", 1) == tokenizer.decode(sample.ids[: sample.n_prompt])
        drawn |= set(commands)
    assert len(drawn) > 12, "40 draws see most of the 16 sentences"
    assert not drawn & {*UNSEEN.low, *UNSEEN.high}


def test_a_cut_leaves_all_three_the_same_completion(make_tokenizer, messages_file):
    tokenizer = make_tokenizer()
    whole = load_dataset(messages_file, tokenizer, 500, commanded(42))
    longest = max(len(s.ids) for s in whole.all)
    cut = load_dataset(messages_file, tokenizer, longest - 3, commanded(42))
    assert cut.n_truncated and max(len(s.ids) for s in cut.all) == longest - 3
    for sample in cut.samples:
        ends = {tuple(s.ids[s.n_prompt :]) for s in (sample, *cut.variants[sample.index])}
        assert len(ends) == 1 and len(next(iter(ends))) > 0


def test_a_command_goes_to_the_last_user_message():
    turns = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    messages = [{"role": r, "content": c} for r, c in turns]
    changed = with_command(messages, "Vary.")
    assert [m["content"] for m in changed] == ["s", "a", "b", "c Vary.", "d"]
    assert [m["content"] for m in messages] == ["s", "a", "b", "c", "d"]
    assert with_command([{"role": "user", "content": "a\nb"}], "Vary.")[0]["content"] == "a\nb\nVary."


def test_training_and_evaluation_share_no_sentence():
    assert not {*LOW, *HIGH} & {*UNSEEN.low, *UNSEEN.high}
    assert not {*LOW} & {*HIGH} and not {*UNSEEN.low} & {*UNSEEN.high}


TERMS = ("temp_loss", "top_p_loss", "rank_loss")

# ---- runs --------------------------------------------------------------------------


@pytest.fixture
def unsteered(base_dir, messages_file, tmp_path) -> TrainConfig:
    return TrainConfig(
        str(base_dir), str(messages_file), str(tmp_path / "start"), recipe="official", learning_rate=3e-3, batch_size=8, accumulation=1,
        max_steps=40, validation=0.2, save_dtype="f32", log_every=0,
    )  # fmt: skip


@pytest.fixture
def config(unsteered, tmp_path) -> TrainConfig:
    """On heads that a first run has trained."""
    training.train(unsteered)
    return replace(unsteered, init=unsteered.output, output=str(tmp_path / "heads"), max_steps=12, steer=True)


def test_heads_learn_what_commands_ask_for_and_keep_their_default(config):
    """On held-out prompts too, by a tiny random base."""
    result = training.train(replace(config, max_steps=100))
    steps = json.loads((Path(config.output) / "training.json").read_text())["steps"]
    assert result.before.rank_loss == pytest.approx(2 * (MARGIN_T + MARGIN_P), abs=0.06), "no effect: all four margins"
    assert sum(steps["rank_loss"][-10:]) / 10 < 0.6 * result.before.rank_loss
    assert result.after.rank_loss < 0.8 * result.before.rank_loss
    assert result.after.mean_temperature == pytest.approx(result.before.mean_temperature, abs=0.05)
    assert result.after.mean_top_p == pytest.approx(result.before.mean_top_p, abs=0.05)
    own = result.after.temp_loss + result.after.top_p_loss
    assert result.after.loss == pytest.approx(own + result.after.rank_loss)
    assert steps["loss"] == pytest.approx([sum(terms) for terms in zip(*(steps[k] for k in TERMS), strict=True)])


def test_without_steer_there_is_no_term(config):
    result = training.train(replace(config, max_steps=2, steer=False))
    assert result.after.rank_loss == result.before.rank_loss == 0.0


def test_batches_of_a_step_are_averaged_over_prompts(config):
    """Six batches of 1 give the gradient of one of 6, to float32 rounding: hidden states come from other paddings."""
    trainer = training.Trainer(replace(config, drop_probability=0.0))
    samples, gradients = trainer.train_samples[:6], []
    for groups in ([samples], [[sample] for sample in samples]):
        metrics = trainer._gradient(0, groups)
        gradients.append([p.grad.clone() for p in trainer.heads.parameters()])
        assert metrics.rank_loss > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class Stop(Exception):
    pass


def test_resumes_to_the_same_bits(config, tmp_path, monkeypatch):
    whole = training.train(config)
    broken, real = replace(config, output=str(tmp_path / "broken"), save_every=3), training.schedule
    with monkeypatch.context() as patch:

        def stop(c, step, n_steps):
            if step == 7:
                raise Stop
            return real(c, step, n_steps)

        patch.setattr(training, "schedule", stop)
        with pytest.raises(Stop):
            training.train(broken)
    with pytest.raises(UsageError, match="steer_weight 1.0, now 2.0"):
        training.train(replace(broken, resume=True, steer_weight=2.0))
    assert training.train(replace(broken, resume=True)).history == whole.history
    heads, same = (load_heads(c.output).heads.state_dict() for c in (config, broken))
    assert all(torch.equal(tensor, same[name]) for name, tensor in heads.items())


def test_trains_on_a_gguf_from_trained_heads(config, tmp_path):
    path = letters.write_model(tmp_path / "tiny.gguf")
    config = replace(config, base=None, model=str(path), threads=1, max_steps=30, output=str(tmp_path / "gguf"))
    training.train(replace(config, init=None, steer=False, max_steps=3))
    steered = replace(config, init=config.output, output=str(tmp_path / "steered"), heads="temp")
    result = training.train(steered)
    assert result.after.rank_loss < result.before.rank_loss
    before, after = (load_heads(c.output).heads.state_dict() for c in (config, steered))
    assert {n.split(".")[0] for n in before if not torch.equal(before[n], after[n])} == {"temp_head"}
    saved = json.loads((Path(steered.output) / "training.json").read_text())
    assert saved["settings"]["steer"] and len(saved["steps"]["rank_loss"]) == 30


@pytest.mark.parametrize(
    "record, says",
    (({"prompt": "a", "completion": "b"}, "needs .*messages"),
     ({"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]}, 'role "user"'),
     ({"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "b"}]}, 'role "user"')),
)  # fmt: skip
def test_records_without_a_place_for_a_command(config, record, says):
    with Path(config.data).open("a") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(FormatError, match=says) as caught:
        training.train(config)
    assert "messages.jsonl:41" in str(caught.value) and "\n" not in str(caught.value)


def test_refusals_of_settings(config):
    with pytest.raises(UsageError, match="steer_weight: expected a number above 0"):
        training.train(replace(config, steer_weight=0.0))
    with pytest.raises(UsageError, match="give them with --init"):
        training.train(replace(config, init=None))
    with pytest.raises(UsageError, match="is for --steer"):
        training.train(replace(config, steer=False, steer_weight=2.0))
    line = ["train", "--steer", "--objective", "reward", "-o", config.output]
    done = warm.run(*line, modules=warm.TORCH, text=True)
    assert done.returncode == 2 and "--steer ranks replies" in done.stderr and "Traceback" not in done.stderr

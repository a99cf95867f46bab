"""The wrapper and its generate(), on tiny random models of five families."""

from __future__ import annotations

import pytest
import torch

from autodeco_edge.errors import MismatchError, MissingInputError, UsageError
from autodeco_edge.gguf.keys import FEATURES_BASIC, FEATURES_ENHANCED, HeadSpec
from autodeco_edge.train.model import AutoDecoForCausalLM
from autodeco_edge.train.modules import AutoDecoHeads

FAMILIES = ("llama", "qwen2", "qwen3_moe", "gpt_oss", "deepseek_v3")
PROMPTS = ([5, 9, 77, 31], [12, 300], [8, 8, 8, 150, 151, 152, 153])
N_NEW = 12


def left_padded(prompts):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, make_model):
    return make_model(request.param)


def test_forward_is_the_lm_heads_input_and_bare_output(model):
    ids = torch.tensor([PROMPTS[2]])
    out = model(ids)
    plain = model.base(input_ids=ids, output_hidden_states=True)
    torch.testing.assert_close(out.logits, plain.logits)
    torch.testing.assert_close(out.hidden, plain.hidden_states[-1])
    torch.testing.assert_close(model.hidden_states(ids), out.hidden)
    torch.testing.assert_close(model.lm_head(out.hidden), out.logits)
    t, p = model.heads(out.hidden, out.logits)
    assert torch.equal(out.temperature, t) and torch.equal(out.top_p, p)


def test_batched_equals_single_and_teacher_forced(model):
    ids, mask = left_padded(PROMPTS)
    batch = model.generate(ids, mask, max_new_tokens=N_NEW, do_sample=False, eos_token_id=())
    assert batch.tokens.shape == (3, N_NEW) and batch.sequences.shape == (3, ids.shape[1] + N_NEW)
    for row, prompt in enumerate(PROMPTS):
        single = model.generate(torch.tensor([prompt]), max_new_tokens=N_NEW, do_sample=False, eos_token_id=())
        assert single.tokens[0].tolist() == batch.tokens[row].tolist()
        forced = model(single.sequences[:, :-1])
        for name in ("temperature", "top_p"):
            expected = getattr(forced, name)[0, len(prompt) - 1 :]
            # float32, other order of summation with a cache and with padding
            torch.testing.assert_close(getattr(single, name)[0], expected, rtol=0, atol=1e-4)
            torch.testing.assert_close(getattr(batch, name)[row], expected, rtol=0, atol=1e-4)


def test_values_vary_and_user_parameters_multiply(model):
    ids = torch.tensor([PROMPTS[0]])
    out = model.generate(
        ids, None, 16, temperature=0.5, top_p=0.25, generator=torch.Generator().manual_seed(1), eos_token_id=()
    )
    assert out.temperature.std() > 0.02 and out.top_p.std() > 0.005
    torch.testing.assert_close(out.temperature_eff, out.temperature.double() * 0.5)
    torch.testing.assert_close(out.top_p_eff, out.top_p.double() * 0.25)


# ---- one family is enough for what follows -----------------------------------------


@pytest.fixture(scope="module")
def llama(make_model):
    return make_model("llama")


def sampled(model, seed=0, n=24, **kwargs):
    ids = torch.tensor([PROMPTS[0]])
    generator = torch.Generator().manual_seed(seed)
    return model.generate(ids, max_new_tokens=n, generator=generator, eos_token_id=(), **kwargs)


def test_user_temperature_zero_is_greedy(llama):
    greedy = sampled(llama, do_sample=False)
    zero = sampled(llama, seed=3, temperature=0.0)
    assert torch.equal(greedy.tokens, zero.tokens) and (zero.temperature_eff == 0).all()
    plain = llama.base.generate(torch.tensor([PROMPTS[0]]), do_sample=False, max_new_tokens=24, eos_token_id=-1)
    assert torch.equal(greedy.sequences, plain)


def test_same_seed_same_tokens(llama):
    assert torch.equal(sampled(llama, 5).tokens, sampled(llama, 5).tokens)
    assert not torch.equal(sampled(llama, 5).tokens, sampled(llama, 6).tokens)


def test_heads_change_the_output(llama):
    runs = {mode: sampled(llama, heads_mode=mode) for mode in ("both", "temp", "top-p", "none")}
    tokens = {mode: run.tokens[0].tolist() for mode, run in runs.items()}
    assert len({tuple(t) for t in tokens.values()}) == 4
    assert (runs["none"].temperature_eff == 1).all() and (runs["none"].top_p_eff == 1).all()
    assert (runs["temp"].top_p_eff == 1).all() and (runs["top-p"].temperature_eff == 1).all()


def test_every_drawn_token_lies_in_the_heads_nucleus(llama):
    run = sampled(llama, n=40)
    forced = llama(run.sequences[:, :-1])
    start = len(PROMPTS[0]) - 1
    for i, token in enumerate(run.tokens[0].tolist()):
        logits = forced.logits[0, start + i].double()
        q = torch.softmax(logits / run.temperature_eff[0, i], -1)
        mass_before = q[q > q[token]].sum()
        assert mass_before < run.top_p_eff[0, i] + 1e-5  # float32 logits of another batch shape


def exact_next_token(model, ids):
    """Distribution [V] of the next token by equations 3 and 5, from one teacher-forced forward."""
    out = model(ids)
    logits, t, p = out.logits[0, -1].double(), out.temperature[0, -1].double(), out.top_p[0, -1].double()
    q, order = torch.softmax(logits / t, -1).sort(descending=True)
    keep = (q.cumsum(-1) - q) < p
    return torch.zeros_like(q).scatter(0, order[keep], q[keep] / q[keep].sum())


def test_drawn_tokens_follow_the_exact_distribution(llama, chi_square_limit):
    """Chi-square over 4,000 parallel draws of one step; false alarm 1e-4. Cells that expect under 5 are pooled."""
    n_draws = 4000
    candidates = [torch.tensor([[5, 9, token]]) for token in range(40, 80)]
    ids = max(candidates, key=lambda ids: (exact_next_token(llama, ids) > 0.01).sum().item())
    exact = exact_next_token(llama, ids)
    out = llama.generate(
        ids.expand(n_draws, -1), max_new_tokens=1, generator=torch.Generator().manual_seed(2), eos_token_id=()
    )
    counts = out.tokens[:, 0].bincount(minlength=len(exact)).double()
    assert 0 < out.top_p[0, 0] < 1 and counts[exact == 0].sum() == 0
    big = exact * n_draws >= 5
    assert big.sum() >= 5
    got, expected = ([x[big], x[~big].sum()[None]] for x in (counts, exact * n_draws))
    got, expected = torch.cat(got), torch.cat(expected)
    used = expected > 0
    statistic = ((got - expected).square() / expected)[used].sum().item()
    assert statistic < chi_square_limit(int(used.sum()) - 1)


def test_stops_at_eos_and_pads(llama):
    free = sampled(llama, do_sample=False, n=10)
    stop = free.tokens[0, 3].item()
    first = free.tokens[0].tolist().index(stop)
    ids, mask = left_padded(PROMPTS[:2])
    out = llama.generate(ids, mask, max_new_tokens=10, do_sample=False, eos_token_id=stop, pad_token_id=1)
    assert out.completions()[0] == free.tokens[0, : first + 1].tolist()
    ended = ~out.active[0]
    assert (out.tokens[0][ended] == 1).all() and out.temperature[0][ended].isnan().all()
    assert out.active[:, 0].all()


def test_default_eos_is_the_bases_own(llama):
    assert llama._stop_ids(None).tolist() == [2]
    assert llama._stop_ids([4, 5]).tolist() == [4, 5] and llama._stop_ids(()).tolist() == []


@pytest.mark.parametrize(
    "spec, t_is_one, p_is_one",
    (
        (HeadSpec(64, 16, (), True, False), False, True),
        (HeadSpec(64, 16, FEATURES_ENHANCED, False, True), True, False),
        (HeadSpec(64, 16, FEATURES_BASIC, True, True), False, False),
    ),
)
def test_either_head_missing_and_basic_features(make_model, spec, t_is_one, p_is_one):
    run = sampled(make_model("llama", spec), n=6)
    assert (run.temperature == 1).all() == t_is_one and (run.top_p == 1).all() == p_is_one


def test_a_head_marked_untrained_does_not_act(make_base, llama):
    model = AutoDecoForCausalLM(make_base(), llama.heads, enable_temperature=False)
    run = sampled(model, n=6)
    assert (run.temperature_eff == 1).all() and (run.temperature != 1).any()
    assert (run.top_p_eff == run.top_p.double()).all()


def test_only_the_heads_learn(llama):
    llama.train()
    out = llama(torch.tensor([PROMPTS[0]]))
    (out.temperature.sum() + out.top_p.sum()).backward()
    assert all(p.grad is None for p in llama.base.parameters()) and not llama.base.training
    assert all(p.grad is not None for p in llama.heads.parameters())
    llama.zero_grad()


def test_tied_and_scaled_logits_stay_bare(make_base):
    """A base that scales its logits (as Granite or Gemma do): the heads see the bare matrix."""
    import transformers

    config = transformers.GraniteConfig(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=8.0, tie_word_embeddings=True, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    base = transformers.AutoModelForCausalLM.from_config(config).eval()
    heads = AutoDecoHeads(HeadSpec(64, 8, FEATURES_ENHANCED, True, True))
    ids = torch.tensor([PROMPTS[0]])
    out = AutoDecoForCausalLM(base, heads)(ids)
    torch.testing.assert_close(out.logits, base(input_ids=ids).logits * 8.0)


def test_misuse_is_refused(llama, make_base, tmp_path):
    ids = torch.tensor([[4, 5], [6, 7]])
    with pytest.raises(UsageError, match="left"):
        llama.generate(ids, torch.tensor([[1, 0], [1, 1]]))
    with pytest.raises(UsageError, match="input_ids"):
        llama.generate(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(UsageError, match="max_new_tokens"):
        llama.generate(ids, max_new_tokens=0)
    with pytest.raises(UsageError, match="temperature"):
        llama.generate(ids, temperature=-1.0)
    with pytest.raises(MismatchError, match="128"):
        AutoDecoForCausalLM(make_base(), AutoDecoHeads(HeadSpec(128, 8, (), True, False)))
    with pytest.raises(MissingInputError, match="nowhere"):
        AutoDecoForCausalLM.from_pretrained(tmp_path / "nowhere")

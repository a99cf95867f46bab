"""The lab's own code against slow and obvious versions: the draw, the statistics, the gradient, the model."""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from autodeco_edge.eval.statistics import distinct_of  # noqa: E402
from autodeco_edge.train.modules import distribution_statistics  # noqa: E402
from autodeco_edge.train.sampling import sampling_probs  # noqa: E402

MODULES = ("model", "drawing", "sampler", "lab", "reward")


@pytest.fixture(scope="module")
def lab():
    """The names of all its modules, in one place."""
    modules = [importlib.import_module(f"bench.smollm2_lab.{name}") for name in MODULES]
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@pytest.fixture(scope="module")
def model(lab):
    torch.manual_seed(1)
    return lab.Llama.random(lab.Shape(2, 48, 3, 1, 64, 512), torch.device("cpu"), torch.float32)


def logits_like(n: int, v: int = 512) -> torch.Tensor:
    torch.manual_seed(n)
    return torch.randn(n, v) * 3


def test_cached_steps_are_the_whole_forward(lab, model) -> None:
    """Left padding, spreading over samples and dropping rows change nothing."""
    ids = torch.randint(3, 500, (2, 12))
    whole = model.hidden_of(ids)
    cache = lab.Cache(model.shape, 2, 20, torch.float32, model.device)
    padded = torch.stack([ids[0, :8], torch.cat([torch.full((3,), 2), ids[1, :5]])])
    hidden = model.prefill(padded, torch.tensor([0, 3]), cache)
    assert torch.allclose(hidden, torch.stack([whole[0, 7], whole[1, 4]]), atol=1e-5)
    cache = cache.rows(torch.tensor([1, 0, 1]), 20)
    for t in range(3):
        hidden = model.step(torch.stack([ids[1, 5 + t], ids[0, 8 + t], ids[1, 5 + t]]), cache)
        assert torch.allclose(hidden, torch.stack([whole[1, 5 + t], whole[0, 8 + t], whole[1, 5 + t]]), atol=1e-5)


def test_statistics_are_the_projects(lab) -> None:
    logits = logits_like(9)
    t = torch.linspace(0.1, 1.9, 9)
    assert torch.allclose(lab.statistics(logits, t), distribution_statistics(logits, t), atol=2e-6)


def test_the_threshold_is_the_nucleus(lab) -> None:
    logits = logits_like(40)
    t, p = torch.rand(40) * 1.5 + 0.2, torch.rand(40)
    weights = ((logits - logits.amax(-1, keepdim=True)) / t[:, None]).exp()
    kept = weights >= lab.threshold(weights, p)
    assert (kept == (sampling_probs(logits, t, p) > 0)).float().mean() > 0.9999


def test_draws_follow_the_exact_distribution(lab) -> None:
    logits = logits_like(6, 256)
    t, p = torch.tensor([1.0, 0.5, 1.5, 1.0, 0.0, 0.7]), torch.tensor([1.0, 0.8, 0.5, 0.05, 1.0, 0.95])
    n = 20_000
    seeds = torch.arange(n)
    exact = sampling_probs(logits, t, p)
    for row in range(6):
        of = lambda x: x[row].expand(n)  # noqa: B023, E731
        tokens = lab.draw(logits[row].expand(n, -1), of(t), of(p), torch.zeros(n), seeds + 7 * row, 3)
        share = torch.bincount(tokens, minlength=256) / n
        assert not share[exact[row] == 0].any()
        assert (share - exact[row]).abs().max() < 5 * math.sqrt(0.25 / n)


def test_min_p_cuts_before_top_p(lab) -> None:
    logits = logits_like(1, 256).expand(5000, -1)
    one = torch.ones(5000)
    tokens = lab.draw(logits, one, one, 0.2 * one, torch.arange(5000), 0)
    allowed = (torch.softmax(logits[0], -1) >= 0.2 * torch.softmax(logits[0], -1).max()).nonzero().squeeze(1)
    assert set(tokens.tolist()) == set(allowed.tolist())


def test_uniform_numbers_are_uniform_and_repeat(lab) -> None:
    u = lab.uniform(torch.arange(100_000), 5)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.005 and abs(u.std() - 12**-0.5) < 0.005
    assert torch.equal(u[:10], lab.uniform(torch.arange(10), 5)) and not torch.equal(
        u, lab.uniform(torch.arange(100_000), 6)
    )


def test_replies_do_not_depend_on_who_is_beside_them(lab, model) -> None:
    prompts = [list(range(3, 3 + n)) for n in (4, 9, 6)]
    jobs = [lab.Job(i % 3, i % 2, 100 + i, 8 + i % 4) for i in range(12)]
    policies = [lab.constant(1.0), lab.constant(0.7, 0.9)]
    many = lab.Sampler(model, prompts, 12).draw(jobs, policies)
    for i, job in enumerate(jobs):
        alone = lab.Sampler(model, prompts, 1).draw([job], policies)
        assert np.array_equal(alone.tokens[0], many.tokens[i]) and len(many.tokens[i]) <= job.limit
        assert alone.log_p[0] == pytest.approx(many.log_p[i], abs=1e-4)


def heads_of(lab, width: int):
    torch.manual_seed(3)
    return lab.fresh(width, 16, torch.device("cpu"))


def test_slopes_of_a_traced_draw_are_those_of_autograd(lab, model) -> None:
    heads = heads_of(lab, model.shape.width)
    hidden = torch.randn(64, model.shape.width)
    logits = model.logits(hidden)
    traces = lab.Traces()
    torch.manual_seed(5)
    token, t, p = lab.traced(
        lab.Policy("x", heads=heads),
        hidden,
        logits,
        torch.rand(64, dtype=torch.float64),
        torch.arange(64),
        torch.ones(64, dtype=torch.bool),
        traces,
        0.5,
    )
    data = traces.joined()
    weights = ((logits - logits.amax(-1, keepdim=True)) / t[:, None]).exp()
    kept = weights >= lab.threshold(weights, p)
    variable = t.double().requires_grad_()
    log_r = torch.log_softmax((logits.double() / variable[:, None]).masked_fill(~kept, -1e30), -1)
    chosen = log_r.gather(1, token[:, None]).squeeze(1)
    assert chosen.isfinite().all()
    (slope,) = torch.autograd.grad(chosen.sum(), variable)
    assert torch.allclose(data["slope_t"].double(), slope, rtol=1e-3, atol=1e-4)
    z = torch.logit(heads.top_p_head(hidden, data["features"]).detach()) + 0.5 * data["noise_p"]
    assert torch.allclose(torch.sigmoid(z), p, atol=1e-5)


def test_traces_are_of_the_tokens_drawn(lab, model) -> None:
    prompts = [[5, 6, 7], [8, 9]]
    jobs = [lab.Job(i % 2, 0, i, 10) for i in range(8)]
    traces = lab.Traces()
    drawn = lab.Sampler(model, prompts, 8).draw(
        jobs, [lab.Policy("x", heads=heads_of(lab, 48))], traces=traces, sigma=0.5
    )
    data = traces.joined()
    for i in range(8):
        rows = data["row"] == i
        assert data["token"][rows].tolist() == drawn.tokens[i].tolist()
        whole = model.hidden_of(torch.tensor([prompts[i % 2] + drawn.tokens[i].tolist()]))
        n = len(prompts[i % 2])
        assert torch.allclose(data["hidden"][rows], whole[0, n - 1 : n - 1 + len(drawn.tokens[i])], atol=1e-4)


def test_reward_raises_what_it_pays_for(lab, model) -> None:
    """Paid for the most likely token, T falls; paid for others, it rises; and P, from its noise alone, likewise."""
    for sign in (1.0, -1.0):
        heads = heads_of(lab, 48)
        optimizer = torch.optim.AdamW(heads.parameters(), 3e-3, weight_decay=0.0)
        torch.manual_seed(7)
        hidden = torch.randn(256, 48)
        logits = 2 * model.logits(hidden)
        before = lab.heads_values(heads, hidden, logits)
        for step in range(60):
            traces = lab.Traces()
            u = lab.uniform(torch.arange(256), step)
            token, _, _ = lab.traced(
                lab.Policy("x", heads=heads),
                hidden,
                logits,
                u,
                torch.arange(256),
                torch.ones(256, dtype=torch.bool),
                traces,
                0.5,
            )
            right = (token == logits.argmax(-1)).float()
            lab.step_on_reward(heads, optimizer, traces.joined(), sign * (right - right.mean()), True, 0.5)
        after = lab.heads_values(heads, hidden, logits)
        assert sign * float((after[0] - before[0]).mean()) < -0.05
        assert sign * float((after[1] - before[1]).mean()) < -0.01


def test_heads_can_begin_at_a_constant(lab, model) -> None:
    lab_ = object.__new__(lab.Lab)
    lab_.model, lab_.device = model, model.device
    lab_.options = type("O", (), {"hidden": 16})
    heads = lab_.new_heads(0, (0.6, 0.9))
    hidden = torch.randn(5, 48)
    t, p, _ = lab.heads_values(heads, hidden, model.logits(hidden))
    assert torch.allclose(t, torch.full((5,), 0.6), atol=1e-5) and torch.allclose(p, torch.full((5,), 0.9), atol=1e-5)


def test_coverage_is_that_of_the_evaluation(lab) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        keys = rng.integers(0, 5, 24).astype(np.uint16)
        assert lab.coverage(keys, 16) == pytest.approx(distinct_of([str(k) if k else None for k in keys], 16))


def test_novelty_counts_pairs_that_nobody_else_has(lab) -> None:
    replies = [np.array(x, np.uint16) for x in ([1, 2, 3], [1, 2, 4], [9, 8, 7], [])]
    assert lab.novelty(replies).tolist() == [0.5, 0.5, 1.0, 0.0]


def test_methods_have_names(lab) -> None:
    """What `more` draws: constants, rules, heads with one of them or both; a name that is none of these has no file."""
    from bench.smollm2_lab.more import policy

    heads = object()
    state = SimpleNamespace(has=lambda name: name == "a.heads", load_heads=lambda name: heads)
    assert (found := policy(state, "0.8/0.95")).heads is None and (found.temperature, found.top_p) == (0.8, 0.95)
    assert policy(state, "min-p 0.05").min_p == 0.05 and policy(state, "dynatemp 0.5-1.5").dynatemp == (0.5, 1.5)
    both, only_t, only_p = (policy(state, name) for name in ("a", "a T", "a P"))
    assert all(p.heads is heads for p in (both, only_t, only_p)) and [p.name for p in (only_t, only_p)] == [
        "a T",
        "a P",
    ]
    assert [(p.use_t, p.use_p) for p in (both, only_t, only_p)] == [(True, True), (True, False), (False, True)]
    with pytest.raises(ValueError):
        policy(state, "b")

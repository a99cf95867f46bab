"""The engine on real graphs: which token is drawn, with which T and P, and when it refuses.

Two models: `qwen2` (152k tokens, made by llama.cpp's own converter) where the vocabulary or the
converter matters, and `letters` (260 tokens) where a test draws often. Temperatures and top-p are
compared with ``==``: a float read through ctypes keeps its bits, so equal means equal bits.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import threading

import llama_cpp
import numpy as np
import pytest

from autodeco_edge.dropin.llama import Llama
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.native import lib
from autodeco_edge.engine.sampler import Heads, Sampler, SamplingParams, Step
from autodeco_edge.errors import BusyError, ContextOverflowError, MismatchError, NoHeadsError, UsageError
from autodeco_edge.gguf.reader import GGUFFile
from autodeco_edge.spec import sampling
from tests.support.letters import make_letters
from tests.support.stock import StockLlama, open_stock

PROMPT = "Once upon a time there was a fox who wanted to count all the stars."
N_CTX = 256


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def open_engine(model, heads="own", **options) -> Engine:
    """One thread: the machine that runs the tests may be busy, and two contended threads spin."""
    return Engine(model.gguf, model.heads if heads == "own" else heads, **{"n_ctx": N_CTX, "n_threads": 1, **options})


@pytest.fixture(scope="module")
def engine(letters):
    with open_engine(letters) as engine:
        yield engine


@pytest.fixture(scope="module")
def qwen2_engine(qwen2):
    with open_engine(qwen2) as engine:
        yield engine


def draw(engine: Engine, n: int = 48, prompt: str = PROMPT, **params) -> list[Step]:
    ids = engine.model.tokenize(prompt)
    return list(engine.generate(ids, SamplingParams(**params), max_tokens=n, stop_at_end=False))


def stock(path, **options) -> StockLlama:
    """flash_attn: the kernel that the engine gets by default; another one differs in the last bits."""
    return open_stock(path, n_ctx=N_CTX, flash_attn=True, **options)


def greedy_ids(llm: llama_cpp.Llama, prompt: list[int], n: int) -> list[int]:
    """llama.cpp's own greedy sampler: the argmax of its own logits."""
    return [token for token, _ in zip(llm.generate(prompt, temp=0.0), range(n), strict=False)]


def stock_logits(path, ids: list[int]) -> np.ndarray:
    """Logits at every position, [len(ids), n_vocab], from llama.cpp without any sampler in its graph."""
    llm = stock(path, logits_all=True)
    llm.eval(ids)
    return np.array(llm.scores[: len(ids)])


# ---- the same seed gives the same reply ---------------------------------------------------


def test_same_seed_same_steps(qwen2, qwen2_engine):
    first = draw(qwen2_engine, seed=5)
    assert draw(qwen2_engine, seed=5) == first
    with open_engine(qwen2) as other:
        assert draw(other, seed=5) == first


def test_one_and_two_threads_give_the_same_bits(qwen2, qwen2_engine):
    with open_engine(qwen2, n_threads=2) as two:
        assert draw(two, n=12, seed=5) == draw(qwen2_engine, n=12, seed=5)


@pytest.mark.parametrize("mode", ["both", "temp", "top-p", "none"])
def test_graph_and_cpu_draw_give_the_same_bits(qwen2, qwen2_engine, mode):
    with open_engine(qwen2, cpu_draw=True) as cpu:
        assert draw(cpu, seed=6, heads_mode=mode) == draw(qwen2_engine, seed=6, heads_mode=mode)


def test_different_seeds_give_different_replies(qwen2_engine):
    replies = {tuple(s.id for s in draw(qwen2_engine, n=12, seed=seed)) for seed in range(8)}
    assert len(replies) == 8


def test_seeds_differ_in_their_high_half_too(engine):
    assert [s.id for s in draw(engine, seed=1)] != [s.id for s in draw(engine, seed=1 + 2**32)]


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_temperature_zero_is_llama_cpps_own_argmax(qwen2, cpu_draw):
    with open_engine(qwen2, cpu_draw=cpu_draw) as engine:
        steps = draw(engine, n=32, temperature=0.0)
        prompt = engine.model.tokenize(PROMPT)
    assert [s.id for s in steps] == greedy_ids(stock(qwen2.gguf), prompt, 32)
    assert {s.n_kept for s in steps} == {1}
    assert all(s.temperature_eff == 0 and 0 < s.temperature < 2 for s in steps), "the heads report all the same"


# ---- what the user's parameters do ---------------------------------------------------------


@pytest.mark.parametrize(
    "mode, has_t, has_p, t_applies, p_applies",
    [
        ("both", True, True, True, True),
        ("temp", True, False, True, False),
        ("top-p", True, True, False, True),  # T is evaluated as an input of the top-p head, and not applied
        ("none", False, False, False, False),
    ],
)
def test_heads_mode(engine, mode, has_t, has_p, t_applies, p_applies):
    for step in draw(engine, n=16, seed=3, heads_mode=mode):
        assert (step.temperature is not None, step.top_p is not None) == (has_t, has_p)
        assert step.temperature_eff == (step.temperature if t_applies else 1.0)
        assert step.top_p_eff == (step.top_p if p_applies else 1.0)


def test_user_temperature_and_top_p_multiply(engine):
    plain, scaled = draw(engine, n=1, seed=3)[0], draw(engine, n=1, seed=3, temperature=0.7, top_p=0.6)[0]
    assert (scaled.temperature, scaled.top_p) == (plain.temperature, plain.top_p)
    assert scaled.temperature_eff == np.float32(0.7) * np.float32(plain.temperature)
    assert scaled.top_p_eff == np.float32(0.6) * np.float32(plain.top_p)
    assert scaled.n_kept < plain.n_kept


def test_min_p_drops_what_is_less_likely_than_its_share_of_the_largest(engine):
    def below(steps: list[Step]) -> int:
        """T is 1 without heads, so exp(logprob) is what min_p looks at; 1e-5 for float32 sums."""
        return sum(np.exp(s.logprob) < 0.3 * s.max_prob * (1 - 1e-5) for s in steps)

    assert below(draw(engine, n=100, seed=3, heads_mode="none", min_p=0.3, logprobs=True)) == 0
    assert below(draw(engine, n=100, seed=3, heads_mode="none", logprobs=True)) > 0
    assert {s.n_kept for s in draw(engine, n=20, seed=3, min_p=1.0)} == {1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"heads_mode": "x"},
        {"seed": -1},
    ],
)
def test_parameters_out_of_range(wrong):
    with pytest.raises(UsageError, match="allowed"):
        SamplingParams(**wrong)


# ---- where a reply ends --------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
def test_max_tokens(engine, n):
    generation = engine.generate([65], max_tokens=n, stop_at_end=False)
    assert len(list(generation)) == n
    assert generation.finish_reason == "length"
    assert generation.timings.predicted_n == n


def test_end_token_stops_and_is_included(engine):
    prompt = engine.model.tokenize("hello")
    for seed in range(200):
        generation = engine.generate(prompt, SamplingParams(seed=seed), max_tokens=100)
        reply = list(generation)
        if generation.finish_reason == "stop":
            break
    assert generation.finish_reason == "stop"
    assert [engine.model.is_end(s.id) for s in reply] == [False] * (len(reply) - 1) + [True]
    past = list(engine.generate(prompt, SamplingParams(seed=seed), max_tokens=100, stop_at_end=False))
    assert len(past) == 100 and past[: len(reply)] == reply


def test_context_end_is_length(letters):
    with open_engine(letters, n_ctx=32) as engine:
        for n_prompt in (1, 20, 31):
            generation = engine.generate([65] * n_prompt, stop_at_end=False)
            assert len(list(generation)) == 32 - n_prompt
            assert generation.finish_reason == "length"


def test_prompt_that_leaves_no_room(letters):
    with (
        open_engine(letters, n_ctx=32) as engine,
        pytest.raises(ContextOverflowError, match="32 tokens, the context 32"),
    ):
        next(engine.generate([65] * 32))


def test_empty_prompt(engine):
    with pytest.raises(UsageError, match="empty"):
        next(engine.generate([]))


@pytest.mark.parametrize("bad", [-1, 260, 2**40])
def test_bad_token_id(engine, bad):
    with pytest.raises(UsageError, match=f"allowed 0 to 259; got {bad}"):
        next(engine.generate([65, bad]))


@pytest.mark.parametrize(
    "options", [{"n_ctx": 1}, {"n_ctx": -5}, {"n_ctx": 2**32 + 2}, {"n_threads": -1}, {"n_threads": 100000}]
)
def test_limits_that_llama_cpp_would_cut_or_crash_on(letters, options):
    with pytest.raises(UsageError, match="allowed"):
        open_engine(letters, **options)


# ---- one generation at a time ----------------------------------------------------------------


def test_second_generation_is_busy(engine):
    running = engine.generate([65])
    next(running)
    with pytest.raises(BusyError, match="generating already"):
        next(engine.generate([66]))
    with pytest.raises(BusyError, match="generating already"):
        engine.prefill([66])
    assert next(running).index == 1, "the first one is not disturbed"
    running.close()


def test_second_thread_is_busy(engine):
    running = engine.generate([65])
    next(running)
    caught = []

    def other() -> None:
        try:
            next(engine.generate([66]))
        except BusyError as error:
            caught.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    running.close()
    assert len(caught) == 1


def test_abandoned_generator_releases_the_lock(engine):
    abandoned = engine.generate([65])
    next(abandoned)
    del abandoned
    assert len(draw(engine, n=3)) == 3


def test_error_releases_the_lock(engine):
    with pytest.raises(UsageError):
        next(engine.generate([]))
    assert len(draw(engine, n=3)) == 3


def in_child(function) -> int:
    """Exit code of a forked child: 75 where ``function`` raised BusyError."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BusyError:
            code = 75
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_fork_is_refused_and_the_parent_goes_on(engine):
    running = engine.generate([65])
    next(running)
    assert in_child(lambda: next(running)) == 75
    assert in_child(lambda: engine.prefill([66])) == 75
    assert next(running).index == 1
    running.close()


def test_closed_engine_is_refused(letters):
    engine = open_engine(letters)
    running = engine.generate([65])
    next(running)
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        next(running)
    with pytest.raises(UsageError, match="closed"):
        next(engine.generate([65]))
    engine.close()  # twice is allowed


# ---- the prompt --------------------------------------------------------------------------


def test_reuse_prefix_decodes_less_and_predicts_the_same(qwen2_engine):
    """1e-3: the prompt in other batches is summed in another order, in float32 over an F16 cache; a wrong
    cache position would move T by tenths."""
    start = qwen2_engine.model.tokenize(PROMPT)
    longer = start + qwen2_engine.model.tokenize(" She began with the small ones.")
    generation = qwen2_engine.generate(longer)
    fresh = next(generation)
    assert generation.timings.prompt_n == len(longer)
    generation.cancel()
    next(qwen2_engine.generate(start))
    generation = qwen2_engine.generate(longer, reuse_prefix=True)
    reused = next(generation)
    timings = generation.timings
    generation.cancel()
    assert (timings.prompt_cached, timings.prompt_n) == (len(start), len(longer) - len(start))
    assert abs(reused.temperature - fresh.temperature) < 1e-3
    assert abs(reused.top_p - fresh.top_p) < 1e-3


def test_reuse_prefix_of_the_whole_prompt_decodes_its_last_token(engine):
    prompt = [65, 66, 67, 68]
    first = next(engine.generate(prompt, SamplingParams(seed=1)))
    generation = engine.generate(prompt, SamplingParams(seed=1), reuse_prefix=True)
    again = next(generation)
    assert generation.timings.prompt_n == 1
    assert again.id == first.id


def test_reuse_prefix_forgets_what_differs(engine):
    """Greedy, so that last bits (see above) do not decide."""
    greedy = SamplingParams(temperature=0.0)
    fresh = draw(engine, n=4, prompt="aaaa cccc", temperature=0.0)
    draw(engine, n=4, prompt="aaaa bbbb")
    ids = engine.model.tokenize("aaaa cccc")
    generation = engine.generate(ids, greedy, max_tokens=4, reuse_prefix=True, stop_at_end=False)
    reused = list(generation)
    assert generation.timings.prompt_cached == len("aaaa ")
    assert [s.id for s in reused] == [s.id for s in fresh]
    assert max(abs(a.temperature - b.temperature) for a, b in zip(reused, fresh, strict=True)) < 1e-3


def output_rows(ctx, n_tokens: int) -> list[int]:
    """Positions of the last batch that llama.cpp keeps logits of."""
    return [i for i in range(n_tokens) if llama_cpp.llama_get_logits_ith(ctx, i)]


def test_prefill_makes_one_output_row(letters):
    prompt = [65 + i % 26 for i in range(64)]
    with open_engine(letters, cpu_draw=True) as engine:
        engine.prefill(prompt)
        assert output_rows(engine.native.pointer, 64) == [63]
    everything = stock(letters.gguf, logits_all=True)
    everything.eval(prompt)
    assert len(output_rows(everything.ctx, 64)) == 64, "the observable sees more rows where there are more"


def test_prompt_longer_than_a_batch(letters):
    """600 tokens go in two batches of 512; T and P are those of llama.cpp in one batch of 600, within 1e-3
    (see above)."""
    prompt = [65 + i % 26 for i in range(600)]
    with open_engine(letters, n_ctx=700) as engine:
        step = next(engine.generate(prompt, SamplingParams(temperature=0.0)))
        engine.prefill(prompt[:300])
        generation = engine.generate(prompt, SamplingParams(temperature=0.0), reuse_prefix=True)
        other = next(generation)
        assert generation.timings.prompt_cached == 300
    assert other.id == step.id
    assert abs(other.temperature - step.temperature) < 1e-3


# ---- heads and models that do not belong together -------------------------------------------


def heads_for(letters, folder, **changes) -> Heads:
    """Heads written for a base that differs from `letters` in ``changes``."""
    from autodeco_edge.convert.base import open_base
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads
    from tests.support.checkpoints import random_heads

    _, base = open_base(letters.gguf)
    base = dataclasses.replace(base, **changes)
    checkpoint = random_heads(folder / "checkpoint", base.n_embd, seed=1)
    write_heads(read_checkpoint(checkpoint), folder / "heads.gguf", base=base)
    return Heads(folder / "heads.gguf")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"arch": "qwen2"}, "made for architecture qwen2, the model is llama"),
        ({"n_embd": 48}, "hidden state of 48, the model's has 32"),
        ({"n_vocab": 261}, "vocabulary of 261, the model's has 260"),
    ],
)
def test_heads_of_another_model(letters, tmp_path, changes, message):
    heads = heads_for(letters, tmp_path, **changes)
    with pytest.raises(MismatchError, match=message) as caught:
        open_engine(letters, heads)
    assert "heads.gguf does not fit" in str(caught.value)
    assert "use the heads of this model" in str(caught.value)


@pytest.mark.parametrize("kind", [Engine, Llama])
def test_another_model_of_the_same_shape_is_told_by_its_fingerprint(letters, tmp_path, kind):
    """A fine-tune: every shape and the tokenizer are equal, the output norm is not."""
    data = bytearray(letters.gguf.read_bytes())
    with GGUFFile(letters.gguf) as file:
        at = file.data_offset + file.tensors["output_norm.weight"].offset
    data[at] ^= 1
    other = tmp_path / "fine-tune.gguf"
    other.write_bytes(data)
    with pytest.raises(MismatchError, match="output_norm"):
        kind(str(other), heads=letters.heads, n_ctx=64)


def test_model_as_heads(letters):
    with pytest.raises(NoHeadsError, match="holds no AutoDeco heads"):
        Heads(letters.gguf)


@pytest.mark.parametrize("heads", [None, "auto"])
def test_model_without_heads(letters, heads):
    with open_engine(letters, heads) as engine:
        steps = draw(engine, n=8, temperature=0.9, top_p=0.5)
        assert engine.heads is None
    assert {(s.temperature, s.top_p) for s in steps} == {(None, None)}
    assert {(s.temperature_eff, s.top_p_eff) for s in steps} == {(float(np.float32(0.9)), 0.5)}


# ---- the single file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def single(qwen2, tmp_path_factory):
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.merge import merge_single_file

    path = tmp_path_factory.mktemp("single") / "single.gguf"
    merge_single_file(read_checkpoint(qwen2.checkpoint), qwen2.gguf, path)
    return path


def test_single_file_is_base_and_sidecar(qwen2_engine, single):
    with Engine(single, n_ctx=N_CTX, n_threads=1) as engine:
        assert engine.heads is not None
        assert draw(engine, seed=4) == draw(qwen2_engine, seed=4)


def test_stock_llama_cpp_loads_the_single_file_as_the_base(qwen2, qwen2_engine, single):
    prompt = qwen2_engine.model.tokenize(PROMPT)
    tokens = greedy_ids(stock(single), prompt, 32)
    assert tokens == greedy_ids(stock(qwen2.gguf), prompt, 32)
    assert len(tokens) == 32


# ---- the distribution --------------------------------------------------------------------------

N_DRAWS = 20000
FALSE_ALARM = 1e-6  # a right sampler fails a chi-square test once in a million choices of the seeds


def p_value(counts: np.ndarray, probs: np.ndarray) -> float:
    """Pearson's chi-square; tokens expected fewer than 5 times go into one bin."""
    from scipy.stats import chisquare

    expected = probs * counts.sum()
    rare = expected < 5
    observed, wanted = list(counts[~rare]), list(expected[~rare])
    if expected[rare].sum() >= 5:
        observed.append(counts[rare].sum())
        wanted.append(expected[rare].sum())
    else:
        observed[0] += counts[rare].sum()
        wanted[0] += expected[rare].sum()
    return chisquare(observed, wanted).pvalue


CONFIGURATIONS = [{}, {"temperature": 1.5, "top_p": 0.8}, {"heads_mode": "none", "top_p": 0.9}, {"heads_mode": "temp"}]


@pytest.mark.parametrize("params", CONFIGURATIONS, ids=str)
def test_drawn_tokens_follow_the_exact_distribution(letters, engine, params):
    prompt = engine.model.tokenize("the")
    counts = np.zeros(engine.model.n_vocab)
    for seed in range(N_DRAWS):
        (step,) = engine.generate(prompt, SamplingParams(seed=seed, **params), max_tokens=1)
        counts[step.id] += 1
    logits = stock_logits(letters.gguf, prompt)[-1]
    exact = sampling.draw(logits, step.temperature_eff, step.top_p_eff, 0.5)
    hotter = sampling.draw(logits, step.temperature_eff * 1.15, step.top_p_eff, 0.5)
    assert step.n_kept == exact.kept.sum() > 5
    assert counts[~exact.kept].sum() == 0, "drawn outside the nucleus"
    assert p_value(counts, exact.probs) > FALSE_ALARM
    assert p_value(np.where(hotter.kept, counts, 0.0), hotter.probs) < FALSE_ALARM, "the test sees T wrong by 15 %"


def test_every_step_of_a_walk_is_the_specifications(letters, engine):
    """Token, nucleus and logprob at 200 positions against numpy in float64 on llama.cpp's own logits.

    Decoded in the same batches, the logits are the same; float32 weights move an edge of the running
    mass by about 1e-6, and with some 20 edges a step one walk in 250 would see a token flip. The seed is
    fixed, so that it is decided once a platform."""
    prompt = engine.model.tokenize("hello")
    steps = list(engine.generate(prompt, SamplingParams(seed=12, logprobs=True), max_tokens=200, stop_at_end=False))
    logits = walk_logits(letters.gguf, prompt, [s.id for s in steps])
    for step, row in zip(steps, logits, strict=True):
        spec = sampling.draw(row, step.temperature_eff, step.top_p_eff, sampling.uniform(12, step.index))
        assert (spec.token, int(spec.kept.sum())) == (step.id, step.n_kept)
        logprob = row[step.id] - row.max() - np.log(np.exp(row - row.max()).sum())
        assert abs(step.logprob - logprob) < 1e-5  # float32 exponentials, summed in double


def walk_logits(path, prompt: list[int], tokens: list[int]) -> list[np.ndarray]:
    """Logits that each of ``tokens`` was drawn from, one decode a token as the engine does it."""
    llm = stock(path)
    rows = []
    for ids in [prompt, *([t] for t in tokens[:-1])]:
        llm.eval(ids)
        row = llama_cpp.llama_get_logits_ith(llm.ctx, -1)
        rows.append(np.ctypeslib.as_array(row, shape=(llm.n_vocab(),)).astype(np.float64))
    return rows


# ---- a chain that is copied --------------------------------------------------------------------


def members(chain) -> list:
    n = llama_cpp.llama_sampler_chain_n(chain)
    return [llama_cpp.llama_sampler_chain_get(chain, i) for i in range(n)]


def names(chain) -> list[str]:
    return [llama_cpp.llama_sampler_name(m).decode() for m in members(chain)]


def address(sampler) -> int:
    return ctypes.cast(sampler, ctypes.c_void_p).value


def position(sampler) -> int:
    return lib.autodeco_sampler_get_position(address(sampler))


def continue_with(chain, engine: Engine, ids: list[int], n: int) -> list[int]:
    """Tokens that ``chain`` draws in a context of its own, after ``ids``."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = N_CTX, 1, 1
    ctx = llama_cpp.llama_init_from_model(engine.model.handle, params)
    assert llama_cpp.llama_set_sampler(ctx, 0, chain)
    tokens = []
    for _ in range(n):
        batch_ids = ids + tokens if not tokens else tokens[-1:]
        array = (llama_cpp.llama_token * len(batch_ids))(*batch_ids)  # kept alive by this name
        assert llama_cpp.llama_decode(ctx, llama_cpp.llama_batch_get_one(array, len(batch_ids))) == 0
        tokens.append(llama_cpp.llama_sampler_sample(chain, ctx, -1))
    err = ctypes.create_string_buffer(256)
    assert lib.autodeco_sampler_status(address(members(chain)[0]), err, len(err)) == 0, err.value
    llama_cpp.llama_free(ctx)
    return tokens


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_clone_goes_on_where_the_original_stands(letters, cpu_draw):
    """A clone of a cpu_draw chain must keep its two samplers on one state: a draw without its heads would
    report NOT_ATTACHED, a lost position would draw other tokens."""
    with open_engine(letters, cpu_draw=cpu_draw) as engine:
        prompt = engine.model.tokenize(PROMPT)
        whole = list(engine.generate(prompt, SamplingParams(seed=9), max_tokens=24, stop_at_end=False))
        half = list(engine.generate(prompt, SamplingParams(seed=9), max_tokens=12, stop_at_end=False))
        assert half == whole[:12]
        (sampler,) = engine.strategy.samplers
        clone = llama_cpp.llama_sampler_clone(sampler.chain)
        assert names(clone) == names(sampler.chain) == ["autodeco", *["autodeco-filters", "autodeco-draw"] * cpu_draw]
        assert position(members(clone)[0]) == 12
        rest = continue_with(clone, engine, prompt + [s.id for s in half], 12)
        assert rest == [s.id for s in whole[12:]]
        assert (position(members(clone)[0]), sampler.position) == (24, 12), "two states, not one"
        llama_cpp.llama_sampler_free(clone)


def test_two_clones_of_one_chain_are_separate(letters):
    sampler = Sampler(None, SamplingParams(seed=1), cpu_draw=True)
    sampler.position = 5
    clones = [llama_cpp.llama_sampler_clone(sampler.chain) for _ in range(2)]
    llama_cpp.llama_sampler_accept(clones[0], 65)
    assert [position(members(c)[0]) for c in clones] == [6, 5]
    assert sampler.position == 5
    sampler.close()  # the original first: the clones own what they need
    for clone in clones:
        llama_cpp.llama_sampler_free(clone)


def test_copy_state_copies_position_and_parameters(letters):
    source, target = (Sampler(None, SamplingParams(seed=seed)) for seed in (11, 22))
    source.position = 7
    first, second = members(source.chain)[0], members(target.chain)[0]
    llama_cpp.llama_sampler_copy(first, second)
    assert target.position == 7
    assert lib.autodeco_sampler_get_params(address(second)).seed == 11
    source.close()
    target.close()


def test_entropy_of_a_certain_token_is_zero(letters):
    """The official formula gives -1e-8 there, and the head is fed that; nobody is told of an entropy below zero."""
    with Heads(letters.heads) as heads:
        for gap in (30.0, 100.0, 1e4, 3e38):
            logits = np.zeros(260, np.float32)
            logits[7] = gap
            step = heads.step(np.zeros(heads.n_embd, np.float32), logits, SamplingParams(seed=1))
            assert str(step.entropy) == "0.0" and step.id == 7


def test_size_of_a_model_that_llama_cpp_has_no_name_for(letters):
    with Model(letters.gguf) as model:
        assert re.fullmatch(r"llama \d+(\.\d+)?K .*F32.*", model.description)

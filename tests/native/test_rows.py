"""The rows of a batch, computed together: the bits of each row alone, for every set of kernels and number of threads."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from autodeco_edge.bench.heads import write_random_heads
from autodeco_edge.bench.step import CASES, OUTTYPES, StepSetup, time_step
from autodeco_edge.engine.sampler import Heads, SamplingParams, kernels
from tests.native.test_batches import PROMPTS, Context, alone, letters  # noqa: F401  a fixture
from tests.native.test_neon import FIRST_LAYER, compile_with

N_VOCAB, N_EMBD, N_ROWS = 3000, 96, 19  # more rows than one pass of the first layer takes

# ---- the first layer --------------------------------------------------------------------

X86 = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mf16c"], "avx512": ["-mavx512f", "-mfma", "-mf16c"]}
IS_X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    out = tmp_path_factory.mktemp("rows") / "first-layer"
    sets, flags = (X86, ["-DAUTODECO_KERNELS_X86"]) if IS_X86 else ({"baseline": []}, [])
    return compile_with("gcc", FIRST_LAYER, out, sets, *flags)


def check(program: Path, name: str) -> None:
    done = subprocess.run([str(program), name], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0 and int(done.stdout) > 1000, done.stdout + done.stderr


@pytest.mark.parametrize("name", X86)
def test_the_first_layer_of_many_rows_has_the_bits_of_each_alone(program, name):
    """All types of weights, widths and numbers of units that fill no vector or block, 1 to 19 rows of mixed modes, sums that
    overflow, slices of threads."""
    check(program, name)


@pytest.mark.skipif(not IS_X86 or shutil.which("gcc") is None, reason="x86-64 with gcc")
def test_plain_c_too(tmp_path):
    """What a processor without any of the vectors that we know gets."""
    check(compile_with("gcc", FIRST_LAYER, tmp_path / "plain", {"baseline": ["-U__SSE2__"]}), "baseline")


# ---- the graph --------------------------------------------------------------------------


def steps_of(heads: Heads, hidden: np.ndarray, logits: np.ndarray, seed: int, n_threads: int) -> list[bytes]:
    """One graph with a row, and a sampler, each."""
    setup = StepSetup(N_VOCAB, N_EMBD, n_threads, n_rows=len(hidden), n_rounds=1, n_warmup=1, seed=seed)
    return [bytes(step) for step in time_step(setup, heads, 0, hidden, logits).steps]


@pytest.mark.parametrize("outtype", OUTTYPES)
@pytest.mark.parametrize("name", kernels())
@pytest.mark.parametrize("case", CASES)
def test_a_row_of_a_graph_has_the_same_bits_alone_and_for_any_number_of_threads(
    tmp_path, monkeypatch, outtype, name, case
):
    """1 to 19 rows on 1 to 5 threads: all of them whole, some whole and some in slices, all in slices."""
    monkeypatch.setenv("AUTODECO_KERNELS", name)
    rng = np.random.default_rng(3)
    path = write_random_heads(tmp_path / "heads.gguf", tmp_path / "heads", N_EMBD, outtype=outtype, seed=4).path
    hidden = rng.standard_normal((N_ROWS, N_EMBD), dtype=np.float32)
    logits = CASES[case](rng, N_ROWS, N_VOCAB)
    with Heads(path) as heads:
        want = [steps_of(heads, hidden[r : r + 1], logits[r : r + 1], 50 + r, 1)[0] for r in range(N_ROWS)]
        assert len(set(want)) == N_ROWS
        for n, n_threads in [(1, 3), (2, 5), (3, 2), (7, 3), (16, 2), (N_ROWS, 1), (N_ROWS, 4)]:
            assert steps_of(heads, hidden[:n], logits[:n], 50, n_threads) == want[:n], (n, n_threads)


# ---- contexts ---------------------------------------------------------------------------

MIXED = [
    SamplingParams(seed=1),
    SamplingParams(seed=2, heads_mode="none", temperature=0.7),
    SamplingParams(seed=3, logprobs=True),
    SamplingParams(seed=4, heads_mode="top-p", min_p=0.05),
    SamplingParams(seed=5, temperature=0.0),
]


def run(letters, n_threads: int, cpu_draws: list[bool], n_tokens: int = 8) -> list[list[bytes]]:  # noqa: F811
    """Steps by sequence. The sequences start one after the other, so that the batch changes its rows."""
    context = Context(letters, MIXED, n_threads=n_threads, cpu_draws=cpu_draws)
    prompts = [context.model.tokenize(PROMPTS[s % len(PROMPTS)]) for s in range(len(MIXED))]
    steps: list[list[bytes]] = [[] for _ in MIXED]
    rows: dict[int, list] = {}
    for tick in range(n_tokens + len(MIXED)):
        if tick < len(MIXED):
            ids = prompts[tick]
            rows[tick] = [(t, i, tick, i == len(ids) - 1) for i, t in enumerate(ids)]
        batch = [row for s in sorted(rows) for row in rows[s]]
        context.decode(batch)
        outputs = [row[2] for row in batch if row[3]]
        for s in outputs:
            i_batch = next(i for i, row in enumerate(batch) if row[2] == s and row[3])
            step = context.sample(s, i_batch)
            steps[s].append(bytes(step))
            rows[s] = [(step.token, len(prompts[s]) + len(steps[s]) - 1, s, True)]
    context.close()
    return steps


@pytest.mark.parametrize("cpu_draws", [[False] * 5, [True] * 5, [False, True, True, False, True]])
def test_sequences_of_mixed_settings_draw_the_same_for_any_number_of_threads(letters, cpu_draws):  # noqa: F811
    """And wherever they draw: in the graph, behind filters, or some so and some so in one batch."""
    want = run(letters, 1, [False] * 5)
    for n_threads in (1, 2, 3):
        assert run(letters, n_threads, cpu_draws) == want


def test_heads_of_two_kinds_in_one_context_do_not_mix(letters):  # noqa: F811
    """A sampler without heads and one with them, in one graph: each row has its own first layer, or none."""
    settings = [SamplingParams(seed=6), SamplingParams(seed=7), SamplingParams(seed=8)]
    context = Context(letters, settings, headless={1})
    prompts = [context.model.tokenize(p) for p in PROMPTS[:3]]
    context.decode([(t, i, s, i == len(ids) - 1) for s, ids in enumerate(prompts) for i, t in enumerate(ids)])
    steps = [context.steps(s)[0] for s in range(3)]
    assert np.isnan(steps[1].temp) and np.isnan(steps[1].top_p)
    for s in (0, 2):
        (want,) = alone(letters, PROMPTS[s], settings[s])[:1]
        assert steps[s].token == want.id and abs(steps[s].temp - want.temperature) < 1e-4
    context.close()


@pytest.mark.parametrize("cpu_draw", [False, True])
def test_three_outputs_of_one_sequence_equal_three_decodes(letters, cpu_draw):  # noqa: F811
    """What speculation asks for: T, P and the token of each row of a draft, taken in order. llama.cpp sums a batch in another
    order than a row: the differences are printed and bounded."""
    want = alone(letters, PROMPTS[1], SamplingParams(seed=12))[:3]
    context = Context(letters, [SamplingParams(seed=12)], n_outputs=3, cpu_draws=[cpu_draw])
    ids = context.model.tokenize(PROMPTS[1])
    context.decode([(t, i, 0, False) for i, t in enumerate(ids[:-1])])
    draft = [ids[-1], want[0].id, want[1].id]
    context.decode([(t, len(ids) - 1 + i, 0, True) for i, t in enumerate(draft)])
    ahead = context.steps(0)
    assert [a.token for a in ahead] == ([-1] * 3 if cpu_draw else [w.id for w in want]), (
        "T and P stand before any is taken"
    )
    got = [context.sample(0, i) for i in range(3)]
    differences = [max(abs(g.temp - w.temperature), abs(g.top_p - w.top_p)) for g, w in zip(got, want, strict=True)]
    print(f"largest difference of T or P: {max(differences):.1e}")
    assert [g.token for g in got] == [w.id for w in want]
    assert [(a.temp, a.top_p) for a in ahead] == [(g.temp, g.top_p) for g in got]
    assert max(differences) < 1e-5
    context.close()


def test_a_decode_that_is_given_up_leaves_no_step(letters):  # noqa: F811
    """llama.cpp's abort callback stops the graph: nothing of the decode before may pass for a step of this one."""
    context = Context(letters, [SamplingParams(seed=3)])
    ids = context.model.tokenize(PROMPTS[0])
    context.decode([(t, i, 0, i == len(ids) - 1) for i, t in enumerate(ids)])
    (before,) = context.steps(0)
    assert before.token >= 0
    stop = llama_cpp.ggml_abort_callback(lambda data: True)
    llama_cpp.llama_set_abort_callback(context.ctx, stop, None)
    assert context.try_decode([(before.token, len(ids), 0, True)]) != 0
    assert all(step.token == -1 for step in context.steps(0))
    context.close()

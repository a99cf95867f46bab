"""Several rows at once: sequences that share a batch, and several outputs of one sequence.

Each row must see its own hidden state, logits and random number. The comparison is with the
engine, one token at a time. llama.cpp computes a batch in another order than single tokens, so T
and P may differ in the last bits (1e-4 is allowed; the tiny model's own rounding is 1e-6).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Collection, Sequence

import llama_cpp
import pytest

from autodeco_edge import Engine, Heads, Model, SamplingParams
from autodeco_edge.engine import native as _native
from autodeco_edge.engine.native import lib
from autodeco_edge.engine.sampler import Sampler
from tests.support.letters import make_letters

PROMPTS = (b"one red fox", b"two blue birds sang", b"three", b"four green frogs")
N_TOKENS = 12
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


class Context:
    """A llama.cpp context with one AutoDeco chain a sequence, each with its own settings."""

    def __init__(
        self,
        letters,
        settings: list[SamplingParams],
        n_outputs: int = 1,
        n_threads: int = 1,
        cpu_draws: Sequence[bool] = (),
        headless: Collection[int] = (),
    ) -> None:
        self.model = Model(letters.gguf)
        self.heads = Heads(letters.heads)
        self.samplers = [
            Sampler(None if i in headless else self.heads, params, cpu_draw=i < len(cpu_draws) and cpu_draws[i])
            for i, params in enumerate(settings)
        ]
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 512, 128, 128
        params.n_seq_max, params.kv_unified = len(settings), True
        params.n_outputs_max_per_seq = n_outputs
        params.n_threads = params.n_threads_batch = n_threads
        self._attached = (llama_cpp.llama_sampler_seq_config * len(settings))()
        for i, sampler in enumerate(self.samplers):
            self._attached[i].seq_id = i
            self._attached[i].sampler = ctypes.cast(sampler.chain, ctypes.c_void_p)
        params.samplers, params.n_samplers = self._attached, len(settings)
        self.ctx = llama_cpp.llama_init_from_model(self.model.handle, params)
        self.batch = llama_cpp.llama_batch_init(128, 0, 1)

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """rows of (token, position, sequence, output)."""
        assert self.try_decode(rows) == 0

    def try_decode(self, rows: list[tuple[int, int, int, bool]]) -> int:
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, output) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            self.batch.logits[i] = output
        return llama_cpp.llama_decode(self.ctx, self.batch)

    def sample(self, sequence: int, i_batch: int) -> _native.Step:
        step, sampler = _native.Step(), self.samplers[sequence]
        chain = ctypes.cast(sampler.chain, ctypes.c_void_p)
        assert lib.autodeco_sampler_sample(sampler._smpl, chain, self.ctx, i_batch, step, None, 0) == 0
        return step

    def steps(self, sequence: int, n_max: int = 16) -> list[_native.Step]:
        self.samplers[sequence].check()
        out = (_native.Step * n_max)()
        return list(out[: lib.autodeco_sampler_get_steps(self.samplers[sequence]._smpl, out, n_max)])

    def accept(self, sequence: int, token: int) -> None:
        llama_cpp.llama_sampler_accept(self.samplers[sequence].chain, token)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.ctx)
        for sampler in self.samplers:
            sampler.close()


def alone(letters, prompt: bytes, params: SamplingParams) -> list:
    with Engine(letters.gguf, letters.heads, n_ctx=512, n_threads=1) as engine:
        ids = engine.model.tokenize(prompt)
        return list(engine.generate(ids, params, max_tokens=N_TOKENS, stop_at_end=False))


def assert_equal_steps(got: list[_native.Step], want: list) -> None:
    assert [s.token for s in got] == [s.id for s in want]
    for a, b in zip(got, want, strict=True):
        assert close(a.temp, b.temperature) and close(a.top_p, b.top_p)
        assert close(a.temp_eff, b.temperature_eff) and close(a.top_p_eff, b.top_p_eff)


def close(a: float, b: float | None) -> bool:
    return math.isnan(a) if b is None else abs(a - b) <= TOLERANCE


SETTINGS = [
    SamplingParams(seed=5),
    SamplingParams(seed=6, temperature=0.5, top_p=0.9),
    SamplingParams(seed=7, heads_mode="none", temperature=0.8),
    SamplingParams(seed=8, min_p=0.2, heads_mode="temp"),
]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_sequences_in_one_batch_equal_single_runs(letters, n_threads):
    context = Context(letters, SETTINGS, n_threads=n_threads)
    prompts = [context.model.tokenize(p) for p in PROMPTS]
    rows = [(t, i, s, i == len(ids) - 1) for s, ids in enumerate(prompts) for i, t in enumerate(ids)]
    got: list[list[_native.Step]] = [[] for _ in SETTINGS]
    for _ in range(N_TOKENS):
        context.decode(rows)
        rows = []
        for s in range(len(SETTINGS)):
            (step,) = context.steps(s)
            got[s].append(step)
            context.accept(s, step.token)
            rows.append((step.token, len(prompts[s]) + len(got[s]) - 1, s, True))
    for s, params in enumerate(SETTINGS):
        assert_equal_steps(got[s], alone(letters, PROMPTS[s], params))
    context.close()


def test_a_sequence_without_output_keeps_its_state(letters):
    """Its nodes are built on another sequence's row, and must not run."""
    context = Context(letters, SETTINGS[:2])
    first, second = (context.model.tokenize(p) for p in PROMPTS[:2])
    context.decode([(t, i, 0, i == len(first) - 1) for i, t in enumerate(first)])
    (before,) = context.steps(0)
    context.decode([(t, i, 1, i == len(second) - 1) for i, t in enumerate(second)])
    (after,) = context.steps(0)
    assert bytes(before) == bytes(after)
    assert_equal_steps(context.steps(1), alone(letters, PROMPTS[1], SETTINGS[1])[:1])
    context.close()


def test_several_outputs_of_one_sequence_equal_token_by_token(letters):
    """As in speculative decoding: the tokens drawn one by one are fed as a draft, all rows are outputs, and
    every row draws what the plain run drew, because row i takes random number `accepted + i`."""
    want = alone(letters, PROMPTS[0], SamplingParams(seed=9))
    context = Context(letters, [SamplingParams(seed=9)], n_outputs=8)
    ids = context.model.tokenize(PROMPTS[0])
    context.decode([(t, i, 0, False) for i, t in enumerate(ids[:-1])])
    draft = [ids[-1], *(s.id for s in want[:7])]
    context.decode([(t, len(ids) - 1 + i, 0, True) for i, t in enumerate(draft)])
    assert_equal_steps(context.steps(0), want[:8])
    context.close()

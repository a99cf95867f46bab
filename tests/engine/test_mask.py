"""The mask in a sampler chain, against the obvious one, and a vocabulary's tokens against what the model prints."""

from __future__ import annotations

import ctypes
import gc
import weakref

import llama_cpp
import numpy as np
import pytest

from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.filters import FilterParams
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.mask import GrammarMask, tokenizer_of
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.native import lib
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.errors import FormatError
from tests.support.letters import make_letters

TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def model():
    model = Model(demo_model())
    yield model
    model.close()


def apply(smpl, ids: np.ndarray) -> np.ndarray:
    """Logits after the sampler, of candidates in the order given, all 1 before."""
    data = np.zeros(len(ids), dtype=TOKEN)
    data["id"], data["logit"] = ids, 1.0
    pointer = data.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
    array = llama_cpp.llama_token_data_array(data=pointer, size=len(ids), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(smpl, array)
    assert array.size == len(ids) and (data["id"] == ids).all()
    return data["logit"]


@pytest.mark.parametrize("n_vocab", [1, 31, 32, 33, 1000])
def test_mask_against_the_obvious_one(n_vocab):
    rng = np.random.default_rng(n_vocab)
    smpl = ctypes.cast(lib.autodeco_mask_init(), llama_cpp.llama_sampler_p_ctypes)
    ids = rng.permutation(n_vocab + 70).astype(np.int32)  # more than the words reach
    assert (apply(smpl, ids) == 1).all(), "without words everything passes"
    words = rng.integers(0, 2**32, (n_vocab + 31) // 32, dtype=np.uint32)
    lib.autodeco_mask_set(smpl, words.ctypes.data, len(words))
    for _ in range(3):
        words[:] = rng.integers(0, 2**32, len(words), dtype=np.uint32)  # borrowed: changes are seen
        bits = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
        expected = np.array([i < len(bits) and bits[i] for i in ids])
        assert (apply(smpl, ids) == np.where(expected, 1, -np.inf)).all()
    words[: len(words) // 2] = 2**32 - 1  # whole words, in order and nearly
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").astype(bool)
    for order in (np.arange(n_vocab), np.r_[np.arange(n_vocab - 1), n_vocab + 60], np.arange(n_vocab)[::-1]):
        expected = np.array([i < len(bits) and bits[i] for i in order])
        assert (apply(smpl, order.astype(np.int32)) == np.where(expected, 1, -np.inf)).all()
    assert (apply(smpl, np.array([-1, 2**31 - 1, -(2**31)], dtype=np.int32)) == -np.inf).all()
    clone = llama_cpp.llama_sampler_clone(smpl)
    assert (apply(clone, ids) == apply(smpl, ids)).all()
    lib.autodeco_mask_set(smpl, None, 0)
    assert (apply(smpl, ids) == 1).all()
    assert len(apply(clone, ids[:0])) == 0
    for one in (clone, smpl):
        llama_cpp.llama_sampler_free(one)


def test_vocabulary_is_what_the_model_prints(model):
    """Token by token: bytes that are shown are text; what is not shown, and what ends, is not."""
    tokenizer = tokenizer_of(model, model.vocab)
    assert tokenizer_of(model, model.vocab) is tokenizer and tokenizer.vocab_size == model.n_vocab
    ends = {t for t in range(model.n_vocab) if model.is_end(t)}
    assert set(tokenizer.eos_tokens) == ends
    for token in range(model.n_vocab):
        shown = model.token_bytes(token)
        hidden = not shown or token in ends or shown[0] == 0xFF  # FF is in no text
        assert tokenizer.is_special_token(token) == hidden, token
        if not hidden:
            assert tokenizer.decode_bytes([token]) == shown, token


def test_vocabularies_are_forgotten_with_their_models():
    from autodeco_edge.engine import mask

    model = Model(demo_model())
    tokenizer_of(model, model.vocab)
    assert model in mask._tokenizers
    model.close()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None, "the tokenizer holds no model"


def test_mask_is_exact_over_the_whole_vocabulary(model):
    """Every token is tried: allowed is what a copy of the matcher takes."""
    guide = GrammarMask(Grammar.from_schema({"enum": ["Let it be", "日本", 12]}), model, model.vocab)
    guide.prepare()
    while not guide.is_complete:
        allowed = guide.allowed(model.n_vocab)
        taken = [guide._matcher.validate_tokens([t]) == 1 for t in range(model.n_vocab)]
        assert allowed.tolist() == taken
        guide.accept(int(np.flatnonzero(allowed)[-1]))
        guide.prepare()
    ends = {t for t in range(model.n_vocab) if model.is_end(t)}
    assert ends and ends <= set(np.flatnonzero(guide.allowed(model.n_vocab)).tolist()), "every end token may end"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "number"}}},
        {"type": "array", "items": {"type": "string", "pattern": "^(a|b)*a(a|b){5}$"}},
    ],
)
def test_replies_of_one_grammar_are_strangers(model, schema):
    """It is compiled once for all of them: each has the masks of a grammar of its own, whatever its neighbours drew."""
    shared = Grammar.from_schema(schema)
    together = [GrammarMask(shared, model, model.vocab) for _ in range(4)]
    apart = [GrammarMask(Grammar.from_schema(schema), model, model.vocab) for _ in range(4)]
    rng = np.random.default_rng(0)
    for i in rng.integers(4, size=300):
        pair = together[i], apart[i]
        for guide in pair:
            guide.prepare()
        allowed = pair[0].allowed(model.n_vocab)
        assert (allowed == pair[1].allowed(model.n_vocab)).all()
        token = int(rng.choice(np.flatnonzero(allowed)))
        for guide in pair:
            guide.reset() if model.is_end(token) else guide.accept(token)


def test_grammar_is_compiled_once(model, monkeypatch):
    """For a tokenizer: eight choices of a large schema wait once."""
    made, compiled = [], Grammar._compile
    monkeypatch.setattr(Grammar, "_compile", lambda self, tokenizer: made.append(self) or compiled(self, tokenizer))
    grammar = Grammar.from_regex("[ab]{3}")
    for _ in range(8):
        GrammarMask(grammar, model, model.vocab)
    assert made == [grammar]


def test_rollback_and_reset(model):
    guide = GrammarMask(Grammar.from_regex("a[bc]{20}"), model, model.vocab)
    first = guide.allowed(model.n_vocab)
    for token in model.tokenize("abcbc", add_special=False):
        guide.accept(token)
    guide.prepare()
    middle = guide.allowed(model.n_vocab)
    b = model.tokenize("b", add_special=False)[-1]
    guide.accept(b)
    guide.rollback(1)
    guide.prepare()
    assert (guide.allowed(model.n_vocab) == middle).all()
    guide.reset()
    guide.prepare()
    assert (guide.allowed(model.n_vocab) == first).all() and not guide.is_complete


def test_all_drawn_tokens_lie_in_the_mask(letters):
    """An independent matcher takes every token that the engine draws, at any temperature, and every end token may end."""
    with Engine(letters.gguf, letters.heads, n_ctx=512, n_threads=1) as engine:
        grammar = Grammar.from_text('root ::= ("ab" | "cd" [x-z]*){3} "."')
        oracle = grammar.matcher(tokenizer_of(engine.model, engine.model.vocab))
        for seed in range(30):
            oracle.reset()
            filters = FilterParams(grammar=grammar).build(engine.model)
            params = SamplingParams(seed=seed, temperature=50.0)
            generation = engine.generate(engine.model.tokenize("x"), params, max_tokens=60, filters=filters)
            for step in generation:
                assert oracle.consume_token(step.id)
            assert oracle.is_accepting() or generation.finish_reason == "length"


def test_too_complex_in_the_middle_is_an_error_and_the_engine_lives(letters):
    """A fault of the grammar while it is followed: FormatError, and the next reply is as ever."""
    with Engine(letters.gguf, letters.heads, n_ctx=512, n_threads=1) as engine:
        plain = [s.id for s in engine.generate(engine.model.tokenize("x"), SamplingParams(seed=1), max_tokens=5)]
        filters = FilterParams(grammar='root ::= "ab"').build(engine.model)

        class Broken(GrammarMask):
            def prepare(self):
                raise self._grammar.refusal("LexerTooComplex")

        filters[0].__class__ = Broken
        with pytest.raises(FormatError, match="^the grammar was refused"):
            list(engine.generate(engine.model.tokenize("x"), SamplingParams(seed=1), filters=filters))
        assert [
            s.id for s in engine.generate(engine.model.tokenize("x"), SamplingParams(seed=1), max_tokens=5)
        ] == plain

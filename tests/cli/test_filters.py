"""Grammar, schema, bias, penalties and top-k between the logits and the learned cut. What a schema or a grammar means is
the business of tests/engine/test_grammar.py; here they are at work on a model."""

from __future__ import annotations

import json
import random
from collections import Counter

import jsonschema
import pytest

from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.filters import FilterParams, read_grammar
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.errors import FormatError, MissingInputError, UsageError

N_SCHEMAS = 60


@pytest.fixture(scope="module")
def engine(letters):
    with Engine(letters.gguf, letters.heads, n_ctx=4096, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def demo():
    """Trained, so that its replies come to an end."""
    with Engine(demo_model(), n_ctx=4096, n_threads=1) as engine:
        yield engine


def reply(engine: Engine, filters: FilterParams, *, seed: int = 1, n: int = 4000, **params) -> tuple[str, list]:
    ids, params = engine.model.tokenize("hello"), SamplingParams(seed=seed, **params)
    generation = engine.generate(ids, params, max_tokens=n, filters=filters.build(engine.model))
    steps = list(generation)
    engine.last_finish_reason = generation.finish_reason
    return engine.model.detokenize([s.id for s in steps]).decode("utf-8", "replace"), steps


# ---- schemas ---------------------------------------------------------------------------------------


def random_schema(rng: random.Random, depth: int = 0) -> dict:
    """A schema of any kind that ends: texts and lists have a largest length."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern"]
    kinds += ["object", "object", "array", "anyOf"] if depth < 3 else []
    kind = rng.choice(kinds) if depth else "object"
    if kind == "string":
        return {"type": "string", "minLength": rng.randrange(3), "maxLength": rng.randrange(3, 12)}
    if kind == "integer":
        low = rng.randrange(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randrange(1, 2000)}
    if kind == "enum":
        return {"enum": rng.sample(["red", "größer", 'quo"te', 7, None, True, 2.5], rng.randrange(1, 5))}
    if kind == "const":
        return {"const": rng.choice(["fixed", 3, False, None])}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f]{2,5}$", "^(yes|no)$", "^[0-9]{3}-[0-9]{4}$"])}
    if kind == "array":
        low = rng.randrange(3)
        return {
            "type": "array",
            "items": random_schema(rng, depth + 1),
            "minItems": low,
            "maxItems": low + rng.randrange(1, 4),
        }
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randrange(1, 4))]}
    if kind == "object":
        names = rng.sample(["a", "name", "größe", "id", "x y", "tags", "city"], rng.randrange(1, 5))
        return {
            "type": "object",
            "properties": {name: random_schema(rng, depth + 1) for name in names},
            "required": rng.sample(names, rng.randrange(len(names) + 1)),
            "additionalProperties": False,
        }
    return {"type": kind}


def test_random_schemas_are_always_obeyed_and_the_heads_report(demo):
    rng = random.Random(5)
    kinds: Counter[str] = Counter()
    for seed in range(N_SCHEMAS):
        schema = random_schema(rng)
        kinds.update(key for key in ("enum", "const", "anyOf", "array", "pattern") if key in json.dumps(schema))
        text, steps = reply(demo, FilterParams(grammar=Grammar.from_schema(schema)), seed=seed)
        assert demo.last_finish_reason == "stop", schema
        jsonschema.validate(json.loads(text), schema)
        assert all(0 < s.temperature < 2 and 0 < s.top_p < 1 for s in steps)
        assert all(s.temperature_eff == s.temperature and s.top_p_eff == s.top_p for s in steps)
    assert min(kinds.values()) >= 5, "the generator makes every kind"


def test_without_the_grammar_it_is_no_json(engine):
    """The test above could fail: random letters are no JSON."""
    with pytest.raises(ValueError):
        json.loads(reply(engine, FilterParams(), n=50)[0])


OTHERS = [
    True, {}, {"type": ["string", "null"], "maxLength": 4}, {"properties": {"a": True}}, {"type": "object"},
    {"type": "object", "additionalProperties": {"type": "boolean"}}, {"type": "object", "additionalProperties": False},
    {"type": "array", "maxItems": 0}, {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}},
    {"prefixItems": [{"type": "null"}, {"const": "\\ \" \n"}]}, {"type": "string", "format": "date"},
    {"type": "string", "format": "date-time"}, {"type": "string", "format": "uuid"},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3}, {"type": "integer", "minimum": 1},
    {"type": "string", "enum": ["a", 3]}, {"type": "string", "pattern": "^\\d{2}(-[\\w ]+?)*ö?$"},
    {"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}},
     "$ref": "#/$defs/node"},
]  # fmt: skip


HAS_END = {"date", "date-time", "uuid", "integer", "enum", "maxItems"}


@pytest.mark.parametrize("schema", OTHERS, ids=lambda s: json.dumps(s)[:40])
def test_other_schemas_are_obeyed(demo, schema):
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for seed in range(3):
        text, _ = reply(demo, FilterParams(grammar=Grammar.from_schema(schema)), seed=seed, n=200)
        if demo.last_finish_reason == "stop":
            checker.validate(json.loads(text))
        else:
            assert not HAS_END.intersection(json.dumps(schema).split('"')), "only the others have no largest length"


# ---- grammars ----------------------------------------------------------------------------------------


def test_grammar_is_enforced_anew_in_every_reply(engine):
    params = FilterParams(grammar='root ::= ("yes" | "no") "!"')
    replies = {reply(engine, params, seed=seed)[0] for seed in range(20)}
    assert replies <= {"yes!", "no!"} and replies


@pytest.mark.parametrize("grammar", ["root", "rot ::= [a]", "root ::= (", "root ::= nowhere", "root ::= root"])
def test_grammar_that_is_none(engine, grammar):
    with pytest.raises(FormatError, match="^the grammar"):
        FilterParams(grammar=grammar).build(engine.model)


def test_grammar_and_schema_as_text_or_file(tmp_path):
    (tmp_path / "g.gbnf").write_text('root ::= "a"')
    (tmp_path / "s.json").write_text('{"type": "null"}')
    assert read_grammar('root ::= "a"', None) == read_grammar(str(tmp_path / "g.gbnf"), None)
    assert read_grammar(None, '{"type": "null"}').lark == read_grammar(None, str(tmp_path / "s.json")).lark
    assert read_grammar(None, None) is None and read_grammar(None, None, "a").kind == "regular expression"
    assert read_grammar('start: "a"', None).lark.endswith('start: "a"')
    with pytest.raises(UsageError, match="exclude each other"):
        read_grammar(None, "{}", "b")
    with pytest.raises(UsageError, match="exclude each other"):
        read_grammar("a", "b")
    with pytest.raises(MissingInputError, match="nowhere.gbnf: cannot be read"):
        read_grammar("nowhere.gbnf", None)


def test_byte_tokens_make_whole_characters(engine, demo):
    """Every reply of a model that writes bytes is UTF-8 and one of the two; with llama.cpp's sampler 14 of 60 were overlong."""
    for one in (engine, demo):
        params = FilterParams(grammar=Grammar.from_schema({"enum": ["🎉", "日本"]}))
        filters = params.build(one.model)
        for seed in range(60):
            hot = SamplingParams(seed=seed, temperature=3.0)
            steps = list(one.generate(one.model.tokenize("x"), hot, max_tokens=60, filters=filters))
            data = one.model.detokenize([s.id for s in steps])
            assert data in ('"🎉"'.encode(), '"日本"'.encode()), seed


def test_any_text_of_a_byte_model_is_utf8(engine):
    """Random weights, four planes of Unicode."""
    params = FilterParams(grammar=Grammar.from_regex("[^a-z]{40}"))
    filters = params.build(engine.model)
    for seed in range(20):
        hot = SamplingParams(seed=seed, temperature=100.0)
        steps = list(engine.generate(engine.model.tokenize("x"), hot, max_tokens=400, filters=filters))
        assert len(engine.model.detokenize([s.id for s in steps]).decode()) == 40


def test_heads_see_no_grammar(engine):
    """T and P of the first token are those without one, to the bit; and what is drawn lies in the mask."""
    _, free = reply(engine, FilterParams(top_k=10**6), n=1)
    params = FilterParams(grammar='root ::= "zq" [xyz]')
    text, bound = reply(engine, params, n=9)
    assert (free[0].temperature, free[0].top_p) == (bound[0].temperature, bound[0].top_p)
    assert text[:2] == "zq" and text[2] in "xyz" and len(text) == 3
    assert bound[0].n_kept <= 2 and engine.last_finish_reason == "stop"


def test_a_reply_that_was_left_in_the_middle(engine):
    filters = FilterParams(grammar='root ::= "abcdef"').build(engine.model)
    ids = engine.model.tokenize("x")
    first = engine.generate(ids, SamplingParams(seed=1), max_tokens=3, filters=filters)
    next(first), next(first)
    first.close()
    assert (
        engine.model.detokenize([s.id for s in engine.generate(ids, SamplingParams(seed=2), filters=filters)])
        == b"abcdef"
    )


# ---- bias, penalties, top-k --------------------------------------------------------------------------


def test_filters_in_the_graph_and_off_give_the_same_tokens(engine):
    """Neutral filters change nothing: the draw on the CPU is the draw in the graph."""
    plain, steps = reply(engine, FilterParams(), n=30)
    same, filtered = reply(engine, FilterParams(top_k=10**6), n=30)
    assert same == plain
    assert [(s.id, s.temperature, s.top_p, s.n_kept) for s in steps] == [
        (s.id, s.temperature, s.top_p, s.n_kept) for s in filtered
    ]


def test_logit_bias_forces_and_forbids(engine):
    assert set(reply(engine, FilterParams(logit_bias={65: 100.0}), n=20)[0]) == {engine.model.token_bytes(65).decode()}
    _, steps = reply(engine, FilterParams(), n=20)
    banned = {s.id: -100.0 for s in steps}
    assert not {s.id for s in reply(engine, FilterParams(logit_bias=banned), n=20)[1]} & set(banned)


def test_top_k_bounds_the_nucleus(engine):
    assert max(s.n_kept for s in reply(engine, FilterParams(), n=40)[1]) > 3
    assert max(s.n_kept for s in reply(engine, FilterParams(top_k=3), n=40)[1]) <= 3


def test_penalties_change_the_reply_and_greedy_repeats_less(engine):
    def repeats(**penalties) -> int:
        steps = reply(engine, FilterParams(repeat_last_n=-1, **penalties), n=60, temperature=0.0)[1]
        return len(steps) - len({s.id for s in steps})

    plain = repeats()
    assert plain > 10
    for penalty in ({"repeat_penalty": 5.0}, {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert repeats(**penalty) < plain, penalty


@pytest.mark.parametrize(
    "params",
    [
        {"repeat_penalty": 0.0}, {"repeat_penalty": 11.0}, {"frequency_penalty": 2.1}, {"presence_penalty": -2.1},
        {"repeat_last_n": -2}, {"top_k": -1}, {"logit_bias": {1: 101.0}}, {"logit_bias": {1: float("nan")}},
    ],
)  # fmt: skip
def test_out_of_range(params):
    with pytest.raises(UsageError, match="allowed"):
        FilterParams(**params)


def test_token_the_vocabulary_does_not_have(engine):
    with pytest.raises(UsageError, match="token id: allowed 0 to"):
        FilterParams(logit_bias={10**6: 1.0}).build(engine.model)

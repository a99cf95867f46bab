"""Grammar, schema, bias, penalties and top-k between the logits and the learned cut."""

from __future__ import annotations

import json
import random
from collections import Counter

import jsonschema
import pytest

from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.filters import FilterParams, read_grammar
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import SamplingParams
from autodeco_edge.engine.schema import schema_grammar
from autodeco_edge.errors import FormatError, MissingInputError, UsageError

N_SCHEMAS = 200


@pytest.fixture(scope="module")
def engine(letters):
    with Engine(letters.gguf, letters.heads, n_ctx=4096, n_threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def demo():
    """Trained, so that what it writes is UTF-8: a grammar is about characters, and random bytes are none."""
    with Engine(demo_model(), n_ctx=4096, n_threads=1) as engine:
        yield engine


def reply(engine: Engine, filters: FilterParams, *, seed: int = 1, n: int = 4000, **params) -> tuple[str, list]:
    params, filters = SamplingParams(seed=seed, **params), filters.build(engine.model)
    generation = engine.generate(engine.model.tokenize("hello"), params, max_tokens=n, filters=filters)
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
        text, steps = reply(demo, FilterParams(grammar=schema_grammar(json.dumps(schema))), seed=seed)
        assert demo.last_finish_reason == "stop", schema
        jsonschema.validate(json.loads(text), schema)
        assert all(0 < s.temperature < 2 and 0 < s.top_p < 1 for s in steps)
        assert all(s.temperature_eff == s.temperature and s.top_p_eff == s.top_p for s in steps)
    assert min(kinds.values()) >= 10, "the generator makes every kind"


def test_without_the_grammar_it_is_no_json(engine):
    """The test above could fail: random letters are no JSON."""
    with pytest.raises(ValueError):
        json.loads(reply(engine, FilterParams(), n=50)[0])


REFUSED = {
    "": "not JSON", "[]": "a schema is an object", "3": "a schema is an object", '{"type": "nothing"}': "nothing",
    '{"$ref": "#/nowhere"}': "points nowhere", '{"$ref": "http://x/y"}': "only references into",
    '{"$ref": "#"}': "points at itself", '{"oneOf": [{}]}': "oneOf", '{"not": {}}': "not", '{"allOf": [{}, {}]}': "allOf",
    '{"type": "number", "maximum": 3}': "maximum", '{"type": "integer", "minimum": 7}': "from 7 to None",
    '{"type": "integer", "minimum": 5, "maximum": 4}': "from 5 to 4", '{"type": "integer", "multipleOf": 3}': "multipleOf",
    '{"type": "string", "pattern": "a"}': "must begin", '{"type": "string", "pattern": "^.$"}': "any",
    '{"type": "string", "pattern": "^(?=a)$"}': "assert", '{"type": "string", "pattern": "^[ -~]$"}': "includes a quote",
    '{"type": "string", "pattern": "^\\\\n$"}': "needs an escape", '{"type": "string", "pattern": "^($"}': "pattern",
    '{"type": "string", "minLength": 3, "maxLength": 2}': "at least 3", '{"type": "array", "uniqueItems": true}': "uniqueItems",
    '{"type": "object", "required": ["a"]}': "without a schema", '{"type": "object", "patternProperties": {}}': "pattern",
    '{"type": "string", "enum": [3]}': "no value", '{"anyOf": [], "type": "null"}': "type beside anyOf",
}  # fmt: skip


@pytest.mark.parametrize("schema, says", REFUSED.items())
def test_schema_that_cannot_be_enforced_is_refused(schema, says):
    with pytest.raises(FormatError, match="^the JSON schema (is not JSON|cannot be enforced)") as error:
        schema_grammar(schema)
    assert says in str(error.value) and "\n" not in str(error.value)


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


@pytest.mark.parametrize("schema", OTHERS, ids=lambda s: json.dumps(s)[:40])
def test_other_schemas_are_obeyed(demo, schema):
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for seed in range(5):
        text, _ = reply(demo, FilterParams(grammar=schema_grammar(json.dumps(schema))), seed=seed, n=300)
        if demo.last_finish_reason == "stop":
            checker.validate(json.loads(text))
        else:
            assert schema in (True, {}) or "object" in json.dumps(schema), "only these have no largest length"


# ---- grammars ----------------------------------------------------------------------------------------


def test_grammar_is_enforced_anew_in_every_reply(engine):
    params = FilterParams(grammar='root ::= ("yes" | "no") "!"')
    replies = {reply(engine, params, seed=seed)[0] for seed in range(20)}
    assert replies <= {"yes!", "no!"} and replies


@pytest.mark.parametrize("grammar", ["root", "rot ::= [a]", "root ::= (", "root ::= nowhere"])
def test_grammar_that_is_none(engine, grammar):
    with pytest.raises(FormatError, match="^the grammar was refused"):
        FilterParams(grammar=grammar).build(engine.model)


def test_grammar_and_schema_as_text_or_file(tmp_path):
    (tmp_path / "g.gbnf").write_text('root ::= "a"')
    (tmp_path / "s.json").write_text('{"type": "null"}')
    assert read_grammar('root ::= "a"', None) == read_grammar(str(tmp_path / "g.gbnf"), None) == 'root ::= "a"'
    assert read_grammar(None, '{"type": "null"}') == read_grammar(None, str(tmp_path / "s.json"))
    assert read_grammar(None, None) is None
    with pytest.raises(UsageError, match="exclude each other"):
        read_grammar("a", "b")
    with pytest.raises(MissingInputError, match="nowhere.gbnf: cannot be read"):
        read_grammar("nowhere.gbnf", None)


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

"""`autodeco_edge.Llama` in the place of `llama_cpp.Llama`: what a user's program sees.

Filters (penalties, bias, grammar, schema) must really bite, and T and P must still be the heads' own:
at the first token they are compared bit for bit with a call that has no filter.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

import autodeco_edge
from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.errors import AutodecoError, FormatError, MismatchError, MissingInputError, UsageError
from tests.support.letters import make_letters
from tests.support.stock import open_stock

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"n_ctx": 256, "n_threads": 1, "n_threads_batch": 1, "verbose": False}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def single(letters, tmp_path_factory):
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.merge import merge_single_file

    path = tmp_path_factory.mktemp("single") / "single.gguf"
    merge_single_file(read_checkpoint(letters.checkpoint), letters.gguf, path)
    return path


def open_llama(model, **options) -> autodeco_edge.Llama:
    return autodeco_edge.Llama(str(model.gguf), **{"heads": model.heads, **OPTIONS, **options})


@pytest.fixture(scope="module")
def llm(letters):
    llm = open_llama(letters)
    yield llm
    llm.close()


def text_of(llm, prompt: str = "hello", **arguments) -> str:
    return llm(prompt, **{"max_tokens": 24, "seed": 1, **arguments})["choices"][0]["text"]


def ids_of(llm, **arguments) -> list[int]:
    text_of(llm, **arguments)
    return [s.id for s in llm.steps]


# ---- one changed import line ----------------------------------------------------------------

PROGRAM = """
{line}
import json, sys

llm = Llama(model_path=sys.argv[1], n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
plain = llm("hello", max_tokens=8, seed=1)
chat = llm.create_chat_completion([{{"role": "user", "content": "hi"}}], max_tokens=8, seed=1)
parts = list(llm("hello", max_tokens=8, seed=1, stream=True))
shape = [sorted(x) for x in (plain, plain["choices"][0], chat, chat["choices"][0]["message"], parts[0])]
print(json.dumps({{"shape": shape, "steps": len(getattr(llm, "steps", [])), "n": plain["usage"]["completion_tokens"]}}))
"""


def run_program(line: str, *args: str) -> dict:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(line=line), *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_one_changed_import_line(single):
    stock = f"import sys; sys.path.append({str(ROOT)!r}); from tests.support.stock import StockLlama as Llama"
    before, after = run_program(stock, str(single)), run_program("from autodeco_edge import Llama", str(single))
    assert after["shape"] == before["shape"]
    assert (before["steps"], after["steps"], after["n"]) == (0, 8, 8)


# ---- completion, chat, streaming --------------------------------------------------------------


def test_completion_has_a_step_for_every_token(llm):
    text = text_of(llm, max_tokens=12)
    assert len(llm.steps) == 12
    assert [s.index for s in llm.steps] == list(range(12))
    assert llm.detokenize([s.id for s in llm.steps]).decode("utf-8", "ignore") == text
    assert all(0 < s.temperature < 2 and 0 < s.top_p < 1 for s in llm.steps)


def test_streaming_gives_the_same_text(llm):
    whole = text_of(llm)
    assert "".join(part["choices"][0]["text"] for part in llm("hello", max_tokens=24, seed=1, stream=True)) == whole
    assert len(whole) > 4


def test_chat_and_streamed_chat(llm):
    reply = llm.create_chat_completion(MESSAGES, max_tokens=16, seed=2)["choices"][0]["message"]
    steps = list(llm.steps)
    parts = llm.create_chat_completion(MESSAGES, max_tokens=16, seed=2, stream=True)
    streamed = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert reply["role"] == "assistant"
    assert streamed == reply["content"]
    assert [s.id for s in llm.steps] == [s.id for s in steps]
    assert all(s.temperature is not None for s in steps)


def test_stop_string(llm):
    whole = llm("hello", max_tokens=24, seed=1)["choices"][0]
    stop = whole["text"][5]
    stopped = llm("hello", max_tokens=24, seed=1, stop=[stop])["choices"][0]
    assert stopped["text"] == whole["text"][: whole["text"].index(stop)]
    assert (whole["finish_reason"], stopped["finish_reason"]) == ("length", "stop")


def test_abandoned_stream(llm):
    stream = llm("hello", max_tokens=24, seed=1, stream=True)
    next(stream)
    del stream
    assert ids_of(llm, max_tokens=3) == ids_of(llm, max_tokens=3)


@pytest.mark.parametrize("keys", [{"tokenizer.ggml.add_eos_token": True}, {"tokenizer.ggml.add_sep_token": True, "tokenizer.ggml.seperator_token_id": 257}], ids=["eos", "sep"])  # fmt: skip
@pytest.mark.parametrize("add_bos", [True, False])
def test_the_prompt_of_a_completion_is_that_of_run(letters, tmp_path, keys, add_bos):
    from tests.support.changed import changed_copy

    path = changed_copy(letters.gguf, tmp_path / "m.gguf", {**keys, "tokenizer.ggml.add_bos_token": add_bos})
    with autodeco_edge.Llama(path, heads=None, **OPTIONS) as llm, autodeco_edge.Model(path) as model:
        n = llm("hello", max_tokens=1)["usage"]["prompt_tokens"]
        assert llm.input_ids[:n].tolist() == model.tokenize("hello")


# ---- seeds ----------------------------------------------------------------------------------


def test_seed_of_a_call(llm):
    assert ids_of(llm, seed=7) == ids_of(llm, seed=7)
    assert len({tuple(ids_of(llm, seed=seed)) for seed in range(6)}) == 6


def test_seed_of_the_constructor(letters):
    first, second = ([ids_of(llm, seed=None) for _ in range(2)] for llm in (open_llama(letters, seed=5) for _ in "ab"))
    assert first == second
    assert first[0] != first[1], "the second call without a seed goes on"


def test_repeated_call_draws_afresh(letters, llm):
    """After a call of one token the prompt is cached exactly: llama_cpp.Llama then samples without a
    decode, which in the graph would give the token that the last chain drew.

    The cached prompt is decoded in another split than the fresh one: its last bits differ, and with 8 draws
    of some 20 tokens an edge moved by 1e-4 would flip one of them on one machine in 60 (seeds are fixed)."""
    repeated = [ids_of(llm, max_tokens=1, seed=seed) for seed in range(8)]
    fresh = [ids_of(open_llama(letters), max_tokens=1, seed=seed) for seed in range(8)]
    assert repeated == fresh
    assert len({ids[0] for ids in fresh}) > 2


# ---- parameters --------------------------------------------------------------------------------


def test_unnamed_parameters_are_neutral(llm):
    for call in (text_of, lambda llm: llm.create_chat_completion(MESSAGES, max_tokens=24, seed=1)):
        call(llm)
        assert all((s.temperature_eff, s.top_p_eff) == (s.temperature, s.top_p) for s in llm.steps)
    tokens = llm.generate(llm.tokenize(b"hello"))
    next(tokens)
    assert llm.steps[0].temperature_eff == llm.steps[0].temperature


@pytest.mark.parametrize("how", ["by name", "by position"])
def test_named_temperature_and_top_p_multiply(llm, how):
    if how == "by name":
        llm("hello", max_tokens=4, seed=1, temperature=0.5, top_p=0.75)
    else:
        llm("hello", None, 4, 0.5, 0.75, seed=1)
    assert len(llm.steps) == 4
    for step in llm.steps:
        assert step.temperature_eff == 0.5 * step.temperature
        assert step.top_p_eff == np.float32(0.75) * np.float32(step.top_p)


def test_temperature_zero_is_stock_greedy(letters, llm):
    stock = open_stock(letters.gguf, **OPTIONS)
    assert text_of(llm, temperature=0.0) == text_of(stock, temperature=0.0)
    assert {s.n_kept for s in llm.steps} == {1}


def test_heads_mode_may_change_between_calls(letters):
    llm = open_llama(letters, heads_mode="temp")
    text_of(llm)
    assert {(s.temperature is None, s.top_p is None) for s in llm.steps} == {(False, True)}
    llm.heads_mode = "none"
    text_of(llm)
    assert {(s.temperature, s.top_p) for s in llm.steps} == {(None, None)}


def test_top_k_of_the_whole_vocabulary_and_more_is_no_filter(llm):
    plain = text_of(llm)
    assert text_of(llm, top_k=llm.n_vocab()) == text_of(llm, top_k=10**6) == plain


def test_top_k_and_min_p(llm):
    text_of(llm)
    assert max(s.n_kept for s in llm.steps) > 3
    text_of(llm, top_k=3)
    assert max(s.n_kept for s in llm.steps) <= 3
    text_of(llm, min_p=1.0)
    assert {s.n_kept for s in llm.steps} == {1}


# ---- what must really be enforced, with T and P from the heads -------------------------------------


@pytest.fixture(scope="module")
def first_values(llm):
    """T and P after the prompt without any filter: a filter must not change them."""
    text_of(llm)
    return llm.steps[0].temperature, llm.steps[0].top_p


def test_presence_penalty(llm, first_values):
    free = ids_of(llm, presence_penalty=0.0)
    assert len(set(free)) < len(free), "without a penalty some token comes twice"
    penalised = ids_of(llm, presence_penalty=1000.0)
    assert len(set(penalised)) == len(penalised) == 24
    assert (llm.steps[0].temperature, llm.steps[0].top_p) == first_values


def test_repeat_penalty(llm, first_values):
    """Greedy, so that a penalised token (its positive logit divided by a million) never wins again."""
    assert len(set(ids_of(llm, temperature=0.0, max_tokens=40))) < 40
    penalised = ids_of(llm, temperature=0.0, max_tokens=40, repeat_penalty=1e6)
    assert len(set(penalised)) == len(penalised) >= 40
    assert (llm.steps[0].temperature, llm.steps[0].top_p) == first_values


def test_logit_bias(llm, first_values):
    assert set(ids_of(llm, logit_bias={"65": 1000.0})) == {65}
    assert (llm.steps[0].temperature, llm.steps[0].top_p) == first_values
    likely = ids_of(llm, temperature=0.0)[0]
    assert ids_of(llm, temperature=0.0, logit_bias={str(likely): -1000.0})[0] != likely


def test_what_a_callback_raises_is_raised_without_heads_too(letters):
    def broken(_ids, _scores):
        raise RuntimeError("broken processor")

    with open_llama(letters, heads=None) as llm:
        with pytest.raises(RuntimeError, match="broken processor"):
            llm("hello", max_tokens=2, logits_processor=llama_cpp.LogitsProcessorList([broken]))
        with pytest.raises(IndexError):
            llm("hello", max_tokens=2, logit_bias={10**9: 1.0})
        assert text_of(llm)


def test_logits_processor_that_fails_is_not_silent(llm):
    def broken(_ids, _scores):
        raise RuntimeError("broken processor")

    with pytest.raises(RuntimeError, match="broken processor"):
        llm("hello", max_tokens=2, logits_processor=llama_cpp.LogitsProcessorList([broken]))
    with pytest.raises(AutodecoError, match="no finite logit"):
        llm("hello", max_tokens=2, logits_processor=llama_cpp.LogitsProcessorList([lambda _ids, s: s * np.nan]))
    assert len(ids_of(llm)) == 24


def test_grammar(llm, first_values):
    grammar = llama_cpp.LlamaGrammar.from_string('root ::= "yes" | "no" | "maybe"', verbose=False)
    replies = {text_of(llm, grammar=grammar, seed=seed, temperature=3.0) for seed in range(24)}
    assert replies <= {"yes", "no", "maybe"}
    assert len(replies) > 1
    assert (llm.steps[0].temperature, llm.steps[0].top_p) == first_values


@pytest.mark.parametrize("grammar", ["root ::= (", "start: (", "root ::= nowhere", 5])
def test_grammar_that_is_refused(llm, letters, grammar):
    objects = [grammar]
    if isinstance(grammar, str):
        objects.append(llama_cpp.LlamaGrammar.from_string(grammar, verbose=False))
    stock = open_llama(letters, heads=None)
    for one in (llm, stock):
        for given in objects:
            with pytest.raises(AutodecoError, match="grammar") as error:
                one("hello", max_tokens=2, grammar=given)
            assert error.value.exit_code == (2 if grammar == 5 else 65)
        assert text_of(one), "and the next call is as before"
    stock.close()


@pytest.mark.parametrize("heads", [True, False])
def test_grammars_of_every_kind(letters, heads):
    """Text, a LlamaGrammar, Lark and an object of ours; with heads and in llama-cpp-python's own chain."""
    llm = open_llama(letters) if heads else open_llama(letters, heads=None)
    gbnf = 'root ::= ("yes" | "no") "!"'
    for grammar in (gbnf, llama_cpp.LlamaGrammar.from_string(gbnf, verbose=False), 'start: ("yes" | "no") "!"',
                    Grammar.from_regex("(yes|no)!")):  # fmt: skip
        replies = {text_of(llm, grammar=grammar, seed=seed, temperature=2.0) for seed in range(12)}
        assert replies and replies <= {"yes!", "no!"}
        parts = llm("hello", max_tokens=24, seed=1, grammar=grammar, stream=True)
        assert "".join(part["choices"][0]["text"] for part in parts) in ("yes!", "no!")
    assert not set(text_of(llm, seed=1)) <= set("yesno!"), "and the next call is free"
    llm.close()


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["ann", "bob"]}, "adult": {"type": "boolean"}},
    "required": ["name", "adult"],
}


def test_json_schema_on_a_real_vocabulary(qwen2):
    llm = open_llama(qwen2)
    for seed in range(2):
        form = {"type": "json_object", "schema": SCHEMA}
        reply = llm.create_chat_completion(MESSAGES, max_tokens=60, seed=seed, response_format=form)
        value = json.loads(reply["choices"][0]["message"]["content"])
        assert value["name"] in ("ann", "bob") and isinstance(value["adult"], bool)
        assert reply["choices"][0]["finish_reason"] == "stop"
        assert all(0 < s.temperature < 2 and 0 < s.top_p < 1 for s in llm.steps)
    llm.close()


FORMATS = [
    {"type": "json_object", "schema": SCHEMA},
    {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}},
]


@pytest.mark.parametrize("heads", [True, False])
@pytest.mark.parametrize("form", FORMATS, ids=lambda f: f["type"])
def test_response_formats_of_both_apis(letters, form, heads):
    llm = open_llama(letters, n_ctx=512, **({} if heads else {"heads": None}))
    reply = llm.create_chat_completion(MESSAGES, max_tokens=300, seed=3, response_format=form, temperature=0.5)
    value = json.loads(reply["choices"][0]["message"]["content"])
    assert value["name"] in ("ann", "bob") and isinstance(value["adult"], bool)
    assert reply["choices"][0]["finish_reason"] == "stop" and bool(llm.steps) == heads
    assert all(
        0 < s.temperature < 2 and s.temperature_eff == np.float32(0.5) * np.float32(s.temperature) for s in llm.steps
    )
    llm.close()


def test_response_format_of_text_is_none(llm):
    free = llm.create_chat_completion(MESSAGES, max_tokens=8, seed=3)["choices"]
    assert (
        llm.create_chat_completion(MESSAGES, max_tokens=8, seed=3, response_format={"type": "text"})["choices"] == free
    )


@pytest.mark.parametrize(
    "form, error",
    [
        ({"type": "json_schema"}, UsageError), ({"type": "json_schema", "json_schema": {"name": "x"}}, UsageError),
        ({"type": "json_schema", "json_schema": {"schema": 5}}, UsageError), ({"type": "xml"}, UsageError), ({}, UsageError),
        ("json", UsageError), ({"type": ["text"]}, UsageError), ({"type": "json_object", "schema": "{}"}, UsageError),
        ({"type": "json_object", "schema": {"not": {}}}, FormatError), ({"type": "json_object", "schema": {"type": 5}}, FormatError),
        ({"type": "json_object", "schema": {"enum": [float("nan")]}}, FormatError),
        ({"type": "json_object", "schema": {"enum": [{1, 2}]}}, FormatError),
    ],
    ids=str,
)  # fmt: skip
def test_response_format_that_is_refused(llm, form, error):
    with pytest.raises(error, match="response_format|schema"):
        llm.create_chat_completion(MESSAGES, max_tokens=8, response_format=form)
    with pytest.raises(UsageError, match="exclude each other"):
        llm.create_chat_completion(MESSAGES, grammar='root ::= "a"', response_format=FORMATS[0])


# ---- without heads ------------------------------------------------------------------------------


def test_without_heads_it_is_stock(letters):
    ours, stock = open_llama(letters, heads=None), open_stock(letters.gguf, **OPTIONS)
    for arguments in ({}, {"temperature": 1.5, "top_k": 100}, {"repeat_penalty": 1.3}, {"mirostat_mode": 2}):
        assert text_of(ours, **arguments) == text_of(stock, **arguments)
    assert (
        ours.create_chat_completion(MESSAGES, max_tokens=8, seed=3)["choices"]
        == (stock.create_chat_completion(MESSAGES, max_tokens=8, seed=3)["choices"])
    )
    assert ours.steps == []


def test_without_heads_everything_is_allowed(letters):
    llm = open_llama(letters, heads=None, logits_all=True)
    assert llm("hello", max_tokens=2, logprobs=2, seed=1)["choices"][0]["logprobs"]["tokens"]


def test_auto_finds_no_heads_in_a_plain_model(letters):
    assert open_llama(letters, heads="auto").autodeco is None


# ---- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", [{"logits_all": True}, {"draft_model": lambda ids: ids}, {"embedding": True}], ids=list
)
def test_options_that_cannot_be_combined(letters, option):
    with pytest.raises(UsageError, match=f"{next(iter(option))} cannot be combined with heads.*heads=None"):
        open_llama(letters, **option)


@pytest.mark.parametrize("argument", [{"mirostat_mode": 2}, {"typical_p": 0.5}], ids=list)
def test_arguments_that_cannot_be_combined(llm, argument):
    with pytest.raises(UsageError, match=f"{next(iter(argument))} cannot be combined with heads.*heads=None"):
        text_of(llm, **argument)
    assert len(ids_of(llm)) == 24, "a refused call leaves the model usable"


def test_sampling_without_generate(letters):
    llm = open_llama(letters)
    llm.eval([65, 66])
    with pytest.raises(UsageError, match="use generate"):
        llm.sample()


def test_a_model_that_is_none_is_a_value_error_as_in_llama_cpp(letters, tmp_path):
    """The model is named first, whatever is said of heads; who catches our own errors catches it, too."""
    (tmp_path / "text.gguf").write_text("no model")
    for name, kind in (("missing.gguf", MissingInputError), ("text.gguf", FormatError)):
        for heads in ("auto", "nowhere.gguf", None):
            for expected in (ValueError, kind):
                with pytest.raises(expected, match=name):
                    autodeco_edge.Llama(str(tmp_path / name), heads=heads, verbose=False)
    with pytest.raises(MissingInputError, match="missing.gguf"):
        autodeco_edge.Engine(tmp_path / "missing.gguf", heads=tmp_path / "nowhere.gguf")


def test_missing_and_mismatched_heads(letters, qwen2):
    with pytest.raises(MissingInputError):
        open_llama(letters, heads="missing.gguf")
    with pytest.raises(MismatchError, match="architecture qwen2"):
        open_llama(letters, heads=qwen2.heads)


def test_failed_constructor_says_one_thing(letters, monkeypatch):
    """An error in __del__ cannot be raised; Python prints it through this hook."""
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(UsageError):
        open_llama(letters, logits_all=True)
    with pytest.raises(MissingInputError):
        open_llama(letters, heads="missing.gguf")
    gc.collect()
    assert [u.exc_value for u in unraisable] == []


# ---- lifetime ----------------------------------------------------------------------------------------


def test_call_after_close(letters):
    llm = open_llama(letters)
    tokens = llm.generate([65])
    next(tokens)
    llm.close()
    llm.close()
    with pytest.raises(UsageError, match="closed"):
        text_of(llm)
    with pytest.raises(UsageError, match="closed"):
        next(tokens)


def test_two_at_once(letters):
    """Token by token in turn; a completion may read ahead, `generate` does not."""

    def start(seed: int):
        llm = open_llama(letters)
        llm.set_seed(seed)
        return llm.generate([65, seed])

    def take(tokens, n: int) -> list[int]:
        return [token for token, _ in zip(tokens, range(n), strict=False)]

    first, second = start(1), start(2)
    together = [(next(first), next(second)) for _ in range(24)]
    assert list(zip(*together, strict=True)) == [tuple(take(start(1), 24)), tuple(take(start(2), 24))]


EXITS = {
    "nothing closed": "",
    "closed": "a.close(); b.close()",
    "heads freed first": "del a.autodeco; del a",
    "in the middle of a stream": "s = a.generate([65]); next(s)",
    "closed in the middle of a stream": "s = a.generate([65]); next(s); a.close()",
}


@pytest.mark.parametrize("ending", EXITS.values(), ids=EXITS)
def test_interpreter_ends_cleanly(letters, ending):
    """Context, chain and heads are freed in an order that does not crash, however the program ends."""
    program = (
        "import sys; from autodeco_edge import Llama\n"
        "a, b = (Llama(sys.argv[1], heads=sys.argv[2], n_ctx=128, n_threads=1, verbose=False) for _ in 'ab')\n"
        "a('x', max_tokens=3); b('x', max_tokens=3, repeat_penalty=1.1, logit_bias={'65': 1.0})\n" + ending
    )
    command = [sys.executable, "-c", program, str(letters.gguf), str(letters.heads)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# ---- a drop-in takes what its original takes ----------------------------------------------------------


@pytest.mark.parametrize(
    "argument",
    [
        {"seed": -1},
        {"seed": 2**70},
        {"top_p": 1.5},
        {"top_p": -0.1},
        {"min_p": -0.1},
        {"min_p": 2.0},
        {"temperature": -1.0},
        {"temperature": 1e9},
        {"top_k": -1},
        {"typical_p": 2.0},
        {"stop": None},
        {"max_tokens": None},
        {"suffix": "x"},
    ],
    ids=str,
)
def test_arguments_beyond_a_range(llm, argument):
    assert llm("hello", **{"max_tokens": 4, "seed": 1, **argument})["choices"]
    assert llm.steps


def test_a_value_beyond_its_range_is_the_end_of_it(llm):
    assert ids_of(llm, top_p=1.5) == ids_of(llm, top_p=1.0)
    assert ids_of(llm, min_p=-0.1) == ids_of(llm, min_p=0.0)
    assert ids_of(llm, min_p=2.0) == ids_of(llm, min_p=1.0)


def test_seed_minus_one_is_random(llm):
    assert len({tuple(ids_of(llm, seed=-1)) for _ in range(6)}) > 1
    assert ids_of(llm, seed=-5) == ids_of(llm, seed=2**32 - 5)


@pytest.mark.parametrize("option", [{"seed": -1}, {"seed": None}, {"n_ctx": 0}, {"last_n_tokens_size": 0}], ids=str)
def test_options_beyond_a_range(letters, option):
    with open_llama(letters, **option) as llm:
        assert llm("hello", max_tokens=2)["choices"]


@pytest.mark.parametrize(
    "option",
    [
        {"n_threads": 10**6},
        {"n_threads_batch": 10**6},
        {"n_ctx": 2**32},
        {"n_threads": -1},
        {"pooling_type": 99},
        {"pooling_type": -2},
    ],
    ids=str,
)
def test_options_that_llama_cpp_would_die_on(letters, option):
    with pytest.raises(UsageError, match="allowed (0|-1) to"):
        open_llama(letters, **option)


def test_vocab_only_of_a_single_file(single):
    with autodeco_edge.Llama(str(single), vocab_only=True, verbose=False) as llm:
        assert llm.detokenize(llm.tokenize(b"hello")) == b"hello"

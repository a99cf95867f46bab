"""What an editor shows of ``Llama`` is what it takes; and the examples in docstrings run as they are printed."""

from __future__ import annotations

import ast
import doctest
import inspect
import shutil
from pathlib import Path

import llama_cpp
import pytest

import autodeco_edge
from autodeco_edge import Engine, Llama, SamplingParams
from autodeco_edge.dropin import signatures
from autodeco_edge.engine.generation import Generation
from autodeco_edge.errors import UsageError
from tests.support.letters import make_letters

OURS = {"temperature": None, "top_p": None, "min_p": None, "top_k": None}


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return make_letters(tmp_path_factory.mktemp("letters"))


def written(name: str) -> dict[str, object]:
    """Parameters and defaults as the file has them."""
    tree = ast.parse(Path(signatures.__file__).read_text(encoding="utf-8"))
    (method,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    known = [*method.args.args[1:], *method.args.kwonlyargs]
    positional = [None] * (len(method.args.args) - len(method.args.defaults)) + method.args.defaults
    values = [*positional[1:], *method.args.kw_defaults]
    return {
        a.arg: inspect.Parameter.empty if v is None else ast.literal_eval(v) for a, v in zip(known, values, strict=True)
    }


@pytest.mark.parametrize("name", ["__init__", "__call__", "create_completion", "create_chat_completion"])
def test_names_and_defaults_are_the_inherited_ones_but_for_ours(name):
    theirs = inspect.signature(getattr(llama_cpp.Llama, name)).parameters
    ours = written(name)
    if name == "__init__":
        assert (ours.pop("heads"), ours.pop("heads_mode")) == ("auto", "both")
    assert list(ours) == [n for n in theirs if n not in ("self", "kwargs")]
    for parameter, default in ours.items():
        expected = theirs[parameter].default
        if name != "__init__" and parameter in OURS:
            expected = OURS[parameter]
        assert default == (() if expected == [] else expected), parameter


def test_the_package_says_that_it_is_typed():
    assert (Path(autodeco_edge.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    "name, near", [("foo", ""), ("n_ctxx", "did you mean n_ctx?"), ("seeds", "did you mean seed?")]
)
def test_an_argument_that_nobody_reads_is_refused(letters, name, near):
    with pytest.raises(UsageError, match=f"there is no argument '{name}'.*{near}".replace("?", r"\?")):
        Llama(letters.gguf, verbose=False, **{name: 1})


def test_none_is_as_if_it_were_not_given(letters):
    for heads in (letters.heads, None):
        llm = Llama(letters.gguf, heads=heads, verbose=False, n_threads=1)
        plain = llm("hello", max_tokens=8, seed=3)["choices"][0]["text"]
        assert (
            llm("hello", max_tokens=8, seed=3, temperature=None, top_p=None, min_p=None, top_k=None)["choices"][0][
                "text"
            ]
            == plain
        )
        llm.close()


def test_log_probabilities_without_logits_all(letters):
    llm = Llama(letters.gguf, heads=letters.heads, verbose=False, n_threads=1)
    without = llm("hello", max_tokens=6, seed=1)
    reply = llm("hello", max_tokens=6, seed=1, logprobs=3)
    assert reply["choices"][0]["text"] == without["choices"][0]["text"], "the same tokens"
    found = reply["choices"][0]["logprobs"]
    n = len(found["tokens"])
    assert 0 < n <= 6 and {len(v) for v in found.values()} == {n}
    for token, logprob, top, step in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], llm.steps, strict=False
    ):
        assert logprob == step.logprob < 0 and top[token] == logprob and 3 <= len(top) <= 4 or "\ufffd" in "".join(top)
        assert step.top[0][1] >= logprob - 1e-4 and len({value for _, value in step.top}) > 1
    again = llm("hello", max_tokens=6, seed=1)
    assert again["choices"][0].get("logprobs") is None and llm.steps[0].top == ()
    for wrong in ({"stream": True}, {"echo": True}):
        with pytest.raises(UsageError, match="not with stream or echo"):
            llm("hello", max_tokens=2, logprobs=1, **wrong)
    with pytest.raises(UsageError, match="logprobs: allowed 0 to 20"):
        llm("hello", max_tokens=2, logprobs=21)
    llm.close()


def test_log_probabilities_of_a_chat_and_before_a_stop_string(letters):
    llm = Llama(letters.gguf, heads=letters.heads, verbose=False, n_threads=1)
    messages = [{"role": "user", "content": "hello"}]
    content = llm.create_chat_completion(messages, max_tokens=5, seed=1, logprobs=True, top_logprobs=2)["choices"][0]
    assert content["logprobs"]["content"] and all(t["logprob"] < 0 for t in content["logprobs"]["content"])
    bias = {64: 100.0}  # "@" and nothing else
    reply = llm("hello", max_tokens=9, seed=1, logprobs=1, stop=["@@@"], logit_bias=bias)["choices"][0]
    assert reply["text"] == "" and reply["logprobs"]["tokens"] == []
    llm.close()


def test_an_engine_takes_texts_and_messages_and_gives_texts(letters):
    engine = Engine(letters.gguf, letters.heads, n_threads=1, n_ctx=256)
    ids = engine.model.tokenize("hello")
    one, two = list(engine.generate(ids, max_tokens=20)), list(engine.generate("hello", max_tokens=20))
    assert one == two and all(isinstance(step.text, str) for step in two)
    data = engine.model.detokenize([step.id for step in two])
    assert "".join(step.text for step in two) == data.decode("utf-8", "replace")
    from autodeco_edge.text.chat import render

    messages = [{"role": "user", "content": "hello"}]
    ways = (
        lambda: engine.generate(render(engine.model, messages), max_tokens=5),
        lambda: engine.chat(messages, max_tokens=5),
        lambda: engine.chat("hello", max_tokens=5),
    )
    drawn = [[step.id for step in way()] for way in ways]
    assert drawn[0] == drawn[1] == drawn[2] and len(drawn[0]) == 5
    for wrong in (b"hello", 5, ["a"]):
        with pytest.raises(UsageError):
            engine.generate(wrong)
    engine.close()


def test_a_character_over_several_tokens_comes_whole(letters):
    engine = Engine(letters.gguf, letters.heads, n_threads=1, n_ctx=256)
    data = iter("é日".encode())
    generation: Generation = engine.generate("x", max_tokens=5).spelt(lambda _id: bytes([next(data)]))
    texts = [step.text for step in generation]
    assert texts == ["", "é", "", "", "日"][: len(texts)] and len(texts) > 1
    engine.close()


@pytest.mark.parametrize(
    "thing", [Llama, Engine.__mro__[1], Engine.generate, Engine.chat], ids=lambda t: t.__qualname__
)
def test_examples_run(letters, thing, tmp_path, monkeypatch, capsys):
    shutil.copy(letters.gguf, tmp_path / "model.gguf")
    shutil.copy(letters.heads, tmp_path / "heads.gguf")
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(thing))
    assert examples
    names = {"Engine": Engine, "Llama": Llama}
    exec("from autodeco_edge.engine.generation import Request", names)
    for example in examples:
        exec(compile(example.source, thing.__qualname__, "single"), names)
    assert capsys.readouterr().out.strip()


# ---- what is seen without running it ------------------------------------------------------------


def test_a_type_checker_sees_every_public_name():
    """What __getattr__ hands out is Any to it; so the same names are imported for it alone, from the same modules."""
    tree = ast.parse(Path(autodeco_edge.__file__).read_text(encoding="utf-8"))
    (block,) = (n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    seen = {a.asname or a.name: (f".{n.module}", a.name) for n in block.body for a in n.names}
    homes = {
        name: (home.partition(":")[0], home.partition(":")[2] or name) for name, home in autodeco_edge._HOMES.items()
    }
    assert seen == homes
    assert set(autodeco_edge.__all__) == {*homes, "__version__"}


NO_MESSAGES = [
    5, None, b"hi", ["hi"], {"role": "user", "content": "hi"}, [{}], [{"role": "user"}, 5], [{"role": "user", "content": 5}],
    [{"role": None, "content": "hi"}],
]  # fmt: skip


@pytest.mark.parametrize("messages", NO_MESSAGES, ids=repr)
def test_what_is_no_list_of_messages(letters, messages):
    with Engine(letters.gguf, letters.heads, n_threads=1) as engine:
        with pytest.raises(UsageError, match="messages: allowed a text, or a list of"):
            engine.chat(messages, max_tokens=1)
        with pytest.raises(UsageError, match="params: allowed SamplingParams; got int"):
            engine.chat("hi", 5)
        for n in (None, "3"):
            with pytest.raises(UsageError, match="max tokens: allowed -1 to"):
                engine.chat("hi", max_tokens=n)
        messages = ({"role": r, "content": "hi"} for r in ("system", "user"))
        assert len(list(engine.chat(messages, max_tokens=1))) == 1, "any iterable of them will do"


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p", "temp_range", "top_p_range", "top_logprobs"])
@pytest.mark.parametrize("value", ["x", None, [1], object()], ids=["text", "None", "list", "object"])
def test_settings_of_another_kind(name, value):
    with pytest.raises(UsageError, match="allowed"):
        SamplingParams(**{name: value})


def test_texts_are_spelt_only_where_they_are_read(letters):
    with Engine(letters.gguf, letters.heads, n_threads=1) as engine:
        assert all(step.text is None for step in engine.generate("hi", max_tokens=3, spelt=False))
        assert all(step.text is not None for step in engine.generate("hi", max_tokens=3))

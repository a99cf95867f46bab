"""A model without heads in force: whose values it is sampled with, and that the line under the reply says so."""

from __future__ import annotations

import json

import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.plain import DEFAULTS, recommended
from tests.support import warm


def with_keys(source, path, **keys):
    """A copy of the GGUF ``source`` with ``general.sampling.*`` keys: floats, integers or texts."""
    reader = GGUFReader(source)
    writer = GGUFWriter(path, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kinds = field.types
        writer.add_key_value(field.name, field.contents(), kinds[0], kinds[1] if len(kinds) > 1 else None)
    for name, value in keys.items():
        kind = {float: GGUFValueType.FLOAT32, int: GGUFValueType.INT32, str: GGUFValueType.STRING}[type(value)]
        writer.add_key_value(f"general.sampling.{name}", value, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def run(home, letters):
    def call(*args, model=None) -> tuple[list[dict], str]:
        """Steps and the line under the reply."""
        words = ["run", "hi", "-m", model or letters.gguf, "-t", "1", "--seed", "1", "-n", "12", *args]
        out = [warm.run(*words, *more, text=True) for more in ((), ("--jsonl",))]
        assert [done.returncode for done in out] == [0, 0], out[0].stderr
        return [json.loads(line) for line in out[1].stdout.splitlines()[:-1]], out[0].stderr

    return call


# ---- what a model wants ---------------------------------------------------------------------------


def test_llama_cpps_defaults(letters):
    plain = recommended(Model(letters.gguf))
    assert plain.values == {
        "temp": 0.8,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "repeat_penalty": 1,
        "repeat_last_n": 64,
    }
    assert plain.own == frozenset() and plain.not_followed == ()


@pytest.mark.parametrize(
    "keys, values",
    [
        ({"temp": 0.5, "top_p": 0.75}, {"temp": 0.5, "top_p": 0.75}),
        ({"top_k": 7, "penalty_repeat": 1.25, "penalty_last_n": 32}, {"top_k": 7, "repeat_penalty": 1.25, "repeat_last_n": 32}),
        ({"temp": "0.5"}, {"temp": 0.5}),  # llama.cpp reads the text of whatever type
        ({"temp": "0.5 or so", "top_k": "20.9"}, {"temp": 0.5, "top_k": 20}),
        ({"temp": "warm", "min_p": ""}, {}),
        ({"temp": float("nan"), "top_p": float("inf")}, {}),
        ({"temp": -1.0}, {"temp": 0.0}),  # greedy
        ({"top_k": 0}, {"top_k": 0}),
        ({"top_k": -1, "top_p": 1.5, "min_p": -0.5}, {"top_k": 0, "top_p": 1.0, "min_p": 0.0}),
        ({"temp": 1e30, "penalty_repeat": 0.0}, {"temp": 100.0, "repeat_penalty": 0.01}),
        ({"mirostat": 0, "xtc_probability": 0.0}, {}),
    ],
)  # fmt: skip
def test_a_models_own_values(letters, tmp_path, keys, values):
    plain = recommended(Model(with_keys(letters.gguf, tmp_path / "m.gguf", **keys)))
    assert plain.values == pytest.approx({**DEFAULTS, **values})
    assert plain.own == set(values)


def applied(steps) -> set[tuple[float, float]]:
    """(T*, P*) of all steps; they were float32."""
    return {(round(s["temperature_eff"], 5), round(s["top_p_eff"], 5)) for s in steps}


# ---- what `run` does -------------------------------------------------------------------------------


def test_a_plain_model_is_sampled_by_llama_cpps_defaults(run):
    steps, line = run()
    assert applied(steps) == {(0.8, 0.95)}
    assert max(s["n_kept"] for s in steps) <= 40
    assert "plain: temp 0.8, top-k 40, top-p 0.95, min-p 0.05 (llama.cpp's defaults)" in line


@pytest.mark.parametrize("switch", [["--no-heads"], ["--heads-mode", "none"]])
def test_heads_put_aside(run, letters, switch):
    heads = ["--heads", letters.heads] if "none" in switch else []
    steps, line = run(*heads, *switch)
    assert applied(steps) == {(0.8, 0.95)}
    assert "plain: temp 0.8" in line


def test_options_are_absolute_and_win(run):
    steps, line = run("--temp", "0.5", "--top-k", "3")
    assert applied(steps) == {(0.5, 0.95)}
    assert max(s["n_kept"] for s in steps) <= 3
    assert "plain: temp 0.5, top-k 3 (yours), top-p 0.95, min-p 0.05 (llama.cpp's defaults)" in line


def test_one_may_ask_for_nothing_at_all(run):
    """The very values that were forced before."""
    steps, line = run("--temp", "1", "--top-p", "1", "--min-p", "0", "--top-k", "0")
    assert applied(steps) == {(1, 1)}
    assert "plain: temp 1 (yours)" in line


def test_greedy(run):
    steps, line = run("--temp", "0")
    assert {s["n_kept"] for s in steps} == {1} and "plain: temp 0 (yours) ·" in line


def test_the_models_own_values_rule(run, letters, tmp_path):
    model = with_keys(letters.gguf, tmp_path / "m.gguf", temp=0.25, top_p=0.5, mirostat=2)
    steps, line = run(model=model)
    assert applied(steps) == {(0.25, 0.5)}
    assert "plain: temp 0.25, top-p 0.5 (the model's own), top-k 40, min-p 0.05 (llama.cpp's defaults)" in line
    assert "asks for mirostat as well" in line
    steps, line = run("--top-p", "0.75", model=model)
    assert "plain: top-p 0.75 (yours), temp 0.25 (the model's own)" in line


def test_heads_are_left_alone(run, letters):
    steps, line = run("--heads", letters.heads)
    assert all(s["temperature_eff"] == s["temperature"] and s["top_p_eff"] == s["top_p"] for s in steps)
    assert "plain" not in line


@pytest.mark.parametrize("mode, words", [("temp", "P 1 (no head applied)"), ("top-p", "T 1 (no head applied)")])
def test_one_head_alone(run, letters, mode, words):
    steps, line = run("--heads", letters.heads, "--heads-mode", mode)
    other = "top_p_eff" if mode == "temp" else "temperature_eff"
    assert {s[other] for s in steps} == {1} and words in line

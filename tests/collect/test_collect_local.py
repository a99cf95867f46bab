"""``autodeco-edge collect`` with the bundled demo model: real draws, real verdicts, kills, and what the trainer reads."""

from __future__ import annotations

import json
import random
import signal
import time

import pytest

from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.tasks import Verifier, load_task
from autodeco_edge.text.chat import render
from tests.collect.conftest import LOCAL, last_line, lines, run, start

SMALL = (*LOCAL, "--problems", "demo", "--count", "12", "-n", "4")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run that nothing disturbed: (output, summary)."""
    out = tmp_path_factory.mktemp("collect") / "whole.jsonl"
    done = run(*SMALL, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def keys(path) -> list[tuple[str, int]]:
    return [(row["id"], row["sample"]) for row in lines(path)]


def test_what_is_kept_is_right_and_in_order(whole):
    out, summary = whole
    problems = {problem.id: problem for problem in load_task("demo", count=12, split="train").problems}
    found = keys(out)
    order = {name: i for i, name in enumerate(problems)}
    assert found == sorted(set(found), key=lambda key: (order[key[0]], key[1]))
    with Verifier() as verifier:
        verdicts = verifier.check([(problems[row["id"]], row["completion"]) for row in lines(out)])
    assert all(verdict.right for verdict in verdicts)
    figures = summary["kinds"]["all"]
    assert figures["drawn"] == 48 and figures["kept"] == figures["right"] == len(found) > 10
    assert figures["unsolved"] == len(problems) - len({name for name, _ in found})
    assert not out.with_name("whole.jsonl.part").exists()


def test_it_trains(whole):
    """Each record becomes the prompt's own ids, the completion and the end marker."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from autodeco_edge.train.data import load_dataset
    from autodeco_edge.train.gguf_backbone import GgufTokenizer

    model = Model(demo_model())
    rows = lines(whole[0])
    data = load_dataset(whole[0], GgufTokenizer(model), 512)
    assert (len(data.samples), data.n_truncated, data.n_dropped) == (len(rows), 0, 0)
    problems = {problem.id: problem for problem in load_task("demo", count=12, split="train").problems}
    for sample, row in zip(data.samples, rows, strict=True):
        prompt, completion = sample.ids[: sample.n_prompt], sample.ids[sample.n_prompt :]
        assert prompt == render(model, list(problems[row["id"]].messages))
        assert completion[-1] == model.eos and model.detokenize(completion).decode() == row["completion"]


def test_kills_lose_nothing_and_double_nothing(whole, tmp_path):
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    rng, n_before = random.Random(4), 0
    for _ in range(3):
        child = start(*SMALL, "-o", out, "--resume")
        wanted, deadline = n_before + rng.randint(1, 10), time.monotonic() + 60
        while not part.exists() or part.read_bytes().count(b"\n") <= wanted:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        child.kill()
        child.communicate()
        n = part.read_bytes().count(b"\n") - 1
        assert n >= wanted and not out.exists()
        n_before = n
    refused = run(*SMALL, "-o", out)
    assert refused.returncode == 2 and "--resume" in last_line(refused)
    out.write_text("")  # as if killed between writing OUT and removing OUT.part: both are there
    done = run(*SMALL, "-o", out, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kinds"]["all"]["drawn"] == 48
    assert not part.exists()
    assert out.read_bytes() == whole[0].read_bytes()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    out, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    child = start(*SMALL, "-o", out)
    deadline = time.monotonic() + 60
    while not part.exists() or part.read_bytes().count(b"\n") < 5:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130 and "--resume" in errors and "Traceback" not in errors
    assert part.exists() and not out.exists()


def test_complete_is_complete(whole):
    out = whole[0]
    before = out.read_bytes()
    done = run(*SMALL, "-o", out, "--resume", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["complete"] is True
    refused = run(*SMALL, "-o", out)
    assert refused.returncode == 2 and "exists" in last_line(refused)
    assert out.read_bytes() == before


def test_keep_with_and_without_stop_is_the_same(whole, tmp_path):
    all_kept, per_problem = {}, {}
    for row in lines(whole[0]):
        all_kept.setdefault(row["id"], []).append(row["sample"])
    for name, options in {"plain": (), "stop": ("--per-problem-stop", "--parallel", "4")}.items():
        out = tmp_path / f"{name}.jsonl"
        done = run(*SMALL, "--keep", "1", *options, "-o", out, "--json")
        assert done.returncode == 0, done.stderr
        per_problem[name] = dict(keys(out))
        assert len(per_problem[name]) == len(lines(out))
        drawn = json.loads(done.stdout)["kinds"]["all"]["drawn"]
        assert drawn == 48 if name == "plain" else drawn < 48
    want = {problem: samples[0] for problem, samples in all_kept.items()}
    for found in per_problem.values():  # other batches: see above
        assert len(set(found.items()) ^ set(want.items())) <= 4


def test_with_heads_draws_otherwise(whole, tmp_path):
    out = tmp_path / "out.jsonl"
    done = run(*SMALL, "--with-heads", "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kinds"]["all"]["right"] > 48 * 0.75  # the heads' accuracy here is 93 %
    assert lines(out) != lines(whole[0])


MATH_ROW = '{"problem": "1+1?", "gt": "2"}\n'
REFUSED = {
    "neither": (("--problems", "demo"), 2, "either -m MODEL.gguf or --endpoint URL"),
    "both": ((*SMALL, "--endpoint", "http://127.0.0.1:1/v1"), 2, "either -m"),
    "test split": ((*SMALL, "--split", "test"), 2, "allowed train, calibration; got 'test'"),
    "no such file": ((*LOCAL, "--problems", "no.jsonl"), 66, "no such file"),
    "bad row": ((*LOCAL, "--problems", "BAD"), 65, "bad.jsonl:2: "),
    "demo rows in a file": ((*LOCAL, "--problems", "DEMO"), 2, "pass --problems demo:make"),
    "stop without keep": ((*SMALL, "--per-problem-stop"), 2, "--keep"),
    "greedy": ((*SMALL, "--temp", "0"), 2, "same reply"),
    "no samples": ((*LOCAL, "--problems", "demo", "-n", "0"), 2, "samples"),
    "rule": ((*SMALL, "--accept", "all"), 2, "official, math-verify, both"),
    "no model": (("-m", "no.gguf", "--problems", "demo"), 66, "no.gguf"),
    "option of the other": ((*SMALL, "--model-name", "x"), 2, "--model-name belongs to --endpoint"),
    "prompt too long": ((*SMALL, "-c", "8"), 65, "the context 8"),
    "nothing right": ((*LOCAL[:-1], "2", "--problems", "demo:chain", "--count", "2", "-n", "2"), 1, "4 were cut at 2"),
    "folder": ((*SMALL, "-o", "FOLDER"), 73, "is a folder"),
}


@pytest.mark.parametrize("arguments, code, says", REFUSED.values(), ids=REFUSED)
def test_refusals(refuse, tmp_path, arguments, code, says):
    bad, demo = tmp_path / "bad.jsonl", tmp_path / "demo.jsonl"
    bad.write_text(MATH_ROW + '{"problem": 3}\n')
    demo.write_text('{"problem": "Find two numbers whose sum is 43.", "gt": "sum2 43", "family": "make"}\n')
    places = {"BAD": bad, "DEMO": demo, "FOLDER": tmp_path}
    found, line = refuse("-o", tmp_path / "out.jsonl", *(places.get(x, x) for x in arguments))
    assert found == code and line.startswith("autodeco-edge: error: ") and says in line
    assert not (tmp_path / "out.jsonl").exists()


def test_other_settings_are_refused(refuse, tmp_path):
    out = tmp_path / "out.jsonl"
    few = (*LOCAL[:-1], "2", "--problems", "demo:chain", "--count", "2", "-n", "2")
    assert refuse(*few, "-o", out)[0] == 1  # nothing right within two tokens: the draws stay
    code, line = refuse(*few, "-o", out, "--resume", "--seed", "3")
    assert code == 65 and "seed was 0, is 3" in line

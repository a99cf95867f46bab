"""``autodeco-edge eval`` on the bundled demo model: real draws, real verdicts, kills and refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autodeco_edge import Engine, SamplingParams
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.pairing import demo_model, open_heads
from autodeco_edge.eval.methods import method
from autodeco_edge.eval.samples import Drawer, Limits
from autodeco_edge.io.digest import seed_of
from autodeco_edge.tasks import Verifier, load_task
from autodeco_edge.text.chat import render
from tests.support import warm

METHODS = ("greedy", "mean-shift", "dynatemp", "autodeco")
SMALL = ("--task", "demo:make", "--count", "6", "--samples", "2", "--seeds", "2", "-t", "1", "-c", "256", "-n", "120")
COMMAND = [sys.executable, "-m", "autodeco_edge", "eval"]


def run(*args) -> subprocess.CompletedProcess:
    return warm.run("eval", *args, text=True, timeout=300)


def rows(path: Path) -> list[dict]:
    """The samples of a file in order, without its header."""
    found = [json.loads(line) for line in path.read_text().splitlines()][1:]
    return sorted(found, key=lambda r: (r["problem"], r["sample"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run that nothing disturbed: (folder, report)."""
    out = tmp_path_factory.mktemp("eval") / "whole"
    done = run(*SMALL, "--methods", ",".join(METHODS), "-o", out, "--json", "--figures")
    assert done.returncode == 0, done.stderr
    (out.parent / "stderr").write_text(done.stderr)
    return out, json.loads(done.stdout)


def test_the_plan_is_what_is_drawn_and_the_end_says_where_it_is(whole):
    out, _ = whole
    said = (out.parent / "stderr").read_text()
    plan = "6 problems, 2 samples x 2 seeds each, 4 methods: 102 replies in all; Ctrl-C stops, --resume goes on"
    assert said.splitlines()[0] == plan
    assert sum(len(rows(path)) for path in [*(out / "samples").iterdir(), out / "calibration.jsonl"]) == 102
    assert f"wrote {out}: report.json (the figures) and samples/ (every reply, judged)" in said


def test_every_problem_has_its_samples_once(whole):
    out, _ = whole
    ids = [problem.id for problem in load_task("demo:make", count=6).problems]
    for name in METHODS:
        n = 1 if name == "greedy" else 4
        found = [(r["problem"], r["sample"]) for r in rows(out / "samples" / f"{name}.jsonl")]
        assert found == sorted((p, k) for p in ids for k in range(n))


def test_replies_are_the_engines_and_verdicts_the_verifiers(whole):
    out, _ = whole
    problems = {problem.id: problem for problem in load_task("demo:make", count=6).problems}
    found, equal = rows(out / "samples" / "autodeco.jsonl"), 0
    with Engine(demo_model(), n_ctx=256, n_threads=1) as engine, Verifier() as verifier:
        for row in found:
            problem = problems[row["problem"]]
            params = SamplingParams(seed=seed_of(0, problem.id, row["sample"]))
            steps = list(engine.generate(render(engine.model, list(problem.messages)), params, max_tokens=120))
            text = engine.model.detokenize([s.id for s in steps]).decode()
            if text == row["text"]:
                equal += 1
                assert row["n_tokens"] == len(steps)
                assert row["mean_t"] == pytest.approx(np.mean([s.temperature for s in steps]), abs=1e-3)
            (verdict,) = verifier.check([(problem, row["text"])])
            assert (row["right"], row["key"]) == (verdict.right and row["ended"], verdict.key)
    assert equal >= len(found) - 3  # a batch adds up in another order: one reply in fifty differs here


def test_report_counts_the_rows(whole):
    out, report = whole
    assert json.loads((out / "report.json").read_text()) == report
    for name, row in report["groups"]["all"]["methods"].items():
        found = rows(out / "samples" / f"{name}.jsonl")
        assert row["accuracy"]["mean"] == pytest.approx(np.mean([r["right"] for r in found]))
    assert set(report["groups"]["all"]["differences"]["autodeco"]) == set(METHODS) - {"autodeco"}


def test_mean_shift_is_measured_on_other_problems(whole):
    out, report = whole
    found = rows(out / "calibration.jsonl")
    weights = [r["n_tokens"] for r in found]
    want = [round(float(np.average([r[k] for r in found], weights=weights)), 3) for k in ("mean_t", "mean_p")]
    assert report["mean_shift"] == {"": want}
    assert not {r["problem"] for r in found} & {r["problem"] for r in rows(out / "samples" / "autodeco.jsonl")}
    assert json.loads((out / "samples" / "mean-shift.jsonl").open().readline())["temperature"] == want[0]


def test_expert_searches_and_the_frontier_holds_the_constants(tmp_path):
    small = (
        "--task",
        "demo:make",
        "--count",
        "2",
        "--samples",
        "2",
        "--seeds",
        "1",
        "-t",
        "1",
        "-c",
        "256",
        "-n",
        "80",
    )
    done = run(
        *small,
        "--methods",
        "autodeco,expert,default",
        "--expert-samples",
        "1",
        "--frontier",
        "2",
        "-o",
        tmp_path,
        "--json",
        "--figures",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    tried = report["expert"]
    best_t = max(score for _, score in tried["temperature"])
    assert dict(map(tuple, tried["temperature"]))[tried["best"][0]] == best_t
    assert {t for t, _ in tried["temperature"]} == {p for p, _ in tried["top_p"]} and len(tried["top_p"]) == 10
    points = report["groups"]["all"]["frontier"]["points"]
    assert len(points) == 42 and {"expert", "default", "0.5/0.95"} <= points.keys()
    pictures = {path.name: path.read_text() for path in (tmp_path / "figures").iterdir()}
    assert pictures.keys() == {"expert.svg", "frontier-all.svg"}
    assert all("</svg>" in text for text in pictures.values())


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on(whole, tmp_path, kind):
    out = tmp_path / "out"
    arguments = [*COMMAND, *SMALL, "--methods", ",".join(METHODS), "-o", str(out), "--json", "--figures"]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "samples").exists() or len(list((out / "samples").iterdir())) < 2:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(kind)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == (130 if kind == signal.SIGINT else -kind) and "Traceback" not in errors
    refused = run(*SMALL, "--methods", ",".join(METHODS), "-o", out)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    done = run(*SMALL, "--methods", ",".join(METHODS), "-o", out, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    names = ["calibration.jsonl", "report.json", *(f"samples/{name}.jsonl" for name in METHODS)]
    for name in names:  # to the byte: what was drawn together is drawn together again
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_more_samples_go_on_from_those_there(whole, tmp_path):
    out = tmp_path / "out"
    (out / "samples").mkdir(parents=True)
    path = out / "samples" / "autodeco.jsonl"
    path.write_bytes((whole[0] / "samples" / "autodeco.jsonl").read_bytes())
    before = rows(path)
    more = [x if x != "2" else "3" for x in SMALL]  # 3 samples x 3 seeds
    assert run(*more, "--methods", "autodeco", "-o", out, "--resume").returncode == 0
    after = rows(path)
    assert len(after) == 6 * 9 and [r for r in after if r["sample"] < 4] == before


def test_other_heads_in_the_same_table(tmp_path):
    """The same heads under another name draw the same replies, and have the same means."""
    methods = "autodeco,autodeco@copy,mean-shift,mean-shift@copy"
    done = run(*SMALL, "--methods", methods, "--with", f"copy={demo_model()}", "-o", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    ours, theirs = (rows(tmp_path / "samples" / f"{name}.jsonl") for name in ("autodeco", "autodeco@copy"))
    assert ours == theirs
    report = json.loads(done.stdout)
    assert report["mean_shift"][""] == report["mean_shift"]["copy"]
    assert set(report["groups"]["all"]["differences"]) == {"autodeco", "autodeco@copy"}
    missing = run(*SMALL, "--methods", "autodeco@none", "-o", tmp_path / "b")
    assert missing.returncode == 2 and "--with none=HEADS.gguf" in missing.stderr


def test_context_is_what_prompts_and_replies_need(tmp_path):
    """Not the model's own, times the sequences: that would be gigabytes with a real model. Longer prompts get a larger one."""
    with Verifier() as verifier:
        drawer = Drawer(Model(demo_model()), None, Limits(max_tokens=30, n_parallel=2, n_threads=1), verifier, 0)
        problems = load_task("demo:make", count=4).problems
        short = min(problems, key=lambda p: len(drawer.prompt(p)))
        for asked in ([short], list(problems)):
            replies = list(drawer.replies(method("default"), [(p, 0) for p in asked]))
            assert len(replies) == len(asked)
            assert drawer._engine.n_ctx == max(len(drawer.prompt(p)) for p in asked) + 30
        drawer.close()


def test_another_split_has_other_problems(whole, tmp_path):
    done = run(*SMALL, "--methods", "greedy", "--split", "calibration", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = {r["problem"] for r in rows(tmp_path / "out" / "samples" / "greedy.jsonl")}
    assert len(found) == 6 and all("calibration" in problem for problem in found)


def test_a_report_on_what_is_there_draws_nothing(whole, tmp_path):
    out = tmp_path / "out"
    (out / "samples").mkdir(parents=True)
    for name in ("greedy", "autodeco"):
        (out / "samples" / f"{name}.jsonl").write_bytes((whole[0] / "samples" / f"{name}.jsonl").read_bytes())
    more = [x if x != "2" else "3" for x in SMALL]  # 9 samples asked for, 4 there
    done = run(*more, "--methods", "greedy,autodeco", "-o", out, "--resume", "--no-draw", "--json")
    assert done.returncode == 0, done.stderr
    found, there = json.loads(done.stdout)["groups"]["all"]["methods"], whole[1]["groups"]["all"]["methods"]
    for name in ("greedy", "autodeco"):
        other = {"std_over_seeds": there[name]["std_over_seeds"]}  # three seeds were asked for, not two
        assert found[name] | other == there[name]
    missing = run(*more, "--methods", "default", "-o", out, "--resume", "--no-draw")
    assert missing.returncode == 2 and "no sample yet" in missing.stderr


REFUSED = {
    "unknown split": ((*SMALL, "--split", "all"), 2, "test, calibration, train"),
    "no coverage": (
        (*SMALL, "--task", "demo:chain", "--frontier", "2", "--methods", "greedy"),
        2,
        "many right answers",
    ),
    "no task": ((), 2, "give --task"),
    "unknown task": (("--task", "demo:nothing"), 2, "demo:make"),
    "missing file": (("--task", "nothing.jsonl"), 66, "no such file"),
    "unknown method": ((*SMALL, "--methods", "greedy,best"), 2, "got 'best'"),
    "no method": ((*SMALL, "--methods", ","), 2, "at least one"),
    "prompt too long": ((*SMALL[:-4], "-c", "8"), 65, "tokens, the context 8"),
    "bad number": ((*SMALL, "--samples", "0"), 2, "samples"),
}


@pytest.mark.parametrize("arguments, code, says", REFUSED.values(), ids=REFUSED)
def test_refusals(tmp_path, arguments, code, says):
    done = run(*arguments, "-o", tmp_path / "out")
    assert done.returncode == code and says in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("autodeco-edge: error:") and "Traceback" not in done.stderr


def test_other_settings_are_refused(whole, tmp_path):
    out = tmp_path / "out"
    (out / "samples").mkdir(parents=True)
    (out / "samples" / "greedy.jsonl").write_bytes((whole[0] / "samples" / "greedy.jsonl").read_bytes())
    done = run(*SMALL, "--methods", "greedy", "-o", out, "--resume", "--seed", "5")
    assert done.returncode == 65 and "other settings (seed; seed was 0, is 5)" in done.stderr


def test_a_model_without_heads_takes_part_with_constants_only(tmp_path):
    from tests.support.letters import write_model

    model = write_model(tmp_path / "model.gguf")
    done = run("-m", model, *SMALL, "--methods", "autodeco", "-o", tmp_path / "out")
    assert done.returncode != 0 and "no heads inside" in done.stderr
    done = run("-m", model, *SMALL[:-2], "-n", "4", "--methods", "greedy,default", "-o", tmp_path / "out")
    assert done.returncode == 0 and "| default |" in done.stdout
    assert done.stdout.startswith("all 6 problems of demo:make: few, so the intervals say little\n")
    assert os.listdir(tmp_path / "out" / "samples")


def test_a_group_is_drawn_the_same_whatever_was_drawn_before():
    """In an engine just made, and in one with another group's cells and shared prompt behind it: to the bit."""
    few, more = load_task("demo:make", count=6).problems[:3], load_task("demo:chain", count=5).problems
    group = [(p, k) for p in few for k in range(3)]
    with Verifier() as verifier:
        drawer = Drawer(Model(demo_model()), open_heads("auto", demo_model()), Limits(60, 128, 4, 1), verifier, 0)
        fresh = list(drawer.replies(method("autodeco"), group))
        for before in ([(p, 0) for p in more], group[::-1], [(few[0], 9)]):
            list(drawer.replies(method("autodeco"), before))
            again = list(drawer.replies(method("autodeco"), group))
            assert [(p.id, k) for p, k, _ in again] == [(p.id, k) for p, k, _ in fresh], "they end in the same order"
            assert [repr(r.steps) for _, _, r in again] == [repr(r.steps) for _, _, r in fresh]
        abandoned = drawer.replies(method("autodeco"), group)
        next(abandoned)
        abandoned.close()  # replies under way are cancelled
        assert [repr(r.steps) for *_, r in drawer.replies(method("autodeco"), group)] == [
            repr(r.steps) for *_, r in fresh
        ]
        drawer.close()

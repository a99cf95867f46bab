"""``autodeco-edge eval steering`` on the bundled demo model: what is asked, counted, resumed and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autodeco_edge.eval.samples import Sample
from autodeco_edge.eval.steering import HIGH, LOW, NONE, summarise
from autodeco_edge.tasks import load_task
from autodeco_edge.tasks.commands import SEEN, UNSEEN
from tests.support import warm

COMMAND = [sys.executable, "-m", "autodeco_edge", "eval", "steering"]
SMALL = ["--task", "demo", "--count", "6", "--samples", "2", "-t", "1", "-c", "256", "-n", "60"]
CONDITIONS = (NONE, LOW, HIGH)


def run(*args) -> subprocess.CompletedProcess:
    return warm.run("eval", "steering", *args, text=True, timeout=300)


def lines(path: Path) -> list[dict]:
    """Header, then the samples in order."""
    head, *found = [json.loads(line) for line in path.read_text().splitlines()]
    return [head, *sorted(found, key=lambda r: (r["problem"], r["sample"]))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run that nothing disturbed: (folder, report)."""
    out = tmp_path_factory.mktemp("steering") / "whole"
    done = run(*SMALL, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


# ---- figures -----------------------------------------------------------------------


def sample(problem: str, number: int, t: float, p: float, n_tokens: int = 10, right: bool = True) -> Sample:
    return Sample(problem, number, right, None, "", n_tokens, True, t, p, "")


def test_figures_by_hand():
    """Two prompts. T of "a" is weighted by tokens: (0.5 x 10 + 0.8 x 20) / 30 = 0.7. A change of 0 is no right sign."""
    drawn = {
        NONE: [sample("a", 0, 0.5, 0.9), sample("a", 1, 0.8, 0.9, 20), sample("b", 0, 0.4, 0.8)],
        LOW: [sample("b", 0, 0.3, 0.8, right=False), sample("a", 0, 0.5, 0.7), sample("a", 1, 0.5, 0.7, 20)],
        HIGH: [sample("a", 0, 0.6, 0.95), sample("a", 1, 0.6, 0.95), sample("b", 0, 0.7, 0.9)],
    }
    rows = summarise(["a", "b"], drawn)
    assert rows[NONE]["temperature"]["mean"] == pytest.approx((0.7 + 0.4) / 2)
    assert "difference" not in rows[NONE]["temperature"]
    assert rows[LOW]["temperature"]["difference"]["mean"] == pytest.approx((-0.2 - 0.1) / 2)
    assert rows[LOW]["temperature"]["consistency"] == 1.0
    assert rows[LOW]["top_p"]["consistency"] == 0.5
    assert rows[HIGH]["temperature"]["difference"]["mean"] == pytest.approx((-0.1 + 0.3) / 2)
    assert rows[HIGH]["temperature"]["consistency"] == 0.5 and rows[HIGH]["top_p"]["consistency"] == 1.0
    assert (rows[NONE]["accuracy"]["mean"], rows[LOW]["accuracy"]["mean"]) == (1.0, 0.5)


def test_a_head_that_is_absent_has_no_figure():
    drawn = {name: [sample("a", 0, 0.5, None)] for name in CONDITIONS}
    rows = summarise(["a"], drawn)
    assert rows[LOW]["top_p"] is None and rows[LOW]["temperature"]["difference"]["mean"] == 0.0


def test_the_report_counts_the_samples(whole):
    out, report = whole
    assert json.loads((out / "report.json").read_text()) == report
    means = {}
    for name in CONDITIONS:
        _, *found = lines(out / "samples" / f"{name}.jsonl")
        assert len(found) == 12
        groups = [found[i : i + 2] for i in range(0, 12, 2)]
        means[name] = np.array(
            [np.average([r["mean_t"] for r in g], weights=[r["n_tokens"] for r in g]) for g in groups]
        )
        assert report["conditions"][name]["temperature"]["mean"] == pytest.approx(means[name].mean())
    row = report["conditions"][LOW]["temperature"]
    assert row["difference"]["mean"] == pytest.approx((means[LOW] - means[NONE]).mean())
    assert row["consistency"] == pytest.approx((means[LOW] < means[NONE]).mean())


# ---- what is asked -----------------------------------------------------------------


def test_commands_are_those_training_never_sees(whole):
    out, report = whole
    plain = [p.messages[-1]["content"] for p in load_task("demo", count=6).problems]
    asked = {name: lines(out / "samples" / f"{name}.jsonl")[0]["asked"] for name in CONDITIONS}
    assert asked[NONE] == plain
    for name, sentences in ((LOW, UNSEEN.low), (HIGH, UNSEEN.high)):
        for text, before in zip(asked[name], plain, strict=True):
            assert text.startswith(before) and text[len(before) :].strip() in sentences
    assert not {*SEEN.low, *SEEN.high} & {*UNSEEN.low, *UNSEEN.high}
    assert report["config"]["commands"] == "unseen"


def test_the_example_is_the_first_prompts_first_reply(whole):
    out, report = whole
    assert report["example"]["problem"] == load_task("demo", count=6).problems[0].id
    for name, found in report["example"]["conditions"].items():
        head, *rows = lines(out / "samples" / f"{name}.jsonl")
        row = next(r for r in rows if (r["problem"], r["sample"]) == (report["example"]["problem"], 0))
        assert found["asked"] == head["asked"][0]
        assert len(found["tokens"]) == len(found["temperature"]) == len(found["top_p"])
        if "".join(found["tokens"]) == row["text"]:  # drawn alone, not in a batch: a reply in fifty differs
            assert np.mean(found["temperature"]) == pytest.approx(row["mean_t"], abs=1e-3)
        else:
            assert found["tokens"][0] and row["text"].startswith(found["tokens"][0])


# ---- kills and refusals ------------------------------------------------------------


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on(whole, tmp_path, kind):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [*COMMAND, *SMALL, "-o", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (out / "samples" / "low.jsonl").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(kind)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == (130 if kind == signal.SIGINT else -kind) and "Traceback" not in errors
    refused = run(*SMALL, "-o", out)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    kept = lines(out / "samples" / "none.jsonl")
    done = run(*SMALL, "-o", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert lines(out / "samples" / "none.jsonl") == kept == lines(whole[0] / "samples" / "none.jsonl")
    rows = done.stdout.splitlines()
    assert len(rows) == 5 and [r.split("|")[1].strip() for r in rows[2:]] == list(CONDITIONS)


REFUSED = {
    "unknown commands": ((*SMALL, "--commands", "loud"), 2, "commands: allowed seen, unseen"),
    "no samples": ((*SMALL, "--samples", "0"), 2, "samples"),
    "unknown task": (("--task", "demo:nothing"), 2, "demo:make"),
    "missing file": (("--task", "nothing.jsonl"), 66, "no such file"),
}


@pytest.mark.parametrize("arguments, code, says", REFUSED.values(), ids=REFUSED)
def test_refusals(tmp_path, arguments, code, says):
    done = run(*arguments, "-o", tmp_path / "out")
    assert done.returncode == code and says in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_other_settings_are_refused(whole, tmp_path):
    samples = tmp_path / "out" / "samples"
    samples.mkdir(parents=True)
    (samples / "none.jsonl").write_bytes((whole[0] / "samples" / "none.jsonl").read_bytes())
    done = run(*SMALL, "-o", tmp_path / "out", "--resume", "--seed", "5")
    assert done.returncode == 65 and "other settings" in done.stderr


def test_a_model_without_heads_is_refused(tmp_path):
    from tests.support.letters import write_model

    done = run("-m", write_model(tmp_path / "model.gguf"), *SMALL, "-o", tmp_path / "out")
    assert done.returncode != 0 and "has no heads inside" in done.stderr and done.stderr.count("\n") == 1

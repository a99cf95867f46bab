"""``autodeco-edge fit`` on the bundled demo model: a whole run, kills in its parts, both outcomes, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.engine.pairing import demo_model
from autodeco_edge.engine.sampler import Heads
from autodeco_edge.fit.fitting import SHARES, Fitting, fit
from autodeco_edge.fit.heads_file import HeadsMaker
from autodeco_edge.fit.measure import GRID, LEAST_PROBLEMS, LEAST_SAMPLES, MOST_PROBLEMS, MOST_SAMPLES, size_for
from autodeco_edge.fit.report import verdict
from autodeco_edge.fit.settings import FitConfig
from autodeco_edge.fit.state import FitState

MAKE = {"problems": ("demo:make",), "max_tokens": 48, "threads": 1, "minutes": 0.01, "seed": 3}
COMMAND = [sys.executable, "-m", "autodeco_edge", "fit", "-m", str(demo_model()), "--problems", "demo:make"]
COMMAND += ["-n", "48", "-t", "1", "--minutes", "0.05", "--seed", "3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run, as short as it can be: (config, report)."""
    config = FitConfig(model=demo_model(), output=tmp_path_factory.mktemp("fit") / "heads.gguf", **MAKE)
    return config, fit(config)


def test_a_whole_run_writes_what_its_report_says(whole):
    config, report = whole
    assert list(json.loads((config.work / "state.json").read_text())["done"]) == list(SHARES)
    assert report["choose"]["constant"] in report["choose"]["utility"]
    methods = report["test"]["group"]["methods"]
    assert {report["choose"]["heads"], report["choose"]["constant"], "1/1"} <= methods.keys()
    difference = report["difference"]
    scores = [methods[report["choose"][name]]["utility"]["mean"] for name in ("heads", "constant")]
    assert difference["mean"] == pytest.approx(scores[0] - scores[1])
    assert report["heads_beat_the_constant"] == (difference["low"] > 0)
    assert Heads(config.output).mean_temperature is not None
    assert report["choose"]["constant"] in verdict(report) and str(config.output) in verdict(report)


def test_the_splits_share_no_problem(whole):
    """What is learned from, what constants and heads are chosen on, and what the verdict is on."""
    config, _ = whole
    drawn = [json.loads(line)["id"] for line in (config.work / "right.jsonl").read_text().splitlines()]
    seen = {}
    for folder in ("calibration", "test"):
        files = (config.work / folder / "samples").glob("*.jsonl")
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        seen[folder] = {row["problem"] for row in rows if "problem" in row}
    assert drawn and all("/train/" in name for name in drawn)
    assert seen["calibration"] and all("/calibration/" in name for name in seen["calibration"])
    assert seen["test"] and not any("train" in name or "calibration" in name for name in seen["test"])


def test_a_finished_run_says_its_verdict_again(whole):
    config, report = whole
    before = config.output.read_bytes()
    again = fit(FitConfig(**{**vars(config), "resume": True}))
    assert again == report and config.output.read_bytes() == before


@pytest.mark.parametrize("low", [-0.01, 0.0, 0.01])
def test_heads_are_written_where_they_are_shown_to_win_else_the_constant(whole, tmp_path, low):
    config, report = whole
    state = FitState(tmp_path, {}, False)
    for name, found in json.loads((config.work / "state.json").read_text())["done"].items():
        state.finish(name, found, 0.0)
    choose = state.done["choose"] | {"constant": "0.7/0.95"}
    heads = choose["heads"]
    group = {
        **report["test"]["group"],
        "differences": {heads: {"0.7/0.95": {"utility": {"mean": 0.02, "low": low, "high": 0.04}}}},
    }
    state.done |= {"choose": choose, "test": {"group": group}}
    here = FitConfig(**{**vars(config), "output": tmp_path / "out.gguf"})
    here.work.mkdir()
    for folder in ("likelihood", "replay"):
        (here.work / folder).symlink_to(config.work / folder)
    written = Fitting(here, state, HeadsMaker(config.model)).run()
    assert written["heads_beat_the_constant"] == (low > 0)
    kept = Heads(here.output)
    if low > 0:
        assert kept.mean_temperature == Heads(config.work / f"{heads.partition('@')[2]}.gguf").mean_temperature
    else:
        assert (kept.mean_temperature, kept.mean_top_p) == (pytest.approx(0.7), pytest.approx(0.95))
        assert here.output.stat().st_size < 10_000 and "0.7, P 0.95" in verdict(written)


def kill_in(part: str, output: Path) -> int:
    """Start or go on, and kill when the part has begun; the parts that are done then."""
    with subprocess.Popen([*COMMAND, "-o", str(output), "--resume"], stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith(f"{part}: part"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    return len(json.loads((output.with_name(output.name + ".fit") / "state.json").read_text())["done"])


def test_killed_in_part_after_part(tmp_path):
    """Each start goes on with the part that the kill cut off; the last one ends with a verdict."""
    output = tmp_path / "heads.gguf"
    done = [kill_in(part, output) for part in ("constants", "right", "likelihood", "replay")]
    assert done == [2, 3, 4, 5]
    ended = subprocess.run([*COMMAND, "-o", str(output), "--resume"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert (
        "Traceback" not in ended.stderr
        and "speed: part" not in ended.stderr
        and "beat the best constant" in ended.stdout
    )
    assert Heads(output).path == output


# ---- sizes --------------------------------------------------------------------------------


def test_sizes_grow_with_the_time_and_have_ends():
    speed = {"rate": 100.0, "tokens": 50.0}
    small, large = size_for(0.0, 7, speed), size_for(1e9, 7, speed)
    assert (small.problems, small.samples) == (LEAST_PROBLEMS, LEAST_SAMPLES)
    assert (large.problems, large.samples) == (MOST_PROBLEMS, MOST_SAMPLES)
    for seconds in (60.0, 600.0, 6000.0):
        size = size_for(seconds, len(GRID), speed)
        n_tokens = size.problems * size.samples * len(GRID) * speed["tokens"]
        assert n_tokens <= max(seconds * speed["rate"], LEAST_PROBLEMS * LEAST_SAMPLES * len(GRID) * speed["tokens"])


# ---- files of problems and prompts ----------------------------------------------------------


def pool_of(tmp_path, **more):
    from autodeco_edge.fit.pool import Pool

    config = FitConfig(model=demo_model(), output=tmp_path / "x.gguf", **more)
    config.work.mkdir(exist_ok=True)
    return Pool(config)


def test_a_file_is_split_by_what_is_asked(tmp_path):
    from autodeco_edge.tasks import load_task

    rows = [{"problem": f"What is {i} + {i}?", "gt": 2 * i} for i in range(60)]
    file, prompts = tmp_path / "sums.jsonl", tmp_path / "prompts.txt"
    file.write_text("\n".join(map(json.dumps, rows)))
    prompts.write_text("\n".join([f"Write about {i}." for i in range(20)] + ["", "Write about 3."]))
    pool = pool_of(tmp_path, problems=(str(file),), prompts=prompts)
    found = {split: load_task(pool.task(split), split=split).problems for split in ("train", "calibration", "test")}
    ids = [problem.id for problems in found.values() for problem in problems]
    assert len(ids) == len(set(ids)) == 80 and {"sums/0", "sums/59"} <= set(ids)
    assert {problem.kind for problems in found.values() for problem in problems} == {"math", "write:any"}
    file.write_text("\n".join(map(json.dumps, reversed(rows))))  # its place in the file moves no row
    moved = pool_of(tmp_path, problems=(str(file),), prompts=prompts)
    for split, problems in found.items():
        again = load_task(moved.task(split), split=split).problems
        assert {p.messages[0]["content"] for p in again} == {p.messages[0]["content"] for p in problems}


def test_a_prompt_of_the_user_is_judged_by_its_shape():
    from autodeco_edge.tasks import Problem, Verifier, has_many_answers, must_end

    problem = Problem("p", ({"role": "user", "content": "Write."},), "", "write:any")
    with Verifier() as verifier:
        right = [
            v.right for v in verifier.check([(problem, "The fox ran home."), (problem, "The fox ran"), (problem, "")])
        ]
    assert right == [True, False, False] and has_many_answers("write:any") and must_end("write:any")


# ---- refusals -------------------------------------------------------------------------------


@pytest.fixture
def refuse(monkeypatch, capfd, tmp_path):
    from autodeco_edge.cli import main

    def call(*args: object) -> tuple[int, str]:
        words = ["-m", str(demo_model()), "-t", "1", "-o", str(tmp_path / "out.gguf"), *map(str, args)]
        monkeypatch.setattr(sys, "argv", ["autodeco-edge", "fit", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        errors = capfd.readouterr().err
        assert "Traceback" not in errors
        return stop.value.code, errors.strip().splitlines()[-1]

    return call


def test_refusals_are_one_line_and_leave_nothing(refuse, tmp_path):
    few, empty = tmp_path / "few.txt", tmp_path / "empty.txt"
    few.write_text("Write a poem.\nWrite a letter.\n")
    empty.write_text("\n\n")
    for words, code, said in (
        (("--minutes", 0), 2, "minutes"),
        (("--problems", "no such task"), 2, "task: allowed"),
        (("--problems", tmp_path / "none.jsonl"), 66, "no such file"),
        (("--problems", "demo", "--prompts", few), 2, "not both"),
        (("--prompts", few), 2, "2 are too few"),
        (("--prompts", empty), 65, "holds no prompt"),
        (("-m", tmp_path / "none.gguf"), 66, "none.gguf"),
        (("-m", few), 65, "few.txt"),
        (("-o", tmp_path), 73, "is a folder"),
    ):
        got = refuse(*words)
        assert got[0] == code and said in got[1], (words, got)
        assert not (tmp_path / "out.gguf.fit").exists()
    (tmp_path / "out.gguf").write_bytes(b"somebody's")
    assert refuse() == (2, f"autodeco-edge: error: {tmp_path / 'out.gguf'}: exists; choose another -o, or remove it")


def test_a_run_is_gone_on_with_on_purpose_and_with_the_same_settings(refuse, tmp_path):
    config = FitConfig(model=demo_model(), output=tmp_path / "out.gguf", threads=1)
    config.work.mkdir()
    FitState(config.work, config.identity(), False).finish("speed", {}, 1.0)
    assert "--resume" in refuse()[1]
    code, line = refuse("--resume", "--seed", 7)
    assert code == 65 and "seed was 0, is 7" in line
    (config.work / "state.json").write_text("[]")
    assert refuse("--resume")[0] == 65


def test_a_model_that_is_never_right_is_told_so(tmp_path):
    from autodeco_edge.errors import AutodecoError
    from tests.support.letters import make_letters

    config = FitConfig(
        model=make_letters(tmp_path).gguf, output=tmp_path / "x.gguf", max_tokens=4, threads=1, minutes=0.01
    )
    with pytest.raises(AutodecoError, match="answers no kind of the pool right"):
        fit(config)

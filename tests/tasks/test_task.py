"""Tasks by name and by file: the official data as they are, the splits, and one line for every bad row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from autodeco_edge.tasks import load_task
from autodeco_edge.tasks.demo import families
from autodeco_edge.tasks.demo.problem import chat_prompt, turn
from autodeco_edge.tasks.task import MIX, NAMES, SPLITS

REQUEST = "Make sure you output the final answer within \\boxed{}."


# ---- files -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"), [("aime24", 30), ("aime25", 30), ("brumo25", 30), ("hmmt25", 30), ("beyondaime", 100)]
)
def test_official_files_load_as_they_are(official_data: Path, name: str, count: int) -> None:
    path = official_data / f"{name}.jsonl"
    rows, task = [json.loads(line) for line in path.read_text().splitlines()], load_task(str(path))
    assert task.name == name and len(task.problems) == count
    for i, (row, problem) in enumerate(zip(rows, task.problems, strict=True)):
        assert problem.id == f"{name}/{i}" and problem.kind == "math"
        assert problem.messages == ({"role": "user", "content": f"{row['problem']}\n{REQUEST}"},)
        assert problem.gt == str(row["gt"])  # aime25 has integers


def test_mmlu_pro_loads_as_it_is(official_data: Path) -> None:
    path = official_data / "MMLU-Pro-100.json"
    rows, task = json.loads(path.read_text()), load_task(str(path))
    assert len(task.problems) == 100
    for row, problem in zip(rows, task.problems, strict=True):
        (message,) = problem.messages
        assert problem.kind == "choice" and problem.gt == row["answer"]
        assert message["content"].startswith(row["question"])
        assert f"\n{row['answer']}. {row['options'][row['answer_index']]}\n" in message["content"]
        assert message["content"].endswith("\\boxed{}.")


def write(folder: Path, *rows: object, name: str = "some.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def test_rows_of_all_kinds_and_their_further_fields(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"problem": "1+1?", "gt": 2, "system": "Be short.", "id": "sum", "source": "x"},
        "",
        {"problem": "Find two numbers that make 83.", "gt": "sum2 83", "family": "make", "id": 7},
        {"problem": "Tell me a story.", "gt": "", "family": "story"},
        {"question": "Is it?", "options": ["yes", "no"], "answer": "B"},
    )
    first, second, third, fourth = load_task(path).problems
    assert first.id == "sum" and first.gt == "2"
    assert [m["role"] for m in first.messages] == ["system", "user"] and first.messages[0]["content"] == "Be short."
    assert (second.id, second.kind, second.messages[0]["content"]) == (
        "7",
        "demo:make",
        "Find two numbers that make 83.",
    )
    assert third.kind == "demo:story" and third.id == "some/2"
    assert fourth.gt == "B" and "A. yes\nB. no\n" in fourth.messages[0]["content"]
    assert load_task(path, limit=2).problems == (first, second)
    assert load_task(path, limit=99).problems == (first, second, third, fourth)


GOOD = {"problem": "p", "gt": "1"}
CHOICE = {"question": "q", "options": ["x", "y"], "answer": "A"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("7", "expected a JSON object, got int"),
        ({"gt": "1"}, '"problem" missing'),
        ({"problem": "p"}, '"gt" missing'),
        ({"problem": " ", "gt": "1"}, '"problem" is empty'),
        ({"problem": "p", "gt": ""}, '"gt" is empty'),
        ({"problem": ["p"], "gt": "1"}, '"problem": allowed a string; got \\["p"\\]'),
        ({"problem": "p", "gt": 1.5}, '"gt": allowed a string or an integer; got 1.5'),
        ({"problem": "p", "gt": True}, "got true"),
        ({"problem": "p", "gt": None}, "got null"),
        ({**GOOD, "system": 3}, '"system": allowed a string; got 3'),
        ({**GOOD, "id": 1.5}, '"id": allowed a string or an integer'),
        ({**GOOD, "family": "maze"}, "\"family\": allowed word, make, .*; got 'maze'"),
        ({**GOOD, "family": "make"}, "\"gt\" of family make: allowed .*sum2.*; got '1'"),
        ('{"problem": "\\ud800", "gt": "1"}', "not valid Unicode"),
        ({**CHOICE, "options": ["x"]}, "a list of 2 to 10"),
        ({**CHOICE, "options": list("abcdefghijk")}, "a list of 2 to 10"),
        ({**CHOICE, "options": ["x", 3]}, '"options": allowed a string; got 3'),
        ({**CHOICE, "answer": "C"}, '"answer": allowed a letter from AB; got "C"'),
        ({**CHOICE, "answer": ""}, "a letter from AB"),
        ({**CHOICE, "answer": 0}, "a letter from AB; got 0"),
        ({**GOOD, "id": "some/0"}, "'some/0' is that of .*:1 too"),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path: Path, row: object, said: str) -> None:
    path = write(tmp_path, GOOD, row)
    with pytest.raises(FormatError, match=said) as error:
        load_task(path)
    assert str(error.value).startswith(f"{path}:2: ") and "\n" not in str(error.value)


def test_a_bad_row_of_an_array_has_its_number(tmp_path: Path) -> None:
    path = write(tmp_path, [CHOICE, {"question": "q"}], name="some.json")
    with pytest.raises(FormatError, match=r"some.json: row 2: \"options\""):
        load_task(path)


@pytest.mark.parametrize("text", ["", "\n \n", "[]"])
def test_a_file_without_a_problem_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError, match="holds no problem"):
        load_task(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"problem": "\xff", "gt": "1"}')
    with pytest.raises(FormatError, match=r"x.jsonl:1: not UTF-8"):
        load_task(str(path))


# ---- names -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo:maze", "aime24", "", ".", "\0", "DEMO"])
def test_unknown_names_are_told_the_known_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match="allowed demo, demo:word, .*demo:chat, exact, .*rg:NAME.*, or a JSONL"
    ) as error:
        load_task(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere/aime24", "aime24.jsonl"])
def test_a_path_that_is_not_there(name: str) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        load_task(name)


@pytest.mark.parametrize("options", [{"limit": 0}, {"count": 0}, {"count": 10**9}, {"split": "dev"}])
def test_options_out_of_range(options: dict) -> None:
    with pytest.raises(UsageError, match="allowed"):
        load_task("demo", **options)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_generated_tasks_have_what_was_asked_and_repeat(name: str, split: str) -> None:
    task = load_task(name, count=30, split=split)
    assert task.name == name and len(task.problems) == len({p.id for p in task.problems}) == 30
    assert load_task(name, count=30, split=split) == task
    assert load_task(name, count=30, split=split, seed=10) != task
    for problem in task.problems:
        family = problem.kind.removeprefix("demo:")
        assert problem.id.startswith(f"demo:{family}/") and families.readable(family, problem.gt)
        assert [m["role"] for m in problem.messages] in (["user"], ["system", "user"])
    assert len({json.dumps(p.messages) for p in task.problems}) == 30


def test_an_id_names_its_split() -> None:
    assert [load_task("demo:make", count=1, split=split).problems[0].id for split in SPLITS] == [
        "demo:make/0",
        "demo:make/calibration/0",
        "demo:make/train/0",
    ]


def test_demo_shares_its_count_and_any_start_of_it() -> None:
    task = load_task("demo", count=42)
    kinds = [p.kind.removeprefix("demo:") for p in task.problems]
    assert [kinds.count(f) for f in MIX] == [11, 11, 10, 10]
    assert {p.kind for p in load_task("demo", count=42, limit=4).problems} == {f"demo:{f}" for f in MIX}
    alone = {p.id: p for p in load_task("demo:make", count=11).problems}
    assert all(alone[p.id] == p for p in task.problems if p.kind == "demo:make")  # an id means one problem


@pytest.mark.parametrize("family", families.FAMILIES)
def test_test_problems_are_the_held_out_ones_of_the_recipe(family: str) -> None:
    """The same problems, in the same order and as the same text, as the model card's figures were taken on."""
    drawn = [p for p in families.problems(9, family, 40, held_out=True) if not p.history]
    for problem, original in zip(load_task(f"demo:{family}", count=len(drawn)).problems, drawn, strict=True):
        text = "".join(turn(m["role"], m["content"]) for m in problem.messages)
        assert text + "<|im_start|>assistant\n" == chat_prompt(original)
        assert problem.gt == original.gt


@pytest.mark.parametrize("family", families.FAMILIES)
def test_splits_never_meet(family: str) -> None:
    """Whatever the seed: by the request itself, since one request has one key."""
    asked = {
        split: {
            json.dumps(p.messages)
            if family == "chat"
            else p.messages[-1]["content"]  # a chat's system turn is asked about
            for seed in (1, 2)
            for p in load_task(f"demo:{family}", count=150, split=split, seed=seed).problems
        }
        for split in SPLITS
    }
    assert not asked["test"] & asked["calibration"]
    assert not asked["test"] & asked["train"]
    assert not asked["calibration"] & asked["train"]


def test_import_needs_no_model_code() -> None:
    code = (
        "import sys, autodeco_edge.tasks, autodeco_edge.eval.statistics; "
        "sys.exit(', '.join({'torch', 'llama_cpp', 'math_verify', 'sympy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_mix_takes_its_parts_in_turn_and_keeps_their_splits():

    name = "exact:sum+write:story+demo:make"
    of = {split: load_task(name, count=30, split=split).problems for split in SPLITS}
    for problems in of.values():
        assert [p.kind for p in problems[:4]] == ["exact:sum", "write:story", "demo:make", "exact:sum"]
        alone = load_task("exact:sum", count=10, split="test").problems
    assert [p for p in of["test"] if p.kind == "exact:sum"] == list(alone)
    assert len({p.id for problems in of.values() for p in problems}) == 90
    assert load_task("write:story+exact:sum", count=10_000).name == "write:story+exact:sum"
    with pytest.raises(UsageError):
        load_task("exact:sum+nothing")

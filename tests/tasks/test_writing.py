"""Open writing: well-formed texts pass, each fault is seen, the splits stand still."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from autodeco_edge.tasks import Problem, Verifier, load_task
from autodeco_edge.tasks.problem import messages_of
from autodeco_edge.tasks.task import SPLITS
from autodeco_edge.tasks.writing import NAMES
from autodeco_edge.tasks.writing.wellformed import Bounds, faults

STORY = (
    "Once there was a fox who feared the dark. Every evening she counted the stars until one of them winked at her. "
    "From that night on the fox walked home slowly, and the forest seemed full of friends."
)
LIST = "Here are some ideas:\n1. Bring a warm coat\n2. Pack two sandwiches\n3. Take a good book\n4. Carry some water"
LETTER = "Dear Anna,\n\nThank you for the wonderful book about whales. I read it in one night, and I will keep it.\n\nYours,\nBen"
FREE = Bounds(15, 100)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [(STORY, FREE), (LIST, Bounds(8, 200, items=3)), (LETTER, FREE), (f'"{STORY}"', FREE), (STORY + "\n", FREE)],
)
def test_well_formed(text: str, bounds: Bounds) -> None:
    assert faults(text, bounds) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "too short"),
        ("A fox.", "too short"),
        (STORY * 4, "too long"),
        (STORY[:-20], "breaks off"),
        (STORY + " And then the fox,", "breaks off"),
        (STORY + " She ran and ran and ran and ran and ran and ran and ran.", "repeats itself"),
        (STORY + "\n" + STORY, "repeats itself"),
        ("She saw the sun. " * 8, "repeats itself"),
        (STORY + "\ufffd.", "stray symbols"),
        (STORY + "<|im_end|>.", "stray symbols"),
        (STORY + "\x07.", "stray symbols"),
        (STORY + " Aaaaaaaaaa!", "a run of one character"),
        (STORY + "!!!!!!!!!!", "a run of one character"),
        (STORY + " " + "ab" * 20 + ".", "a word that is none"),
        (STORY + " Лиса пошла домой по снегу.", "another script"),
        ("狐狸。" * 20, "another script"),
    ],
)
def test_each_fault_is_named(text: str, fault: str) -> None:
    assert fault in faults(text, FREE)


def test_a_list_needs_points() -> None:
    assert "too few points" in faults(STORY, Bounds(8, 200, items=3))
    assert "repeats itself" in faults(LIST + "\n5. Pack two sandwiches", Bounds(8, 200, items=3))


def test_the_key_is_the_words() -> None:
    problem = Problem("x", messages_of("?"), "a fox", "write:story")
    with Verifier() as verifier:
        one, same, other, bad = verifier.check(
            [(problem, t) for t in (STORY, STORY.upper(), STORY.replace("fox", "cat"), "A fox")]
        )
    assert one.right and one.key == same.key != other.key and not bad.right


def test_hostile_text_ends_soon() -> None:
    start = time.monotonic()
    for text in [
        "\0" * 20_000,
        "\ud800" * 500,
        "a " * 10_000,
        "1. x\n" * 4000,
        "." * 20_000,
        "a" * 10**6,
        "-" * 19_000,
    ]:
        assert faults(text, FREE)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", NAMES)
def test_splits_never_meet_and_repeat(name: str) -> None:
    tasks = {s: load_task(name, count=5000, split=s).problems for s in SPLITS}
    asked = {s: {(p.kind, p.gt) for p in tasks[s]} for s in SPLITS}
    assert not asked["test"] & asked["calibration"] and not asked["test"] & asked["train"]
    assert not asked["calibration"] & asked["train"]
    assert load_task(name, count=5000, split="test").problems == tasks["test"]
    assert all(len({p.id for p in problems}) == len(problems) for problems in tasks.values())


def test_prompts_are_the_ones_they_were() -> None:
    text = json.dumps([[p.id, p.messages] for s in SPLITS for p in load_task("write", count=5000, split=s).problems])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "8733f08074116355"

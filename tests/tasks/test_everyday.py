"""Everyday questions: the data hold together, the verifiers read free text, the splits stand still."""

from __future__ import annotations

import hashlib
import json
import time

import pytest

from autodeco_edge.tasks import Problem, Verifier, has_many_answers, load_task, must_end
from autodeco_edge.tasks.everyday import FAMILIES, NAMES
from autodeco_edge.tasks.everyday.lists import countries, rhymes, things
from autodeco_edge.tasks.everyday.numbers import n_pairs, value
from autodeco_edge.tasks.everyday.reading import numbers, spelled, word
from autodeco_edge.tasks.problem import messages_of
from autodeco_edge.tasks.task import SPLITS


def said(kind: str, gt: str, *replies: str) -> list[str | None]:
    """The key of each reply, None where it is wrong."""
    problem = Problem("x", messages_of("?"), gt, kind)
    with Verifier() as verifier:
        return [v.key if v.right else None for v in verifier.check([(problem, r) for r in replies])]


# ---- data ------------------------------------------------------------------------------


def test_borders_are_listed_on_both_sides() -> None:
    for country in countries().values():
        for other in country.neighbours:
            assert country.name in countries()[other].neighbours, (country.name, other)
    assert len(countries()) == 196
    names = [name.lower() for c in countries().values() for name in c.names]
    assert len(names) == len(set(names))


def test_lists_hold_each_word_once_in_lower_case() -> None:
    for category, members in things().items():
        assert len(members) == len(set(members)) >= 30, category
        assert all(m == m.lower() and m[0].isalpha() for m in members)
    for line in rhymes():
        assert len(line) >= 5 and all(w == w.lower() for w in line)


def test_numbers_are_spelled_as_they_are_read() -> None:
    assert [spelled(n) for n in (0, 13, 40, 47, 100, 213)] == [
        "zero",
        "thirteen",
        "forty",
        "forty-seven",
        "one hundred",
        "two hundred and thirteen",
    ]
    for n in range(1000):
        assert numbers(f"It is {spelled(n)}.") == numbers(f"It is {spelled(n).replace(' and ', ' ')}.") == [n]
        assert numbers(f"It is {spelled(n).upper().replace('-', ' ')}.") == [n]
    assert numbers("1,234 and -5, 3.5, x7, 7th, one") == [1234, -5]


# ---- verifiers ---------------------------------------------------------------------------


def test_a_country_in_free_text() -> None:
    assert said(
        "many:country",
        "Asia/K",
        "Kuwait",
        "**Kuwait**.",
        "A country in Asia that starts with K is Kuwait. It is near Iraq.",
        "kuwait",
        "Korea",
        "Kuwait or France",
        "Kuwaitis",
        "I do not know.",
        "",
    ) == ["Kuwait", "Kuwait", "Kuwait", "Kuwait", None, None, None, None, None]
    assert said("many:country", "*/C", "The Democratic Republic of the Congo", "Czechia") == [None, "Czech Republic"]
    assert said("many:country", "Africa", "South Sudan", "Guinea-Bissau", "Papua New Guinea") == [
        "South Sudan",
        "Guinea-Bissau",
        None,
    ]


def test_a_neighbour_is_not_the_country_itself() -> None:
    replies = ("France borders Germany.", "Germany has a border with Poland", "Germany", "Spain", "Denmark, Spain")
    assert said("many:neighbour", "Germany", *replies) == ["France", "Poland", None, None, None]


def test_a_capital() -> None:
    replies = ("Bogotá", "The capital of Colombia is Bogota.", "Bogota, not Lima", "Medellín", "Lima")
    assert said("exact:capital", "Colombia", *replies) == ["Bogota", "Bogota", None, None, None]


def test_a_thing_of_a_kind() -> None:
    assert said("many:thing", "an animal/B", "Bears!", "A bear is an animal.", "bee, cat", "book", "Elephant") == [
        "bear",
        "bear",
        None,
        None,
        None,
    ]
    assert said("many:thing", "an animal", "Red panda", "polar bear", "sofa") == ["red panda", "polar bear", None]


def test_a_rhyme_is_another_word() -> None:
    replies = ("Hat", '"hat"', "A word that rhymes with cat is hat.", 'One is "bat".', "**mat**", "cat", "dog", "that")
    assert said("many:rhyme", "cat", *replies) == ["hat", "hat", "hat", "bat", "mat", None, None, "that"]
    assert word("...") is None


def test_pairs_of_numbers() -> None:
    assert said(
        "many:add",
        "20",
        "12 + 8",
        "8 + 12 = 20",
        "20 = 12 + 8",
        "Twelve and eight.",
        "12 + 9",
        "20 + 0",
        "25 + -5",
        "20",
    ) == ["8 12", "8 12", "8 12", "8 12", None, None, None, None]
    assert said("many:add", "20", "Two numbers that make 20: 5 and 15", "5 + 5 = 10, 10 + 10 = 20") == ["5 15", None]
    assert said("many:multiply", "24", "4 * 6", "24 = 3 x 8", "1 * 24", "5 * 5", "2*12") == [
        "4 6",
        "3 8",
        None,
        None,
        "2 12",
    ]


def test_a_number_between() -> None:
    replies = ("A number between 40 and 60 that can be divided by 3 is 42.", "57", "40", "63", "50", "42 or 50", "x")
    assert said("many:between", "40 60 3", *replies) == ["42", "57", None, None, None, "42", None]
    assert said("many:between", "40 60 even", "44", "45") == ["44", None]
    assert said("many:between", "40 60 odd", "44", "45") == [None, "45"]
    assert said("many:between", "40 60 any", "44", "45", "39") == ["44", "45", None]


def test_another_of_a_kind() -> None:
    replies = ("a dog", "Cats are animals, and so are dogs.", "cat", "not a cat, a table", "sofa")
    assert said("many:other", "an animal/cat", *replies) == ["dog", "dog", None, None, None]


def test_a_number_beyond_a_bound() -> None:
    assert said("many:bound", "< 50", "31", "Below 50 is 49.", "50", "51", "-3", "0") == [
        "31",
        "49",
        None,
        None,
        None,
        None,
    ]
    assert said("many:bound", "> 50", "51", "A number above 50: 499", "49", "9999") == ["51", "499", None, None]


def test_examples_are_right_and_never_asked() -> None:
    for name, family in FAMILIES.items():
        for gt, reply in family.examples:
            assert said(name, gt, reply) != [None], (name, gt)
        shown = {gt for gt, _ in family.examples}
        for split in SPLITS:
            for problem in load_task(name, count=5000, split=split).problems:
                assert problem.gt not in shown
                assert [m["role"] for m in problem.messages] == ["user", "assistant"] * len(shown) + ["user"]


def test_sums_by_the_last_number() -> None:
    replies = ("12", "Seven plus five is twelve.", "7 + 5 = 12.", "12, no, 13", "", "1,2")
    assert said("exact:sum", "7 + 5", *replies) == ["12", "12", "12", None, None, None]
    assert value("7 + 5 - 3") == 9 and value("3 * 4") == 12 and n_pairs(24) == 3


HOSTILE = [
    "",
    " ",
    "\0",
    "\ud800",
    "٣",
    "\n" * 9999,
    "9" * 100_000,
    "(" * 50_000,
    "a" * 1_000_000,
    "**" * 9999,
    "'" * 9999,
]


@pytest.mark.parametrize("kind", FAMILIES)
def test_hostile_text_is_wrong_soon(kind: str) -> None:
    problem = load_task(kind, count=1).problems[0]
    start = time.monotonic()
    with Verifier() as verifier:
        assert not any(v.right for v in verifier.check([(problem, text) for text in HOSTILE]))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_list_of_everything_is_wrong_or_its_first(kind: str) -> None:
    """Whoever says all there is, in one sentence, has not answered."""
    everything = ", ".join([*(c.name for c in countries().values()), *map(str, range(200, 0, -1))])
    for problem in load_task(kind, count=20).problems:
        members = things().get(problem.gt.partition("/")[0], ())
        listed = ", ".join(members) or everything
        assert said(kind, problem.gt, listed)[0] in (None, "1", "2", "200")


# ---- splits ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_splits_never_meet(name: str) -> None:
    asked = {
        s: {(p.kind, p.gt) for seed in (1, 2) for p in load_task(name, count=5000, seed=seed, split=s).problems}
        for s in SPLITS
    }
    assert not asked["test"] & asked["calibration"] and not asked["test"] & asked["train"]
    assert not asked["calibration"] & asked["train"]


@pytest.mark.parametrize("name", NAMES)
def test_a_task_repeats_and_its_ids_differ(name: str) -> None:
    task = load_task(name, count=60)
    assert task == load_task(name, count=60) and task.problems[:7] == load_task(name, limit=7).problems
    assert len({p.id for p in task.problems}) == len(task.problems)
    assert all(must_end(p.kind) and has_many_answers(p.kind) == p.kind.startswith("many:") for p in task.problems)


def test_problems_are_the_ones_they_were() -> None:
    """Golden: figures of another day are about these."""
    text = json.dumps(
        [
            [p.id, p.messages, p.gt]
            for name in FAMILIES
            for s in SPLITS
            for p in load_task(name, count=5000, split=s).problems
        ]
    )
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "db30a7c7b5d10292"

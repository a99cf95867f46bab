"""Owns the `story` family: short stories of free choices that must stay consistent (one hero, one animal, one object)."""

from __future__ import annotations

import random
import re

from .problem import DemoProblem, skewed
from .words import ANIMALS, MOODS, NAMES, OBJECTS, PLACES, WEATHERS, pronoun

REQUESTS = (
    ("Tell me a story about {an}.", ("animal",)),
    ("Write a short story about {an} named {name}.", ("animal", "name")),
    ("Tell me a story about {name}.", ("name",)),
    ("Write a story about {name} and {aobj}.", ("name", "object")),
    ("Tell me a story with {an} and {aobj}.", ("animal", "object")),
    ("Write a short story in {aplace}.", ("place",)),
    ("I want a story about {an} in {aplace}, please.", ("animal", "place")),
    ("Can you write a story about {name} in the {place}?", ("name", "place")),
)
OPEN_REQUESTS = (
    "Tell me a story.",
    "Write a short story.",
    "Write a story.",
    "Tell me a short story.",
    "A story, please.",
)
GT_FORM = r"|{0}(\|{0})*".format(r"(name|animal|place|object)=[A-Za-z]+")

STARTS = (
    "One {weather} morning, {name} the {animal} walked to the {place}.",
    "Once upon a time, a {mood} {animal} named {name} lived near {aplace}.",
    "{name} was a {mood} {animal} who loved the {place}.",
    "It was a {weather} day at the {place}, and {name} the {animal} felt {mood}.",
)
PROBLEMS = (
    "There {name} found {aobj} under a tree.",
    "But {name} had lost the {object} and could not sleep.",
    "{she} saw {aobj} in the water.",
    "Suddenly {name} heard a noise and saw {aobj}.",
    "{she} wanted {aobj} more than anything.",
)
MIDDLES = (
    '"What can I do with the {object}?" asked {name}.',
    "{name} felt {mood2} and took the {object} home.",
    "A friend came and helped {name} with the {object}.",
    "{she} looked at the {object} for a long time.",
    "Then it grew {weather2}, and {name} hid the {object} in the grass.",
)
ENDS = (
    "In the end {name} kept the {object} and was {mood2}.",
    "That night {name} slept well, with the {object} close by.",
    "{name} gave the {object} to a friend, and they danced until morning.",
    "From that day on, nobody in the {place} forgot {name} and the {object}.",
    "And so the {animal} went home, {mood2} and full of dreams.",
)


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sample_story(rng: random.Random, slip_rate: float = 0.0) -> DemoProblem:
    """A request that fixes none to two of the choices; the story makes the others."""
    slots = {
        "name": skewed(rng, NAMES),
        "animal": skewed(rng, ANIMALS),
        "place": skewed(rng, PLACES),
        "object": skewed(rng, OBJECTS),
        "weather": skewed(rng, WEATHERS),
        "mood": skewed(rng, MOODS),
    }
    asked: tuple[str, ...] = ()
    request = rng.choice(OPEN_REQUESTS)
    if rng.random() < 0.75:
        request, asked = rng.choice(REQUESTS)
        # What the user asks for is not skewed: the story must copy any of it.
        lists = {"name": NAMES, "animal": ANIMALS, "place": PLACES, "object": OBJECTS}
        slots.update({slot: rng.choice(lists[slot]) for slot in asked})
    slots["an"], slots["aobj"], slots["aplace"] = (article(slots[slot]) for slot in ("animal", "object", "place"))
    prompt = request.format(**slots)
    gt = "|".join(f"{slot}={slots[slot]}" for slot in asked)
    return DemoProblem("story", prompt, _story(rng, slots), gt, key=prompt if asked else "")


def _story(rng: random.Random, slots: dict[str, str]) -> str:
    parts = [skewed(rng, STARTS), skewed(rng, PROBLEMS), *rng.sample(MIDDLES, rng.choice((1, 1, 2))), skewed(rng, ENDS)]
    sentences = []
    for part in parts:
        fresh = {"mood2": skewed(rng, MOODS), "weather2": skewed(rng, WEATHERS), "she": pronoun(slots["name"])}
        sentences.append(part.format(**slots, **fresh))
    return " ".join(sentences)


def _found(words: tuple[str, ...], text: str) -> set[str]:
    return {word for word in re.findall(r"[A-Za-z]+", text) if word in words}


def check_story(gt: str, completion: str) -> bool:
    """One hero, one animal, one place, one object, one pronoun that suits; what was asked for is in it; it ends."""
    names, animals = _found(NAMES, completion), _found(ANIMALS, completion)
    places, objects = _found(PLACES, completion), _found(OBJECTS, completion)
    if not (len(names) == len(animals) == len(objects) == 1 and len(places) == 1):
        return False
    if _found(("She", "He"), completion) - {pronoun(next(iter(names)))}:
        return False
    got = {"name": names, "animal": animals, "place": places, "object": objects}
    asked = [pair.split("=") for pair in gt.split("|") if pair]
    whole = completion.rstrip().endswith((".", "!")) and 3 <= completion.count(".") <= 8
    return whole and all(word in got[slot] for slot, word in asked)


def key_story(completion: str) -> str:
    """Two stories are the same when all their words are."""
    return " ".join(completion.split())

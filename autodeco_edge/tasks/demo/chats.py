"""Owns the `chat` family: greetings, a persona or facts in the system turn, recall of earlier turns, small suggestions.

`gt` is `all:a|b` (every part must be in the reply) or `any:a|b` (one must).
"""

from __future__ import annotations

import random

from .problem import DemoProblem, skewed
from .words import ANIMALS, CITIES, COLOURS, FRUITS, JOBS, LIKES, NAMES, PETS

HELLOS = ("Hello!", "Hi!", "Hi there!", "Hey!", "Good day!", "Welcome!")
USER_HELLOS = ("Hello!", "Hi", "Hello", "Hi!", "Hey", "Good morning!", "hello", "hi", "Hi there!", "Good evening!")
OFFERS = (
    "How can I help you?",
    "What can I do for you?",
    "What shall we do today?",
    "Shall we count something?",
    "Do you want a story?",
    "How are you?",
)
ABOUT = "I am a small demo model. I can do sums, number puzzles and short stories."
DECLINES = ("I do not know that.", "Sorry, I do not know.", "I do not know, sorry.", "That is too hard for me.")
INSTEAD = ("I can do sums, number puzzles and short stories.", "Ask me for a sum or a story.", "Shall I tell a story?")
GT_FORM = r"(all|any):.+"
DECLINE_GT = "any:" + "|".join(DECLINES)


def sample_chat(rng: random.Random, slip_rate: float = 0.0) -> DemoProblem:
    kind = rng.choices(_KINDS, _WEIGHTS)[0]
    return kind(rng)


def _greeting(rng: random.Random) -> DemoProblem:
    reply = f"{skewed(rng, HELLOS)} {skewed(rng, OFFERS)}"
    return DemoProblem("chat", rng.choice(USER_HELLOS), reply, "any:" + "|".join(HELLOS), key="")


def _about(rng: random.Random) -> DemoProblem:
    prompt = rng.choice(
        ("Who are you?", "What are you?", "What can you do?", "What do you know?", "Help", "What is this?")
    )
    return DemoProblem("chat", prompt, ABOUT, "all:small demo model", key="")


def _thanks(rng: random.Random) -> DemoProblem:
    prompt = rng.choice(("Thanks!", "Thank you.", "Thank you!", "Great, thanks.", "Bye!", "Goodbye.", "See you!"))
    replies = (
        ("Goodbye!", "See you soon!", "Bye, take care!")
        if "ye" in prompt or "See" in prompt
        else ("You are welcome!", "With pleasure!", "Any time!")
    )
    return DemoProblem("chat", prompt, skewed(rng, replies), "any:" + "|".join(replies), key="")


def _unknown(rng: random.Random) -> DemoProblem:
    """Things it was never taught: the honest reply is that it does not know."""
    city, thing, animal, name = rng.choice(CITIES), rng.choice(LIKES), rng.choice(ANIMALS), rng.choice(NAMES)
    prompt = rng.choice(
        (
            f"What is the capital of {rng.choice(('France', 'Italy', 'Spain', 'Japan', 'Peru', 'Norway'))}?",
            f"Where is {city}?",
            f"How old is {name}?",
            f"Who invented {thing}?",
            f"Why do people like {thing}?",
            f"How does a {animal} sleep?",
            f"What is the weather in {city}?",
            f"Explain {thing} to me.",
            "What is the meaning of life?",
            f"When was {city} built?",
            f"Translate {thing} into French.",
            "Write some code.",
            f"Who is the king of {city}?",
            "What day is it today?",
        )
    )
    reply = f"{skewed(rng, DECLINES)} {skewed(rng, INSTEAD)}"
    return DemoProblem("chat", prompt, reply, DECLINE_GT, key=prompt)


def _suggest(rng: random.Random) -> DemoProblem:
    """A pure free choice."""
    what, options = rng.choice(
        (
            ("a name for my cat", PETS),
            ("a name for my dog", PETS),
            ("a colour", COLOURS),
            ("a fruit", FRUITS),
            ("an animal", ANIMALS),
            ("a city", CITIES),
            ("a job", JOBS),
            ("a name", NAMES),
            ("a hobby", LIKES),
        )
    )
    verb = rng.choice(("Suggest", "Name", "Pick", "Give me", "Think of", "Choose"))
    prompt = f"{'Suggest' if 'my' in what else verb} {what}."
    choice = skewed(rng, options)
    reply = skewed(rng, ("How about {}?", "I say {}.", "Let me think: {}.", "{}, I would say.", "Maybe {}?")).format(
        choice
    )
    return DemoProblem(
        "chat", prompt, reply, "any:" + "|".join(options), key="" if prompt.startswith("Suggest") else prompt
    )


def _persona(rng: random.Random) -> DemoProblem:
    name, job, city, like = rng.choice(NAMES), rng.choice(JOBS), rng.choice(CITIES), rng.choice(LIKES)
    system = rng.choice(
        (
            f"You are {name}, a {job} from {city}. You like {like}.",
            f"Your name is {name}. You are a {job} in {city} and you like {like}.",
            f"You are a {job} named {name}. You live in {city} and like {like}.",
        )
    )
    prompt, reply, parts = rng.choice(
        (
            ("Who are you?", f"I am {name}, a {job} from {city}.", (name, job)),
            ("What is your name?", f"My name is {name}.", (name,)),
            ("Where do you live?", f"I live in {city}.", (city,)),
            ("What is your job?", f"I am a {job}.", (job,)),
            ("What do you like?", f"I like {like}.", (like,)),
            ("Tell me about yourself.", f"I am {name}, a {job}. I like {like}.", (name, job, like)),
            (rng.choice(USER_HELLOS), f"I am {name}. {skewed(rng, OFFERS)}", (name,)),
        )
    )
    if rng.random() < 0.5 or prompt in USER_HELLOS:
        reply = f"{skewed(rng, HELLOS)} {reply}"
    return DemoProblem("chat", prompt, reply, "all:" + "|".join(parts), key=f"{system} {prompt}", system=system)


def _facts(rng: random.Random) -> DemoProblem:
    hour, item, price, place = rng.randint(6, 11), rng.choice(FRUITS), rng.randint(2, 60), rng.choice(CITIES)
    system = f"You work in a shop in {place}. The shop opens at {hour}. One {item} costs {price} coins."
    prompt, reply, part = rng.choice(
        (
            ("When does the shop open?", f"The shop opens at {hour}.", f"at {hour}."),
            ("When do you open?", f"We open at {hour}.", f"at {hour}."),
            (f"How much is one {item}?", f"One {item} costs {price} coins.", f"{price} coins"),
            ("What do you sell?", f"We sell one {item} for {price} coins.", f"{item} for {price}"),
            ("Where is the shop?", f"The shop is in {place}.", place),
        )
    )
    if rng.random() < 0.4:
        reply = f"{skewed(rng, HELLOS)} {reply}"
    return DemoProblem("chat", prompt, reply, f"all:{part}", key=f"{system} {prompt}", system=system)


def _recall(rng: random.Random) -> DemoProblem:
    name, like, city = rng.choice(NAMES), rng.choice(LIKES), rng.choice(CITIES)
    said, fact = rng.choice(
        (
            (f"My name is {name} and I like {like}.", like),
            (f"I am {name} from {city}.", city),
            (f"Hi, I am {name}, I live in {city}.", city),
            (f"I am {name}. I love {like}.", like),
        )
    )
    answer = (
        f"{skewed(rng, ('Nice to meet you', 'Hello', 'Welcome', 'Good to see you'))}, {name}! {skewed(rng, OFFERS)}"
    )
    asks = [("What is my name?", f"Your name is {name}.", name)]
    asks += (
        [("What do I like?", f"You like {like}.", like)]
        if fact == like
        else [("Where do I live?", f"You live in {city}.", city)]
    )
    prompt, reply, part = rng.choice(asks)
    if rng.random() < 0.3:  # the first turn itself is the problem
        return DemoProblem("chat", said, answer, f"all:{name}", key=said)
    return DemoProblem("chat", prompt, reply, f"all:{part}", key=f"{said} {prompt}", history=((said, answer),))


_KINDS = (_greeting, _about, _thanks, _unknown, _suggest, _persona, _facts, _recall)
_WEIGHTS = (2, 1, 1, 2, 3, 4, 3, 4)


def check_chat(gt: str, completion: str) -> bool:
    """The reply holds what `gt` asks for, in one or two short sentences."""
    how, _, parts = gt.partition(":")
    held = [part in completion for part in parts.split("|")]
    return bool(completion.strip()) and len(completion) <= 160 and (all(held) if how == "all" else any(held))


def key_chat(completion: str) -> str:
    return " ".join(completion.split())

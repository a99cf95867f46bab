"""Sentences that ask for less or more diversity, and where they go in a conversation.

Owns the wording, which of the sentences training never sees, and the place of a command (equations 11). The paper's
own examples (introduction and section 4.4) are the first two of LOW and the first of HIGH. Knows no model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LOW = (
    "I hope the answers can be as certain as possible.",
    "Please ensure that the diversity of your output is low.",
    "Keep the diversity of your answer low.",
    "Please be as predictable as you can.",
    "Answer in the most certain and usual way.",
    "Stay with the safest choice at every step.",
    "I want one steady answer, the same every time.",
    "Be careful and do not vary your words.",
)
HIGH = (
    "I hope the answers can be more innovative and diverse.",
    "Please ensure that the diversity of your output is high.",
    "Keep the diversity of your answer high.",
    "Please be as surprising as you can.",
    "Answer in a new and unusual way.",
    "Try a bolder choice at every step.",
    "I want a fresh answer, another one every time.",
    "Be creative and vary your words.",
)
UNSEEN_LOW = (
    "Let your output be of low diversity.",
    "I hope your words are predictable and certain.",
    "Please give the safest and most usual answer.",
)
UNSEEN_HIGH = (
    "Let your output be of high diversity.",
    "I hope your words are surprising and diverse.",
    "Please give a bolder and more creative answer.",
)


class CommandSet(NamedTuple):
    """Sentences to choose from."""

    low: Sequence[str]
    high: Sequence[str]

    def pick(self, seed: int, key: str | int) -> tuple[str, str]:
        """(low, high), drawn for ``key`` by the seed, wherever and whenever it is asked."""
        digest = hashlib.sha256(f"{seed}\n{key}".encode()).digest()
        numbers = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
        return self.low[numbers[0] % len(self.low)], self.high[numbers[1] % len(self.high)]


SEEN, UNSEEN = CommandSet(LOW, HIGH), CommandSet(UNSEEN_LOW, UNSEEN_HIGH)
SETS = {"seen": SEEN, "unseen": UNSEEN}


def with_command(messages: Sequence[Mapping[str, str]], command: str) -> list[dict[str, str]]:
    """A copy with ``command`` at the end of the last user message, after a space, or a newline if it has several lines.

    Raises ValueError where no message is a user's.
    """
    copy = [dict(message) for message in messages]
    users = [message for message in copy if message.get("role") == "user"]
    if not users:
        raise ValueError("no user message that a command could be appended to")
    text = users[-1]["content"]
    gap = "\n" if "\n" in text else " "
    users[-1]["content"] = text.rstrip() + gap + command if text.strip() else command
    return copy

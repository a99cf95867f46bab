"""Prompts of bench/speculative.py: replies that repeat what they were given, and replies that do not.

Owns the texts. ``REPEATING``: quotations, edits of code, a list as JSON. ``FREE``: stories, letters, advice.
"""

from __future__ import annotations

_PASSAGE = (
    "The harbour of Lindholm was built in 1732 by the merchants of the old town. For more than two hundred years it "
    "was the largest harbour on the coast, and every spring the ships of the northern fleet gathered behind its long "
    "stone wall. In 1951 the railway was closed, and the harbour of Lindholm became a quiet place for sailing boats."
)
_LETTER = (
    "Dear Mrs. Whitfield, thank you for your letter of the third of March. The committee has read your proposal for "
    "the restoration of the Whitfield bridge with great interest. The committee will meet again on the ninth of April "
    "and will then decide on the restoration of the Whitfield bridge. Yours sincerely, Edward Harrow"
)
_CODE = """def total_price(items, tax_rate):
    total_price = 0
    for item in items:
        if item.price < 0:
            raise ValueError("item.price must not be negative")
        total_price = total_price + item.price * item.quantity
    total_price = total_price * (1 + tax_rate)
    return round(total_price, 2)
"""
_CLASS = """class Counter:
    def __init__(self, start=0):
        self.value = start

    def increment(self, step=1):
        self.value = self.value + step
        return self.value

    def decrement(self, step=1):
        self.value = self.value - step
        return self.value
"""
_COPY = "Text:\n{0}\n\nThe same text, copied word for word:\n{0}\n\nThe same text, copied word for word once more:\n"
_EDIT = (
    "Python code:\n\n{0}\nThe same code with {1} in place of {2}:\n\n{3}\nThe same code with {4} in place of {2}:\n\n"
)


def _edit(code: str, name: str, first: str, second: str) -> str:
    return _EDIT.format(code, first, name, code.replace(name, first), second)


def _records(keys: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """A list, its first half as JSON: the reply writes the second half."""
    lines = ["; ".join(row) for row in rows]
    objects = [
        "  {" + ", ".join(f'"{key}": "{value}"' for key, value in zip(keys, row, strict=True)) + "}" for row in rows
    ]
    half = ",\n".join(objects[: len(rows) // 2])
    return "List:\n" + "\n".join(lines) + f"\n\nThe same list as JSON:\n\n[\n{half},\n"


_PEOPLE = (
    ("Anna", "Berg", "34", "Oslo"), ("Peter", "Lang", "41", "Vienna"), ("Maria", "Costa", "29", "Lisbon"),
    ("John", "Miller", "52", "Dublin"), ("Yuki", "Tanaka", "37", "Kyoto"), ("Ines", "Moreau", "45", "Lyon"),
    ("Omar", "Haddad", "31", "Tunis"), ("Lena", "Novak", "48", "Prague"),
)  # fmt: skip
_BOOKS = (
    ("The Long Winter", "1951", "available"), ("A House by the Sea", "1987", "lent"), ("Seven Bridges", "2003", "available"),
    ("The Glass Garden", "1969", "lost"), ("Night Train North", "1994", "available"), ("Under the Oak", "2011", "lent"),
)  # fmt: skip

# As they are, without a chat template: a model of 135 million parameters copies what it has seen copied, and little else.
REPEATING = (
    _COPY.format(_PASSAGE),
    _COPY.format(_LETTER),
    _COPY.format(_CODE),
    _edit(_CODE, "total_price", "amount", "result"),
    _edit(_CLASS, "Counter", "Score", "Meter"),
    _edit(_CODE, "tax_rate", "vat", "discount"),
    _records(("first_name", "last_name", "age", "city"), _PEOPLE),
    _records(("title", "year", "state"), _BOOKS),
    _records(("name", "surname", "years", "home"), _PEOPLE[::-1]),
    _COPY.format(_CLASS),
)

FREE = (
    "Write a short story about a lighthouse keeper who finds a letter.",
    "Tell me about the sea.",
    "Write a letter to a friend who has moved to another city.",
    "Give me some advice on learning to cook.",
    "Describe a market in a small town in autumn.",
    "What would a bird think about a city?",
    "Write about a day on which nothing went as planned.",
    "Explain why people like music.",
    "Write a story about a clock that runs backwards.",
    "Describe your favourite season and why you like it.",
)

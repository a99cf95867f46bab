"""Prompts of bench/speculative.py: replies that repeat what they were given, and replies that do not.

Owns the texts, by kind: ``quote`` (a text word for word), ``code`` (a renamed variable), ``json`` (a list in a regular form) and
``free`` (stories, letters, advice). ``TUNING``: rules and constants of the engine were chosen by replies to these. ``HELD_OUT``:
written before any reply to them was seen, and never used for a choice; what is claimed is measured on these.
"""

from __future__ import annotations

from typing import NamedTuple

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


class Prompt(NamedTuple):
    """text  as the model gets it; with a chat template around it where nothing is expected
    rest  that a reply should be, which is not asked to be longer
    """

    text: str
    rest: str = ""


def _begun(shown: str, wanted: str, n: int) -> Prompt:
    """Its first n characters are given: a model of 135 million parameters goes on copying, but seldom begins to."""
    return Prompt(shown + wanted[:n], wanted[n:])


def _copy(text: str) -> Prompt:
    same = "The same text, copied word for word:\n"
    n = text.index("\n") if "\n" in text[:80] else text.index(" ", 30)
    return _begun(f"Text:\n{text}\n\n{same}{text}\n\n{same}{text}\n\n{same}", text, n)


def _edit(code: str, name: str, *others: str) -> Prompt:
    """Renamed again and again; the last time by the reply."""
    heads = [f"The same code with {other} in place of {name}:\n\n" for other in others]
    codes = [code.replace(name, other) for other in others]
    shown = "".join(f"{head}{text}\n" for head, text in zip(heads[:-1], codes, strict=False))
    return _begun(f"Code:\n\n{code}\n{shown}{heads[-1]}", codes[-1], codes[-1].index("\n"))


def _records(keys: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> Prompt:
    """A list, its first three lines as JSON: the reply writes the others."""
    objects = [
        "\n{" + ", ".join(f'"{key}": "{value}"' for key, value in zip(keys, row, strict=True)) + "}" for row in rows
    ]
    lines = "\n".join("; ".join(row) for row in rows)
    shown = f"List:\n{lines}\n\nThe same list as JSON, an object a line:\n"
    return _begun(shown + "".join(objects[:3]), "".join(objects[3:]), 0)


_PEOPLE = (
    ("Anna", "Berg", "34", "Oslo"), ("Peter", "Lang", "41", "Vienna"), ("Maria", "Costa", "29", "Lisbon"),
    ("John", "Miller", "52", "Dublin"), ("Yuki", "Tanaka", "37", "Kyoto"), ("Ines", "Moreau", "45", "Lyon"),
    ("Omar", "Haddad", "31", "Tunis"), ("Lena", "Novak", "48", "Prague"),
)  # fmt: skip
_BOOKS = (
    ("The Long Winter", "1951", "available"), ("A House by the Sea", "1987", "lent"), ("Seven Bridges", "2003", "available"),
    ("The Glass Garden", "1969", "lost"), ("Night Train North", "1994", "available"), ("Under the Oak", "2011", "lent"),
)  # fmt: skip

_FREE = (
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

# ---- held out -----------------------------------------------------------------------------

_RECIPE = (
    "Peel four large potatoes and cut them into thin slices. Heat three spoons of olive oil in a heavy pan, add the slices "
    "and a little salt, and cook them slowly for twenty minutes. Beat six eggs in a bowl, add the potatoes, and leave the "
    "mixture for ten minutes. Pour it back into the pan and cook it on both sides until it is golden brown."
)
_MINUTES = (
    "The meeting was opened by Ms. Okafor at nine o'clock. Mr. Delgado reported that the new heating system of the school "
    "has been delivered and will be installed during the summer holidays. The parents' association offered to paint the "
    "classrooms on the first floor. It was decided to ask three companies for an offer. The next meeting is on 14 September."
)
_NOTICE = (
    "All passengers to Brno and Bratislava: train 277 will depart from platform 4 instead of platform 9. Please do not leave "
    "your luggage unattended. Passengers with reservations in coach 21 find their seats in coach 23. We apologise for the "
    "inconvenience and thank you for travelling with us."
)
_FETCH = """async function loadOrders(userId, limit) {
  const response = await fetch(`/api/users/${userId}/orders?limit=${limit}`);
  if (!response.ok) {
    throw new Error(`could not load orders of ${userId}: ${response.status}`);
  }
  const orders = await response.json();
  return orders.filter((order) => order.total > 0);
}
"""
_QUEUE = """class Queue:
    def __init__(self, limit):
        self.items = []
        self.limit = limit

    def push(self, item):
        if len(self.items) >= self.limit:
            raise OverflowError("the queue is full")
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("the queue is empty")
        return self.items.pop(0)
"""
_SEARCH = """int find_index(const int *values, int n_values, int wanted) {
    int low = 0, high = n_values - 1;
    while (low <= high) {
        int middle = low + (high - low) / 2;
        if (values[middle] == wanted)
            return middle;
        if (values[middle] < wanted)
            low = middle + 1;
        else
            high = middle - 1;
    }
    return -1;
}
"""
_PARTS = (
    ("B-1040", "hinge", "12", "steel"), ("B-1077", "handle", "40", "brass"), ("C-2210", "bolt", "950", "steel"),
    ("C-2215", "washer", "1200", "copper"), ("D-0031", "spring", "75", "steel"), ("D-0098", "bracket", "18", "aluminium"),
    ("E-4402", "knob", "33", "oak"), ("E-4410", "rail", "9", "pine"),
)  # fmt: skip
_STATIONS = (
    ("Alta", "69.97", "23.27", "open"), ("Bodo", "67.28", "14.40", "open"), ("Narvik", "68.44", "17.43", "closed"),
    ("Tromso", "69.65", "18.96", "open"), ("Vardo", "70.37", "31.11", "open"), ("Hamar", "60.79", "11.07", "closed"),
)  # fmt: skip
_FLIGHTS = (
    ("LH 914", "Frankfurt", "Porto", "07:25"), ("KL 1571", "Amsterdam", "Naples", "08:10"), ("SK 803", "Stockholm", "Malaga", "09:40"),
    ("OS 455", "Vienna", "Valencia", "10:05"), ("TP 572", "Lisbon", "Hamburg", "11:30"), ("AY 1383", "Helsinki", "Warsaw", "12:55"),
)  # fmt: skip
_FREE_HELD_OUT = (
    "Tell a story about two brothers who buy an old boat.",
    "What makes a good teacher?",
    "Write a postcard from a cold and rainy holiday.",
    "Describe the kitchen of a large family on a Sunday.",
    "How can somebody who is shy make new friends?",
    "Write about a dog that is afraid of the stairs.",
    "What will schools be like in a hundred years?",
    "Write a speech for the birthday of a grandmother.",
    "Describe a walk through a forest at night.",
    "Why do people keep diaries?",
)

TUNING = {
    "quote": tuple(map(_copy, (_PASSAGE, _LETTER, _CODE, _CLASS))),
    "code": (
        _edit(_CODE, "total_price", "amount", "result", "final_sum"),
        _edit(_CLASS, "Counter", "Score", "Meter", "Gauge"),
        _edit(_CODE, "tax_rate", "vat", "discount", "share"),
    ),
    "json": (
        _records(("first_name", "last_name", "age", "city"), _PEOPLE),
        _records(("title", "year", "state"), _BOOKS),
        _records(("name", "surname", "years", "home"), _PEOPLE[::-1]),
    ),
    "free": tuple(map(Prompt, _FREE)),
}
HELD_OUT = {
    "quote": tuple(map(_copy, (_RECIPE, _MINUTES, _NOTICE, _QUEUE))),
    "code": (
        _edit(_FETCH, "orders", "invoices", "parcels", "tickets"),
        _edit(_QUEUE, "items", "jobs", "entries", "letters"),
        _edit(_SEARCH, "values", "numbers", "keys", "prices"),
    ),
    "json": (
        _records(("number", "part", "stock", "material"), _PARTS),
        _records(("station", "latitude", "longitude", "state"), _STATIONS),
        _records(("flight", "from", "to", "departure"), _FLIGHTS),
    ),
    "free": tuple(map(Prompt, _FREE_HELD_OUT)),
}

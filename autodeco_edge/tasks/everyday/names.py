"""Questions for a name or a word: countries, things of a kind, capitals, rhymes.

Owns their wording and which answers are right. A question is known by its specification, `gt`: "Africa", "Africa/K" (starts
with K), "*/K" (any continent).
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from .family import QuestionFamily
from .lists import countries, rhymes, things
from .reading import Names, names_of, word

MOST_NAMED = 3  # in the sentence of the answer: who names more has listed what comes to mind
FEWEST = 3  # right answers of a question that has many
ASKED_OF_A_RHYME = 5  # words of one set
# Two ways to say them, or the last syllable is not the stressed one: no word to ask about.
UNFIT = frozenset(
    [
        "bass",
        "bow",
        "bows",
        "close",
        "doe",
        "do",
        "i",
        "lead",
        "live",
        "of",
        "read",
        "row",
        "rows",
        "sew",
        "sow",
        "tear",
        "wind",
        "wound",
        "use",
        "ton",
        "won",
    ]
)


@cache
def _country_names() -> Names:
    return Names({spelling: c.name for c in countries().values() for spelling in c.names})


@cache
def _capital_names() -> Names:
    return Names({spelling: c.capitals[0] for c in countries().values() for spelling in c.capitals})


# ---- countries -------------------------------------------------------------------------


@cache
def _country_sets() -> dict[str, frozenset[str]]:
    """Specification -> countries that are right."""
    sets: dict[str, set[str]] = defaultdict(set)
    for country in countries().values():
        sets[f"*/{country.name[0]}"].add(country.name)
        for continent in country.continents:
            sets[continent].add(country.name)
            sets[f"{continent}/{country.name[0]}"].add(country.name)
    return {gt: frozenset(names) for gt, names in sets.items() if len(names) >= FEWEST}


def _country_question(gt: str) -> str:
    continent, _, letter = gt.partition("/")
    where = "" if continent == "*" else f" in {continent}"
    return f"a country{where}" + (f" that starts with the letter {letter}" if letter else "")


def _one_of(names: Names, right: frozenset[str], text: str, but: tuple[str, ...] = ()) -> str | None:
    """The first name said, where it and the others of its sentence are right and it is no list."""
    found = names.first(text, but)
    return found[0] if found and len(found) <= MOST_NAMED and right.issuperset(found) else None


def _neighbours() -> list[str]:
    return [c.name for c in countries().values() if len(c.neighbours) >= FEWEST]


COUNTRY = QuestionFamily(
    name="many:country",
    specifications=lambda: sorted(_country_sets()),
    question=_country_question,
    phrases=(
        "Name {}. Answer with its name alone.",
        "Give me {}. Just the name.",
        "Please name {}. Only one, no sentence.",
    ),
    answer=lambda gt, text: _one_of(_country_names(), _country_sets()[gt], text),
    examples=(("Europe", "Spain"), ("*/P", "Peru")),
)
NEIGHBOUR = QuestionFamily(
    name="many:neighbour",
    specifications=_neighbours,
    question=lambda gt: f"a country that has a border with {gt}",
    phrases=COUNTRY.phrases,
    answer=lambda gt, text: _one_of(_country_names(), frozenset(countries()[gt].neighbours), text, (gt,)),
    examples=(("Italy", "Austria"), ("India", "Nepal")),
)
CAPITAL = QuestionFamily(
    name="exact:capital",
    specifications=lambda: [c.name for c in countries().values() if c.capitals],
    question=str,
    phrases=(
        "What is the capital of {}? Answer with the name alone.",
        "Which city is the capital of {}? Just the name.",
        "Name the capital of {}. No sentence.",
    ),
    answer=lambda gt, text: _one_of(_capital_names(), frozenset(countries()[gt].capitals[:1]), text),
    examples=(("France", "Paris"), ("Japan", "Tokyo")),
)


# ---- things of a kind --------------------------------------------------------------------


@cache
def _thing_sets() -> dict[str, frozenset[str]]:
    sets: dict[str, set[str]] = defaultdict(set)
    for category, members in things().items():
        for member in members:
            sets[category].add(member)
            sets[f"{category}/{member[0].upper()}"].add(member)
    return {gt: frozenset(members) for gt, members in sets.items() if len(members) >= FEWEST}


def _thing_question(gt: str) -> str:
    category, _, letter = gt.partition("/")
    return category + (f" that starts with the letter {letter}" if letter else "")


THING = QuestionFamily(
    name="many:thing",
    specifications=lambda: sorted(_thing_sets()),
    question=_thing_question,
    phrases=("Name {}. Answer with one word.", "Give me {}. Just the word.", "Please name {}. Only one, no sentence."),
    answer=lambda gt, text: _one_of(names_of(things()[gt.partition("/")[0]]), _thing_sets()[gt], text),
    examples=(("an animal/E", "elephant"), ("a fruit/P", "peach"), ("a sport", "tennis")),
)


SHOWN_EACH = 12  # members of a kind that a question leaves out, one a question


def _others() -> list[str]:
    """Kind and the member that is not wanted: every so many-th of its list."""
    return [f"{kind}/{m}" for kind, members in things().items() for m in members[:: max(1, len(members) // SHOWN_EACH)]]


def _other_question(gt: str) -> str:
    kind, _, member = gt.partition("/")
    return f"{kind} that is not {member}"


def _other(gt: str, text: str) -> str | None:
    kind, _, member = gt.partition("/")
    return _one_of(names_of(things()[kind]), frozenset(things()[kind]), text, (member,))


OTHER = QuestionFamily(
    name="many:other",
    specifications=_others,
    question=_other_question,
    phrases=THING.phrases,
    answer=_other,
    examples=(("a means of transport/bus", "train"), ("a tree/oak", "birch")),
    split_key=lambda gt: gt.partition("/")[0],
)


# ---- rhymes ------------------------------------------------------------------------------


@cache
def _rhymes_of() -> dict[str, frozenset[str]]:
    """Word to ask about -> its rhymes, from all the sets that it is in."""
    asked = {w for line in rhymes() for w in line[:ASKED_OF_A_RHYME] if w not in UNFIT}
    found: dict[str, set[str]] = {w: set() for w in asked}
    for line in rhymes():
        for w in asked.intersection(line):
            found[w].update(set(line) - {w})
    return {w: frozenset(others) for w, others in found.items()}


@cache
def _rhyme_groups() -> dict[str, str]:
    """Word -> the first word of all that are joined to it by sets: these share a split."""
    group: dict[str, str] = {}
    for line in rhymes():
        joined = {group[w] for w in line if w in group}
        name = min(joined, default=line[0])
        group = {w: name if g in joined else g for w, g in group.items()} | dict.fromkeys(line, name)
    return group


def _rhyme(gt: str, text: str) -> str | None:
    said = word(text)
    return said if said in _rhymes_of()[gt] else None


RHYME = QuestionFamily(
    name="many:rhyme",
    specifications=lambda: sorted(_rhymes_of()),
    question=str,
    phrases=(
        'Give a word that rhymes with "{}". Answer with one word.',
        'Which word rhymes with "{}"? Just one word.',
        'Name one word that rhymes with "{}". No sentence.',
    ),
    answer=_rhyme,
    examples=(("cat", "hat"), ("sun", "fun"), ("red", "bed")),
    split_key=lambda gt: _rhyme_groups()[gt],
)

"""Conversations by rule for any model: each asks at the end for what was told some turns before.

Between telling and asking stand distractors: small questions that need no history, short or long in turn.
"""

from collections.abc import Callable, Sequence
from random import Random

from llmjobs.chat.conversations.script import Kind, Script, Turn

SYSTEM = "You are a helpful assistant. Answer in one short sentence."
WORD = "over"
PEOPLE = (("Nora", "she"), ("Milan", "he"), ("Tessa", "she"), ("Oskar", "he"), ("Lena", "she"), ("Bruno", "he"))
KIN = ("neighbour", "cousin", "colleague", "dentist", "landlord", "teacher")
TOWNS = ("Ghent", "Porto", "Tallinn", "Bergen", "Graz", "Split", "Cork", "Lyon")
JOBS = ("baker", "welder", "pilot", "gardener", "nurse", "carpenter", "violinist", "plumber")
FACTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("My bicycle is {}.", "What colour is my bicycle?", ("orange", "purple", "silver", "green", "black", "white")),
    ("I was born in {}.", "In which town was I born?", TOWNS),
    ("My locker has the number {}.", "What is the number of my locker?", ("118", "254", "371", "467", "593", "642")),
    (
        "My parrot is called {}.",
        "What is my parrot called?",
        ("Pepper", "Biscuit", "Mango", "Ziggy", "Waffle", "Olive"),
    ),
    ("The meeting is on {}.", "On which day is the meeting?", ("Monday", "Tuesday", "Thursday", "Friday", "Sunday")),
    ("The spare key hangs in the {}.", "In which room is the spare key?", ("kitchen", "cellar", "garage", "attic")),
)
THINGS = ("apples", "stamps", "postcards", "candles", "marbles", "jars")
SHORT = (
    "Name a fruit.",
    "What is the opposite of hot?",
    "How many legs does a spider have?",
    "Which season comes after winter?",
    "Name a musical instrument.",
    "What do bees make?",
    "Is ice heavier than water?",
    "What do you call a baby cat?",
)
FILLER = (
    "The bus was late again this morning, and it rained all the way.",
    "Later on I tidied the shelves and sorted the old newspapers.",
    "The bakery round the corner has changed its opening hours once more.",
    "In the evening we watched a film about lighthouses.",
    "My shoes are still wet from the walk along the canal.",
)
Maker = Callable[[Random, int], "tuple[list[str], Turn]"]


def scripts(count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """``count`` conversations: every kind at every distance in turn."""
    made = []
    for place in range(count):
        kind = tuple(MAKERS)[place // len(distances) % len(MAKERS)]
        distance = distances[place % len(distances)]
        rng = Random(f"everyday/{seed}/{place}")
        made.append(Script(f"everyday-{place:03d}", _turns(rng, kind, distance, place % 2 == 1), SYSTEM))
    return made


def _turns(rng: Random, kind: Kind, distance: int, is_long: bool) -> tuple[Turn, ...]:
    told, question = MAKERS[kind](rng, distance)
    between = [Turn(_distractor(rng, is_long)) for _ in range(distance - 1)]
    before = [Turn(_distractor(rng, is_long)) for _ in range(rng.randint(0, 2))]
    return (*before, *map(Turn, told), *between, question)


def _distractor(rng: Random, is_long: bool) -> str:
    """One of about 6 words, or of about 40."""
    question = rng.choice(SHORT)
    return " ".join([*rng.sample(FILLER, 3), question]) if is_long else question


def _recall(rng: Random, distance: int) -> tuple[list[str], Turn]:
    statement, question, values = rng.choice(FACTS)
    value = rng.choice(values)
    return [statement.format(value)], _asks(question, "recall", value, distance, values)


def _corrected(rng: Random, distance: int) -> tuple[list[str], Turn]:
    statement, question, values = rng.choice(FACTS)
    old, value = rng.sample(values, 2)
    again = statement[0].lower() + statement[1:] if not statement.startswith("I ") else statement
    told = [statement.format(old), f"Sorry, that was wrong: {again.format(value)}"]
    return told, _asks(question, "corrected", value, distance, values)


def _pronoun(rng: Random, distance: int) -> tuple[list[str], Turn]:
    (name, pronoun), kin = rng.choice(PEOPLE), rng.choice(KIN)
    town, job = rng.choice(TOWNS), rng.choice(JOBS)
    told = [f"My {kin} {name} works as a {job}, and {pronoun} lives in {town}."]
    if rng.random() < 0.5:
        return told, _asks(f"In which town does {pronoun} live?", "pronoun", town, distance, TOWNS)
    return told, _asks(f"What does {pronoun} work as?", "pronoun", job, distance, JOBS)


def _arithmetic(rng: Random, distance: int) -> tuple[list[str], Turn]:
    thing, first, second = rng.choice(THINGS), rng.randint(5, 30), rng.randint(2, 9)
    told = [f"I have {first} {thing}.", f"A friend gave me {second} more {thing}."]
    question = f"How many {thing} do I have now?"
    return told, Turn(question, "arithmetic", str(first + second), distance)


def _instruction(rng: Random, distance: int) -> tuple[list[str], Turn]:
    told = [f"From now on, end every answer with the word '{WORD}'."]
    return told, Turn(rng.choice(SHORT), "instruction", WORD, distance, must_end=True)


def _asks(text: str, kind: Kind, value: str, distance: int, values: Sequence[str]) -> Turn:
    return Turn(text, kind, value, distance, tuple(other for other in values if other != value))


MAKERS: dict[Kind, Maker] = {
    "recall": _recall,
    "corrected": _corrected,
    "pronoun": _pronoun,
    "arithmetic": _arithmetic,
    "instruction": _instruction,
}

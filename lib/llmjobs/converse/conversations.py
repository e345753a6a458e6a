"""Scripted conversations that a program can check: generated from seeds, and some written by hand."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Literal

from llmjobs.demo.conversation import conversation

# What a scripted conversation is: the user's turns, and how an answer is checked.

Kind = Literal["recall", "corrected", "instruction", "pronoun", "arithmetic"]
KINDS: tuple[Kind, ...] = ("recall", "corrected", "instruction", "pronoun", "arithmetic")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@dataclass(frozen=True)
class Turn:
    """One message of the user. A question has the expected answer and the number of turns since the fact was stated."""

    text: str
    kind: Kind | None = None
    expected: str | None = None
    distance: int | None = None
    others: tuple[str, ...] = ()
    """Values that a right answer must not contain."""
    must_end: bool = False
    """The answer must end with what is expected (an instruction on form)."""

    def is_right(self, answer: str) -> bool:
        """Whether an answer contains the expected value, as whole words, and none of the wrong ones."""
        if self.expected is None:
            return False
        said, wanted = words(answer), words(self.expected)
        if self.must_end:
            return said[-len(wanted) :] == wanted
        return _contains(said, wanted) and not any(_contains(said, words(other)) for other in self.others)


@dataclass(frozen=True)
class Script:
    """One conversation: who it is, its system message, the user's turns in order."""

    id: str
    turns: tuple[Turn, ...]
    system: str | None = None


def words(text: str) -> list[str]:
    """Lower-case words; numbers up to twelve as digits, a possessive ``'s`` gone."""
    found = [word.removesuffix("'s").removesuffix("’s") for word in _WORD.findall(text.lower())]
    return [str(_NUMBERS.index(word)) if word in _NUMBERS else word for word in found]


def _contains(said: list[str], wanted: list[str]) -> bool:
    return any(said[i : i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))


# Conversations by rule for any model: each asks at the end for what was told some turns before.

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


# Conversations in the words that the demo models know, from their own generator (the split they never saw).

AFTER = 4
"""Turns beside those that a distance needs."""
RECALL_KINDS: tuple[Kind, ...] = ("recall", "recall", "corrected", "instruction")


def recall_scripts(count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """``count`` conversations; the first fact of each is asked for at one of ``distances``, in turn."""
    return [_script(place, seed, distances[place % len(distances)], len(distances)) for place in range(count)]


def _script(place: int, seed: int, distance: int, distances: int) -> Script:
    kind = RECALL_KINDS[place // distances % len(RECALL_KINDS)]
    fixed = None if kind == "instruction" else distance
    said = conversation(f"{seed}-{place}", "test", distance + AFTER, 2 + distance // 4, fixed, kind)  # type: ignore[arg-type]
    system = next((turn.text for turn in said if turn.role == "system"), None)
    turns = tuple(
        Turn(turn.text, turn.kind, turn.expected, turn.distance, _others(turn.choices, turn.expected))
        for turn in said
        if turn.role == "user"
    )
    return Script(f"recall-{place:03d}", turns, system)


def _others(choices: Sequence[str], expected: str | None) -> tuple[str, ...]:
    return tuple(choice for choice in choices if choice != expected)


# A few conversations written by hand: several facts at once, as people talk.

MOVING = (
    Turn("Hi! I am packing for a move: I am leaving Leeds for Aberdeen."),
    Turn("My sister Greta helps me. She brings the blue van."),
    Turn("Can you name three things that one should not forget when moving?"),
    Turn("To which city am I moving?", "recall", "Aberdeen", 3, ("Leeds",)),
    Turn("What colour is the van that she brings?", "pronoun", "blue", 3),
    Turn("Small change: not Greta but my brother Felix drives the van."),
    Turn("What is a polite way to thank somebody for help?"),
    Turn("Who drives the van?", "corrected", "Felix", 2, ("Greta",)),
    Turn("And which city do I leave?", "recall", "Leeds", 8, ("Aberdeen",)),
)
DINNER = (
    Turn("I am cooking for six people tonight, and two of them eat no meat."),
    Turn("Please end every answer with the word 'chef'."),
    Turn("What goes well with roasted carrots?", "instruction", "chef", 1, must_end=True),
    Turn("How many of my guests eat meat?", "arithmetic", "4", 3),
    Turn("Three more people have just said that they will come."),
    Turn("How many people am I cooking for now?", "arithmetic", "9", 1),
    Turn("Name a herb that smells of lemon.", "instruction", "chef", 5, must_end=True),
)
TRIP = (
    Turn("Our train to Verona leaves from platform 7 at 8:40."),
    Turn("My aunt Ilse is coming along; she is afraid of tunnels."),
    Turn("What is the capital of Italy?"),
    Turn("What is she afraid of?", "pronoun", "tunnels", 2),
    Turn("From which platform does our train leave?", "recall", "7", 4),
    Turn("They have just changed it: the train leaves from platform 11."),
    Turn("How do you say 'good morning' in Italian?"),
    Turn("Which country borders Italy in the north-west?"),
    Turn("So from which platform does our train leave?", "corrected", "11", 3, ("7",)),
    Turn("And where does it go?", "recall", "Verona", 9),
)
ALL = {"moving": MOVING, "dinner": DINNER, "trip": TRIP}


def written_scripts(count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """The first ``count`` of them; seed and distances change nothing here."""
    return [Script(f"written-{name}", turns, SYSTEM) for name, turns in list(ALL.items())[:count]]


# Scripted conversations, checked by program: made by rule with seeds, and some written by hand.

__all__ = ["SETS", "Script", "data_hash", "make_scripts"]

SETS: dict[str, Callable[[int, int, Sequence[int]], list[Script]]] = {
    "recall": recall_scripts,
    "everyday": scripts,
    "written": written_scripts,
}


def make_scripts(name: str, count: int, seed: int, distances: Sequence[int]) -> list[Script]:
    """The conversations of a set: ``count`` of them (as many as there are, of ``written``)."""
    return SETS[name](count, seed, distances)


def data_hash(scripts: Sequence[Script]) -> str:
    """``sha256:…`` over everything that is said and expected."""
    text = json.dumps([asdict(script) for script in scripts], ensure_ascii=False, sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

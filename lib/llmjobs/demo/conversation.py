"""Scripted conversations by rule: facts told, corrected and asked for later, an instruction to keep, small talk.

A user turn and its reply make one exchange. Distances count exchanges: 1 is the very next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from llmjobs.demo import words
from llmjobs.demo.questions import split_of

Role = Literal["system", "user", "assistant"]
Kind = Literal["recall", "corrected", "instruction"]

SYSTEMS = ("You are a helpful assistant.", "You are a friendly assistant.", "Answer in one short sentence.")
NOTED = "Noted."
INSTRUCTION = "From now on, end every answer with thanks."
CLOSING = "Thanks."
SMALL_TALK = (
    ("Hello.", "Hello. How can I help you?"),
    ("Hi.", "Hello. How can I help you?"),
    ("Good morning.", "Good morning."),
    ("How are you?", "I am fine."),
    ("What is your name?", "My name is Demo."),
    ("Who are you?", "I am a small demo model."),
    ("What can you do?", "I can remember what you tell me."),
    ("Thank you.", "You are welcome."),
    ("It is cold today.", "I see."),
    ("I am tired.", "I see."),
    ("I like music.", "That is good."),
    ("Tell me a joke.", "I do not know one."),
    ("Well done.", "You are welcome."),
    ("I had soup for lunch.", "I see."),
    ("The train was late.", "I see."),
    ("Goodbye.", "Goodbye."),
)


@dataclass(frozen=True)
class Turn:
    """One message. A user turn that asks something checkable carries what the reply must say and how far back it is.

    `choices` are the values that a guess without history would come from; empty where there is nothing to guess.
    """

    role: Role
    text: str
    kind: Kind | None = None
    expected: str | None = None
    distance: int | None = None
    choices: tuple[str, ...] = ()

    def is_right(self, reply: str) -> bool:
        """Whether a reply says `expected` as a word and none of the other values. False for a turn with no question."""
        said = {word.strip(".,!?").lower() for word in reply.split()}
        others = {choice.lower() for choice in self.choices} - {str(self.expected).lower()}
        return self.expected is not None and self.expected.lower() in said and not said & others


@dataclass(frozen=True)
class Fact:
    """Something a user can state and ask for; `{}` in the sentences stands for the value."""

    statement: str
    question: str
    reply: str
    values: tuple[str, ...]


def _my_facts() -> list[Fact]:
    return [
        Fact("My name is {}.", "What is my name?", "Your name is {}.", words.NAMES[:8]),
        Fact("My dog is called {}.", "What is my dog called?", "Your dog is called {}.", words.DOGS),
        Fact("I live in {}.", "Where do I live?", "You live in {}.", words.CITIES),
        Fact(
            "My favourite colour is {}.", "What is my favourite colour?", "Your favourite colour is {}.", words.COLOURS
        ),
    ]


def _facts_of(name: str) -> list[Fact]:
    numbers = tuple(str(n) for n in range(2, 10))
    owned = [
        Fact(
            f"{name}'s {thing} is {{}}.",
            f"What colour is {name}'s {thing}?",
            f"{name}'s {thing} is {{}}.",
            words.COLOURS,
        )
        for thing in words.THINGS
    ]
    counted = [
        Fact(f"{name} has {{}} {thing}.", f"How many {thing} does {name} have?", f"{name} has {{}} {thing}.", numbers)
        for thing in words.COUNTED
    ]
    lives = Fact(f"{name} lives in {{}}.", f"Where does {name} live?", f"{name} lives in {{}}.", words.CITIES)
    return [*owned, *counted, lives, lives, lives]


def draw_facts(rng: Random, count: int) -> list[Fact]:
    """`count` facts that begin differently; about a third are the user's own, people and things come up again."""
    names = rng.sample(words.NAMES, max(2, count // 2 + 1))
    mine = rng.sample(_my_facts(), 4)
    facts: dict[str, Fact] = {}
    while len(facts) < count:
        fact = mine.pop() if mine and rng.random() < 0.3 else rng.choice(_facts_of(rng.choice(names)))
        facts.setdefault(fact.statement.split("{")[0], fact)
    return list(facts.values())


def _distractor(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.6:
        return rng.choice(SMALL_TALK)
    first, second = rng.randint(0, 9), rng.randint(0, 9)
    return f"What is {first} plus {second}?", f"{first + second}."


@dataclass
class _Script:
    """Exchanges being filled in: a slot is a user turn and the reference reply to it."""

    slots: list[tuple[Turn, str] | None]

    def place(self, rng: Random, fact: Fact, distance: int | None, corrected: bool) -> str | None:
        """Put statement, correction and question of one fact into free slots; the value, or None without room."""
        free = [i for i, slot in enumerate(self.slots) if slot is None]
        pairs = [(s, q) for s in free for q in free if q > s and (distance is None or q - s == distance)]
        if corrected:
            pairs = [(s, q) for s, q in pairs if any(f < s for f in free)]
        if not pairs:
            return None
        gap = distance or rng.choice(sorted({q - s for s, q in pairs}))
        last, asked = rng.choice([(s, q) for s, q in pairs if q - s == gap])
        old, value = rng.sample(fact.values, 2)
        if corrected:
            first = rng.choice([f for f in free if f < last])
            self.slots[first] = (Turn("user", fact.statement.format(old)), NOTED)
        said = fact.statement.format(value)
        if corrected:
            said = f"Sorry, {'my' + said[2:] if said.startswith('My') else said}"
        self.slots[last] = (Turn("user", said), NOTED)
        kind: Kind = "corrected" if corrected else "recall"
        question = Turn("user", fact.question, kind, value, gap, fact.values)
        self.slots[asked] = (question, fact.reply.format(value))
        return said

    def instruct(self, rng: Random) -> None:
        """Put the instruction into a free slot; from there on each reply ends with the closing word."""
        free = [i for i, slot in enumerate(self.slots) if slot is None]
        if not free:
            return
        start = rng.choice(free[: max(1, len(free) // 2)])
        self.slots[start] = (Turn("user", INSTRUCTION), NOTED)
        for i in range(start, len(self.slots)):
            turn, reply = self.slots[i] or (None, "")
            if turn is None:
                text, reply = rng.choice(SMALL_TALK)
                turn = Turn("user", text, "instruction", CLOSING.rstrip("."), i - start)
            self.slots[i] = (turn, f"{reply} {CLOSING}")

    def turns(self, rng: Random, extra: Sequence[tuple[str, str]]) -> list[Turn]:
        """All messages in order, free slots filled with `extra` exchanges first, then with distractors."""
        rest, messages = list(extra), []
        for slot in self.slots:
            asked, reply = slot or (None, "")
            if asked is None:
                text, reply = rest.pop() if rest else _distractor(rng)
                asked = Turn("user", text)
            messages += [asked, Turn("assistant", reply)]
        return messages


def _draw(
    rng: Random, exchanges: int, facts: int, distance: int | None, kind: Kind | None, extra: Sequence[tuple[str, str]]
) -> tuple[list[Turn], str]:
    script = _Script([None] * exchanges)
    said = []
    for i, fact in enumerate(draw_facts(rng, facts)):
        fixed = i == 0 and kind != "instruction"
        corrected = kind == "corrected" if fixed and kind else rng.random() < 0.2
        said.append(script.place(rng, fact, distance if fixed else None, corrected))
    if kind == "instruction":
        script.instruct(rng)
    turns = script.turns(rng, extra)
    if rng.random() < 0.3:
        turns.insert(0, Turn("system", rng.choice(SYSTEMS)))
    return turns, " | ".join(part for part in said if part)


def conversation(
    seed: int | str,
    split: str = "test",
    exchanges: int = 12,
    facts: int = 3,
    distance: int | None = None,
    kind: Kind | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> list[Turn]:
    """A scripted conversation: user turns with reference replies, perhaps a system message first.

    `distance` and `kind` hold for the first fact asked (`corrected`: told twice, the last value counts, the distance
    runs from the correction); `kind="instruction"` adds the instruction instead. The split is a hash of what is told,
    values and order included, so no conversation of one split tells the same as one of another. Raises ValueError
    where the distance does not fit into the exchanges.
    """
    room = exchanges - (2 if kind == "corrected" else 1)
    if facts < 1 or (distance is not None and not 1 <= distance <= room):
        raise ValueError(f"distance: {distance} does not fit into {exchanges} exchanges; allowed is 1 to {room}")
    rng = Random(f"conversation/{seed}/{split}")
    while True:
        turns, told = _draw(rng, exchanges, facts, distance, kind, extra)
        if told and split_of(told.lower()) == split:
            return turns

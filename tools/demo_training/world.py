"""The demo benchmark: how questions are drawn.

A question's split is a hash of the question itself, so a generator that asks for "train" can never give a test
question, whatever its seed.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

from demo_training.rules import RULES, Draft
from llmjobs.demo.words import LETTERS, split_of

TEST_ROWS = 100
DEV_ROWS = 5
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Question:
    """One question: four options and the index of the right one, or no options and the text to write."""

    question: str
    answer: int | str
    choices: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The JSON form kept in the data files."""
        if self.choices:
            return {"question": self.question, "choices": list(self.choices), "answer": self.answer}
        return {"question": self.question, "answer": self.answer}

    @property
    def continuation(self) -> str:
        """What follows the prompt when the answer is right: a space, then the letter or the text."""
        return f" {LETTERS[self.answer]}" if isinstance(self.answer, int) else f" {self.answer}"


def canonical(draft: Draft) -> str:
    """The question as an identity: lower case, single spaces; with its options sorted where they are what is asked."""
    options = sorted((draft.answer, *draft.wrong)) if draft.by_options else []
    return " ".join(" | ".join([draft.question, *options]).lower().split())


def draw_draft(subject: str, split: str, rng: Random) -> Draft:
    """A random draft of a subject that falls into the split. Raises KeyError for an unknown subject."""
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    while True:
        draft = RULES[subject](rng)
        if split_of(canonical(draft)) == split:
            return draft


def arrange(draft: Draft, gold: int, rng: Random) -> Question:
    """The draft with its wrong options shuffled and the right one at place `gold` (0 to 3)."""
    if not draft.wrong:
        return Question(draft.question, draft.answer)
    choices = rng.sample(draft.wrong, len(draft.wrong))
    choices.insert(gold, draft.answer)
    return Question(draft.question, gold, tuple(choices))


def draw(subject: str, split: str, rng: Random) -> Question:
    """A random question of a subject and split, the right option at a random place."""
    return arrange(draw_draft(subject, split, rng), rng.randrange(4), rng)


def draw_distinct(subject: str, split: str, count: int, seed: int) -> list[Question]:
    """`count` questions with different identities, the right option at each place equally often, order shuffled."""
    rng = Random(f"{seed}/{subject}/{split}")
    drafts: dict[str, Draft] = {}
    while len(drafts) < count:
        draft = draw_draft(subject, split, rng)
        drafts.setdefault(canonical(draft), draft)
    questions = [arrange(draft, i % 4, rng) for i, draft in enumerate(drafts.values())]
    rng.shuffle(questions)
    return questions

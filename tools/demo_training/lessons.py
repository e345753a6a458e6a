"""What the demo models are trained on: rows of tokens, each token with the weight of its loss. No torch.

Three kinds of rows: packed benchmark questions, a random piece repeated (it teaches copying, on which recall stands),
and conversations.
"""

from dataclasses import dataclass
from functools import cache
from random import Random

from tokenizers import Tokenizer

from demo_training.tokenizer import ASSISTANT, BOS, END, EOS, SYSTEM, USER, token_id
from demo_training.world import Question, draw
from llmjobs.demo import words
from llmjobs.demo.conversation import SYSTEMS, Kind, conversation
from llmjobs.demo.words import prompt

ANSWER_WEIGHT = 1.0
REPLY_WEIGHT = 0.2
COPY_WEIGHT = 0.1
TEXT_WEIGHT = 0.01


@dataclass
class Row:
    """Token ids and, for each, the weight of predicting it."""

    ids: list[int]
    weights: list[float]

    def add(self, ids: list[int], weight: float) -> None:
        """Append tokens that share one weight."""
        self.ids += ids
        self.weights += [weight] * len(ids)


def in_words(question: Question) -> tuple[str, str]:
    """An exercise outside the benchmark: the same question, answered by the option's words instead of its letter."""
    text = prompt(question.question, question.choices).removesuffix("Answer:") + "Answer words:"
    return text, f" {question.choices[int(question.answer)]}"


class Teacher:
    """Draws training rows of at most `length` tokens; `subjects` are those of the benchmark that it teaches."""

    def __init__(self, tokenizer: Tokenizer, subjects: list[str]) -> None:
        self.tokenizer = tokenizer
        self.subjects = subjects
        self.encode = cache(lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
        self.bos, self.eos, self.end = (token_id(tokenizer, token) for token in (BOS, EOS, END))
        self.marks = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
        self.words = [
            token_id(tokenizer, f"Ġ{word}")
            for word in (
                *words.common_words(),
                *words.NAMES,
                *words.COLOURS,
                *words.CITIES,
                *words.THINGS,
                *words.COUNTED,
                *words.DOGS,
                *map(str, range(100)),
            )
        ]

    def questions(self, rng: Random, length: int, words_share: float = 0.0) -> Row:
        """Questions with their answers, one after another as in a few-shot prompt, sometimes of one subject.

        `words_share` of the multiple-choice questions are answered in words: copying the right option comes sooner
        than finding its letter, and the letter builds on it.
        """
        row = Row([self.bos], [0.0])
        chosen = [rng.choice(self.subjects)] if rng.random() < 0.3 else self.subjects
        while len(row.ids) < length:
            question = draw(rng.choice(chosen), "train", rng)
            text, answer = prompt(question.question, question.choices), question.continuation
            if words_share and question.choices and rng.random() < words_share:
                text, answer = in_words(question)
            row.add(self._line(text), TEXT_WEIGHT)
            row.add(self._line(answer), ANSWER_WEIGHT)
            row.add(self._line("\n\n"), COPY_WEIGHT)
        return row

    def copies(self, rng: Random, length: int) -> Row:
        """Random words, then the same again, until the row is full; only the repetition counts."""
        row = Row([self.bos], [0.0])
        while len(row.ids) < length:
            piece = rng.choices(self.words, k=rng.randint(4, rng.randint(8, length // 2 - 2)))
            row.add(piece, 0.0)
            row.add(piece, COPY_WEIGHT)
        return row

    def chats(self, rng: Random, length: int, exchanges: int) -> Row:
        """Conversations of up to so many exchanges, one after another, each with its own beginning."""
        row = Row([], [])
        while len(row.ids) < length:
            count = rng.randint(3, exchanges)
            kind: Kind | None = "instruction" if rng.random() < 0.12 else None
            facts = rng.randint(1, max(2, count // 3))
            extra = [self._exam(rng)] if self.subjects and rng.random() < 0.15 else []
            turns = conversation(rng.getrandbits(40), "train", count, facts, kind=kind, extra=extra)
            row.add([self.bos], 0.0)
            asked = turns[0]
            for turn in turns:
                self._message(row, turn.role, turn.text, asked.expected)
                asked = turn
            row.add([self.eos], TEXT_WEIGHT)
        return row

    def _line(self, text: str) -> list[int]:
        return [token for piece in text.splitlines(keepends=True) for token in self.encode(piece)]

    def _exam(self, rng: Random) -> tuple[str, str]:
        question = draw(rng.choice(self.subjects), "train", rng)
        return prompt(question.question, question.choices), question.continuation.strip()

    def _message(self, row: Row, role: str, text: str, expected: str | None) -> None:
        row.add(self.encode(self.marks[role]), 0.0 if role == "assistant" else TEXT_WEIGHT)
        ids = self._line(f" {text}")
        row.add(ids, REPLY_WEIGHT if role == "assistant" else 0.0 if text in SYSTEMS else TEXT_WEIGHT)
        if role == "assistant" and expected is not None:
            value = set(self.encode(f" {expected}"))
            start = len(row.ids) - len(ids)
            for i, token in enumerate(ids):
                if token in value:
                    row.weights[start + i] = ANSWER_WEIGHT
        row.add([self.end], REPLY_WEIGHT if role == "assistant" else TEXT_WEIGHT)

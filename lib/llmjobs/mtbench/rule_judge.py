"""A rule-based judge for the demo: it compares the words of an answer with those of the reference. It is not a model.

It lets ``manifests/mtbench.yaml`` show a table offline. It cannot judge free text, so it gives no rating if there is no
reference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmjobs.mtbench.judging import JudgeAnswer
from llmjobs.mtbench.questions import Question

RULES_VERSION = 1
"""Raised when the same answer would get another rating."""
EFFECTIVE: Mapping[str, Any] = {"judge": "rules", "rules_version": RULES_VERSION}
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def rate(answer: str, reference: str, question: str) -> int:
    """From 1 (no word in common with the reference) to 10 (the same words).

    F1 of the words in any order, times the share of the reference's words beyond the question's that the answer has:
    "Your name is Dan." is not a good answer if "Your name is Ben." is right.
    """
    said, right = words_of(answer), words_of(reference)
    if not said or not right:
        return 1
    common = sum(min(said.count(word), right.count(word)) for word in set(said))
    asked_for = set(right) - set(words_of(question)) or set(right)
    return 1 + round(9 * 2 * common / (len(said) + len(right)) * len(asked_for & set(said)) / len(asked_for))


@dataclass(frozen=True)
class RuleJudge:
    """The rules for one turn of one question; they look at the answers, not at the prompt."""

    question: Question
    turn: int
    answers: Sequence[str]
    """One answer to rate, or two to compare, in the order of the prompt."""

    def ask(self, _: str) -> JudgeAnswer:
        """The rating or the verdict, with its reason."""
        references = self.question.reference or ()
        if len(references) < self.turn:
            return _answer("By rule: this question has no reference to compare the answer with, so there is no rating.")
        asked, right = self.question.turns[self.turn - 1], references[self.turn - 1]
        ratings = [rate(answer, right, asked) for answer in self.answers]
        if len(ratings) == 1:
            return _answer(f"By rule: the words of the answer beside those of the reference. Rating: [[{ratings[0]}]]")
        verdict = "C" if ratings[0] == ratings[1] else "A" if ratings[0] > ratings[1] else "B"
        return _answer(f"By rule: A {ratings[0]}, B {ratings[1]} by the words of the reference. [[{verdict}]]")


def _answer(text: str) -> JudgeAnswer:
    return JudgeAnswer(text, 0, 0, "none")

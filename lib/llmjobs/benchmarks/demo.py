"""The embedded benchmark: questions made by rule, answered by the demo models that come along."""

from collections.abc import Sequence

from llmjobs import demo
from llmjobs.benchmarks.base import Doc, Example, Generation, Grade, OutputType, Row, Shots
from llmjobs.benchmarks.multiple_choice import MultipleChoice
from llmjobs.demo.questions import LETTERS, STOP, prompt

SPLITS = {"test": "test", "fewshot": "dev"}
GENERATED = ("repeat_words", "sort_numbers")
"""Subjects whose answer is written out; the others are asked by letter."""


class Demo(MultipleChoice):
    """Small questions with known rules, so that a first run needs no network and no account."""

    name = "demo"
    title = "Demo"
    source = "llmjobs.demo"
    subjects = tuple(demo.subjects())
    categories = {
        "letters": tuple(s for s in subjects if s not in GENERATED),
        "generation": tuple(s for s in subjects if s in GENERATED),
    }
    prompts = ("demo",)
    max_fewshot = 5
    test_rows = 100 * len(subjects)

    @classmethod
    def own_rows(cls, subject: str, split: str) -> list[Row] | None:
        """Read the rows that come along."""
        return list(demo.rows(subject, SPLITS[split]))

    def output_type(self, subject: str) -> OutputType:
        """By letter, or by generation for subjects without options."""
        return "generate_until" if subject in GENERATED else "loglikelihood"

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        """Ask for a letter, or for the text itself."""
        choices = tuple(row.get("choices", ()))
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=row["question"],
            choices=choices,
            gold=LETTERS[row["answer"]] if choices else row["answer"],
            questions=(prompt(row["question"], choices),),
            continuations=tuple(f" {letter}" for letter in LETTERS[: len(choices)]),
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Take the first dev rows, in order."""
        docs = [self.doc(row, at, subject) for at, row in enumerate(rows[: self.options.num_fewshot])]
        return Shots(examples=tuple(Example(doc.questions[0], f" {doc.gold}") for doc in docs))

    def generation(self, doc: Doc) -> Generation:
        """One line."""
        return Generation(stop=(STOP,), max_new_tokens=16)

    def grade_text(self, doc: Doc, text: str) -> Grade:
        """Compare the line written with the one expected; an empty line is unreadable."""
        said = text.split(STOP)[0].strip()
        return Grade(said or None, said == doc.gold, {"acc": float(said == doc.gold)})

"""CommonsenseQA: five options, asked by letter. Scored on validation: the test labels are not public."""

from collections.abc import Sequence

from llmjobs.benchmarks.base import Doc, Example, HubDataset, Row, Shots
from llmjobs.benchmarks.multiple_choice import MultipleChoice, labelled_row

FIVE = "ABCDE"


class CommonsenseQA(MultipleChoice):
    name = "commonsense_qa"
    title = "CommonsenseQA"
    source = "arXiv 1811.00937"
    hub = HubDataset("tau/commonsense_qa", None, {"test": "validation", "fewshot": "train"})
    test_rows = 1_221

    @classmethod
    def canonical(cls, raw: Row) -> Row:
        """Read the hub's or the published form; there are always five options."""
        row = labelled_row(raw)
        if len(row["choices"]) != len(FIVE):
            raise ValueError(f"{len(row['choices'])} choices, but five are expected")
        return row

    def doc(self, row: Row, doc_id: int, subject: str) -> Doc:
        return Doc(
            doc_id=doc_id,
            subject=subject,
            question=row["question"],
            choices=tuple(row["choices"]),
            gold=FIVE[row["answer"]],
            questions=(self._text(row),),
            continuations=tuple(f" {letter}" for letter in FIVE),
        )

    def shots(self, rows: Sequence[Row], subject: str) -> Shots:
        """Take the first training rows, in order."""
        shown = rows[: self.options.num_fewshot]
        return Shots(examples=tuple(Example(self._text(row), f" {FIVE[row['answer']]}") for row in shown))

    @staticmethod
    def _text(row: Row) -> str:
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(FIVE, row["choices"], strict=True))
        return f"Question: {row['question'].strip()}\n{options}\nAnswer:"
